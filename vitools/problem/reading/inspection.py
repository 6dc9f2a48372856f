"""A model's sites and plates, learnt from running it, and refusals of what no engine could fit.

What differs between two runs with different seeds (names, shapes, supports) cannot be fitted and
is refused here, by name.
"""

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

import torch
from pyro.distributions.torch_distribution import TorchDistributionMixin
from pyro.poutine import Trace
from torch import Tensor
from torch.nn import Module

from vitools.distributions.layers import base_distribution
from vitools.distributions.markov_chains import CategoricalMarkovChain
from vitools.errors import DataError, ModelError
from vitools.isolation import ParamState, snapshot
from vitools.problem.reading.dry_run import Need
from vitools.problem.reading.fits_support import refuse_unfit_latent
from vitools.problem.reading.observations import (
    is_unvalidated,
    refuse_bad_data,
    refuse_nan_density,
    refuse_odd_tensor,
    refuse_whole_data,
)
from vitools.problem.reading.program import Program
from vitools.problem.reading.runs import Runs, run_again, run_for_inspection
from vitools.problem.sites import (
    Plate,
    Site,
    is_delta,
    is_deterministic,
    is_factor,
    is_subsample,
    support_of,
)
from vitools.supports import bounds

MORE_RUNS = 10
"""Runs that tell whether ends depend on a discrete latent, where data are outside of them."""

BatchDims = dict[str, dict[int, str]]


@dataclass(frozen=True)
class ModelStructure:
    """Everything :class:`~vitools.problem.problem.Problem` learns from running the model.

    Attributes:
        params: initial values of ``pyro.param`` statements and modules, copied.
        batch_dims: ``{site: {dim: plate name}}`` for batch dims outside every plate.
        max_plate_nesting: number of dims on the right that plates take.
        example: one draw of the latents from the prior.
        need: the largest tensor of a run on values, where that is large; such a model is described
            from a dry run.
        noisy_modules: modules of the model that draw random numbers while in training mode.
        moving_data: what to say of observations that are drawn anew at each run, if any are.
        moving_ends: observed sites whose support depends on latents, or may.
    """

    latents: dict[str, Site]
    observed: dict[str, Site]
    deterministics: dict[str, Site]
    plates: dict[str, Plate]
    params: ParamState
    batch_dims: BatchDims
    max_plate_nesting: int
    example: dict[str, Tensor]
    need: Need | None
    noisy_modules: tuple[Module, ...]
    moving_data: str | None
    moving_ends: frozenset[str]


def inspect_model(program: Program) -> ModelStructure:
    """Run the model and describe it, or refuse it with a :class:`VitoolsError`."""
    runs = run_for_inspection(program)
    sites, again = _describe(runs.first), _describe(runs.second)
    _refuse_unstable(sites, again, program.title)
    nodes = {k: runs.first.nodes[k] for k in sites}
    fixed = {k for k, s in sites.items() if not s.is_observed and is_delta(nodes[k])}
    deterministic = fixed | {k for k in sites if is_deterministic(nodes[k])}
    factors = {k for k in sites if is_factor(nodes[k])}
    latents = {k: s for k, s in sites.items() if not s.is_observed and k not in deterministic}
    given = {k: s for k, s in sites.items() if s.is_observed}
    observed = {k: s for k, s in given.items() if k not in deterministic | factors}
    _refuse_nothing_observed(program, latents, bool(observed or factors))
    with runs.limit:
        for name, site in latents.items():
            refuse_unfit_latent(site, nodes[name]["fn"])
    # data outside U(0, θ) at one draw of θ have density 0 there, which is no mistake
    moving = {k for k in observed if _moves(k, sites, again, runs)}
    is_discrete = any(s.is_discrete for s in latents.values())
    for name in observed:
        try:
            refuse_bad_data(name, nodes[name], check_support=name not in moving)
        except DataError:
            # two draws of a discrete latent may be the same
            if not (is_discrete and _moves_at_last(program, name, sites, runs)):
                raise
            moving.add(name)
            refuse_bad_data(name, nodes[name], check_support=False)
    if is_discrete:
        moving |= {k for k in observed if _has_own_bounds(sites[k])}
    refuse_whole_data(runs.minibatch, observed)
    if runs.need is None:
        checked = [k for k in given if k in factors or (k in observed and k not in moving)]
        refuse_nan_density(runs.first, checked, program.arguments(), program.title)
    unnamed = {
        k: _dims_outside_plates(s) for k, s in sites.items() if k not in deterministic - fixed
    }
    with runs.limit:
        values = {k: _support_values(s, nodes[k]) for k, s in sites.items()}
    described = {
        k: _with_plates(replace(s, support_values=values[k], states=_states(s, nodes[k])), unnamed)
        for k, s in sites.items()
    }
    plates = _plates(runs.first, runs.minibatch)
    for name, dims in unnamed.items():
        for dim, plate in dims.items():
            size = sites[name].batch_shape[dim]
            plates[plate] = Plate(plate, size, dim, size)
    return ModelStructure(
        latents={k: described[k] for k in latents},
        observed={k: described[k] for k in observed},
        deterministics={k: s for k, s in sites.items() if k in deterministic},
        plates=plates,
        params=snapshot(runs.params),
        batch_dims={k: dims for k, dims in unnamed.items() if dims},
        max_plate_nesting=max((-p.dim for p in plates.values()), default=0),
        example={k: nodes[k]["value"].detach() for k in latents},
        need=runs.need,
        noisy_modules=runs.noisy_modules,
        moving_data=runs.moving_data,
        moving_ends=frozenset(k for k in moving if not is_unvalidated(nodes[k]["fn"])),
    )


def _moves(name: str, sites: dict[str, Site], again: dict[str, Site], runs: Runs) -> bool:
    """Whether the ends of a site differ between two runs, as those that depend on a latent do."""
    first, second = sites[name], again[name]
    return not _same_bounds(first, second) or runs.is_unknown(*bounds(first.support))


def _moves_at_last(program: Program, name: str, sites: dict[str, Site], runs: Runs) -> bool:
    return _has_own_bounds(sites[name]) and any(
        _moves(name, sites, _describe(run_again(program, seed, runs)), runs)
        for seed in range(2, 2 + MORE_RUNS)
    )


def _has_own_bounds(site: Site) -> bool:
    """Whether its support has bounds that were given as tensors, as those of a Uniform."""
    return any(isinstance(bound, Tensor) for bound in bounds(site.support))


def _describe(run: Trace) -> dict[str, Site]:
    sites = {}
    for name, node in run.nodes.items():
        if node["type"] != "sample" or is_subsample(node):
            continue
        fn, value = node["fn"], node["value"]
        if not isinstance(fn, TorchDistributionMixin):
            raise ModelError(
                f"site '{name}' is drawn from {type(fn).__name__}, which is not a distribution over "
                "tensors; use one from pyro.distributions."
            )
        if not isinstance(value, Tensor):
            raise DataError(
                f"site '{name}': expected observations as a torch tensor, got "
                f"{type(value).__name__}. Convert them with torch.as_tensor."
            )
        if node["is_observed"]:
            refuse_odd_tensor(f"the data of site '{name}'", value)
        shape = fn.shape()
        names: list[str | None] = [None] * (len(shape) - fn.event_dim)
        for frame in node["cond_indep_stack"]:
            if frame.vectorized and frame.size < 0:
                raise ModelError(
                    f"plate '{frame.name}' has no size, so nothing says how many rows site '{name}' "
                    f"has: give it one, pyro.plate('{frame.name}', len(data))."
                )
            if frame.vectorized and -frame.dim <= len(names):
                names[frame.dim] = frame.name
        scale = node["scale"]
        if isinstance(scale, Tensor) and scale.dim() == 0:
            scale = float(scale)
        support = support_of(fn) if not is_factor(node) else None
        sites[name] = Site(
            name=name,
            distribution=type(base_distribution(fn)).__name__,
            shape=shape,
            event_dim=fn.event_dim,
            plates=tuple(names),
            support=support,
            is_discrete=bool(fn.has_enumerate_support or getattr(support, "is_discrete", False)),
            is_observed=bool(node["is_observed"]),
            dtype=value.dtype,
            device=value.device,
            scale=scale,
            value=value if node["is_observed"] else None,
        )
    return sites


def _support_values(site: Site, node: Mapping[str, Any]) -> Tensor | None:
    if site.is_observed or not base_distribution(node["fn"]).has_enumerate_support:
        return None
    values = node["fn"].enumerate_support(expand=False)
    return values.reshape((values.shape[0], *site.event_shape))


def _states(site: Site, node: Mapping[str, Any]) -> int:
    base = base_distribution(node["fn"])
    is_trajectory = isinstance(base, CategoricalMarkovChain) and not site.is_observed
    return base.num_states if is_trajectory else 0


def _dims_outside_plates(site: Site) -> dict[int, str]:
    rank = len(site.batch_shape)
    return {
        d - rank: f"{site.name}_dim_{d}"
        for d, (plate, size) in enumerate(zip(site.plates, site.batch_shape, strict=True))
        if plate is None and size > 1
    }


def _with_plates(site: Site, unnamed: Mapping[str, Mapping[int, str]]) -> Site:
    rank, extra = len(site.plates), unnamed.get(site.name, {})
    return replace(site, plates=tuple(p or extra.get(d - rank) for d, p in enumerate(site.plates)))


def _plates(whole: Trace, minibatch: Trace) -> dict[str, Plate]:
    sub = {f.name: f.size for n in minibatch.nodes.values() for f in n.get("cond_indep_stack", ())}
    plates: dict[str, Plate] = {}
    for node in whole.nodes.values():
        for frame in node.get("cond_indep_stack", ()):
            if frame.vectorized:
                plates[frame.name] = Plate(
                    frame.name, frame.size, frame.dim, sub.get(frame.name, frame.size)
                )
    return plates


# ---- refusals --------------------------------------------------------------------------------


def _refuse_nothing_observed(
    program: Program, latents: Mapping[str, Site], has_likelihood: bool
) -> None:
    if not has_likelihood:
        raise ModelError(
            f"{program.title} observes nothing: expected at least one sample statement with obs=…, "
            f"got latent sites only ({', '.join(latents) or 'none'}). Pass the data, or check that "
            "the argument that carries them is not None."
        )


def _refuse_unstable(first: dict[str, Site], second: dict[str, Site], title: str) -> None:
    if set(first) != set(second):
        only = ", ".join(sorted(set(first) ^ set(second)))
        raise ModelError(
            f"{title} has different sites from run to run ({only}): its structure depends on what it "
            "draws. Give every run the same sites, e.g. with mask= instead of an if."
        )
    for name, site in first.items():
        other = second[name]
        if site.shape != other.shape:
            raise ModelError(
                f"site '{name}' changes shape from run to run ({tuple(site.shape)}, then "
                f"{tuple(other.shape)}). Give it a fixed shape and mask the unused entries."
            )
        if (site.event_dim, site.plates, site.is_observed, site.is_discrete) != (
            other.event_dim,
            other.plates,
            other.is_observed,
            other.is_discrete,
        ):
            raise ModelError(
                f"site '{name}' is another kind of statement from run to run ({_kind(site)}, then "
                f"{_kind(other)}): the model's structure depends on what it draws. Give every run "
                "the same statements, e.g. with torch.where instead of an if."
            )
        if site.is_observed or _same_bounds(site, other):
            continue
        raise ModelError(
            f"site '{name}': its support depends on other latents ({_bounds(site)}, then "
            f"{_bounds(other)}). "
            + (
                "Give it the largest support and let impossible values have probability 0."
                if site.is_discrete
                else "Draw it on a fixed support and transform it "
                "(e.g. low + (high - low) * u with u ~ Uniform(0, 1))."
            )
        )


def _kind(site: Site) -> str:
    what = "observed" if site.is_observed else "latent"
    dims = ", ".join(str(p) for p in site.plates) or "no plates"
    return f"{what} {site.distribution} with {dims} and {site.event_dim} event dims"


def _bounds(site: Site) -> tuple[Any, ...]:
    return tuple(b.tolist() if isinstance(b, Tensor) else b for b in bounds(site.support))


def _same_bounds(first: Site, second: Site) -> bool:
    pairs = zip(bounds(first.support), bounds(second.support), strict=True)
    return all(
        torch.equal(a, b) if isinstance(a, Tensor) and isinstance(b, Tensor) else a == b
        for a, b in pairs
    )
