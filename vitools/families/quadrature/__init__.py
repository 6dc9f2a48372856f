"""One-dimensional integrals of exp(Σ η t(x)) over the line, for factors of any form."""
