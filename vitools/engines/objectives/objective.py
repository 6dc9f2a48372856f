"""What an engine ascends: an :class:`Objective`, and what any of them asks of a guide."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

import torch
from pyro import poutine
from pyro.poutine import Trace
from torch import Tensor
from torch.distributions import TransformedDistribution

from vitools.distributions.layers import base_distribution
from vitools.errors import NotSupportedError, OptionError
from vitools.problem import Problem
from vitools.problem.sites import is_delta, is_subsample


@dataclass(frozen=True)
class Objective:
    """A loss to call without arguments.

    The value of ``loss()`` estimates minus the bound and its gradient is the estimator's, whatever
    expression carries it. It is called inside the parameter store of guide and model.

    Attributes:
        is_recordable: whether it takes the same path on every call, so that ``make_fx`` may
            record it as a graph.
        hindrance: why it does not, in words.
        name: of the bound, for reports.
        state: tensors that one call hands to the next (learned baselines); empty for most. To go
            on from a checkpoint put the saved tensors back under their names.
    """

    loss: Callable[[], Tensor]
    is_recordable: bool
    name: str = "ELBO"
    state: dict[str, Tensor] = field(default_factory=dict)
    hindrance: str = ""


def run_guide(problem: Problem, guide: Any) -> Trace:
    """A trace of the guide on the problem's arguments."""
    with problem.counted_rows():
        return poutine.trace(guide).get_trace(*problem.args, **problem.kwargs)


def drawn_sites(guide_run: Trace) -> dict[str, Any]:
    """The sample statements of a guide's trace, choices of minibatches aside."""
    return {
        name: node
        for name, node in guide_run.nodes.items()
        if node["type"] == "sample" and not is_subsample(node)
    }


def checked_guide_run(problem: Problem, guide: Any, *, points: bool = False) -> Trace:
    """A trace of the guide, refused if all it draws are points, unless those are taken."""
    run = run_guide(problem, guide)
    nodes = drawn_sites(run).values()
    if nodes and not points and all(_is_point(node) for node in nodes):
        raise NotSupportedError(
            f"guide {guide_name(guide)} is a point estimate: it has no density to compare or "
            "trust. Use a guide with spread, e.g. AutoLogisticNormal or AutoNormal."
        )
    return run


def not_reparameterised(guide_run: Trace) -> list[str]:
    """Sites whose draws carry no gradient to the guide's parameters."""
    return [name for name, node in drawn_sites(guide_run).items() if not node["fn"].has_rsample]


def refuse_not_reparameterised(guide_run: Trace, guide: Any, what: str) -> None:
    """Raise for a guide some of whose draws cannot be differentiated through."""
    names = not_reparameterised(guide_run)
    if names:
        raise NotSupportedError(
            f"{what} differentiates through the draws, which guide {guide_name(guide)} does not "
            f"allow at {', '.join(map(repr, names))}. Leave enumerable discrete latents out of the "
            "guide, or use ScoreFunction(), which needs no such derivative."
        )


def held(guide_run: Trace, values: Mapping[str, Tensor]) -> Trace:
    """The sites of a guide's trace that have new values, to replay the guide with."""
    kept = Trace()
    for name, node in guide_run.nodes.items():
        if name in values:  # replay hands the dict on, and handlers write into it
            kept.add_node(name, **{**node, "value": values[name], "infer": dict(node["infer"])})
    return kept


def random_values(guide_run: Trace) -> dict[str, Tensor]:
    """The values of the sites that a guide really draws."""
    return {k: node["value"] for k, node in drawn_sites(guide_run).items() if not is_delta(node)}


def refuse_bad_count(num_particles: int, fewest: int, what: str) -> None:
    """Raise :class:`OptionError` for a number of draws that ``what`` cannot work with."""
    if isinstance(num_particles, bool) or not isinstance(num_particles, int):
        raise OptionError(f"{what}: expected a whole number of draws, got {num_particles!r}.")
    if num_particles < fewest:
        raise OptionError(f"{what}: expected num_particles ≥ {fewest}, got {num_particles}.")


def refuse_unknown(given: str, known: tuple[str, ...], what: str) -> None:
    """Raise :class:`OptionError` for a word that is not among ``known``."""
    if given not in known:
        raise OptionError(f"{what}: expected one of {', '.join(known)}, got {given!r}.")


def guide_name(guide: Any) -> str:
    return getattr(guide, "__name__", type(guide).__name__)


def _is_point(node: Any) -> bool:
    fn = base_distribution(node["fn"])
    while isinstance(fn, TransformedDistribution):
        fn = base_distribution(fn.base_dist)
    return type(fn).__name__ == "Delta" and not bool(torch.as_tensor(fn.log_density).any())
