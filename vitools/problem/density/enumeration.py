"""Discrete latents summed out exactly, in a form that vmap, autograd and graph tracing can follow.

Pyro's tensor variable elimination (Obermeyer et al. 2019, "Tensor variable elimination
for plated factor graphs") does the bookkeeping; two of its parts are replaced here
because they look at values: the enumeration handler reads ``tensor.data``, and the
logarithmic ring calls a custom autograd function.

A *component* is a set of factors that share enumerated sites.

Minibatch weights N/B belong to plates and are applied when a plate's product is taken,
after the sums inside it. A ``poutine.scale`` multiplies the log of a whole component, as in
Pyro's ``TraceEnum_ELBO``.
"""

import math
from collections.abc import Callable, Collection, Mapping
from typing import Any

import torch
from pyro.distributions.torch_distribution import TorchDistributionMixin
from pyro.poutine import Trace, trace
from pyro.poutine.enum_messenger import EnumMessenger
from torch import Tensor

from vitools.distributions.rounding import Beyond, beyond_log_prob
from vitools.errors import NotSupportedError
from vitools.problem.density.factors import Ordinal, SiteFactor, contracted
from vitools.problem.density.gathering import gathered
from vitools.problem.density.plate_reads import PlateReads
from vitools.problem.density.trajectories.factor import Reading
from vitools.problem.density.trajectories.forward import without_trajectories
from vitools.problem.sites import is_deterministic, is_subsample


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


class FactorGraph:
    """The factors of one run of a model, discrete latents enumerated.

    Args:
        run: calls the model (conditioned or replayed as the caller wishes).
        max_plate_nesting: number of dims on the right taken by plates.
        beyond: by how much the draws of some sites lie beyond their values.

    Attributes:
        factors: one for each sample statement.
        readings: where factors read trajectories that are summed out, by name.
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
        self.readings: Mapping[str, Reading] = {}
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
            total = total + self.scaled(members)
        return total

    def log_likelihood(self, observed: Collection[str]) -> Tensor:
        """log p(x | θ) of these sites given the latents that are not enumerated, a scalar.

        Of a component that holds some, what it is without them is taken off: the prior of a θ that
        depends on the same discrete latents.
        """
        total: Any = 0.0
        for members in self.components():
            others = [f for f in members if f.name not in observed]
            if len(others) < len(members):
                total = total + self.scaled(members)
                if others:
                    total = total - self.scaled(others)
        return total

    def log_prior(self, observed: Collection[str]) -> Tensor:
        """log p(θ), a scalar: the density without the observed sites."""
        total: Any = 0.0
        for members in self.components():
            others = [f for f in members if f.name not in observed]
            if others:
                total = total + self.scaled(others)
        return total

    def scaled(self, members: list[SiteFactor]) -> Tensor:
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
        return [self._gathered(each) for each in members] if self.reads else members

    def _gathered(self, members: list[SiteFactor]) -> list[SiteFactor]:
        copies = {read.letter for read in self.reads}
        for factor in members:
            if factor.name in self.readings and copies & set(factor.log_density._pyro_dims):
                raise NotSupportedError(
                    f"site '{factor.name}' reads a trajectory of discrete states and elements of another "
                    "discrete latent's plate, and the two cannot be summed out together. Let that latent "
                    "stand in the site's own plate."
                )
        return gathered(self, members)

    def _letter_of(self, site: str) -> str:
        """The letter of a latent's values."""
        return str(next(f.enumerated for f in self.factors if f.name == site))

    def is_observed(self, name: str) -> bool:
        return bool(self.trace.nodes[name]["is_observed"])

    def contract(self, members: list[SiteFactor], keep: Ordinal) -> Any:
        """Sum the enumerated letters of ``members`` out, keeping the plates in ``keep``.

        The result has a letter for every plate in ``keep`` that has more than one element.
        """
        members = without_trajectories(self, members)
        letters = {d for f in members for d in f.log_density._pyro_dims if d in self.sum_letters}
        return contracted(members, letters, keep, self.plate_sizes, self.plate_weights)

    def plate_of(self, letter: str) -> str:
        """The plate that a letter stands for."""
        return next(name for name, own in self.plate_letters.items() if own == letter)


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
