"""A problem in unconstrained coordinates: its density, gradients and Hessian products."""
