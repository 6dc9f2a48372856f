"""What a distribution was made of: the arguments of its constructor as the model wrote them.

Pyro's hook on distribution constructors hands over every constructor's arguments (``tau.rsqrt()``,
not a number). The distribution itself is built of tensors without values; ``expand``, which plates
call, makes new objects and must carry the record along.
"""

from __future__ import annotations

import inspect
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
from pyro.distributions import MaskedDistribution
from pyro.distributions.distribution import COERCIONS
from torch import Tensor
from torch.distributions import Independent, constraints
from torch.utils._pytree import tree_leaves, tree_map

from vitools.calculus.tracing.symbolic import SymbolicTensor
from vitools.distributions.layers import layers_of

MATRICES = ("covariance_matrix", "precision_matrix", "scale_tril")


@contextmanager
def constructors_recorded() -> Iterator[None]:
    def coerce(cls: type, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        position = COERCIONS.index(coerce)
        COERCIONS.remove(coerce)
        try:
            built = _shape_only_distribution(cls, args, kwargs)
        finally:
            COERCIONS.insert(position, coerce)
        bound = inspect.signature(cls.__init__).bind_partial(None, *args, **kwargs).arguments  # type: ignore[misc]
        written = dict(list(bound.items())[1:])
        _readable(built, written)
        return _record(built, (cls.__name__, written))

    COERCIONS.append(coerce)
    try:
        yield
    finally:
        COERCIONS.remove(coerce)


def _shape_only_distribution(cls: type, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
    """The distribution; with latents among its arguments, of tensors that have no values."""
    if not any(isinstance(leaf, SymbolicTensor) for leaf in tree_leaves((args, kwargs))):
        return cls(*args, **kwargs)
    try:
        return cls(*tree_map(_shape_only, args), **tree_map(_shape_only, kwargs))
    except RuntimeError:  # it looks at values (Wishart): give it some that it allows
        bound = inspect.signature(cls.__init__).bind(None, *args, **kwargs)  # type: ignore[misc]
        for name, value in bound.arguments.items():
            if isinstance(value, SymbolicTensor):
                bound.arguments[name] = _allowed(value, name in MATRICES)
        return cls(*bound.args[1:], **bound.kwargs)


def _readable(built: Any, written: dict[str, Any]) -> None:
    """``fn.loc`` of a distribution is what the model wrote, broadcast: handlers compute with it.

    Left as they are: what a distribution normalises or its support is made of.
    """
    for name, constraint in getattr(built, "arg_constraints", {}).items():
        kept, value = vars(built).get(name), written.get(name)
        if value is None or not isinstance(kept, Tensor) or not kept.is_meta:
            continue
        if constraint is constraints.simplex or constraint is constraints.dependent:
            continue
        if not isinstance(value, Tensor):
            value = torch.as_tensor(value, dtype=kept.dtype)
        with torch._C.DisableTorchFunctionSubclass():  # a shape costs no look-up of a rule
            shape = value.shape
        if shape == kept.shape:
            vars(built)[name] = value
        elif torch.broadcast_shapes(shape, kept.shape) == kept.shape:
            vars(built)[name] = value.expand(kept.shape)


def _allowed(latent: SymbolicTensor, is_matrix: bool) -> Tensor:
    shape = tuple(latent.shape)
    if is_matrix:
        return torch.eye(shape[-1], dtype=torch.float64).expand(shape)
    return torch.ones(shape, dtype=torch.float64)


def _record(distribution: Any, record: tuple[str, dict[str, Any]]) -> Any:
    plain_expand = getattr(distribution, "expand", None)
    distribution._written = record
    if plain_expand is not None:

        def expand(batch_shape: Any, _instance: Any = None) -> Any:
            return _record(plain_expand(batch_shape), record)

        distribution.expand = expand
    return distribution


def _shape_only(value: Any) -> Any:
    if isinstance(value, SymbolicTensor):
        return value.as_subclass(Tensor)
    return value.to("meta") if isinstance(value, Tensor) else value


def both_masks(a: Any, b: Any) -> Any:
    if a is None or a is True:
        return None if b is True else b
    if b is None or b is True:
        return a
    if a is False or b is False:
        return False
    return a & b


def base_and_mask(fn: Any) -> tuple[Any, Any]:
    """The distribution that was written and the mask around it, aligned with the outer batch shape."""
    mask = None
    for layer in layers_of(fn):
        if isinstance(layer, MaskedDistribution):
            mask = both_masks(mask, _mask_of(layer))
        elif isinstance(layer, Independent) and isinstance(mask, Tensor):
            mask = mask.reshape(tuple(mask.shape) + (1,) * layer.reinterpreted_batch_ndims)
    return layer, mask


def _mask_of(layer: MaskedDistribution) -> Any:
    """The mask as it was written, where latents decide it; the layer has but its shape."""
    _, arguments = getattr(layer, "_written", ("", dict[str, Any]()))
    mask = arguments.get("mask")
    return (
        mask.expand(layer.batch_shape).bool() if isinstance(mask, SymbolicTensor) else layer._mask
    )


def written(base: Any) -> tuple[str, dict[str, Any]]:
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
