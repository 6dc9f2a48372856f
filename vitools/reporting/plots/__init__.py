"""Pictures of a comparison: bounds, marginals, moments, calibration."""
