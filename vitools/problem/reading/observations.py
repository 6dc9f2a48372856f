"""Are the observed values possible under the model? Asked once, answered by site and index."""

from collections.abc import Callable, Iterable, Mapping
from typing import Any

import torch
from pyro.distributions import MaskedDistribution
from pyro.poutine import Trace
from torch import Tensor

from vitools.distributions.layers import base_distribution, layers_of
from vitools.errors import DataError
from vitools.problem.reading.refused_forms import without_masked_values
from vitools.problem.sites import support_of
from vitools.supports import base_support, bounds

PART = 2**20  # numbers that are looked at together
UNVALIDATED: Any = 0
"""Switches validation off like ``False``, and can be told from it."""


def refuse_odd_tensor(what: str, tensor: Tensor) -> None:
    """Raise :class:`DataError` for a tensor without plain numbers in its memory.

    Args:
        what: names it, as in ``"argument 'x'"``.
    """
    if tensor.is_meta:
        words = (
            "a tensor on device 'meta', which has a shape and no numbers. Load its numbers first"
        )
    elif tensor.layout != torch.strided:
        kind = str(tensor.layout).removeprefix("torch.")
        words = f"a sparse tensor ({kind}). Make it dense by .to_dense()"
    elif tensor.is_quantized:
        words = f"a quantized tensor ({tensor.dtype}). Make numbers of it by .dequantize()"
    else:
        return
    raise DataError(f"{what} is {words}.")


def refuse_bad_data(name: str, node: Mapping[str, Any], *, check_support: bool = True) -> None:
    """Raise :class:`DataError` for values that are NaN, infinite, or outside the support.

    Masked entries may be anything.

    Args:
        check_support: false where the support depends on latents.
    """
    fn, value = node["fn"], node["value"]
    if value.is_complex():
        raise DataError(
            f"site '{name}': expected observations that are real numbers, got {value.dtype}. Observe "
            "real and imaginary part, e.g. torch.view_as_real(x) with one more event dim."
        )
    _refuse_shape(name, value.shape, fn, node["cond_indep_stack"])
    value = value.expand(fn.shape())
    seen = _unmasked(node)
    if value.is_floating_point():
        bad = seen & ~_by_parts(torch.isfinite, value, fn.event_dim)
        if bool(bad.any()):
            raise _report(name, value, bad, "a finite number", "drop or mask the entry")
    if not check_support or support_of(fn) is None or is_unvalidated(fn):
        return
    try:
        if vars(base_support(fn.support)):  # bounds may differ from row to row
            inside = fn.support.check(value)
        else:
            inside = _by_parts(fn.support.check, value, 0)
    except NotImplementedError:  # a support that cannot tell; the density will
        return
    bad = seen & ~inside
    if bool(bad.any()):
        where = tuple(bad.nonzero()[0].tolist())
        expected = (
            f"a value in the support of {type(base_distribution(fn)).__name__} "
            f"({_support_words(fn.support, where, bad.shape)})"
        )
        raise _report(name, value, bad, expected, "recode or mask the entry")


def is_unvalidated(fn: Any) -> bool:
    """Whether the model gave one of the layers of a distribution ``validate_args=False``.

    A density may be taken on purpose where the distribution has no support (grey pixels under
    Bernoulli). Only ``False`` itself counts: a dry run switches validation off by
    :data:`UNVALIDATED`, which distributions copy.
    """
    return any(vars(layer).get("_validate_args") is False for layer in layers_of(fn))


def _by_parts(check: Callable[[Tensor], Tensor], value: Tensor, event_dim: int) -> Tensor:
    """``check`` of a few rows at a time: the data may be a file that is larger than memory."""
    size = max(1, PART // max(1, value[:1].numel())) if value.dim() else 1
    found = []
    for part in value.split(size) if value.dim() else [value]:
        passed = check(part)
        for _ in range(event_dim):
            passed = passed.all(-1)
        found.append(passed)
    return torch.cat(found) if found[0].dim() else torch.stack(found).all()


def refuse_nan_density(
    run: Trace, names: Iterable[str], arguments: Mapping[str, Any], title: str
) -> None:
    """Observed values are fine by now, so a NaN density points at another argument."""
    for name in names:
        node = run.nodes[name]
        try:
            density = node["fn"].log_prob(without_masked_values(node))
        except Exception as error:
            raise DataError(
                f"site '{name}': {type(base_distribution(node['fn'])).__name__} cannot give the "
                f"density of observations of dtype {node['value'].dtype} and shape "
                f"{tuple(node['value'].shape)} ({' '.join(str(error).split())[:200]}). Convert the "
                "data, e.g. with .double() or .long()."
            ) from error
        if bool((torch.isnan(density) & _unmasked(node)).any()):
            suspects = [
                repr(key)
                for key, value in arguments.items()
                if isinstance(value, Tensor)
                and value.is_floating_point()
                and not bool(torch.isfinite(value).all())
            ]
            hint = (
                f"argument {', '.join(suspects)} of {title} holds NaN or infinity; clean it"
                if suspects
                else "check the parameters of its distribution at a draw from the prior"
            )
            raise DataError(f"site '{name}': its log density is NaN: {hint}.")


INDEX_ROWS = (
    "Inside a plate with a subsample_size whatever belongs to its rows takes the plate's indices: "
    "with pyro.plate(…, subsample_size=…) as rows: … x[rows]."
)


def refuse_whole_data(minibatch: Trace, names: Iterable[str]) -> None:
    """Raise :class:`DataError` for observations of all rows in a plate that takes some of them."""
    for name in names:
        node = minibatch.nodes.get(name)  # a plate run in sequence names its rows one by one
        stack = () if node is None else node["cond_indep_stack"]
        if node is not None and any(f.full_size not in (None, f.size) for f in stack):
            _refuse_shape(name, node["value"].shape, node["fn"], stack, INDEX_ROWS)


def _refuse_shape(
    name: str, found: torch.Size, fn: Any, stack: Iterable[Any], remedy: str = ""
) -> None:
    expected = fn.shape()
    try:
        fits = torch.broadcast_shapes(found, expected) == expected
    except RuntimeError:
        fits = False
    if not fits:
        remedy = remedy or _remedy_of_shape(found, fn, [f for f in stack if f.vectorized])
        raise DataError(
            f"site '{name}': the model expects observations of shape {tuple(expected)}, got "
            f"{tuple(found)}. {remedy}"
        )


def _remedy_of_shape(found: torch.Size, fn: Any, plates: Iterable[Any]) -> str:
    """What to change: the one plate whose size is not that of the data, or what is missing."""
    expected = fn.shape()
    extra = tuple(found[: len(found) - len(expected)])
    if extra and plates and found[len(extra) :] != expected and found[: len(expected)] == expected:
        rest = tuple(found[len(expected) :])
        return (
            f"The data have {rest} more numbers in each element of the plates: make the distribution "
            f"one of such vectors, e.g. .expand({list(found)}).to_event({len(rest)}), or take one "
            "column of the data."
        )
    for frame in plates:
        dim = frame.dim - fn.event_dim
        if len(found) >= -dim and found[dim] not in (1, frame.size):
            return (
                f"Plate '{frame.name}' has size {frame.size}, the data have {found[dim]} there: give "
                "it the size of the data, or turn them (.T) if their dims are in another order."
            )
    if extra:
        return (
            f"The data have a dim of size {extra[0]} more on the left: put the statement into a "
            f"further pyro.plate('rows', {extra[0]}, dim={-len(found)}), or give the distribution "
            f"that shape, .expand({list(found)}).to_event({len(extra)})."
        )
    return (
        "Check the data against the plates; data of many rows need a pyro.plate, or a distribution "
        "expanded to their shape."
    )


def _unmasked(node: Mapping[str, Any]) -> Tensor:
    """Which batch entries count, after ``poutine.mask`` and the distribution's own masks."""
    fn, device = node["fn"], node["value"].device
    seen = torch.ones(fn.batch_shape, dtype=torch.bool, device=device)
    if node["mask"] is not None:
        mask = torch.as_tensor(node["mask"], device=device)
        try:
            seen = seen & mask
        except RuntimeError:
            seen = mask
        if seen.shape != fn.batch_shape:
            raise DataError(
                f"site '{node['name']}': expected a mask of shape {tuple(fn.batch_shape)} or one that "
                f"broadcasts to it, got {tuple(mask.shape)}."
            )
    event_dims = 0
    for layer in layers_of(fn):
        event_dims += getattr(layer, "reinterpreted_batch_ndims", 0)
        if isinstance(layer, MaskedDistribution):
            mask = torch.as_tensor(layer._mask, device=device)
            mask = mask.expand(layer.batch_shape)
            for _ in range(event_dims):  # an event counts if any of its entries does
                mask = mask.any(-1)
            seen = seen & mask
    return seen


def _support_words(support: Any, where: tuple[int, ...], batch_shape: torch.Size) -> str:
    low, high = (_at(bound, where, batch_shape) for bound in bounds(support))
    if low is not None and high is not None:
        kind = "integers " if support.is_discrete else ""
        return f"{kind}{low} to {high}"
    if low is not None:
        return f"{'integers' if support.is_discrete else 'numbers'} from {low}"
    return type(base_support(support)).__name__.strip("_").replace("OneHot", "one-hot vectors")


def _at(bound: Any, where: tuple[int, ...], batch_shape: torch.Size) -> str | None:
    """A bound at one batch entry; bounds within an event are summarised by their first."""
    if bound is None:
        return None
    if isinstance(bound, Tensor) and bound.dim() > 0:
        try:
            bound = bound.expand(batch_shape)[where]
        except RuntimeError:
            bound = bound.flatten()[0]
    return f"{float(bound):g}"


def _report(name: str, value: Tensor, bad: Tensor, expected: str, remedy: str) -> DataError:
    where = bad.nonzero()[0].tolist()
    found = value[tuple(where)] if where else value
    if found.dim() > 0 and found.numel() > 12:
        found = found.flatten()[:12]
    index = where[0] if len(where) == 1 else tuple(where)
    place = f" at index {index}, counted from 0" if where else ""
    return DataError(
        f"site '{name}': expected {expected}, got {found.tolist()}{place} "
        f"({int(bad.sum())} such of {bad.numel()}). Remedy: {remedy}.",
        row=where[0] if where else None,
    )
