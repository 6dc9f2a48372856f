"""What several fits of one problem know together: multiple importance sampling.

n draws of each of K fits are a stratified sample of their mixture q(θ) = 1/K Σ_k q_k(θ), and are
weighed as draws of that (the balance heuristic), whichever fit made them: w(θ) = p(x, θ) / q(θ). The mean
of w is an unbiased estimate of p(x), as far as the fits reach: a mode that none of them knows is in no
draw. A fit *misses* the posterior's mass where its density is so low that n draws of it would not be
expected to show what is there,

    m_k = P(q_k(θ) < p(θ | x) / n | x),

which draws of the other fits can see, and its own cannot.

Reference: Veach, Guibas, *Optimally combining sampling techniques for Monte Carlo rendering*, SIGGRAPH
1995.
"""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from vitools.diagnostics.weights.bounds import is_constant
from vitools.diagnostics.weights.khat import khat_estimate, khat_threshold
from vitools.errors import NumericalError
from vitools.isolation import seeded
from vitools.posterior import Estimate, Posterior


@dataclass(frozen=True)
class FitUnion:
    """K fits by their densities at n draws of each.

    Attributes:
        names: of the fits.
        log_joint: log p(x, θ) at the draws, ``[K, n]``, a row for each fit that made them.
        log_densities: log q_k(θ) of every fit there, ``[K, n, K]``, the last dim that of the fits.
    """

    names: tuple[str, ...]
    log_joint: Tensor
    log_densities: Tensor

    @property
    def num_samples(self) -> int:
        """Draws of each fit."""
        return self.log_joint.shape[1]

    @property
    def log_weights(self) -> Tensor:
        """log w(θ), ``[K, n]``."""
        return self.log_joint - (self.log_densities.logsumexp(-1) - math.log(len(self.names)))

    @property
    def least_evidence(self) -> Estimate:
        """log p(x) as far as the fits reach: no more than all of it, but for its standard error.

        Exact where their mixture is the posterior.
        """
        log_weights = self.log_weights
        if is_constant(log_weights):
            return Estimate(float(log_weights.mean()))
        level = float(log_weights.flatten().logsumexp(0)) - math.log(log_weights.numel())
        return Estimate(level, _stratified_error((log_weights - level).exp()))

    @property
    def khat(self) -> Estimate:
        """k̂ of the weights of all draws."""
        return khat_estimate(self.log_weights.flatten())

    @property
    def is_usable(self) -> bool:
        """Whether these weights are light enough for the other figures to be believed."""
        return self.khat.value <= khat_threshold(self.log_joint.numel())

    @property
    def missed(self) -> dict[str, Estimate]:
        """m_k of each fit; its standard error is at least the share of one draw."""
        level = self.least_evidence.value
        share = (self.log_weights - level).exp()
        lowest = self.log_joint - level - math.log(self.num_samples)
        found = {}
        for k, name in enumerate(self.names):
            is_missed = (self.log_densities[..., k] < lowest).double()
            mass = float((share * is_missed).mean() / share.mean())
            error = _stratified_error(share * (is_missed - mass))
            found[name] = Estimate(mass, max(error, float(share.max()) / share.numel()))
        return found


def measure_union(
    fits: Mapping[str, Posterior], num_samples: int = 1000, seed: int = 0
) -> FitUnion:
    """Draws of each fit, weighed by the densities of all.

    Args:
        fits: ``{name: posterior}`` of one problem with latents to draw, each with a density.
        num_samples: n, draws of each; K n densities of the model are worked out, and K² n of the fits.

    Raises:
        NotSupportedError: a fit has no density at values that it did not draw itself.
        NumericalError: a density is no number somewhere.

    Example:
        >>> import torch
        >>> from vitools import Problem
        >>> from vitools.models import coin
        >>> from vitools.posterior import FactorisedPosterior, Status
        >>> problem = Problem(coin.model, torch.tensor([1.0, 1.0, 0.0]).double())
        >>> def beta(a, b):
        ...     q = torch.distributions.Beta(*torch.tensor([a, b]).double())
        ...     return FactorisedPosterior(
        ...         problem, {"p": q}, 0.0, engine="by hand", status=Status.CONVERGED)
        >>> found = measure_union({"posterior": beta(3.0, 2.0), "far too narrow": beta(300.0, 200.0)})
        >>> round(found.least_evidence.value, 1)  # log 1/12
        -2.5
        >>> {name: round(mass.value, 1) for name, mass in found.missed.items()}
        {'posterior': 0.0, 'far too narrow': 0.7}
    """
    problem = next(iter(fits.values())).problem
    with seeded(seed):
        seeds = torch.randint(2**31, (len(fits),)).tolist()
    joints, densities = [], []
    with torch.no_grad():
        for (name, fit), own in zip(fits.items(), seeds, strict=True):
            values = fit.sample(num_samples, own)
            joints.append(problem.log_joint(values).detach().cpu().double().expand(num_samples))
            at_draws = [other.log_prob(values).detach().cpu().double() for other in fits.values()]
            densities.append(torch.stack([each.expand(num_samples) for each in at_draws], -1))
            _check(list(fits), name, joints[-1], densities[-1])
    return FitUnion(tuple(fits), torch.stack(joints), torch.stack(densities))


def _check(names: Sequence[str], drawn_by: str, log_joint: Tensor, log_densities: Tensor) -> None:
    """Raise where a density is NaN or infinite; 0 it may be, but not a fit's own at its own draws."""
    for name, column in (
        ("the model", log_joint),
        *((f"fit '{name}'", log_densities[:, k]) for k, name in enumerate(names)),
    ):
        bad = int((column.isnan() | (column == math.inf)).sum())
        if bad:
            raise NumericalError(
                f"the density of {name} is NaN or infinite at {bad} of {len(column)} draws of fit "
                f"'{drawn_by}'. Leave that fit out, or fit again with a smaller step."
            )
    own = log_densities[:, names.index(drawn_by)]
    if bool((own == -math.inf).any()):
        raise NumericalError(
            f"fit '{drawn_by}' has density 0 at draws of its own. Leave it out, or fit again."
        )
    if bool((log_joint == -math.inf).all()):
        raise NumericalError(
            f"the model has density 0 at every draw of fit '{drawn_by}'. Leave that fit out; its "
            "values lie outside of the posterior's support."
        )


def _stratified_error(values: Tensor) -> float:
    """The standard error of the mean of ``[K, n]``, of n independent values in each of K strata."""
    strata, count = values.shape
    return math.sqrt(float((values.var(1) / count).sum())) / strata
