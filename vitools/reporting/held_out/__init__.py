"""Deep models side by side on held-out data."""
