"""How well a fit predicts: LOO, WAIC, predictive checks."""
