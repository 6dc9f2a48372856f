"""Which rule coordinate ascent has for each of Pyro's distributions, found by asking it.

A distribution is tried as the prior of a location, a precision or a probability, and as the density of
an observation one of whose parameters is computed from latents: first from a predictor of two
Gaussian latents through the usual link, then from one latent alone.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import pyro
import pyro.distributions as dist
import torch
from pyro import poutine
from torch import Tensor
from torch.distributions import constraints

from vitools.calculus.blocks.free_form import FreeFormBlock
from vitools.calculus.model import ConjugateModel
from vitools.errors import VitoolsError
from vitools.isolation import isolated, seeded

CLOSED, INTEGRAL, CURVED, MIXTURE, COMPONENTS, NONE = (
    "closed form",
    "one-dimensional integral",
    "curved function",
    "mixture of normals",
    "components summed out",
    "",
)

PARAMETERS: dict[str, Any] = {
    "loc": 0.3, "scale": 1.3, "rate": 1.3, "df": 4.0, "low": -1.0, "high": 2.0, "alpha": 1.5,
    "concentration": 1.5, "concentration0": 1.5, "concentration1": 2.5, "probs": 0.4,
    "total_count": 5.0, "asymmetry": 1.2, "skew": 0.5, "stability": 1.7, "gate": 0.2,
}  # fmt: skip
"""Ordinary values of scalar parameters."""

LINKS: list[tuple[Any, Callable[[Tensor], Tensor]]] = [
    (constraints.real, lambda eta: eta),
    (constraints.positive, torch.exp),
    (constraints.nonnegative, torch.exp),
    (constraints.unit_interval, torch.sigmoid),
    (dist.NegativeBinomial.arg_constraints["probs"], torch.sigmoid),
]


class Coverage(NamedTuple):
    """A distribution and the rules for it as a prior and as an observation, "" for none."""

    name: str
    prior: str
    observation: str


def coverage() -> list[Coverage]:
    """The scalar distributions of Pyro that can be made of ordinary parameters, by name."""
    rows = []
    for name in sorted(dist.__all__):
        made = getattr(dist, name)
        arguments = _arguments(made)
        if arguments is None:
            continue
        is_continuous = not made(**arguments).support.is_discrete
        prior = _as_prior(made, arguments) if is_continuous else NONE
        rows.append(Coverage(name, prior, _as_observation(made, arguments)))
    return rows


def _counted(rules: Sequence[str]) -> str:
    counts = {rule: rules.count(rule) for rule in (CLOSED, CURVED, MIXTURE, COMPONENTS, INTEGRAL)}
    return ", ".join(f"{count} by {rule}" for rule, count in counts.items() if count)


def as_markdown() -> str:
    """The table, and how many distributions each rule serves."""
    rows = coverage()
    lines = ["| distribution | as a prior | as an observation |", "|---|---|---|"]
    lines += [f"| `{r.name}` | {r.prior or '-'} | {r.observation or '-'} |" for r in rows]
    priors = _counted([row.prior for row in rows])
    seen = _counted([row.observation for row in rows])
    count = f"Of {len(rows)} scalar distributions, as a prior: {priors}; as an observation: "
    return "\n".join([*lines, "", f"{count}{seen}.", ""])


def _arguments(made: Any) -> dict[str, Any] | None:
    """Ordinary parameters of a scalar distribution; None of what is none or needs others."""
    if not inspect.isclass(made) or not issubclass(made, torch.distributions.Distribution):
        return None
    if not isinstance(made.arg_constraints, dict):  # a base class, or a wrapper of others
        return None
    needed = [
        p.name
        for p in list(inspect.signature(made.__init__).parameters.values())[1:]
        if p.default is inspect.Parameter.empty
        and p.kind is inspect.Parameter.POSITIONAL_OR_KEYWORD
    ]
    arguments = {
        name: torch.tensor(PARAMETERS[name]).double() for name in needed if name in PARAMETERS
    }
    for optional in {"probs", "gate"} & inspect.signature(made.__init__).parameters.keys():
        arguments[optional] = torch.tensor(PARAMETERS[optional]).double()
    if not set(needed) <= set(arguments):
        return None
    try:
        one = made(**arguments)
        is_scalar = one.batch_shape + one.event_shape == () and one.support is not None
    except (
        TypeError,
        ValueError,
        NotImplementedError,
        AttributeError,
        RuntimeError,
        AssertionError,
    ):
        return None
    return arguments if is_scalar else None


def _as_prior(made: Any, arguments: dict[str, Any]) -> str:
    """Of a location on the real line, a precision, a probability."""
    support = made(**arguments).support
    seen = torch.tensor(1.0).double()

    def model() -> None:
        x = pyro.sample("x", made(**arguments))
        if support in (constraints.positive, constraints.nonnegative):
            pyro.sample("y", dist.Normal(0.0, x.rsqrt()), obs=seen)
        elif support is constraints.unit_interval:
            pyro.sample("y", dist.Bernoulli(x), obs=seen)
        else:
            pyro.sample("y", dist.Normal(x, 1.0), obs=seen)

    return _rule(model)


def _as_observation(made: Any, arguments: dict[str, Any]) -> str:
    with seeded(0):
        one = made(**arguments)
        value = one.sample((3,)).double()
    if "gate" in arguments:
        value[0] = 0.0  # one that may be in excess
    links = [
        (name, link)
        for name in one.arg_constraints
        for constraint, link in LINKS
        if one.arg_constraints.get(name) is constraint
    ]
    for one_latent in (False, True):
        for name, link in links:
            rule = _rule(_observed(made, arguments, name, link, value, one_latent))
            if rule:
                return rule
    return NONE


def _observed(
    made: Any,
    arguments: dict[str, Any],
    name: str,
    link: Callable[[Tensor], Tensor],
    value: Tensor,
    one_latent: bool,
) -> Callable[[], None]:
    others = {k: v for k, v in arguments.items() if {k, name} != {"probs", "logits"}}

    def model() -> None:
        a = pyro.sample("a", dist.Normal(torch.tensor(0.0).double(), 1.0))
        if not one_latent:
            a = a + 0.5 * pyro.sample("b", dist.Normal(torch.tensor(0.0).double(), 1.0))
        with pyro.plate("rows", 3):
            pyro.sample("y", made(**{**others, name: link(a)}), obs=value)

    return model


def _rule(model: Callable[[], None]) -> str:
    with seeded(0), isolated(None, model):
        try:
            poutine.trace(model).get_trace().compute_log_prob()
        except (TypeError, ValueError, RuntimeError, NotImplementedError):
            return NONE  # Pyro itself has no such density
        try:
            conjugate = ConjugateModel(model)
        except VitoolsError:
            return NONE
    wider = [conjugate.trace.sites[name] for name in conjugate.trace.auxiliary]
    if wider:
        return COMPONENTS if any(site.support_size for site in wider) else MIXTURE
    if conjugate.predictors:
        return CURVED
    has_integral = any(isinstance(block, FreeFormBlock) for block in conjugate.blocks)
    return INTEGRAL if has_integral else CLOSED
