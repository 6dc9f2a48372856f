"""Several independent draws of one function: by vmap where the draws allow it, by a loop where not.

A vmapped function is one graph however many draws there are; a loop is recorded once for each.
"""

import warnings
from collections.abc import Callable
from typing import Any

import pyro
import torch
from torch.utils._pytree import tree_flatten, tree_map, tree_unflatten

from vitools.problem.density.draws import vmap_can_draw


class Particles:
    """``count`` independent results of a function, stacked on the left.

    Whether vmap can follow the function *and its gradient* is tried on the first call, which must
    not be inside a recording. torch's own Dirichlet, say, can be mapped but not differentiated.
    """

    def __init__(self, count: int) -> None:
        self.count = count
        self.can_vmap: bool | None = None

    def __call__(self, function: Callable[[Any], Any], inputs: Any = None) -> Any:
        """Leaves of ``inputs`` are ``[count, …]``; without them ``function`` is given a zero."""
        given = torch.zeros(self.count) if inputs is None else inputs
        if self.count == 1:
            results = function(tree_map(lambda leaf: leaf[0], given))
            return tree_map(lambda leaf: leaf.unsqueeze(0), results)
        if self.can_vmap is None:
            self.can_vmap = _can_follow(function, given)
        if self.can_vmap:
            return _mapped(function, given)
        results = [function(tree_map(lambda leaf: leaf[i], given)) for i in range(self.count)]  # noqa: B023
        flat, specs = zip(*(tree_flatten(result) for result in results), strict=True)
        columns = [torch.stack(column) for column in zip(*flat, strict=True)]
        return tree_unflatten(columns, specs[0])


def _mapped(function: Callable[[Any], Any], inputs: Any) -> Any:
    with warnings.catch_warnings(), vmap_can_draw():
        warnings.filterwarnings("ignore", message="There is a performance drop")
        return torch.vmap(function, randomness="different")(inputs)


def _can_follow(function: Callable[[Any], Any], inputs: Any) -> bool:
    try:
        leaves = [leaf for leaf in tree_flatten(_mapped(function, inputs))[0] if leaf.requires_grad]
        store = pyro.get_param_store().get_state()["params"].values()
        parameters = [p for p in store if p.requires_grad]
        if leaves and parameters:
            total = torch.stack([leaf.sum() for leaf in leaves]).sum()
            # the inputs' own graph, which the caller still needs, is part of it
            torch.autograd.grad(total, parameters, allow_unused=True, retain_graph=True)
    except Exception:  # vmap's refusals share no type; the loop raises whatever is really wrong
        return False
    return True
