"""The expected gain between learnt densities: of targets given outcomes (below), of outcomes (above).

    posterior   E log q(θ | y) - E log p(θ)       (Barber and Agakov 2003; Foster et al. 2019)
    marginal    E log p(y | θ) - E log q(y)

q is first the best normal density with a mean linear in y, in closed form; a flow that starts there as the
identity may then learn what a normal lacks. It is trained on draws of its own; the bound is the mean over
others, so that it holds whatever training made of q.
"""

import math
from collections.abc import Callable

import torch
from torch import Tensor

from vitools.design.experiment import Candidate, Values
from vitools.design.nested import listed_outcomes
from vitools.errors import NotSupportedError
from vitools.information.bounds import barber_agakov, marginal_bound
from vitools.learned.conditional import ConditionalDensity
from vitools.posterior import Estimate

STEPS, BATCH, RATE, WIDTH, LAYERS = 600, 256, 5e-3, 32, 2

LogDensity = Callable[[Tensor, Tensor], Tensor]


def posterior_bound(
    candidate: Candidate, num_samples: int, seed: int, flow: str | None = None
) -> Estimate:
    """The lower bound, of unconstrained targets given outcomes."""
    train, test = (_pairs(candidate, num_samples, 16 * seed + 8 * i) for i in range(2))
    log_q = learnt(train[0], train[1], flow, seed)
    with torch.no_grad():
        log_density = log_q(test[0], test[1]) - _log_jacobian(candidate, test[0])
    return barber_agakov(log_density, _log_targets(candidate, test[2]))


def marginal_gain(
    candidate: Candidate, num_samples: int, seed: int, flow: str | None = None
) -> Estimate:
    """The upper bound, of outcomes."""
    candidate.refuse_nuisances("marginal")
    outcomes = listed_outcomes(candidate)
    draws = [candidate.draws(num_samples, 16 * seed + 8 * i) for i in range(2)]
    data = [candidate.outcomes(draws[i], 16 * seed + 8 * i + 3) for i in range(2)]
    log_p = candidate.log_likelihood(draws[1], data[1])
    if outcomes is not None:  # q is the mean likelihood over the draws of its own
        table = candidate.log_likelihoods(draws[0], data[1])
        return marginal_bound(log_p, table.logsumexp(1) - math.log(num_samples))
    if any(site.is_discrete for site in candidate.problem.observed.values()):
        raise NotSupportedError(
            "method 'marginal' learns a density of outcomes, and these are whole numbers, too many to "
            "be listed. Use method='nested'."
        )
    train, test = (_features(candidate, one) for one in data)
    log_q = learnt(train, train[:, :0], flow, seed)
    with torch.no_grad():
        return marginal_bound(log_p, log_q(test, test[:, :0]))


def learnt(x: Tensor, y: Tensor, flow: str | None, seed: int) -> LogDensity:
    """log q(x | y), fitted to pairs ``[n, D]`` and ``[n, E]`` (E may be 0)."""
    density = ConditionalDensity(x, y)
    if flow is not None:
        density.train(
            x,
            y,
            flow,
            layers=LAYERS,
            width=WIDTH,
            num_steps=STEPS,
            batch=BATCH,
            learning_rate=RATE,
            seed=seed,
        )
    return density.log_prob


def _pairs(candidate: Candidate, count: int, seed: int) -> tuple[Tensor, Tensor, Values]:
    draws = candidate.draws(count, seed)
    outcomes = candidate.outcomes(draws, seed + 3)
    vectors = candidate.space.from_values(draws).double()
    return vectors[:, _own(candidate)], _features(candidate, outcomes), draws


def _features(candidate: Candidate, outcomes: Values) -> Tensor:
    return torch.cat(
        [outcomes[k].reshape(len(outcomes[k]), -1).double() for k in candidate.problem.observed], 1
    )


def _own(candidate: Candidate) -> list[int]:
    """Columns of the targets."""
    return [
        i
        for name, part in candidate.space.slices.items()
        if name in candidate.targets
        for i in range(part.start, part.stop)
    ]


def _log_jacobian(candidate: Candidate, own: Tensor) -> Tensor:
    """log |∂θ/∂u| of the targets alone."""
    space = candidate.space
    wide = own.new_zeros(len(own), space.size)
    wide[:, _own(candidate)] = own
    total = own.new_zeros(len(own))
    for name in candidate.targets:
        u = space._part(wide, name)
        transform = space.transforms[name]
        log_det = transform.log_abs_det_jacobian(u, transform(u))
        total = total + log_det.reshape(len(own), -1).sum(-1).double()
    return total


def _log_targets(candidate: Candidate, draws: Values) -> Tensor:
    """log p of the targets: of all latents, or of those whose prior does not hang on the others."""
    if not candidate.nuisances:
        return candidate.log_belief(draws)
    if candidate.fit is not None:
        raise NotSupportedError(
            "method 'posterior' needs the density of the targets, and a fit has that of all its "
            "latents. Leave targets= out, or use method='laplace'."
        )

    def once(draw: Values) -> Tensor:
        graph = candidate.problem.factors(draw)
        others = [f.name for f in graph.factors if f.name not in candidate.targets]
        return graph.log_prior(others)

    with torch.no_grad():
        found = candidate.problem.map_draws(once, draws).double()
        moved = {k: v.roll(1, 0) if k in candidate.nuisances else v for k, v in draws.items()}
        if not torch.allclose(found, candidate.problem.map_draws(once, moved).double()):
            raise NotSupportedError(
                "method 'posterior' needs targets whose prior does not depend on other latents. Use "
                "method='nested'."
            )
    return found
