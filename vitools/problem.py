"""A Pyro model bound to its data: what every engine and every diagnostic works from."""

import copy
import hashlib
import inspect
from collections.abc import Callable, Mapping
from functools import partial
from typing import Any

import torch
from pyro import poutine
from torch import Tensor
from torch.distributions import biject_to

from vitools.enumeration import FactorGraph
from vitools.errors import OptionError
from vitools.forward import run_forward
from vitools.isolation import ParamState, full_plates, isolated, seeded
from vitools.sites import Plate, Site, inspect_model, nearest
from vitools.vectorise import DrawMapper, split_draws

__all__ = ["Plate", "Problem", "Site"]


class Problem:
    """A model and its data, run once and known by name.

    Args:
        model: any Pyro callable with at least one observed site.
        *args, **kwargs: what the model is called with.

    Attributes:
        latents, observed, deterministics: ``{name: Site}``.
        plates: ``{name: Plate}``.
        coords: ``{plate: labels}``, for ArviZ; empty unless set by :meth:`with_coords`.
        invariants: what the model identifies where its sites are not (the labels of a
            mixture, say): the function ``model.invariants`` if the model carries one.

    Example:
        >>> import pyro, torch
        >>> import pyro.distributions as dist
        >>> def coin(flips):
        ...     p = pyro.sample("p", dist.Beta(1.0, 1.0))
        ...     with pyro.plate("flips", len(flips)):
        ...         pyro.sample("heads", dist.Bernoulli(p), obs=flips)
        >>> problem = Problem(coin, torch.tensor([1.0, 1.0, 0.0]))
        >>> problem
        Problem(coin: latents p; observed heads [flips 3])
        >>> problem.log_joint({"p": torch.tensor([0.5, 0.9])}).exp().round(decimals=4).tolist()
        [0.125, 0.081]
    """

    def __init__(self, model: Callable[..., Any], *args: Any, **kwargs: Any) -> None:
        if not callable(model):
            raise OptionError(f"expected a Pyro model (a callable), got {type(model).__name__}.")
        self.model, self.args, self.kwargs = model, args, kwargs
        self.name = _title(model)
        structure = inspect_model(model, args, kwargs, f"model '{self.name}'")
        self.latents = structure.latents
        self.observed = structure.observed
        self.deterministics = structure.deterministics
        self.plates = structure.plates
        self.params: ParamState = structure.params
        self.max_plate_nesting = structure.max_plate_nesting
        self.coords: dict[str, list[Any]] = {}
        self.invariants: Callable[..., dict[str, Tensor]] | None = getattr(
            model, "invariants", None
        )
        sizes = [8 * s.shape.numel() for s in (*self.latents.values(), *self.observed.values())]
        for site in self.discrete.values():  # enumeration multiplies the terms of a row
            sizes = [size * max(2, support_size(site)) for size in sizes]
        self.mapper = DrawMapper(f"model '{self.name}'", sum(sizes))
        self._forward_mapper = DrawMapper(None, sum(sizes))

    def __repr__(self) -> str:
        def words(sites: Mapping[str, Site]) -> str:
            return ", ".join(name + self._plate_words(site) for name, site in sites.items())

        return (
            f"Problem({self.name}: latents {words(self.latents)}; observed {words(self.observed)})"
        )

    def _plate_words(self, site: Site) -> str:
        names = [f"{p} {self.plates[p].size}" for p in site.plates if p]
        return f" [{' × '.join(names)}]" if names else ""

    @property
    def continuous(self) -> dict[str, Site]:
        """The latents that are not discrete."""
        return {k: s for k, s in self.latents.items() if not s.is_discrete}

    @property
    def discrete(self) -> dict[str, Site]:
        """The discrete latents, each with a finite support."""
        return {k: s for k, s in self.latents.items() if s.is_discrete}

    @property
    def arguments(self) -> dict[str, Any]:
        """The model's arguments by name (defaults filled in)."""
        try:
            bound = inspect.signature(self.model).bind(*self.args, **self.kwargs)
        except (TypeError, ValueError):
            return {f"argument_{i}": a for i, a in enumerate(self.args)} | dict(self.kwargs)
        bound.apply_defaults()
        return dict(bound.arguments)

    @property
    def fingerprint(self) -> str:
        """A digest of sites and observed values, by which a saved fit knows its problem."""
        digest = hashlib.sha256()
        for site in (*self.latents.values(), *self.observed.values()):
            digest.update(f"{site.name}{tuple(site.shape)}{site.is_observed}".encode())
            if site.value is not None:
                digest.update(site.value.detach().cpu().contiguous().numpy().tobytes())
        return digest.hexdigest()[:16]

    def call(self) -> Any:
        """Run the model on its data, inside whatever Pyro handlers are active."""
        return self.model(*self.args, **self.kwargs)

    def with_params(self, params: ParamState) -> "Problem":
        """The same problem with ``pyro.param`` values (fitted ones, say) put in place."""
        other = copy.copy(self)
        other.params = params
        return other

    def with_coords(self, **coords: Any) -> "Problem":
        """The same problem with labels for the elements of its plates."""
        for plate, labels in coords.items():
            if plate not in self.plates:
                raise OptionError(
                    f"no plate '{plate}' in model '{self.name}' (plates: "
                    f"{', '.join(self.plates) or 'none'}).{nearest(plate, self.plates)}"
                )
            if len(labels) != self.plates[plate].size:
                raise OptionError(
                    f"plate '{plate}': expected {self.plates[plate].size} labels, got {len(labels)}."
                )
        other = copy.copy(self)
        other.coords = self.coords | {k: list(v) for k, v in coords.items()}
        return other

    # ---- densities ---------------------------------------------------------------------

    def log_joint(self, values: Mapping[str, Tensor]) -> Tensor:
        """log p(observed, values), vectorised over leading sample dims.

        Args:
            values: ``{site: [*S, *site.shape]}`` for every continuous latent. Discrete
                latents that are given are taken as given; the others are summed out.

        Returns:
            A tensor of shape ``S``.
        """
        flat, sample_shape = self._checked(values)
        return self.mapper(lambda draw: self.factors(draw).log_density(), flat).reshape(
            sample_shape
        )

    def factors(self, values: Mapping[str, Tensor]) -> FactorGraph:
        """The model's factors at one draw, for whoever needs more than their sum."""
        with isolated(self.params), full_plates():
            conditioned = poutine.condition(self.call, data=dict(values))
            return FactorGraph(conditioned, self.max_plate_nesting)

    def pointwise_log_likelihood(self, values: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """log p(x_n | θ) of each independent unit of data, local discrete latents summed out.

        A unit is what remains independent given ``values``: an entry of an observed site,
        or, where observations share a discrete latent (the rolls of one row), all of them.

        Returns:
            ``{name: [*S, *unit shape]}``; observed sites that share units are joined as
            ``"x+y"``. Units lie along the plates that :meth:`unit_plates` names.
        """
        flat, sample_shape = self._checked(values)

        def once(draw: Mapping[str, Tensor]) -> dict[str, Tensor]:
            graph = self.factors(draw)
            result = {}
            for name, plates in self.unit_plates(draw, graph).items():
                members = next(g for g in graph.components() if name in _joined(g, self.observed))
                letters = frozenset(graph.plate_letters[p] for p in plates)
                tensor = graph.contract(members, letters)
                order = [tensor._pyro_dims.index(graph.plate_letters[p]) for p in plates]
                result[name] = tensor.permute(order)
            return result

        out = self.mapper(once, flat)
        return {k: v.reshape(sample_shape + v.shape[1:]) for k, v in out.items()}

    def unit_plates(
        self, values: Mapping[str, Tensor], graph: FactorGraph | None = None
    ) -> dict[str, tuple[str, ...]]:
        """The plates, left to right, along which each log-likelihood's units lie."""
        if graph is None:
            flat, _ = self._checked(values)
            graph = self.factors({k: v[0] for k, v in flat.items()})
        plate_of = {letter: name for name, letter in graph.plate_letters.items()}
        result = {}
        for members in graph.components():
            for name in _joined(members, self.observed):
                common = frozenset.intersection(*(f.plates for f in members))
                names = [plate_of[letter] for letter in common]
                result[name] = tuple(sorted(names, key=lambda p: self.plates[p].dim or 0))
        return result

    # ---- draws -------------------------------------------------------------------------

    def prior(self, num_draws: int, seed: int = 0) -> dict[str, Tensor]:
        """Draws of all latents from the prior, ``{site: [num_draws, *shape]}``."""
        drawn = self._forward({}, num_draws, seed)
        return {name: drawn[name] for name in self.latents}

    def predictive(self, samples: Mapping[str, Tensor], seed: int = 0) -> dict[str, Tensor]:
        """Replicated data, one data set per draw: ``{observed site: [n, *shape]}``.

        Latents missing from ``samples`` are drawn afresh given the others (a new row gets
        a new row's discrete latents). Deterministic sites are returned as well. With
        ``samples`` from the prior this is the prior predictive.
        """
        flat, sample_shape = self._checked(samples, complete=False)
        count = next(iter(flat.values())).shape[0] if flat else 1
        drawn = self._forward(flat, count, seed)
        wanted = (*self.observed, *self.deterministics)
        return {k: drawn[k].reshape(sample_shape + drawn[k].shape[1:]) for k in wanted}

    def _forward(self, given: Mapping[str, Tensor], count: int, seed: int) -> dict[str, Tensor]:
        if count < 1:
            raise OptionError(f"expected at least one draw, got {count}.")
        return run_forward(self.call, given, count, seed, self.params, self._forward_mapper)

    def sample_discrete(self, values: Mapping[str, Tensor], seed: int = 0) -> dict[str, Tensor]:
        """Discrete latents drawn from p(z | θ, x) exactly, given the continuous ones.

        Sites are drawn one after another, outer plates first, each from its marginal given
        those before it. A marginal is the gradient of log Σ_z p(x, θ, z) with respect to
        weights put on the site's values (Darwiche 2003), so it is exact and vectorised.
        """
        given, sample_shape = self._checked(values)
        order = sorted(self.discrete.values(), key=lambda s: sum(p is not None for p in s.plates))
        with seeded(seed), torch.no_grad():
            for site in order:
                if site.name in given:
                    continue
                probabilities = self.mapper(partial(self._discrete_marginal, site), given)
                support = self.enumerated_support(site.name)
                index = torch.distributions.Categorical(probabilities).sample()
                drawn = support[index]  # [n, *batch_shape, *event_shape]
                given[site.name] = drawn.reshape((drawn.shape[0], *site.shape))
        return {
            name: given[name].reshape(sample_shape + self.latents[name].shape)
            for name in self.discrete
        }

    def discrete_marginals(self, values: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """p(z = k | θ, x) for every discrete latent: ``{site: [*S, *batch_shape, K]}``."""
        given, sample_shape = self._checked(values)
        out = {}
        for site in self.discrete.values():
            if site.name not in given:
                marginal = self.mapper(partial(self._discrete_marginal, site), given)
                out[site.name] = marginal.reshape(sample_shape + marginal.shape[1:])
        return out

    def enumerated_support(self, name: str) -> Tensor:
        """All values of a discrete latent: ``[K, *event_shape]``."""
        with seeded(0), isolated(self.params), full_plates():
            fn = poutine.trace(self.call).get_trace().nodes[name]["fn"]
        values = fn.enumerate_support(expand=False)
        return values.reshape((values.shape[0], *fn.event_shape))

    def _discrete_marginal(self, site: Site, draw: Mapping[str, Tensor]) -> Tensor:
        """``[*batch_shape, K]`` at one draw, by differentiating through enumeration."""

        def log_density(weights: Tensor) -> Tensor:
            graph = self.factors(draw)
            factor = next(f for f in graph.factors if f.name == site.name)
            plates = [
                graph.plate_letters[str(plate)]
                for plate, size in zip(site.plates, site.batch_shape, strict=True)
                if size > 1
            ]
            probe: Any = weights[...]
            probe._pyro_dims = "".join([str(factor.enumerated), *plates])
            return graph.log_density({site.name: probe})

        batch = [size for size in site.batch_shape if size > 1]
        dtype = next((v.dtype for v in draw.values() if v.is_floating_point()), None)
        zeros = torch.zeros((support_size(site), *batch), dtype=dtype, device=site.device)
        gradient = torch.func.grad(log_density)(zeros)
        return gradient.movedim(0, -1).reshape((*site.batch_shape, zeros.shape[0]))

    # ---- unconstrained space -----------------------------------------------------------

    def constrain(self, values: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """From the whole real line to each site's support (``biject_to(support)``)."""
        return {k: biject_to(self._site(k).support)(v) for k, v in values.items()}

    def unconstrain(self, values: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """The inverse of :meth:`constrain`."""
        return {k: biject_to(self._site(k).support).inv(v) for k, v in values.items()}

    # ---- checking ----------------------------------------------------------------------

    def _site(self, name: str) -> Site:
        if name not in self.latents:
            raise OptionError(
                f"no latent site '{name}' in model '{self.name}' (latents: "
                f"{', '.join(self.latents)}).{nearest(name, self.latents)}"
            )
        return self.latents[name]

    def _checked(
        self, values: Mapping[str, Tensor], complete: bool = True
    ) -> tuple[dict[str, Tensor], torch.Size]:
        for name, value in values.items():
            site = self._site(name)
            tail = tuple(value.shape[value.dim() - len(site.shape) :])
            if value.dim() < len(site.shape) or tail != tuple(site.shape):
                raise OptionError(
                    f"site '{name}': expected values of shape [*samples, "
                    f"{', '.join(map(str, site.shape))}], got {tuple(value.shape)}."
                )
        missing = [name for name in self.continuous if name not in values]
        if complete and missing:
            raise OptionError(
                f"values for {', '.join(missing)} are missing: every continuous latent of model "
                f"'{self.name}' needs one."
            )
        if not values:  # only discrete latents, all to be summed out: one empty draw
            return {}, torch.Size()
        return split_draws(values, {k: len(self.latents[k].shape) for k in values})


def support_size(site: Site) -> int:
    """The number of values of a discrete latent."""
    support = site.support
    while hasattr(support, "base_constraint"):
        support = support.base_constraint
    if hasattr(support, "upper_bound"):
        return int(torch.as_tensor(support.upper_bound).max() - support.lower_bound) + 1
    if site.event_dim:  # one-hot
        return site.shape[-1]
    return 2  # Bernoulli's boolean support


def _title(model: Callable[..., Any]) -> str:
    """The model's own name; that of its module where it is just called ``model``."""
    name = getattr(model, "__name__", type(model).__name__)
    module = str(getattr(model, "__module__", "")).removesuffix(".model")
    if name == "model" and module not in ("", "__main__"):
        return module.rpartition(".")[2]
    return name


def _joined(members: Any, observed: Mapping[str, Site]) -> list[str]:
    """The name of a component's log-likelihood: its observed sites joined, if any."""
    names = [f.name for f in members if f.name in observed]
    return ["+".join(names)] if names else []
