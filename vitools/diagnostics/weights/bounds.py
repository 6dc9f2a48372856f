"""Lower bounds on log p(x), on one scale for every fit.

With log weights log w_i = log p(x, θ_i) - log q(θ_i) at draws θ_i from q, discrete latents
summed out of p:

- evidence lower bound: E log w ≤ log p(x), with equality where q is the posterior;
- importance-weighted bound: E log (1/k) Σ_{i≤k} w_i, which rises with k to log p(x).

Reference: Burda, Grosse, Salakhutdinov, *Importance weighted autoencoders*, ICLR 2016.
"""

import math

import torch
from torch import Tensor

from vitools.errors import OptionError
from vitools.posterior import Estimate, GridPosterior, Posterior

ROUNDING = 32
"""Log weights that differ by fewer units in the last place than this are called equal."""


def marginal_bound(posterior: Posterior, num_samples: int = 1000, seed: int = 0) -> Estimate:
    """E_q[log p(x, θ) - log q(θ)], discrete latents summed out, with its standard error.

    The same quantity whatever engine made the fit, so that fits can be compared. An engine's
    own bound (``posterior.elbo()``) may be lower: coordinate ascent counts q(z) of the
    discrete latents as a factor.

    Raises:
        NotSupportedError: the fit has no density (NUTS).

    Example:
        >>> import torch
        >>> from vitools import Problem
        >>> from vitools.models import coin
        >>> from vitools.posterior import FactorisedPosterior, Status
        >>> flips = torch.tensor([1.0, 1.0, 0.0]).double()
        >>> q = torch.distributions.Beta(torch.tensor(3.0).double(), torch.tensor(2.0).double())
        >>> fit = FactorisedPosterior(
        ...     Problem(coin.model, flips), {"p": q}, 0.0, engine="exact", status=Status.EXACT)
        >>> print(marginal_bound(fit))  # log B(3, 2) = log 1/12, and q is the posterior
        -2.48 (exact)
    """
    if isinstance(posterior, GridPosterior):
        return posterior.log_evidence
    return bound(posterior.log_weights(num_samples, seed))


def bound(log_weights: Tensor) -> Estimate:
    """The mean of log weights ``[n]``; exact where they do not vary (q is the posterior)."""
    if is_constant(log_weights):
        return Estimate(float(log_weights.double().mean()))
    return Estimate.of_mean(log_weights)


def importance_weighted_bound(log_weights: Tensor, k: int) -> Estimate:
    """E log (1/k) Σ_{i≤k} w_i from log weights ``[n]``, over n // k groups of k draws.

    Example:
        >>> log_weights = torch.tensor([0.0, 1.0, 0.0, 1.0])
        >>> round(importance_weighted_bound(log_weights, 2).value, 4)  # log (1 + e) / 2
        0.6201
    """
    if not 1 <= k <= len(log_weights):
        raise OptionError(
            f"expected k between 1 and the number of log weights ({len(log_weights)}), got {k}."
        )
    groups = log_weights.double()[: len(log_weights) // k * k].reshape(-1, k)
    return bound(groups.logsumexp(-1) - math.log(k))


def is_constant(log_weights: Tensor) -> bool:
    """Whether log weights ``[n]`` are finite and equal up to the rounding of their own sums."""
    if not bool(torch.isfinite(log_weights).all()):
        return False
    spread = float(log_weights.max() - log_weights.min())
    scale = 1.0 + float(log_weights.abs().max())
    return spread <= ROUNDING * torch.finfo(log_weights.dtype).eps * scale
