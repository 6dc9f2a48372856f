"""Updates, refusals and what a factorisation loses, in words."""
