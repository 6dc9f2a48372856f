"""Rows on several processes: what these tell each other, and which rows each of them has."""
