"""Some elements of a site given, the others drawn: groups that a fit knows beside new ones."""

from collections.abc import Mapping
from typing import Any

import torch
from pyro.poutine.messenger import Messenger
from torch import Tensor

Places = Mapping[str, tuple[Tensor, ...]]
"""Of each site, the positions of the given elements along each batch dim."""


class PlacingMessenger(Messenger):
    """Draws a site as the model says, then puts the given elements in their places.

    That is a draw given those elements, because the elements of plates are independent given the rest.

    Args:
        values: ``{site: [*counts of positions, *event_shape]}``.
    """

    def __init__(self, values: Mapping[str, Tensor], places: Places) -> None:
        super().__init__()
        self.values, self.places = values, places

    def _pyro_sample(self, msg: Any) -> None:
        name = msg["name"]
        if name not in self.places or msg["done"]:
            return
        drawn = msg["fn"](*msg["args"], **msg["kwargs"])
        grid = torch.meshgrid(*self.places[name], indexing="ij")
        msg["value"] = torch.index_put(drawn, grid, self.values[name].to(drawn.dtype))
        msg["done"] = True
