"""One function of one draw, applied to many: vmap where the model allows it, a loop where not."""

import math
import warnings
from collections.abc import Callable, Mapping
from typing import Any

import torch
from torch import Tensor
from torch.utils._pytree import tree_flatten, tree_map, tree_unflatten

from vitools.errors import VitoolsError, VitoolsWarning

CHUNK_BYTES = 2**22
"""Draws are taken in chunks whose intermediate tensors stay near the size of a core's cache."""


class DrawMapper:
    """Maps a function over the leading dimension of a tree of tensors.

    ``torch.vmap`` runs ordinary Pyro code on all draws at once. Models it cannot take
    (branches on values, in-place writes) are looped over instead, after one warning
    that carries vmap's reason; the choice is remembered for the life of the mapper.

    Args:
        subject: what the warning calls the mapped code, e.g. ``"model 'eight_schools'"``;
            ``None`` for no warning (torch's own samplers are often not vectorised).
        bytes_per_draw: memory one draw touches, which sets the chunk.
    """

    def __init__(self, subject: str | None, bytes_per_draw: int = 0) -> None:
        self.subject = subject
        self.chunk = max(1, min(1024, CHUNK_BYTES // max(1, bytes_per_draw)))
        self.can_vmap = True

    def __call__(
        self, function: Callable[[Any], Any], draws: Any, *, randomness: str = "error"
    ) -> Any:
        """``function`` of each draw, stacked: leaves of ``draws`` are ``[n, …]``, so are the results'."""
        leaves, _ = tree_flatten(draws)
        num_draws = leaves[0].shape[0]
        if num_draws == 0:
            raise VitoolsError("expected at least one draw, got none")
        if self.can_vmap:
            try:
                return self._vmapped(function, draws, randomness)
            except VitoolsError:
                raise
            except (
                Exception
            ) as reason:  # vmap's refusals share no type; the loop re-raises real errors
                result = self._looped(function, draws, num_draws)
                self.can_vmap = False
                if self.subject is not None:
                    warnings.warn(
                        f"{self.subject} cannot be vectorised over draws and is run once per draw "
                        f"(slower, same numbers): {str(reason).splitlines()[0]}",
                        VitoolsWarning,
                        stacklevel=4,
                    )
                return result
        return self._looped(function, draws, num_draws)

    def _vmapped(self, function: Callable[[Any], Any], draws: Any, randomness: str) -> Any:
        with warnings.catch_warnings():
            warnings.filterwarnings("ignore", message="There is a performance drop")
            return torch.vmap(function, randomness=randomness, chunk_size=self.chunk)(draws)

    @staticmethod
    def _looped(function: Callable[[Any], Any], draws: Any, num_draws: int) -> Any:
        results = [function(tree_map(lambda leaf: leaf[i], draws)) for i in range(num_draws)]  # noqa: B023
        flat, specs = zip(*(tree_flatten(result) for result in results), strict=True)
        columns = [torch.stack(column) for column in zip(*flat, strict=True)]
        return tree_unflatten(columns, specs[0])


def split_draws(
    values: Mapping[str, Tensor], event_ndims: Mapping[str, int]
) -> tuple[dict[str, Tensor], torch.Size]:
    """Flatten leading sample dimensions: ``{name: [*S, *shape]}`` to ``({name: [n, *shape]}, S)``.

    Sample shapes that differ between sites are broadcast against each other.
    """
    shapes = {k: v.shape[: v.dim() - event_ndims[k]] for k, v in values.items()}
    sample_shape = torch.broadcast_shapes(*shapes.values())
    count = math.prod(sample_shape)
    flat = {}
    for name, value in values.items():
        rest = value.shape[value.dim() - event_ndims[name] :]
        flat[name] = value.expand(sample_shape + rest).reshape((count, *rest))
    return flat, sample_shape
