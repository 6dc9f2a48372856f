"""Run a Pyro model once and write down what it states: sites, plates, arguments as expressions.

Latents become shape-only tensors (:mod:`symbolic`). Pyro's hook on distribution constructors hands
over every constructor's arguments as the model wrote them (``tau.rsqrt()``, not a number);
``expand``, which plates call, makes new objects and must carry that record along.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

import pyro
import torch
from pyro.distributions.distribution import COERCIONS
from pyro.poutine.messenger import Messenger
from torch import Tensor
from torch.utils._pytree import tree_map

from vitools.conjugacy.discrete import Discrete
from vitools.conjugacy.expression import Expression
from vitools.conjugacy.symbolic import Refusal, SymbolicTensor
from vitools.errors import NotConjugate, NotSupportedError

WRAPPERS = ("Independent", "MaskedDistribution", "ExpandedDistribution")


@dataclass
class Plate:
    """A plate, the label its axis carries in every term, and its size."""

    name: str
    size: int
    dim: int


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
    scale: float | Tensor  # aligned with the batch shape
    support_size: int = 0
    fn: Any = field(default=None, repr=False)

    @property
    def is_latent(self) -> bool:
        return self.observed is None


@dataclass
class ModelTrace:
    sites: dict[str, TracedSite]
    factors: dict[str, Any]  # pyro.factor statements: name → log factor
    deterministic: dict[str, Any]
    plates: dict[str, Plate]


def trace_model(
    model: Callable[..., Any], args: tuple[Any, ...], kwargs: dict[str, Any]
) -> ModelTrace:
    recorder = Recorder()
    with pyro.validation_enabled(False), _constructors_recorded(), recorder, torch.no_grad():
        model(*args, **kwargs)
    return recorder.trace


@contextmanager
def _constructors_recorded() -> Iterator[None]:
    def coerce(cls: type, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        position = COERCIONS.index(coerce)
        COERCIONS.remove(coerce)
        try:
            symbolic = _has_symbolic((args, kwargs))
            prepare = _shape_only if symbolic else (lambda value: value)
            built = cls(*tree_map(prepare, args), **tree_map(prepare, kwargs))
        finally:
            COERCIONS.insert(position, coerce)
        bound = inspect.signature(cls.__init__).bind_partial(None, *args, **kwargs).arguments  # type: ignore[misc]
        written = dict(list(bound.items())[1:])
        return _record(built, (cls.__name__, written))

    COERCIONS.append(coerce)
    try:
        yield
    finally:
        COERCIONS.remove(coerce)


def _record(distribution: Any, record: tuple[str, dict[str, Any]]) -> Any:
    plain_expand = getattr(distribution, "expand", None)
    distribution._written = record
    if plain_expand is not None:

        def expand(batch_shape: Any, _instance: Any = None) -> Any:
            return _record(plain_expand(batch_shape), record)

        distribution.expand = expand
    return distribution


def _has_symbolic(tree: Any) -> bool:
    found = False

    def visit(value: Any) -> Any:
        nonlocal found
        found = found or isinstance(value, SymbolicTensor)
        return value

    tree_map(visit, tree)
    return found


def _shape_only(value: Any) -> Any:
    if isinstance(value, SymbolicTensor):
        return value.as_subclass(Tensor)
    return value.to("meta") if isinstance(value, Tensor) else value


class Recorder(Messenger):
    """Fills latents with symbolic tensors and records every site with its final context."""

    def __init__(self) -> None:
        super().__init__()
        self.trace = ModelTrace({}, {}, {}, {})

    def _pyro_sample(self, msg: Any) -> None:
        if msg["done"] or msg["is_observed"] or type(msg["fn"]).__name__ == "_Subsample":
            return
        msg["value"] = _symbolic_value(msg["name"], msg["fn"])
        msg["done"] = True

    def _pyro_post_sample(self, msg: Any) -> None:
        fn, name = msg["fn"], msg["name"]
        if type(fn).__name__ == "_Subsample":
            return
        if msg["infer"].get("_deterministic"):
            self.trace.deterministic[name] = msg["value"]
            return
        if name in self.trace.sites:
            raise NotSupportedError(
                f"site {name!r} occurs twice in the model; give each its own name"
            )
        base, mask = _unwrap(fn)
        kind, arguments = _written(base)
        if kind == "Unit":
            self.trace.factors[name] = arguments["log_factor"]
            return
        value = msg["value"]
        observed = None
        if msg["is_observed"]:
            if isinstance(value, SymbolicTensor):
                raise NotConjugate(
                    f"site {name!r} observes a quantity that depends on latents; "
                    "condition on data, or use svi() or nuts()"
                )
            observed = torch.as_tensor(value)
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
            plate = Plate(frame.name, frame.size, frame.dim if frame.dim is not None else 0)
            known = self.trace.plates.setdefault(frame.name, plate)
            if frame.dim is not None and frame.size > 0:
                plates[len(batch_shape) - (rank - outer) + frame.dim] = known
        context = msg["mask"]
        if isinstance(context, Tensor):
            context = context.reshape(tuple(context.shape) + (1,) * (rank - outer))
        mask = _both(mask, context)
        scale = msg["scale"]
        if isinstance(scale, Tensor):
            scale = scale.reshape(tuple(scale.shape) + (1,) * (rank - outer))
        else:
            scale = float(scale)
        node = value.node if isinstance(value, SymbolicTensor) else None
        self.trace.sites[name] = TracedSite(
            name=name,
            distribution=kind,
            arguments={key: _node(argument) for key, argument in arguments.items()},
            shape=shape,
            batch_shape=batch_shape,
            base_event_dim=event_dim,
            to_event=rank - outer,
            plates=plates,
            observed=observed,
            value=node if isinstance(node, Expression | Discrete) else None,
            mask=mask if isinstance(mask, Tensor) else None,
            scale=0.0 if mask is False else scale,
            support_size=_support_size(base, kind) if observed is None else 0,
            fn=base,
        )


def _node(argument: Any) -> Any:
    return argument.node if isinstance(argument, SymbolicTensor) else argument


def _both(a: Any, b: Any) -> Any:
    if a is None or a is True:
        return None if b is True else b
    if b is None or b is True:
        return a
    if a is False or b is False:
        return False
    return a & b


def _unwrap(fn: Any) -> tuple[Any, Any]:
    """The base distribution and the mask of its wrappers, aligned with the outer batch shape."""
    mask = None
    while type(fn).__name__ in WRAPPERS:
        if type(fn).__name__ == "MaskedDistribution":
            mask = _both(mask, fn._mask)
        elif type(fn).__name__ == "Independent" and isinstance(mask, Tensor):
            mask = mask.reshape(tuple(mask.shape) + (1,) * fn.reinterpreted_batch_ndims)
        fn = fn.base_dist
    return fn, mask


def _written(base: Any) -> tuple[str, dict[str, Any]]:
    """The constructor's arguments as written; of a distribution made outside the model, its own."""
    if hasattr(base, "_written"):
        return base._written
    kind = type(base).__name__
    names = list(inspect.signature(type(base).__init__).parameters)[1:]
    stored = {name: base.__dict__[name] for name in names if name in base.__dict__}
    if not stored:
        stored = {name: getattr(base, name) for name in names if hasattr(base, name)}
    if (
        "scale_tril" in names
        and "covariance_matrix" not in stored
        and "precision_matrix" not in stored
    ):
        stored["scale_tril"] = base.scale_tril
    return kind, stored


def _support_size(base: Any, kind: str) -> int:
    if kind in ("Categorical", "OneHotCategorical"):
        shape = base._param.shape if kind == "Categorical" else base.event_shape
        return int(shape[-1])
    return 2 if kind == "Bernoulli" else 0


def _symbolic_value(name: str, fn: Any) -> SymbolicTensor:
    base, _ = _unwrap(fn)
    kind, _ = _written(base)
    shape = tuple(fn.batch_shape) + tuple(fn.event_shape)
    node: Expression | Discrete | Refusal
    dtype = None
    if kind == "Categorical":
        node = Discrete.latent(name, shape, torch.arange(_support_size(base, kind)))
        dtype = torch.long
    elif kind == "Bernoulli":
        node = Discrete.latent(name, shape, torch.tensor([0.0, 1.0], dtype=torch.float64))
    elif kind == "OneHotCategorical":
        node = Expression.latent(name, shape, "indicator")
    else:
        node = Expression.latent(name, shape)
    return SymbolicTensor.wrap(torch.empty(shape, device="meta", dtype=dtype), node)
