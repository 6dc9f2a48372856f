"""Log densities as sums of terms: a rule for each distribution, closed over plates."""
