"""Sites that no rule takes, by values that a guide gives them."""
