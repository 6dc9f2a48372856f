"""Importance weights of a fit's draws: bounds, Pareto k̂, smoothing, what reweighting changes."""
