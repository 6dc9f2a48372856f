"""A model with its arguments, and how messages and saved files refer to it."""

import hashlib
import inspect
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from torch.utils._pytree import tree_leaves

from vitools.problem.sites import Site, nearest


@dataclass(frozen=True)
class Program:
    """A model with its arguments."""

    model: Callable[..., Any]
    args: tuple[Any, ...]
    kwargs: Mapping[str, Any]
    name: str

    @property
    def title(self) -> str:
        return f"model '{self.name}'"

    def arguments(self) -> dict[str, Any]:
        """The arguments by name, defaults filled in."""
        try:
            bound = inspect.signature(self.model).bind(*self.args, **self.kwargs)
        except (TypeError, ValueError):
            return {f"argument {i}": a for i, a in enumerate(self.args)} | dict(self.kwargs)
        bound.apply_defaults()
        return dict(bound.arguments)

    def misfit(self) -> str:
        """What the model takes, where that is not what it was given; else nothing."""
        called = self.model.forward if isinstance(self.model, torch.nn.Module) else self.model
        try:
            signature = inspect.signature(called)
        except ValueError:  # of compiled code
            return ""
        names = list(signature.parameters)
        try:
            signature.bind(*self.args, **self.kwargs)
        except TypeError:
            hints = (nearest(name, names) for name in self.kwargs if name not in names)
            return f"Its arguments: {', '.join(names) or 'none'}.{next(hints, '')}"
        return ""


def name_of(model: Callable[..., Any]) -> str:
    """The model's own name; that of its module where it is just called ``model``."""
    while not hasattr(model, "__name__") and callable(wrapped := getattr(model, "fn", None)):
        model = wrapped  # one of Pyro's handlers
    name = getattr(model, "__name__", type(model).__name__)
    module = str(getattr(model, "__module__", "")).removesuffix(".model")
    if name == "model" and module not in ("", "__main__"):
        return module.rpartition(".")[2]
    return name


def fingerprint(sites: Iterable[Site], arguments: Any) -> str:
    """A digest of sites, observed values and arguments (tensors, numbers, words)."""
    digest = hashlib.sha256()
    data = []
    for site in sites:
        described = (site.name, site.distribution, tuple(site.shape), site.is_observed)
        digest.update(repr(described).encode())
        data.append(site.value)
    for leaf in (*data, *tree_leaves(arguments)):
        if isinstance(leaf, Tensor):
            content = leaf.detach().cpu().contiguous().reshape(-1).view(torch.uint8)
            digest.update(f"{leaf.dtype}{tuple(leaf.shape)}".encode())
            digest.update(content.numpy().data)  # in place: it may be a file larger than memory
        elif isinstance(leaf, str | int | float | bool | None):
            digest.update(repr(leaf).encode())
    return digest.hexdigest()[:16]
