"""How a model's statements are read: the few points where vitools is stricter or kinder than Pyro."""

from collections.abc import Collection, Mapping
from typing import Any

import torch
from pyro.distributions import MaskedDistribution
from pyro.poutine.indep_messenger import CondIndepStackFrame
from pyro.poutine.messenger import Messenger
from torch.distributions import transform_to

from vitools.errors import ModelError
from vitools.problem.density.moving_ends import within_its_ends
from vitools.problem.reading.linear_chains import with_density
from vitools.problem.reading.shared_logits import share_logits
from vitools.problem.sites import is_one_corner, is_subsample


class ReadingRules(Messenger):
    """Applied around every run of a model, inside whatever handlers are active.

    - A mask silences observations only. A masked *latent* keeps its prior: unused entries then
      integrate to one, where Pyro would give them a flat, improper density (padded rows, the
      ``…_unobserved`` sites of ``obs_mask``).
    - Masked observations may be NaN: their value is replaced before its density is taken,
      so that gradients stay finite.
    - Batch dims outside every plate count as plates of their own, named ``<site>_dim_<i>``.
    - A ``LinearHMM`` of normal noise is the ``GaussianHMM`` that it is, which has a density.
    - Where the support of an observation moves with a latent, its density is 0 outside.

    Args:
        batch_dims: ``{site: {dim: plate name}}`` of dims outside plates, dim counted from the right.
        fill_masked: whether masked observations are replaced.
        moving_ends: observed sites whose support depends on latents, or may.
    """

    def __init__(
        self,
        batch_dims: Mapping[str, Mapping[int, str]],
        *,
        fill_masked: bool = True,
        moving_ends: Collection[str] = (),
    ) -> None:
        super().__init__()
        self.moving_ends = moving_ends
        self.batch_dims = batch_dims
        self.fill_masked = fill_masked
        self._seen: set[str] = set()

    def __enter__(self) -> "ReadingRules":
        self._seen = set()
        return super().__enter__()

    def _pyro_sample(self, msg: Any) -> None:
        name = msg["name"]
        if name in self._seen:
            raise ModelError(_twice(msg))
        self._seen.add(name)
        if is_subsample(msg):
            return
        msg["fn"] = with_density(name, msg["fn"])
        share_logits(msg["fn"])
        msg["infer_of_model"] = msg["infer"]  # a replayed guide puts its own in the place
        if not msg["is_observed"]:
            msg["mask"] = None
            if is_one_corner(msg["fn"]) and not msg["done"]:
                msg["value"], msg["done"] = msg["fn"].mean, True  # vmap cannot follow such a draw
        elif self.fill_masked:
            msg["value"] = without_masked_values(msg)
        if name in self.moving_ends:
            msg["fn"] = within_its_ends(msg["fn"])
        for dim, plate in self.batch_dims.get(name, {}).items():
            size = msg["fn"].batch_shape[dim]
            frame = CondIndepStackFrame(plate, dim, size, 0, full_size=size)
            msg["cond_indep_stack"] = (*msg["cond_indep_stack"], frame)


def _twice(msg: Any) -> str:
    name = msg["name"]
    if is_subsample(msg):
        return (
            f"plate '{name}' is made twice in one run. Make it once and enter it as often as "
            f"needed: plate = pyro.plate('{name}', …); with plate: …"
        )
    return (
        f"site '{name}' is sampled twice in one run. Give each statement a name of its own, "
        f"e.g. '{name}_0', '{name}_1'."
    )


def without_masked_values(msg: Any) -> Any:
    """The observed value with its masked entries replaced by the first that is not masked.

    Where all are masked, as in some minibatches, they become one value of the support.
    """
    fn, value = msg["fn"], msg["value"]
    own = fn._mask if isinstance(fn, MaskedDistribution) else None
    masks = [m for m in (msg["mask"], own) if isinstance(m, torch.Tensor)]
    if not masks or not value.is_floating_point() or not value.numel():
        return value
    batch_shape = value.shape[: value.dim() - fn.event_dim]
    seen = torch.ones(batch_shape, dtype=torch.bool, device=value.device)
    for mask in masks:
        seen = seen & mask
    if seen.shape != batch_shape:  # one value under several masks: nothing to choose from
        return value
    events = value.reshape((-1, *value.shape[value.dim() - fn.event_dim :]))
    choices = torch.cat([events, _of_support(fn, events).unsqueeze(0)])
    rows = torch.arange(len(choices), dtype=torch.float64, device=value.device)
    first = torch.where(seen.reshape(-1), rows[:-1], rows[-1]).amin().long()
    fill = choices[first.reshape(1)][0]  # choices[first] could not be recorded
    return torch.where(seen.reshape(batch_shape + (1,) * fn.event_dim), value, fill)


def _of_support(fn: Any, events: torch.Tensor) -> torch.Tensor:
    """A value the distribution can take, like one of ``events``; 0 where its support is a lattice."""
    try:
        transform = transform_to(fn.support)
    except NotImplementedError:
        return torch.zeros_like(events[0])
    shape = transform.inverse_shape(events.shape[1:])
    value = transform(events.new_zeros(shape)).detach()
    return value.reshape(-1, *events.shape[1:])[0].to(events)
