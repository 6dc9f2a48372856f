"""Series: states that follow one another in time."""
