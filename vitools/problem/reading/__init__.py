"""What one reading of a model tells, and what is refused in it."""
