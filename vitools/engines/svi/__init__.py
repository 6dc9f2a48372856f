"""Stochastic variational inference: one run, its start, its stopping rule."""
