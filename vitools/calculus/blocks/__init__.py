"""The factors of q: which sites share one, how each is updated, in which order."""
