"""Long plates in chunks: blocks that keep only their sums over rows."""
