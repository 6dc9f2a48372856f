"""Discrete latents summed out exactly, in a form that vmap, autograd and graph tracing can follow.

Pyro's tensor variable elimination (Obermeyer et al. 2019, "Tensor variable elimination
for plated factor graphs") does the bookkeeping; two of its parts are replaced here
because they look at values: the enumeration handler reads ``tensor.data``, and the
logarithmic ring calls a custom autograd function.

A *factor* is the log density of one site, packed: size-one dims squeezed, one letter
per remaining dim in ``tensor._pyro_dims``. Letters stand for plates or enumerated sites.
"""

from collections import OrderedDict
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import torch
from pyro.distributions.torch_distribution import TorchDistributionMixin
from pyro.infer import config_enumerate
from pyro.ops.contract import contract_to_tensor
from pyro.ops.rings import LogRing
from pyro.poutine import Trace, trace
from pyro.poutine.enum_messenger import EnumMessenger
from torch import Tensor

from vitools.sites import is_subsample

Ordinal = frozenset[str]


class _TraceableEnumeration(EnumMessenger):
    """Pyro's parallel enumeration, reading shapes only."""

    def _pyro_post_sample(self, msg: Any) -> None:
        value = msg["value"]
        if not isinstance(msg["fn"], TorchDistributionMixin) or value is None:
            return
        shape = value.shape[: value.dim() - msg["fn"].event_dim]
        dim_to_id = msg["infer"].setdefault("_dim_to_id", {})
        dim_to_id.update(self._param_dims.get(msg["name"], {}))
        self._value_dims[msg["name"]] = {
            dim: id_ for dim, id_ in dim_to_id.items() if len(shape) >= -dim and shape[dim] > 1
        }


class _TraceableLogRing(LogRing):
    """Log-space sum-products by broadcasting and ``logsumexp``."""

    def sumproduct(self, terms: list[Any], dims: Any) -> Tensor:
        letters = "".join(sorted(set("".join(term._pyro_dims for term in terms))))
        total: Any = None
        for term in terms:
            own = term._pyro_dims
            ordered = term.permute(sorted(range(len(own)), key=own.__getitem__))
            ordered = ordered[tuple(slice(None) if d in own else None for d in letters)]
            total = ordered if total is None else total + ordered
        summed = [i for i, d in enumerate(letters) if d in dims]
        # the slice makes a new tensor object, which must carry its own letters
        result: Any = torch.logsumexp(total, summed) if summed else total[...]
        result._pyro_dims = "".join(d for d in letters if d not in dims)
        return result


@dataclass(frozen=True)
class SiteFactor:
    """Packed log density of one site and the plates (letters) it lives in."""

    name: str
    log_density: Any
    plates: Ordinal
    enumerated: str | None  # the letter of this site's own values, if it was enumerated


class FactorGraph:
    """The factors of one run of a model, discrete latents enumerated.

    Args:
        run: calls the model (conditioned or replayed as the caller wishes).
        max_plate_nesting: number of dims on the right taken by plates.
    """

    def __init__(self, run: Callable[[], Any], max_plate_nesting: int) -> None:
        enumerated = _TraceableEnumeration(first_available_dim=-1 - max_plate_nesting)(
            config_enumerate(run, "parallel")
        )
        self.trace: Trace = trace(enumerated, graph_type="flat").get_trace()
        self.trace.compute_log_prob()
        self.trace.pack_tensors()
        letter_of = self.trace.plate_to_symbol
        self.plate_letters: dict[str, str] = dict(letter_of)
        self.factors: list[SiteFactor] = []
        for name, site in self.trace.nodes.items():
            if site["type"] != "sample" or is_subsample(site):
                continue
            dim = site["infer"].get("_enumerate_dim")
            self.factors.append(
                SiteFactor(
                    name,
                    site["packed"]["log_prob"],
                    frozenset(letter_of[f.name] for f in site["cond_indep_stack"] if f.vectorized),
                    None if dim is None else site["infer"]["_dim_to_symbol"][dim],
                )
            )
        self.sum_letters = set(self.trace.symbol_to_dim) - set(letter_of.values())

    def log_density(self, probes: Mapping[str, Tensor] | None = None) -> Tensor:
        """log Σ_z p(x, θ, z), a scalar. ``probes`` (packed) are added to the factors by name."""
        tree: OrderedDict[Ordinal, list[Any]] = OrderedDict()
        for factor in self.factors:
            tree.setdefault(factor.plates, []).append(factor.log_density)
        for name, probe in (probes or {}).items():
            tree[next(f.plates for f in self.factors if f.name == name)].append(probe)
        return contract_to_tensor(tree, self.sum_letters, ring=_TraceableLogRing(cache={}))

    def components(self) -> list[list[SiteFactor]]:
        """Factors grouped by shared enumerated letters (continuous-only factors stand alone)."""
        groups: list[tuple[set[str], list[SiteFactor]]] = []
        for factor in self.factors:
            letters = self.sum_letters & set(factor.log_density._pyro_dims)
            touching = [g for g in groups if g[0] & letters] if letters else []
            merged = (
                letters.union(*(g[0] for g in touching)),
                [f for g in touching for f in g[1]] + [factor],
            )
            groups = [g for g in groups if not any(g is t for t in touching)] + [merged]
        return [members for _, members in groups]

    def contract(self, members: list[SiteFactor], keep: Ordinal) -> Any:
        """Sum the enumerated letters of ``members`` out, keeping the plates in ``keep``."""
        tree: OrderedDict[Ordinal, list[Any]] = OrderedDict()
        for factor in members:
            tree.setdefault(factor.plates, []).append(factor.log_density)
        letters = {d for f in members for d in f.log_density._pyro_dims if d in self.sum_letters}
        sizes = {letter: self.trace_plate_size(letter) for letter in frozenset().union(*tree, keep)}
        ring = _TraceableLogRing(cache={}, dim_to_size=sizes)
        return contract_to_tensor(tree, letters, target_ordinal=keep, ring=ring)

    def trace_plate_size(self, letter: str) -> int:
        """Number of elements of the plate that ``letter`` stands for."""
        for site in self.trace.nodes.values():
            for frame in site.get("cond_indep_stack", ()):
                if frame.vectorized and self.plate_letters[frame.name] == letter:
                    return frame.size
        raise KeyError(letter)
