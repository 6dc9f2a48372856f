"""Fisher's information matrix: how sharply data point to their parameter.

    F_ij(θ) = E_{y|θ} [∂_i log p(y | θ) ∂_j log p(y | θ)]

Observations that are independent given θ add up, and each scalar's share is a sum over what it can be, or an
integral by quadrature; of a normal vector N(μ, Σ) it is ∂_iμᵀ Σ⁻¹ ∂_jμ + ½ tr(Σ⁻¹ ∂_iΣ Σ⁻¹ ∂_jΣ). What has
neither is averaged over simulated data.

At the edge of a distribution's own parameters, p = 0 of a Bernoulli, the log density has a slope on one side only; its
derivative there is none, though automatic differentiation returns a number (0, where probabilities are clamped).
"""

from collections.abc import Callable, Iterator
from typing import Any

import pyro.distributions as dist
import torch
from torch import Tensor
from torch.distributions import Distribution, Independent, MultivariateNormal, constraints

from vitools.errors import NotSupportedError, OptionError
from vitools.information.derivatives import jacobian
from vitools.information.expectation import expectation
from vitools.information.fisher_of_problem import Observations
from vitools.information.matrices import FisherInformation, Point
from vitools.isolation import seeded, validating
from vitools.problem import Problem
from vitools.supports import base_support, bounds
from vitools.whole_numbers import check_seed, check_whole

NUM_SAMPLES = 10_000
NUM_PARTS = 50
IRREGULAR = 1e-4
"""Expected score, in its own standard deviations, from which on the support must move with θ."""
STEP = 1e-3
"""How far a parameter is moved to see whether a number on an edge moves with it."""

Likelihood = Callable[..., Any]


def fisher_information(
    model: Problem | Likelihood,
    at: Any,
    *,
    simulate: bool = False,
    num_samples: int = NUM_SAMPLES,
    seed: int = 0,
) -> FisherInformation:
    """F at a value of the parameters, exact where the observations allow it.

    Args:
        model: a problem, whose data count for their shapes and covariates only; or a function from the
            parameter to the distribution of the data, all elements of its batch independent.
        at: of a problem ``{latent: value}`` for every latent that is not summed out, in the model's own
            (constrained) coordinates. Of a function its argument: a number or a tensor ``[P]``; or
            ``{argument: value}``.
        simulate: whether to average over simulated data even where sums or quadrature would do.
        num_samples, seed: of the simulated data.

    Raises:
        NotSupportedError: the support of the data moves with the parameter, so that F does not exist; the
            parameter is on an edge, where the likelihood has a slope on one side only; or entries of a
            parameter are not free (a simplex): give it in free coordinates.

    Example:
        >>> found = fisher_information(lambda p: torch.distributions.Bernoulli(p), 0.2)
        >>> round(float(found.matrix), 6), found.is_exact  # 1 / (p (1 - p))
        (6.25, True)
    """
    check_whole("num_samples", num_samples, 2 * NUM_PARTS)
    check_seed(seed)
    if isinstance(model, Problem):
        observations = Observations(model, at)
        point = observations.point
        for make in observations.makers_beside_discrete():
            _refuse_edge(make, point.vector)
        if not simulate and observations.are_independent(seed):
            makers = [observations.maker(name) for name in model.observed]
            found = _added_up(point, makers)
            if found is not None:
                return found
        scores = observations.scores(num_samples, seed)
        _refuse_irregular(scores, None)
        return _averaged(point, torch.einsum("ni,nj->nij", scores, scores))
    if not callable(model):
        raise OptionError(
            "model: expected a Problem, or a function from the parameter to a distribution, got "
            f"{type(model).__name__}."
        )
    point = Point.of(at)

    def made_at(vector: Tensor) -> Distribution:
        made = model(**point.named(vector)) if point.is_named else model(point.shaped(vector))
        if not isinstance(made, Distribution):
            raise OptionError(
                f"model: expected a function that returns a distribution, got {type(made).__name__}."
            )
        return made

    _refuse_edge(made_at, point.vector)
    with validating(False):
        if not simulate:
            found = _added_up(point, [made_at])
            if found is not None:
                return found
        with seeded(seed):
            data = made_at(point.vector).sample(torch.Size([num_samples]))

        def log_prob(vector: Tensor) -> Tensor:
            return made_at(vector).log_prob(data)

        scores = jacobian(log_prob, point.vector).double()
    scores = scores.reshape(num_samples, -1, point.size)
    _refuse_irregular(scores.sum(1), None)
    return _averaged(point, torch.einsum("nbi,nbj->nij", scores, scores))


def _added_up(point: Point, makers: list[Callable[[Tensor], Distribution]]) -> Any:
    """The sum over observations of each site; None where one has no exact rule."""
    matrix = torch.zeros(point.size, point.size, dtype=torch.float64)
    error = torch.zeros_like(matrix)
    for make in makers:
        with validating(False):
            found = _of_site(make, point.vector)
        if found is None:
            return None
        matrix, error = matrix + found[0], error + found[1]
    return FisherInformation(matrix, error, point=point)


def _of_site(make: Callable[[Tensor], Distribution], at: Tensor) -> tuple[Tensor, Tensor] | None:
    def bare(vector: Tensor) -> Distribution:
        return without_layers(make(vector))

    p = bare(at)
    if isinstance(p, MultivariateNormal):
        return _of_normal_vectors(bare, at)

    def moments(x: Tensor) -> Tensor:
        """Scores and their products beside each other: ``[n, *batch, P + P²]``."""
        scores = jacobian(lambda vector: bare(vector).log_prob(x), at).double()
        products = scores.unsqueeze(-1) * scores.unsqueeze(-2)
        return torch.cat([scores, products.flatten(-2)], -1)

    found = expectation(p, moments)
    if found is None:
        return None
    size = len(at)
    value, error = (part.reshape(-1, size + size**2) for part in found)
    products = value[:, size:].reshape(-1, size, size)
    _refuse_irregular(value[:, :size], products)
    summed = error[:, size:].sum(0).reshape(size, size)
    return products.sum(0), summed


def without_layers(p: Any) -> Any:
    """The distribution under ``to_event`` and ``expand``, the batch of which has the same elements."""
    while True:
        if isinstance(p, Independent):
            p = p.base_dist
        elif isinstance(p, dist.torch_distribution.ExpandedDistribution):
            shape, base = p.batch_shape, p.base_dist
            if base.batch_shape == shape:
                p = base
            else:
                try:
                    p = base.expand(shape)
                except NotImplementedError:
                    return p
                if isinstance(p, dist.torch_distribution.ExpandedDistribution):
                    return p
        else:
            return p


def _of_normal_vectors(make: Callable[[Tensor], Distribution], at: Tensor) -> tuple[Tensor, Tensor]:
    def parts(vector: Tensor) -> tuple[Tensor, Tensor]:
        p: Any = make(vector)
        return p.loc.expand(p.batch_shape + p.event_shape), p.covariance_matrix

    slope, spread = (x.double() for x in jacobian(parts, at))  # [*batch, D, P], [*batch, D, D, P]
    _, covariance = parts(at)
    inverse = torch.linalg.inv(covariance.double())
    by_mean = slope.mT @ inverse @ slope
    moved = torch.einsum("...ab,...bcp->...acp", inverse, spread)
    by_width = 0.5 * torch.einsum("...acp,...caq->...pq", moved, moved)
    total = (by_mean + by_width).reshape(-1, len(at), len(at)).sum(0)
    return total, torch.zeros_like(total)


def _refuse_irregular(scores: Tensor, products: Tensor | None) -> None:
    """The score averages to 0 unless the data's support depends on the parameter.

    Args:
        scores: expected ones ``[B, P]``, or draws ``[n, P]`` where there are no ``products``.
    """
    if products is None:
        mean, size = scores.mean(0), scores.std(0)
        limit = 6 / len(scores) ** 0.5
    else:
        mean = scores.abs().amax(0)
        size = products.diagonal(dim1=-2, dim2=-1).amax(0).sqrt()
        limit = IRREGULAR
    moved = mean.abs() > limit * size.clamp(min=1e-300)
    if bool(moved.any()):
        raise NotSupportedError(
            "the expected score is not 0, as where the support of the data moves with the parameter "
            "(Uniform(0, θ)): Fisher's information does not exist there. Use the posterior's width."
        )


def _refuse_edge(make: Callable[[Tensor], Distribution], at: Tensor) -> None:
    """Raise where a parameter of the distribution is on the edge of its range, and moves with ``at`` ``[P]``."""
    with validating(False), torch.no_grad():
        made = make(at)
        here = dict(_parameters(made))
        edges = {k: _on_edge(constraint, value) for k, (constraint, value) in here.items()}
        if not any(bool(edge.any()) for edge in edges.values()):
            return
        # different steps, or what is a difference of two parameters would not move
        steps = STEP * (1 + at.abs()) * (1 + torch.arange(len(at)).to(at) / 7)
        moved = dict(_parameters(make(at + steps)))
    for name, edge in edges.items():
        value = here[name][1]
        if bool((edge & (moved[name][1] != value)).any()):
            number = float(value[edge][0])
            raise NotSupportedError(
                f"at: '{name}' of the {type(_bare(made)).__name__} is {number:g} there, the edge of its range: "
                "the likelihood has a slope on one side only, and Fisher's information is not defined. Expected a "
                "point inside; the limit from there is often infinite."
            )


def _bare(p: Any) -> Any:
    while isinstance(getattr(p, "base_dist", None), Distribution):
        p = p.base_dist
    return p


def _parameters(p: Distribution) -> Iterator[tuple[str, tuple[Any, Tensor]]]:
    """Those it was made with, with their constraints: of probabilities and logits one."""
    found = _bare(p)
    for name, constraint in found.arg_constraints.items():
        value = vars(found).get(name)
        if isinstance(value, Tensor) and value.is_floating_point():
            yield name, (constraint, value)


def _on_edge(constraint: Any, value: Tensor) -> Tensor:
    """Which entries are on the edge of their range, or beyond."""
    base = base_support(constraint)
    if base is constraints.simplex:
        return value <= 0
    none = torch.zeros_like(value, dtype=torch.bool)
    if getattr(constraint, "is_discrete", False):
        return none
    low, high = bounds(constraint)
    below = none if low is None else value <= torch.as_tensor(low)
    return below if high is None else below | (value >= torch.as_tensor(high))


def _averaged(point: Point, terms: Tensor) -> FisherInformation:
    """The mean of ``[n, P, P]`` and what its functions' errors are taken from."""
    count = len(terms) // NUM_PARTS * NUM_PARTS
    parts = terms[:count].reshape(NUM_PARTS, -1, *terms.shape[1:]).mean(1)
    error = terms.std(0) / len(terms) ** 0.5
    return FisherInformation(terms.mean(0), error, parts=parts, point=point)


__all__ = ["FisherInformation", "fisher_information"]
