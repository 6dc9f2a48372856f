"""A Pyro model bound to its data: what every engine and every diagnostic works from."""

from collections.abc import Callable, Collection, Mapping
from contextlib import nullcontext
from functools import partial
from typing import Any

import torch
from torch import Tensor
from torch.utils._pytree import tree_map

from vitools.distributions.rounding import Beyond
from vitools.errors import OptionError
from vitools.isolation import quiet_draws, seeded
from vitools.problem.density.discrete import draw_sites, site_marginal
from vitools.problem.density.forward import run_forward
from vitools.problem.density.placing import Places
from vitools.problem.density.units import prior_components, unit_components, unit_log_likelihood
from vitools.problem.density.values import checked_draws, latent_site, out_of_bounds
from vitools.problem.density.vectorise import DrawMapper
from vitools.problem.factored import FactoredModel
from vitools.problem.reading.dry_run import MemoryLimit, room
from vitools.problem.sites import Site
from vitools.supports import from_reals


class Problem(FactoredModel):
    """A model and its data, run once and known by name.

    Args:
        model: any Pyro callable with at least one observed site (or ``pyro.factor``).
        *args, **kwargs: what the model is called with.

    The model is read as Pyro reads it, on all its data (subsampled plates at full size), but for the
    points that :class:`~vitools.problem.reading.refused_forms.ReadingRules` lists: masks silence
    observations only, and batch dims outside plates count as plates.

    A model that changes its arguments in place is refused, and so is one whose random numbers, drawn
    outside of sample statements, make its density another at each run. Torch modules in training
    mode may draw (dropout): :func:`~vitools.svi` steps along their noise; densities, draws and the other
    engines see those modules in evaluation mode. Observations that the model draws anew at each run
    (rows it chooses itself, noise added to data) are for ``svi`` alone; a density has those of one run.

    Attributes:
        latents, observed, deterministics: ``{name: Site}``. A latent with a ``Delta``
            distribution is deterministic.
        plates: ``{name: Plate}``.
        params: unconstrained values of the model's ``pyro.param`` statements and modules.
        has_given_params: whether they were put in place by :meth:`with_params`, as those of a fit
            are; else they are the values that the model starts from.
        coords: ``{plate or other dim: labels}``, for ArviZ; empty unless set by :meth:`with_coords`.
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
        >>> problem.log_joint({"p": torch.tensor([0.5, 0.9])}).exp()
        tensor([0.1250, 0.0810])
    """

    def __init__(self, model: Callable[..., Any], *args: Any, **kwargs: Any) -> None:
        super().__init__(model, *args, **kwargs)
        # one for each set of given sites: a seed's draws must not depend on earlier calls
        self._forward_mappers: dict[frozenset[str], DrawMapper] = {}

    # ---- densities ---------------------------------------------------------------------

    def log_joint(
        self, values: Mapping[str, Tensor], beyond: Mapping[str, Beyond] | None = None
    ) -> Tensor:
        """log p(observed, values), vectorised over leading sample dims.

        Args:
            values: ``{site: [*S, *site.shape]}`` for every latent in :attr:`drawn`. Discrete
                latents that are given are taken as given; the others are summed out.
            beyond: ``{site: …}`` for values ``[n, *site.shape]`` that stand for draws nearer the
                edge of their support (:mod:`vitools.distributions.rounding`).

        Returns:
            A tensor of shape ``S``; -inf where a value is outside its support.
        """
        flat, sample_shape = self.checked_draws(values)
        if beyond:
            log_joint = self.map_draws(
                lambda draw: self.factors(*draw).log_density(), (flat, dict(beyond)), "log joint"
            )
        else:
            log_joint = self.map_draws(
                lambda draw: self.factors(draw).log_density(), flat, "log joint"
            )
        for name, value in flat.items():
            outside = out_of_bounds(self.latents[name], value)
            if outside is not None:
                log_joint = torch.where(outside, -torch.inf, log_joint)
        return log_joint.reshape(sample_shape)

    def pointwise_log_likelihood(self, values: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """log p(x_n | θ) of each independent unit of data, local discrete latents summed out.

        A unit is what remains independent given ``values``: an entry of an observed site,
        or, where observations share a discrete latent (the rolls of one row), all of them.

        Returns:
            ``{name: [*S, *unit shape]}``; observed sites that share units are joined as
            ``"x+y"``. Units lie along the plates that :meth:`unit_plates` names.
        """
        flat, sample_shape = self.checked_draws(values)

        def once(draw: Mapping[str, Tensor]) -> dict[str, Tensor]:
            graph = self.factors(draw)
            units = unit_components(graph, self.observed, self.plates)
            return {k: unit_log_likelihood(graph, *unit, self.plates) for k, unit in units.items()}

        out = self.map_draws(once, flat)
        return {k: v.reshape(sample_shape + v.shape[1:]) for k, v in out.items()}

    def log_prior(self, values: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """log p of each latent given those above it, summed over its entries: ``{site: [*S]}``.

        With :meth:`pointwise_log_likelihood` these add up to :meth:`log_joint` (but for a
        ``poutine.scale`` of data). So the prior of a latent that hangs on a discrete one which data
        share is not here: with that summed out, it is part of the data's.
        """
        flat, sample_shape = self.checked_draws(values)

        def once(draw: Mapping[str, Tensor]) -> dict[str, Tensor]:
            graph = self.factors(draw)
            parts = prior_components(graph, self.observed, self.drawn)
            return {name: graph.scaled(members) for name, members in parts.items()}

        return {k: v.reshape(sample_shape) for k, v in self.map_draws(once, flat).items()}

    def unit_plates(self, values: Mapping[str, Tensor]) -> dict[str, tuple[str, ...]]:
        """The plates, left to right, along which each log-likelihood's units lie."""
        flat, _ = self.checked_draws(values)
        graph = self.factors({k: v[0] for k, v in flat.items()})
        units = unit_components(graph, self.observed, self.plates)
        return {name: plates for name, (_, plates) in units.items()}

    # ---- draws -------------------------------------------------------------------------

    def prior(self, num_samples: int, seed: int = 0) -> dict[str, Tensor]:
        """Draws of all latents from the prior, ``{site: [num_samples, *shape]}``."""
        return self._forward({}, num_samples, seed, self.latents)

    def starting_draws(self, num_samples: int, seed: int = 0) -> dict[str, Tensor]:
        """Like :meth:`prior`, with any value of the support where the prior is improper."""
        return self._forward({}, num_samples, seed, self.latents, stand_ins=True)

    def predictive(
        self,
        samples: Mapping[str, Tensor],
        seed: int = 0,
        *,
        num_samples: int = 1,
        parts: Mapping[str, Tensor] | None = None,
        places: Places | None = None,
    ) -> dict[str, Tensor]:
        """Replicated data, one data set per draw: ``{observed site: [n, *shape]}``.

        Latents missing from ``samples`` are drawn afresh given the others (a new row gets
        a new row's discrete latents). Deterministic sites are returned as well. With
        ``samples`` from the prior this is the prior predictive.

        Args:
            num_samples: number of data sets where ``samples`` is empty.
            parts, places: values ``[n, …]`` of some elements of further sites, and their positions
                along each batch dim; the other elements are drawn.
        """
        flat, sample_shape = self.checked_draws(samples, complete=False)
        if not flat:
            sample_shape = torch.Size([num_samples])
        wanted = (*self.observed, *self.deterministics)
        given = flat | dict(parts or {})
        drawn = self._forward(given, sample_shape.numel(), seed, wanted, places=places)
        return {k: v.reshape(sample_shape + v.shape[1:]) for k, v in drawn.items()}

    def _forward(
        self,
        given: Mapping[str, Tensor],
        count: int,
        seed: int,
        wanted: Collection[str],
        *,
        stand_ins: bool = False,
        places: Places | None = None,
    ) -> dict[str, Tensor]:
        if not isinstance(count, int) or count < 1:
            raise OptionError(f"expected a positive number of draws, got {count!r}.")
        key = frozenset(given) | {f"part of {name}" for name in places or ()}
        mapper = self._forward_mappers.setdefault(key, DrawMapper(None, self._size[1]))
        # what a large model makes on the way need not be drawn
        sizes = MemoryLimit(room(), placeholder=True) if self.is_large else None
        call = self.call if sizes is None else sizes.watch()(self.call)
        with self._explained(), quiet_draws(), sizes or nullcontext():
            drawn = run_forward(
                call,
                given,
                count,
                seed,
                self._isolated,
                mapper,
                wanted,
                stand_ins=stand_ins,
                places=places,
            )
        found = {name: drawn[name] for name in wanted}
        if sizes is not None and sizes.need is not None:
            for name, value in found.items():
                if sizes.is_placeholder(value):
                    raise sizes.need.refusal(f"drawing '{name}' of {self._program.title}")
        return found

    def sample_discrete(
        self, values: Mapping[str, Tensor], seed: int = 0, *, num_samples: int | None = None
    ) -> dict[str, Tensor]:
        """Discrete latents drawn from p(z | θ, x) exactly: ``{site: [*S, *shape]}``.

        Args:
            values: every latent in :attr:`drawn`; others that are given are kept.
            num_samples: number of draws where ``values`` is empty (a model of discrete latents only).
        """
        flat, sample_shape = self.checked_draws(values)
        if not flat and num_samples is not None:
            sample_shape = torch.Size([num_samples])
        with seeded(seed), torch.no_grad():
            drawn = draw_sites(self.discrete, flat, num_samples, self.map_draws, self.factors)
        return {
            name: drawn[name].reshape(sample_shape + self.latents[name].shape)
            for name in self.discrete
        }

    def discrete_marginals(self, values: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """p(z = k | θ, x) for every discrete latent: ``{site: [*S, *batch_shape, K]}``.

        The order of the K values is that of ``latents[site].support_values``.
        """
        flat, sample_shape = self.checked_draws(values)
        out = {}
        for site in self.discrete.values():
            if site.name not in flat:
                marginal = self.map_draws(partial(site_marginal, site, self.factors), flat)
                out[site.name] = marginal.reshape(sample_shape + marginal.shape[1:])
        return out

    def enumerated_support(self, name: str) -> Tensor:
        """All values of a discrete latent: ``[K, *event_shape]``."""
        values = self._site(name).support_values
        if values is None:
            raise OptionError(f"site '{name}': the values of its support cannot be listed.")
        return values

    # ---- unconstrained space -----------------------------------------------------------

    def constrain(self, values: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """From the whole real line to each continuous site's support."""
        return {k: self._from_reals(k)(v) for k, v in values.items()}

    def unconstrain(self, values: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """The inverse of :meth:`constrain`."""
        return {k: self._from_reals(k).inv(v) for k, v in values.items()}

    def _from_reals(self, name: str) -> Any:
        site = self._site(name)
        if site.is_discrete:
            raise OptionError(f"site '{name}' is discrete: it has no unconstrained values.")
        return from_reals(site.support)

    # ---- many draws ----------------------------------------------------------------------

    def map_draws(self, function: Callable[[Any], Any], draws: Any, name: str = "") -> Any:
        """``function`` of every draw ``[n, …]``; of one empty draw where ``draws`` is empty.

        Args:
            name: of a function that is the same at every call; what is compiled of it is kept.
        """
        self.try_on_values()
        with seeded(0), self._explained():  # models may use torch's generator as they like
            if not isinstance(draws, Mapping) or draws:
                return self.mapper(function, draws, name=name)
            return tree_map(lambda leaf: leaf.unsqueeze(0), function({}))

    # ---- checking ----------------------------------------------------------------------

    def checked_draws(
        self, values: Mapping[str, Tensor], complete: bool = True
    ) -> tuple[dict[str, Tensor], torch.Size]:
        """``{site: [*S, *shape]}`` as ``({site: [n, *shape]}, S)``, or an error naming the site.

        Args:
            complete: whether every latent in :attr:`drawn` must have a value.
        """
        return checked_draws(values, self.latents, f"model '{self.name}'", complete)

    def _site(self, name: str) -> Site:
        return latent_site(self.latents, name, f"model '{self.name}'")
