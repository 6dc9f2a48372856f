"""Posteriors as ArviZ reads them: ``InferenceData`` (0.2x) or ``DataTree`` (1.x)."""
