"""KL(p ‖ q) = E_p log p(x) / q(x): what it costs to take q for p, in nats."""

import math
from typing import Any

import torch
from torch import Tensor
from torch.distributions import Distribution, Independent, MultivariateNormal
from torch.distributions.kl import kl_divergence

from vitools.errors import NotSupportedError, OptionError
from vitools.information.entropy import NUM_SAMPLES
from vitools.information.expectation import expectation
from vitools.isolation import seeded
from vitools.posterior import (
    Estimate,
    FactorisedPosterior,
    GaussianPosterior,
    Posterior,
)
from vitools.whole_numbers import check_seed, check_whole


def kl(p: Any, q: Any, *, num_samples: int = NUM_SAMPLES, seed: int = 0) -> Estimate:
    """KL(p ‖ q) of two distributions (all elements of a batch together) or of two fits.

    In closed form where torch or Pyro has it registered (of fits: Gaussians, and products of the
    same blocks); else by a sum or, in one and two dims, by quadrature; else from draws of p.

    Args:
        p, q: both distributions, of the same event shape, or both fits of the same latents.
        num_samples, seed: of the draws, where those are needed.

    Example:
        >>> from torch.distributions import Laplace, Normal
        >>> zero, one = torch.tensor(0.0), torch.tensor(1.0)
        >>> print(kl(Normal(zero, one), Normal(one, one)))
        0.50 (exact)
        >>> found = kl(Laplace(zero, one), Normal(zero, one))  # -1 - log 2 + ½ log 2π + 1
        >>> abs(found.value - (0.5 * math.log(2 * math.pi) - math.log(2))) < 1e-6
        True
    """
    check_whole("num_samples", num_samples, 2)
    check_seed(seed)
    if isinstance(p, Posterior) and isinstance(q, Posterior):
        return _of_fits(p, q, num_samples, seed)
    for name, one in (("p", p), ("q", q)):
        if not isinstance(one, Distribution):
            raise OptionError(
                f"{name}: expected a distribution (or p and q both fits), got {type(one).__name__}."
            )
    if p.event_shape != q.event_shape:
        raise OptionError(
            f"q: expected event shape {list(p.event_shape)} as of p, got {list(q.event_shape)}."
        )
    if p.support.is_discrete != q.support.is_discrete:
        kinds = ["continuous", "discrete"]
        raise OptionError(
            f"q: expected a {kinds[p.support.is_discrete]} distribution as p is, got a "
            f"{kinds[q.support.is_discrete]} one, which has no density with respect to the other."
        )
    value, error = _of_distributions(p, q, num_samples, seed)
    return Estimate(float(value.sum()), float(error.square().sum().sqrt()))


def _of_distributions(
    p: Distribution, q: Distribution, num_samples: int, seed: int
) -> tuple[Tensor, Tensor]:
    """Of each element of the batches, which broadcast."""
    try:
        exact = kl_divergence(p, q).detach().double()
        if not bool(exact.isnan().any()):
            return exact, torch.zeros_like(exact)
    except NotImplementedError:
        pass
    batch = torch.broadcast_shapes(p.batch_shape, q.batch_shape)
    p, q = (one if one.batch_shape == batch else one.expand(batch) for one in (p, q))
    if (
        isinstance(p, Independent)
        and isinstance(q, Independent)
        and p.reinterpreted_batch_ndims == q.reinterpreted_batch_ndims
    ):
        value, error = _of_distributions(p.base_dist, q.base_dist, num_samples, seed)
        own = tuple(range(-p.reinterpreted_batch_ndims, 0))
        return value.sum(own), error.square().sum(own).sqrt()

    def log_ratio(x: Tensor) -> Tensor:
        return (p.log_prob(x) - _log_prob(q, x)).double()

    with torch.no_grad():
        found = expectation(p, log_ratio)
        if found is not None:
            return found
        with seeded(seed):
            terms = log_ratio(p.sample(torch.Size([num_samples])))
    value = terms.mean(0)
    error = terms.std(0) / math.sqrt(num_samples)
    # a draw where q is 0 settles it
    return value, torch.where(value == torch.inf, 0.0, error)


def _log_prob(q: Distribution, x: Tensor) -> Tensor:
    """log q(x), -∞ outside of its support, where formulas go on as if there were no end."""
    support: Any = q.support
    inside = support.check(x)
    own_dims = inside.dim() - x.dim() + len(q.event_shape)
    if own_dims:  # constraints on entries
        inside = inside.flatten(inside.dim() - own_dims).all(-1)
    if bool(inside.all()):
        return q.log_prob(x)
    wide = inside.reshape(inside.shape + (1,) * len(q.event_shape))
    a_value_of_q = q.sample().expand(x.shape)
    return torch.where(inside, q.log_prob(torch.where(wide, x, a_value_of_q)), -torch.inf)


def _of_fits(p: Posterior, q: Posterior, num_samples: int, seed: int) -> Estimate:
    mine, theirs = ({k: s.shape for k, s in fit.problem.drawn.items()} for fit in (p, q))
    if mine != theirs:
        raise OptionError(
            f"q: expected a fit of the latents {', '.join(mine)} in the same shapes, got one of "
            f"{', '.join(theirs)}."
        )
    if not mine:
        raise NotSupportedError(
            "both fits are of discrete latents alone, which are summed out: there is nothing to "
            "compare. Compare entropies of Problem.discrete_marginals."
        )
    exact = _exact(p, q)
    if exact is not None:
        return Estimate(exact)
    values, log_p = p.sample_with_log_prob(num_samples, seed)
    found = Estimate.of_mean(log_p.double() - q.log_prob(values).double())
    return Estimate(math.inf) if found.value == math.inf else found


def _exact(p: Posterior, q: Posterior) -> float | None:
    """Where both are Gaussians of one space, or products of like blocks with registered divergences."""
    if isinstance(p, GaussianPosterior) and isinstance(q, GaussianPosterior):
        mine, theirs = ([repr(s.support) for s in fit.problem.drawn.values()] for fit in (p, q))
        if mine == theirs:
            return float(kl_divergence(_normal(p), _normal(q)))
        return None
    if (
        isinstance(p, FactorisedPosterior)
        and isinstance(q, FactorisedPosterior)
        and not p.problem.discrete
        and [f.sites for f in p.factors] == [f.sites for f in q.factors]
    ):
        pairs = zip(p.factors, q.factors, strict=True)
        try:
            return sum(float(kl_divergence(a.distribution, b.distribution).sum()) for a, b in pairs)
        except NotImplementedError:
            return None
    return None


def _normal(fit: GaussianPosterior) -> MultivariateNormal:
    return MultivariateNormal(fit.location.double(), scale_tril=fit.scale_tril.double())
