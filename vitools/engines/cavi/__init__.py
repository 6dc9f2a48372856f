"""Coordinate ascent: the moves, their acceleration, many starts in one batch, the engine."""
