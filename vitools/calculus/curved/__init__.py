"""Expectations of curved functions of Gaussian predictors, with the derivatives of the very sums."""
