"""What the files of a report are called; known to the shell before anything is loaded that writes one."""

PAGE, TABLE, RECORD = "index.html", "comparison.csv", "comparison.json"
"""Of every report."""

FIT = "posterior.nc"
"""The best fit, or that of the user's choice, for ArviZ."""

OTHER_FITS = "posterior_*.nc"

PICTURES = ("bound.png", "marginals.png", "moments.png", "graph.png")
"""Beside fits of one posterior."""

RECONSTRUCTIONS, PRIOR_SAMPLES = "reconstructions", "prior_samples"
"""Pictures, without their ending, of models of images on held-out data."""

REPORT_FILES = (
    *(PAGE, TABLE, RECORD, FIT),
    *PICTURES,
    *(f"{RECONSTRUCTIONS}.png", f"{PRIOR_SAMPLES}.png"),
)
"""Of either kind; the other fits are called after their methods."""
