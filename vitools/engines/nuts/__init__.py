"""The no-U-turn sampler: chains by nutpie where it is installed, else by Pyro."""
