"""Where coordinate ascent starts."""
