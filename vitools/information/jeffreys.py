"""Jeffreys' prior, p(θ) ∝ √det F(θ): the same whatever the parameter is called (H. Jeffreys 1946)."""

import math
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor
from torch.distributions import Distribution

from vitools.distributions.free_form.free_form import FreeForm
from vitools.distributions.free_form.line import FARTHEST, line_of
from vitools.distributions.free_form.nodes import Nodes
from vitools.errors import NumericalError, OptionError, VitoolsError, first_words
from vitools.information.derivatives import along
from vitools.information.expectation import expectation
from vitools.information.fisher import fisher_information, without_layers
from vitools.isolation import validating
from vitools.posterior import Estimate
from vitools.problem import Problem

COUNT = 241
REACH = 16.0
"""How far nodes go at an end without a bound, in the coordinate u of a line."""
RESOLVED = 1e-7
"""Share of a bound's own size nearer to which a number cannot say how near it is."""
FALLEN = 1e-3
"""Slope of log p in u, outwards, above which it does not fall."""


def jeffreys_log_density(model: Problem | Callable[..., Any], at: Any, **options: Any) -> Estimate:
    """½ log det F(θ), up to the constant that no improper prior has.

    Args:
        model, at, **options: of :func:`~vitools.information.fisher_information`.

    Example:
        >>> half = jeffreys_log_density(lambda rate: torch.distributions.Exponential(rate), 2.0)
        >>> round(half.value, 6), round(-math.log(2.0), 6)  # 1 / rate
        (-0.693147, -0.693147)
    """
    found = fisher_information(model, at, **options).log_det()
    return Estimate(found.value / 2, found.standard_error / 2)


def jeffreys_prior(
    likelihood: Callable[[Tensor], Any], low: float = -math.inf, high: float = math.inf
) -> FreeForm:
    """Jeffreys' prior of a scalar parameter on (low, high), normalised: for ``pyro.sample``.

    Built once, outside of the model. Its log density is a polynomial through ½ log F at nodes that
    crowd at the ends, and a power law beyond them.

    Args:
        likelihood: from the parameter to the distribution of the data. Where it takes a vector of
            parameters elementwise, that saves time.
        low, high: between which the parameter is. Many such priors are improper without them.

    Raises:
        OptionError: the prior is improper: its mass does not end at one of the ends.

    Example:
        >>> prior = jeffreys_prior(lambda p: torch.distributions.Bernoulli(p), 0.0, 1.0)
        >>> value = torch.tensor(0.2).double()  # Beta(½, ½)
        >>> beta = torch.distributions.Beta(*torch.tensor([0.5, 0.5]).double())
        >>> bool((prior.log_prob(value) - beta.log_prob(value)).abs() < 1e-8)
        True
    """
    if not callable(likelihood) or isinstance(likelihood, Problem):
        raise OptionError(
            "likelihood: expected a function from a scalar to a distribution, got "
            f"{type(likelihood).__name__}."
        )
    for name, end in (("low", low), ("high", high)):
        if isinstance(end, bool) or not isinstance(end, int | float) or math.isnan(end):
            raise OptionError(f"{name}: expected a number, got {end!r}.")
    if not low < high:
        raise OptionError(f"high: expected a number above low ({low}), got {high}.")
    lower, upper = (torch.tensor(end, dtype=torch.float64) for end in (low, high))
    line = line_of(lower, upper, torch.Size())
    ends = [
        max(-REACH, float(line.resolved(RESOLVED)[0])) if low > -math.inf else -REACH,
        min(REACH, float(line.resolved(RESOLVED)[1])) if high < math.inf else REACH,
    ]
    assert max(map(abs, ends)) < FARTHEST
    nodes = _nodes(lower, upper, *ends)
    information = _information(likelihood, nodes.values)
    usable = information.isfinite() & (information > 0)
    if not bool(usable.all()):  # where the numbers end before the line does
        nodes = _narrowed(nodes, usable)
        information = _information(likelihood, nodes.values)
    log_density = 0.5 * information.log() + nodes.line.log_jacobian(nodes.coordinates)
    for side, rise in (
        ("low", log_density[1] - log_density[0]),
        ("high", log_density[-2] - log_density[-1]),
    ):
        if not float(rise / nodes.step) > FALLEN:
            at = "low" if side == "low" else "high"
            raise OptionError(
                f"{at}: Jeffreys' prior is improper on ({low:g}, {high:g}): its mass does not end "
                f"towards {low if at == 'low' else high:g}. Give a narrower range: {at}=…"
            )
    return nodes.density(log_density)


def _nodes(lower: Tensor, upper: Tensor, first: float, last: float) -> Nodes:
    start = torch.tensor(first, dtype=torch.float64)
    return Nodes(lower, upper, start, (last - start) / (COUNT - 1), COUNT)


def _narrowed(nodes: Nodes, usable: Tensor) -> Nodes:
    """The longest stretch of nodes at which there is a number."""
    longest, begin = (0, 0), None
    for i, good in enumerate([*usable.tolist(), False]):
        if good and begin is None:
            begin = i
        elif not good and begin is not None:
            longest, begin = max(longest, (i - begin, begin)), None
    length, first = longest
    if length < 8:
        raise NumericalError(
            f"likelihood: its information is a positive number at only {int(usable.sum())} of "
            f"{len(usable)} places between the ends. Give a narrower range: low=, high=."
        )
    u = nodes.coordinates
    return _nodes(nodes.lower, nodes.upper, float(u[first]), float(u[first + length - 1]))


def _information(likelihood: Callable[[Tensor], Any], values: Tensor) -> Tensor:
    """F of each of ``[n]`` parameters; NaN where it cannot be had."""
    with validating(False):
        one = _called(likelihood, values[0])
        # data that differ are of one parameter: to many at once, as many data, each would get its own
        if not one.batch_shape and not one.event_shape:
            made = _called(likelihood, values)
            if made.batch_shape == values.shape and not made.event_shape:
                return _elementwise(likelihood, values)
    return torch.stack([_single(likelihood, value) for value in values])


def _called(likelihood: Callable[[Tensor], Any], at: Tensor) -> Distribution:
    try:
        made = likelihood(at)
    except VitoolsError:
        raise
    except Exception as error:
        what = f"a tensor of parameters, shape {list(at.shape)}" if at.dim() else "a parameter"
        raise OptionError(
            f"likelihood raised {type(error).__name__} when called with {what}: "
            f"{first_words(error).rstrip('.')}. Write it with functions of torch that take tensors of any "
            "shape."
        ) from error
    if not isinstance(made, Distribution):
        raise OptionError(
            "likelihood: expected a function that returns a distribution, got "
            f"{type(made).__name__}."
        )
    return made


def _elementwise(likelihood: Callable[[Tensor], Any], values: Tensor) -> Tensor:
    """All at once; by halves where some of them need more than a sum or an integral can be."""

    def squares(x: Tensor) -> Tensor:
        def log_prob(at: Tensor) -> Tensor:
            return without_layers(likelihood(at)).log_prob(x)

        return along(log_prob, values, torch.ones_like(values)).double().square()

    found = expectation(without_layers(likelihood(values)), squares)
    if found is not None:
        return found[0]
    if len(values) == 1:
        return torch.full_like(values, math.nan)
    half = len(values) // 2
    parts = (values[:half], values[half:])
    return torch.cat([_elementwise(likelihood, part) for part in parts])


def _single(likelihood: Callable[[Tensor], Any], value: Tensor) -> Tensor:
    try:
        found = fisher_information(likelihood, value)
    except OptionError:
        raise
    except (VitoolsError, ValueError):
        return value.new_tensor(math.nan)
    if not found.is_exact:
        raise OptionError(
            "likelihood: expected one whose information is a sum or an integral in one or two dims, "
            "got one that needs draws. Give the density that you know to FreeForm."
        )
    return found.matrix.reshape(())
