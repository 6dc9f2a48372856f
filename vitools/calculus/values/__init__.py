"""Models of which some sites, or parameters, have values that move: read, and read again."""
