"""Discrete latents summed out exactly, in a form that vmap, autograd and graph tracing can follow.

Pyro's tensor variable elimination (Obermeyer et al. 2019, "Tensor variable elimination
for plated factor graphs") does the bookkeeping; two of its parts are replaced here
because they look at values: the enumeration handler reads ``tensor.data``, and the
logarithmic ring calls a custom autograd function.

A *factor* is the log density of one site, packed: size-one dims squeezed, one letter
per remaining dim in ``tensor._pyro_dims``. Letters stand for plates or enumerated sites.
A *component* is a set of factors that share enumerated sites.

Minibatch weights N/B belong to plates and are applied when a plate's product is taken,
after the sums inside it. A ``poutine.scale`` multiplies the log of a whole component, as in
Pyro's ``TraceEnum_ELBO``.
"""

import math
from collections import OrderedDict
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from pyro.distributions.torch_distribution import TorchDistributionMixin
from pyro.ops.contract import contract_to_tensor
from pyro.ops.rings import LogRing
from pyro.poutine import Trace, trace
from pyro.poutine.enum_messenger import EnumMessenger
from torch import Tensor

from vitools.distributions.rounding import Beyond, beyond_log_prob
from vitools.errors import NotSupportedError
from vitools.problem.density.gathering import gathered
from vitools.problem.density.plate_reads import PlateReads
from vitools.problem.sites import is_deterministic, is_subsample

Ordinal = frozenset[str]


class _TraceableEnumeration(EnumMessenger):
    """Pyro's parallel enumeration of every discrete latent, reading shapes only."""

    def __init__(self, first_available_dim: int, reads: PlateReads) -> None:
        super().__init__(first_available_dim)
        self.reads = reads

    def _pyro_sample(self, msg: Any) -> None:
        fn = msg["fn"]
        if isinstance(fn, TorchDistributionMixin) and fn.has_enumerate_support:
            # whatever the model asks for elsewhere: sampled or sequential sums would not be exact
            kept = {k: v for k, v in msg["infer"].items() if k not in ("num_samples", "tmc")}
            msg["infer"] = kept | {"enumerate": "parallel", "expand": False}
        # a draw of a guide is done, but inside pyro.markov later sites ask for its dims all the same
        is_done, msg["done"] = msg["done"], False
        if is_done:
            infer = msg.get("infer_of_model", msg["infer"])
            msg["infer"] = {k: v for k, v in infer.items() if k != "enumerate"}
        super()._pyro_sample(msg)
        dim = msg["infer"].get("_enumerate_dim")
        if dim is not None and not is_done and fn.event_dim == 0:
            sizes = {f.dim: f.size for f in msg["cond_indep_stack"] if f.vectorized}
            self.reads.add(msg["name"], msg["value"], dim, sizes)
        msg["done"] = is_done

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
    """Log-space sum-products by broadcasting and ``logsumexp``; plates carry minibatch weights."""

    def __init__(self, plate_weights: Mapping[str, float], sizes: dict[str, int]) -> None:
        super().__init__(cache={}, dim_to_size=sizes)
        self.plate_weights = plate_weights

    def sumproduct(self, terms: list[Any], dims: Any) -> Tensor:
        """log Σ exp of a sum of terms, one dim after another.

        Each step eliminates the dim that leaves the smallest table, so that a chain costs
        its length and not the product of its supports.
        """
        terms = list(terms)
        size = {d: n for t in terms for d, n in zip(t._pyro_dims, t.shape, strict=True)}
        pending = set(dims) & set(size)
        while pending:
            reach = {
                d: set().union(*(t._pyro_dims for t in terms if d in t._pyro_dims)) for d in pending
            }
            first = min(sorted(pending), key=lambda d: math.prod(size[k] for k in reach[d]))
            together = [t for t in terms if first in t._pyro_dims]
            terms = [t for t in terms if first not in t._pyro_dims]
            elsewhere = set().union(*(t._pyro_dims for t in terms)) if terms else set()
            done = (reach[first] & pending) - elsewhere
            terms.append(_log_sum(_add(together), done))
            pending -= done
        return _add(terms)

    def product(self, term: Any, ordinal: Ordinal) -> Any:
        for letter in sorted(ordinal):
            dims = term._pyro_dims
            position = dims.find(letter)
            weight = self.plate_weights[letter]
            if position < 0 and weight == 1.0:
                continue
            total = (term.sum(position) if position >= 0 else term) * weight
            total._pyro_dims = dims.replace(letter, "")
            term = total
        return term


def _add(terms: list[Any]) -> Any:
    """The sum of packed tensors, broadcast by letter."""
    letters = "".join(sorted(set("".join(term._pyro_dims for term in terms))))
    total: Any = None
    for term in terms:
        own = term._pyro_dims
        ordered = term.permute(sorted(range(len(own)), key=own.__getitem__))
        ordered = ordered[tuple(slice(None) if d in own else None for d in letters)]
        total = ordered if total is None else total + ordered
    total = total[...]  # a new tensor object, which must carry its own letters
    total._pyro_dims = letters
    return total


def _log_sum(term: Any, dims: set[str]) -> Any:
    result: Any = torch.logsumexp(term, [i for i, d in enumerate(term._pyro_dims) if d in dims])
    result._pyro_dims = "".join(d for d in term._pyro_dims if d not in dims)
    return result


@dataclass(frozen=True)
class SiteFactor:
    """Packed log density of one site and the plates (letters) it lives in.

    Attributes:
        log_density: masked, but without any scale.
        enumerated: the letter of this site's own values, if it was enumerated.
        scale: a number, or a packed tensor over plates, from ``poutine.scale``.
    """

    name: str
    log_density: Any
    plates: Ordinal
    enumerated: str | None
    scale: Any


class FactorGraph:
    """The factors of one run of a model, discrete latents enumerated.

    Args:
        run: calls the model (conditioned or replayed as the caller wishes).
        max_plate_nesting: number of dims on the right taken by plates.
        beyond: by how much the draws of some sites lie beyond their values.
    """

    def __init__(
        self,
        run: Callable[[], Any],
        max_plate_nesting: int,
        beyond: Mapping[str, Beyond] | None = None,
    ) -> None:
        across = PlateReads(max_plate_nesting)
        enumerated = _TraceableEnumeration(-1 - max_plate_nesting, across)(run)
        with across:
            self.trace: Trace = trace(enumerated, graph_type="flat").get_trace()
        self.reads = across.reads
        sites = {
            name: node
            for name, node in self.trace.nodes.items()
            if node["type"] == "sample" and not is_subsample(node) and not is_deterministic(node)
        }
        for name in [n for n in self.trace.nodes if n not in sites]:
            self.trace.remove_node(name)
        scales = {name: node["scale"] for name, node in sites.items()}
        for node in sites.values():
            node["scale"] = 1.0
        self.trace.compute_log_prob()
        for name, shift in (beyond or {}).items():
            node = self.trace.nodes[name]
            node["log_prob"] = node["log_prob"] + beyond_log_prob(node["fn"], shift)
        self.trace.pack_tensors()
        self.plate_letters: dict[str, str] = dict(self.trace.plate_to_symbol)
        self.plate_dims = {d: self.trace.symbol_to_dim[d] for d in self.plate_letters.values()}
        self.plate_sizes: dict[str, int] = {}
        self.plate_weights: dict[str, float] = {}
        self.factors = [self._factor(name, node, scales[name]) for name, node in sites.items()]
        self.sum_letters = set(self.trace.symbol_to_dim) - set(self.plate_letters.values())

    def _factor(self, name: str, node: Any, scale: Any) -> SiteFactor:
        for frame in node["cond_indep_stack"]:
            if frame.vectorized:
                weight = (frame.full_size or frame.size) / frame.size
                letter = self.plate_letters[frame.name]
                self.plate_sizes[letter], self.plate_weights[letter] = frame.size, weight
                scale = scale / weight
        enumerated_dim = node["infer"].get("_enumerate_dim")
        letters = node["infer"]["_dim_to_symbol"]
        return SiteFactor(
            name,
            node["packed"]["log_prob"],
            frozenset(self.plate_letters[f.name] for f in node["cond_indep_stack"] if f.vectorized),
            None if enumerated_dim is None else letters[enumerated_dim],
            _packed_scale(scale, letters),
        )

    def log_density(self, probes: Mapping[str, Tensor] | None = None) -> Tensor:
        """log Σ_z p(x, θ, z), a scalar. ``probes`` (packed) are added to the factors by name."""
        total: Any = 0.0
        for members in self.components(probes):
            total = total + self._scaled(members)
        return total

    def _scaled(self, members: list[SiteFactor]) -> Tensor:
        """The log of a component, each plate weighted and its ``poutine.scale`` applied."""
        scale = members[0].scale
        if any(not _same_scale(scale, f.scale) for f in members[1:]):
            described = ", ".join(f"'{f.name}'" for f in members)
            raise NotSupportedError(
                f"sites {described} share discrete latents but have different poutine.scale "
                "factors, so their sum has no single weight. Put all of them under one scale."
            )
        if not isinstance(scale, Tensor):
            return self.contract(members, frozenset()) * scale
        keep = frozenset(scale._pyro_dims)  # type: ignore[attr-defined]
        term = self.contract(members, keep)
        order = [term._pyro_dims.index(d) for d in scale._pyro_dims]  # type: ignore[attr-defined]
        weights = math.prod(self.plate_weights[d] for d in keep)
        return (term.permute(order) * scale).sum() * weights

    def components(self, probes: Mapping[str, Tensor] | None = None) -> list[list[SiteFactor]]:
        """Factors grouped by shared enumerated letters (continuous-only factors stand alone).

        Those that read a latent of another plate stand in the plate that they read.
        """
        original = {read.letter: self._letter_of(read.site) for read in self.reads}
        groups: list[tuple[set[str], list[SiteFactor]]] = []
        for factor in self.factors:
            own = [factor]
            if probes and factor.name in probes:
                density = probes[factor.name]
                own.append(SiteFactor(factor.name, density, factor.plates, None, factor.scale))
            letters = self.sum_letters & set(factor.log_density._pyro_dims)
            letters = {original.get(d, d) for d in letters}
            if factor.enumerated is not None:
                letters |= {factor.enumerated}
            touching = [g for g in groups if g[0] & letters] if letters else []
            merged = (
                letters.union(*(g[0] for g in touching)),
                [f for g in touching for f in g[1]] + own,
            )
            groups = [g for g in groups if not any(g is t for t in touching)] + [merged]
        members = [members for _, members in groups]
        return [gathered(self, each) for each in members] if self.reads else members

    def _letter_of(self, site: str) -> str:
        """The letter of a latent's values."""
        return str(next(f.enumerated for f in self.factors if f.name == site))

    def is_observed(self, name: str) -> bool:
        return bool(self.trace.nodes[name]["is_observed"])

    def contract(self, members: list[SiteFactor], keep: Ordinal) -> Any:
        """Sum the enumerated letters of ``members`` out, keeping the plates in ``keep``.

        The result has a letter for every plate in ``keep`` that has more than one element.
        """
        letters = {d for f in members for d in f.log_density._pyro_dims if d in self.sum_letters}
        return self.contract_packed(members, letters, keep)

    def contract_packed(
        self, members: Sequence[SiteFactor], letters: set[str], keep: Ordinal
    ) -> Any:
        """Like :meth:`contract`, with some of the enumerated letters summed out."""
        tree: OrderedDict[Ordinal, list[Any]] = OrderedDict()
        for factor in members:
            tree.setdefault(factor.plates, []).append(factor.log_density)
        wide = frozenset(letter for letter in keep if self.plate_sizes[letter] > 1)
        ring = _TraceableLogRing(self.plate_weights, self.plate_sizes)
        if len(members) == 1 and not letters:
            return ring.product(members[0].log_density, members[0].plates - keep)
        return contract_to_tensor(
            _without(tree, keep - wide),
            letters,
            target_ordinal=wide,
            ring=ring,
        )

    def plate_of(self, letter: str) -> str:
        """The plate that a letter stands for."""
        return next(name for name, own in self.plate_letters.items() if own == letter)


def _without(
    tree: "OrderedDict[Ordinal, list[Any]]", letters: Ordinal
) -> "OrderedDict[Ordinal, list[Any]]":
    """The tree with some plates (of one element) forgotten."""
    out: OrderedDict[Ordinal, list[Any]] = OrderedDict()
    for plates, terms in tree.items():
        out.setdefault(plates - letters, []).extend(terms)
    return out


def _packed_scale(scale: Any, letters: Mapping[int, str]) -> Any:
    """A ``poutine.scale`` without its plate weights: a number, or a tensor with letters."""
    if isinstance(scale, Tensor) and scale.numel() > 1:
        wide = [d - scale.dim() for d, size in enumerate(scale.shape) if size > 1]
        packed: Any = scale.squeeze()[...]
        packed._pyro_dims = "".join(letters[d] for d in wide)
        return packed
    number = float(scale)
    return 1.0 if math.isclose(number, 1.0, rel_tol=1e-9) else number


def _same_scale(a: Any, b: Any) -> bool:
    if isinstance(a, Tensor) or isinstance(b, Tensor):
        return (
            isinstance(a, Tensor)
            and isinstance(b, Tensor)
            and a._pyro_dims == b._pyro_dims  # type: ignore[attr-defined]
            and torch.equal(a, b)
        )
    return math.isclose(a, b, rel_tol=1e-9)
