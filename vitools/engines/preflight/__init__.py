"""What a guide would do wrong, found before anything is fitted."""
