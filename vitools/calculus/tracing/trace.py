"""Run a Pyro model once and write down what it states: sites, plates, arguments as expressions.

Latents become shape-only tensors (:mod:`symbolic`), and distributions remember the arguments they
were written with (:mod:`constructors`).
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from functools import reduce
from typing import Any

import torch
from pyro.poutine.messenger import Messenger
from torch import Tensor
from torch.distributions import Distribution, Transform, constraints

from vitools.calculus.algebra.atoms import NO_VALUE
from vitools.calculus.algebra.discrete import Discrete
from vitools.calculus.algebra.expression import Expression
from vitools.calculus.tracing.constructors import (
    base_and_mask,
    both_masks,
    constructors_recorded,
    written,
)
from vitools.calculus.tracing.operations.rules import expression
from vitools.calculus.tracing.symbolic import Refusal, SymbolicTensor
from vitools.distributions.free_form.nodes import Nodes
from vitools.distributions.layers import base_distribution
from vitools.errors import NotConjugateError, NotSupportedError
from vitools.families import Family, family_of_prior
from vitools.isolation import validating
from vitools.problem.sites import Plate, is_delta, is_subsample


@dataclass
class TracedSite:
    """A sample statement: which distribution, of what arguments, over which plates."""

    name: str
    distribution: str
    arguments: dict[str, Any]
    shape: tuple[int, ...]  # of the value
    batch_shape: tuple[int, ...]  # of the log density before any mask; event dims of to_event in it
    base_event_dim: int  # dims of one draw of the base distribution
    to_event: int  # how many of the last batch dims the model declared event dims
    plates: dict[int, Plate]  # by dim of the batch shape counted from the left
    observed: Tensor | None
    value: Expression | Discrete | None
    mask: Tensor | None
    switch: Expression | None  # a mask that latents decide
    scale: float | Tensor  # aligned with the batch shape
    support_size: int = 0
    fn: Any = field(default=None, repr=False)
    reference: Tensor | None = None  # the value is this plus what the terms call the latent
    is_part: bool = False  # the density of some steps of a rolled latent, of whose name it is
    nodes: Nodes | None = None  # of a continuous latent that counts as a table of values

    @property
    def is_latent(self) -> bool:
        return self.observed is None and not self.is_part

    @property
    def family(self) -> Family | None:
        """The family of a latent's optimal factor under a conjugate model; None where there is none."""
        if self.nodes is not None:
            return family_of_prior("Categorical")
        if self.distribution == "ImproperUniform":
            base = self.fn.support
            while isinstance(base, constraints.independent):
                base = base.base_constraint
            return family_of_prior("Normal") if base is constraints.real else None
        return family_of_prior(self.distribution)


@dataclass
class ModelTrace:
    sites: dict[str, TracedSite]
    deterministic: dict[str, Any]
    plates: dict[str, Plate]
    auxiliary: frozenset[str] = frozenset()
    """Latents of a wider model that the user's does not have."""
    rolled: Mapping[str, tuple[str, ...]] = field(default_factory=dict)
    """Latents that are sequences of the user's, step by step; parts have their densities."""
    step_by_step: Mapping[str, str] = field(default_factory=dict)
    """Why the states of a loop are latents of their own, by what their names begin with."""
    normal: frozenset[str] = frozenset()
    """Scalars whose factor is normal although the terms hold curved functions of them."""

    def as_written(self, names: Iterable[str]) -> set[str]:
        """The user's sites that some latents stand for."""
        return {step for name in names for step in self.rolled.get(name, (name,))}


def trace_model(
    model: Callable[..., Any],
    args: tuple[Any, ...],
    kwargs: dict[str, Any],
    *,
    differentiable: bool = False,
    nodes: Mapping[str, Nodes] | None = None,
) -> ModelTrace:
    """What the model states.

    Args:
        nodes: of continuous latents that are to be tables over them.
        differentiable: whether constants keep the gradient of what they were computed from.
    """
    recorder = Recorder(nodes or {})
    with validating(False), constructors_recorded(), recorder:
        try:
            with torch.set_grad_enabled(differentiable):
                model(*args, **kwargs)
        except RuntimeError as error:
            if "meta" not in str(error):
                raise
            raise _not_followed(recorder, str(error)) from error
    return recorder.trace


def _not_followed(recorder: Recorder, reason: str) -> NotConjugateError:
    """The model does with a latent what needs its value."""
    latents = [name for name, site in recorder.trace.sites.items() if site.is_latent]
    return NotConjugateError(
        f"after its latent sites {latents} the model does something with one of them that has no "
        f"closed form and needs its value ({reason.splitlines()[0]}); svi() and nuts() fit it, "
        "because they run the model on values"
    )


class Recorder(Messenger):
    """Fills latents with symbolic tensors and records every site with its final context."""

    def __init__(self, nodes: Mapping[str, Nodes]) -> None:
        super().__init__()
        self.trace = ModelTrace({}, {}, {})
        self._nodes = nodes

    def _pyro_sample(self, msg: Any) -> None:
        if msg["done"] or msg["is_observed"] or is_subsample(msg):
            return
        kind, arguments = written(base_distribution(msg["fn"]))
        if kind == "Delta" and set(arguments) <= {"v", "event_dim"}:  # a name for a value
            shape = tuple(msg["fn"].batch_shape) + tuple(msg["fn"].event_shape)
            msg["value"] = arguments["v"].expand(shape)
            msg["infer"] = {**msg["infer"], "_deterministic": True}
        elif is_delta(msg):
            msg["value"] = torch.ones(tuple(msg["fn"].batch_shape) + tuple(msg["fn"].event_shape))
            msg["infer"] = {**msg["infer"], "_deterministic": True}
        else:
            msg["value"] = _symbolic_value(msg["name"], msg["fn"], self._nodes.get(msg["name"]))
        msg["done"] = True

    def _pyro_post_sample(self, msg: Any) -> None:
        fn, name = msg["fn"], msg["name"]
        if is_subsample(msg):
            return
        if msg["infer"].get("_deterministic") or _is_computed(msg):
            self.trace.deterministic[name] = msg["value"]
            return
        if name in self.trace.sites:
            raise NotSupportedError(
                f"site {name!r} occurs twice in the model; give each its own name"
            )
        base, mask = base_and_mask(fn)
        kind, arguments = written(base)
        value = msg["value"]
        observed = None
        if msg["is_observed"]:
            if isinstance(value, SymbolicTensor):
                raise NotConjugateError(
                    f"site {name!r} observes a quantity that depends on latents; condition on data, "
                    "or use svi() or nuts(), which run the model on values"
                )
            observed = torch.empty(value.shape) if kind == "Unit" else torch.as_tensor(value)
        elif not isinstance(value, SymbolicTensor) or not isinstance(
            value.node, Expression | Discrete
        ):
            raise NotSupportedError(
                f"latent site {name!r} was given a value by an effect handler inside the model; "
                "cavi() needs the model without it"
            )
        shape = torch.broadcast_shapes(fn.batch_shape + fn.event_shape, value.shape)
        event_dim = len(base.event_shape)
        rank = len(shape) - event_dim
        batch_shape = shape[:rank]
        outer = len(fn.batch_shape)
        plates: dict[int, Plate] = {}
        for frame in msg["cond_indep_stack"]:
            full = getattr(frame, "full_size", None) or frame.size
            if full != frame.size:
                raise NotSupportedError(
                    f"plate {frame.name!r} is subsampled ({frame.size} of {full}); cavi() uses all "
                    "the data: drop subsample_size, or use svi() for minibatches"
                )
            plate = Plate(frame.name, frame.size, frame.dim or 0, frame.size)
            known = self.trace.plates.setdefault(frame.name, plate)
            if frame.dim is not None and frame.size > 0:
                plates[len(batch_shape) - (rank - outer) + frame.dim] = known
        context = msg["mask"]
        if isinstance(context, Tensor):
            context = context.reshape(tuple(context.shape) + (1,) * (rank - outer))
        mask = both_masks(mask, context)
        switch = mask if isinstance(mask, SymbolicTensor) else None
        if switch is not None:
            mask = None
            if isinstance(switch.node, Refusal) or not msg["is_observed"]:
                raise NotConjugateError(
                    f"site {name!r}: its mask depends on latents "
                    f"({', '.join(sorted(_node_sites(switch.node)))}) in a way that has no closed form; "
                    "write a mixture of two distributions instead"
                )
        scale = msg["scale"]
        if isinstance(scale, Tensor):
            scale = scale.reshape(tuple(scale.shape) + (1,) * (rank - outer))
        else:
            scale = float(scale)
        node = value.node if isinstance(value, SymbolicTensor) else None
        nodes = None if msg["is_observed"] else self._nodes.get(name)
        self.trace.sites[name] = TracedSite(
            name=name,
            distribution=kind,
            arguments={key: _node(argument, self.trace) for key, argument in arguments.items()},
            shape=shape,
            batch_shape=batch_shape,
            base_event_dim=event_dim,
            to_event=rank - outer,
            plates=plates,
            observed=observed,
            value=node if isinstance(node, Expression | Discrete) else None,
            mask=mask if isinstance(mask, Tensor) else None,
            switch=None if switch is None else expression(switch.node),
            scale=0.0 if mask is False else scale,
            support_size=0
            if observed is not None
            else nodes.count
            if nodes
            else _support_size(base, kind),
            fn=base,
            nodes=nodes,
        )


def _is_computed(msg: Any) -> bool:
    """Whether a site is but the name of what latents give, as ``poutine.reparam`` leaves it."""
    if not msg["is_observed"] or not isinstance(msg["value"], SymbolicTensor):
        return False
    base, mask = base_and_mask(msg["fn"])
    return mask is False and written(base)[0] == "Delta"


def _node(argument: Any, before: ModelTrace | None = None) -> Any:
    if isinstance(argument, SymbolicTensor):
        return argument.node
    if isinstance(argument, Tensor) and argument.is_meta:
        found = before.sites.values() if before is not None else ()
        return Refusal(NO_VALUE, frozenset(site.name for site in found if site.is_latent))
    if isinstance(argument, Distribution):
        sites = _sites_within(argument)
        return Refusal("it is a distribution of its own", sites) if sites else argument
    if isinstance(argument, list | tuple | Transform):
        sites = _sites_of_transforms(argument)
        return Refusal("it transforms by them", sites) if sites else argument
    return argument


def _sites_of_transforms(argument: Any, seen: frozenset[int] = frozenset()) -> frozenset[str]:
    """The latents that transforms are made of."""
    if isinstance(argument, SymbolicTensor):
        return frozenset(_node_sites(argument.node))
    if id(argument) in seen or not isinstance(argument, list | tuple | Transform):
        return frozenset()
    inside = vars(argument).values() if isinstance(argument, Transform) else argument
    seen = seen | {id(argument)}
    return frozenset().union(*(_sites_of_transforms(part, seen) for part in inside))


def _sites_within(distribution: Any) -> frozenset[str]:
    """The latents on which a distribution's arguments depend."""
    base = base_distribution(distribution)
    found: set[str] = set()
    for argument in written(base)[1].values():
        found |= _node_sites(_node(argument))
    return frozenset(found)


def _node_sites(node: Any) -> set[str]:
    if isinstance(node, Refusal):
        return set(node.sites)
    return node.sites() if isinstance(node, Expression | Discrete) else set()


def _support_size(base: Any, kind: str) -> int:
    if kind == "CategoricalMarkovChain":
        return int(base.num_states)
    if kind in ("Categorical", "OneHotCategorical"):
        shape = base._param.shape if kind == "Categorical" else base.event_shape
        return int(shape[-1])
    return 2 if kind == "Bernoulli" else 0


def _number_type(parameters: Iterable[Any]) -> torch.dtype | None:
    """That of a draw, which a matrix product has to share with its other factor; None for the default."""
    found = [p.dtype for p in parameters if isinstance(p, Tensor) and p.dtype.is_floating_point]
    return reduce(torch.promote_types, found) if found else None


def _symbolic_value(name: str, fn: Any, nodes: Nodes | None) -> SymbolicTensor:
    base = base_distribution(fn)
    kind, parameters = written(base)
    shape = tuple(fn.batch_shape) + tuple(fn.event_shape)
    node: Expression | Discrete | Refusal
    dtype = _number_type(parameters.values())
    if nodes is not None:
        node = Discrete.latent(name, shape, nodes.values)
    elif kind in ("Categorical", "CategoricalMarkovChain"):
        node = Discrete.latent(name, shape, torch.arange(_support_size(base, kind)))
        dtype = torch.long
    elif kind == "Bernoulli":
        node = Discrete.latent(name, shape, torch.tensor([0.0, 1.0], dtype=torch.float64))
    elif kind == "OneHotCategorical":
        node = Expression.latent(name, shape, "indicator")
    else:
        node = Expression.latent(name, shape)
    return SymbolicTensor.wrap(torch.empty(shape, device="meta", dtype=dtype), node)
