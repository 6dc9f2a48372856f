"""Where a guide starts: a prototype run and a search for the mode."""
