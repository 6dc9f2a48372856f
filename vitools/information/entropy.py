"""Entropy in nats: of distributions, tables, normals and posteriors.

    H(x) = -E log p(x)

of a density it depends on the units of x and may be negative. From draws alone it is
:func:`~vitools.information.neighbours.entropy_of_samples`.
"""

import math
from typing import Any

import torch
from torch import Tensor
from torch.distributions import Distribution, Independent

from vitools.errors import OptionError
from vitools.information.expectation import expectation
from vitools.information.tables import checked_covariance, checked_table, plogp
from vitools.isolation import seeded
from vitools.posterior import Estimate, Posterior
from vitools.whole_numbers import check_seed, check_whole

NUM_SAMPLES = 10_000


def entropy(p: Any, *, num_samples: int = NUM_SAMPLES, seed: int = 0) -> Estimate:
    """H of one distribution (all elements of its batch together) or of a posterior.

    By the closed form where torch has one, else by a sum or quadrature, else from draws.

    Args:
        p: a torch or Pyro distribution; or a fit, of which it is that of the latents it draws.
        num_samples, seed: of the draws, where those are needed.

    Example:
        >>> print(entropy(torch.distributions.Bernoulli(torch.tensor(0.5))))
        0.69 (exact)
        >>> found = entropy(torch.distributions.Poisson(torch.tensor(3.0).double()))  # has no closed form
        >>> round(found.value, 4), found.standard_error < 1e-9
        (1.9315, True)
    """
    check_whole("num_samples", num_samples, 2)
    check_seed(seed)
    if isinstance(p, Posterior):
        return Estimate.of_mean(-p.sample_with_log_prob(num_samples, seed)[1])
    if not isinstance(p, Distribution):
        raise OptionError(
            f"entropy() expects a distribution or a fit, got {type(p).__name__}. Of a table of "
            "probabilities it is entropy_of_table(p), of draws entropy_of_samples(x)."
        )
    value, error = entropies(p, num_samples, seed)
    return Estimate(float(value.sum()), float(error.square().sum().sqrt()))


def entropies(
    p: Distribution, num_samples: int = NUM_SAMPLES, seed: int = 0
) -> tuple[Tensor, Tensor]:
    """H of each element of a batch and its error, both ``[*batch]``."""
    if isinstance(p, Independent):
        value, error = entropies(p.base_dist, num_samples, seed)
        own = tuple(range(-p.reinterpreted_batch_ndims, 0))
        return value.sum(own), error.square().sum(own).sqrt()
    try:
        exact = p.entropy().detach().double()
        return exact, torch.zeros_like(exact)
    except NotImplementedError:
        pass
    with torch.no_grad():
        found = expectation(p, lambda x: -p.log_prob(x).double())
        if found is not None:
            return found
        with seeded(seed):
            draws = p.sample(torch.Size([num_samples]))
        terms = -p.log_prob(draws).double()
    return terms.mean(0), terms.std(0) / math.sqrt(num_samples)


def entropy_of_table(p: Tensor) -> Estimate:
    """-Σ p log p of probabilities ``[K]`` or of a joint table of any dims, which sum to 1.

    Example:
        >>> print(entropy_of_table(torch.tensor([[0.25, 0.25], [0.25, 0.25]])))
        1.39 (exact)
    """
    return Estimate(float(-plogp(checked_table("p", p)).sum()))


def entropy_of_normal(covariance: Tensor) -> Estimate:
    """½ log det(2πe Σ) of a normal with covariance Σ ``[D, D]``."""
    root = checked_covariance("covariance", covariance)
    size = len(root)
    log_det = 2 * float(root.diagonal().log().sum())
    return Estimate(0.5 * (size * math.log(2 * math.pi * math.e) + log_det))
