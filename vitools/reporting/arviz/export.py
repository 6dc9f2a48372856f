"""A fit as ArviZ sees it: draws, replicated data, log likelihoods, with dims named by plates."""

import math
from collections.abc import Callable, Iterable, Mapping
from typing import Any

import numpy as np
import pyro
import torch
from torch import Tensor

from vitools._version import __version__
from vitools.diagnostics.weights.khat import MIN_DRAWS, pareto_khat
from vitools.diagnostics.weights.site_khat import site_khats
from vitools.errors import OptionError
from vitools.isolation import lazy
from vitools.posterior import DrawsPosterior, Posterior
from vitools.posterior.results import check_count
from vitools.problem import Problem
from vitools.problem.dims import plate_dim, site_dims
from vitools.problem.sites import Site, nearest
from vitools.reporting.arviz.dims import argument_dims, over_draws
from vitools.reporting.arviz.groups import Groups, Variable, assemble
from vitools.reporting.arviz.prior import has_prior, prior_groups
from vitools.reporting.arviz.steps import gathered, sequences_of, step_dim

DEFAULT_DRAWS = 1000
GROUPS = (
    "posterior",
    "posterior_predictive",
    "log_likelihood",
    "log_prior",
    "sample_stats",
    "prior",
    "prior_predictive",
    "observed_data",
    "constant_data",
    "optimization_history",
)
MOST_PRIOR_DRAWS = 1000


def to_arviz(
    posterior: Posterior,
    num_samples: int | None = None,
    seed: int = 0,
    *,
    include: Iterable[str] = GROUPS,
    attrs: Mapping[str, str | int | float] | None = None,
) -> Any:
    """``InferenceData`` (ArviZ 0.2x) or ``xarray.DataTree`` (ArviZ 1.x) of a fit.

    Groups:

    - ``posterior``: continuous latents, discrete latents drawn from their exact conditionals,
      deterministic sites;
    - ``posterior_predictive``: replicated data; a replicated row draws new discrete latents;
    - ``log_likelihood``: of each independent unit of data, discrete latents summed out;
    - ``log_prior``: of each latent given those above it, summed over its entries. Power-scaling
      sensitivity takes both (``arviz.psens`` of 0.2x, ``arviz_stats.psense`` of 1.x);
    - ``sample_stats``: ``log_p``, the log joint density of each draw, and ``log_q``, the fit's own
      (what ``arviz.loo_approximate_posterior`` asks for); ``pareto_khat`` of their difference, and
      ``site_khat``, that of each latent;
    - ``prior`` and ``prior_predictive``, at most 1000 draws; left out where a prior is improper;
    - ``optimization_history``: ``elbo`` and ``seconds`` over ``optimization_step``, where the engine iterates;
    - ``observed_data``, and ``constant_data``: the model's other arguments that are arrays.

    The steps of a loop, eight or more sites x_0, x_1, …, are one variable x over ``x_step``.
    Dims carry the names of plates, labelled by ``problem.with_coords``; dims without a plate are
    ``{site}_dim_{i}``, or left out where they have length one. Attributes say which engine ran,
    with which seed, and how it ended.

    Args:
        num_samples: draws from a fit with a density (1000 if omitted), in one chain. A sampler
            keeps its chains, thinned evenly to about this many draws if it is given.
        include: which groups; leave out ``posterior_predictive`` and ``log_likelihood`` where
            they would not fit in memory.
        attrs: further attributes to store.

    Example:
        >>> import torch
        >>> from vitools import Problem, to_arviz
        >>> from vitools.models import coin
        >>> from vitools.posterior import FactorisedPosterior, Status
        >>> problem = Problem(coin.model, torch.tensor([1.0, 1.0, 0.0]).double())
        >>> q = torch.distributions.Beta(torch.tensor(3.0).double(), torch.tensor(2.0).double())
        >>> fit = FactorisedPosterior(problem, {"p": q}, 0.0, engine="exact", status=Status.EXACT)
        >>> data = to_arviz(fit, num_samples=100)
        >>> data["posterior_predictive"]["heads"].dims
        ('chain', 'draw', 'flips')
    """
    groups = build_groups(posterior, num_samples, seed, include=include)
    groups.attrs.update(attrs or {})
    return assemble(groups)


def build_groups(
    posterior: Posterior,
    num_samples: int | None = None,
    seed: int = 0,
    *,
    include: Iterable[str] = GROUPS,
) -> Groups:
    """The same as plain arrays; see :func:`to_arviz`."""
    wanted = _checked(include)
    draws = _Draws(posterior, num_samples, seed)
    attrs = _attrs(posterior)
    problem = posterior.problem
    makers: dict[str, Callable[[], dict[str, Variable]]] = {
        "posterior": draws.posterior_group,
        "posterior_predictive": draws.predictive_group,
        "log_likelihood": draws.log_likelihood_group,
        "log_prior": draws.log_prior_group,
        "sample_stats": draws.sample_stats_group,
        "prior": lambda: draws.prior_groups["prior"],
        "prior_predictive": lambda: draws.prior_groups["prior_predictive"],
        "observed_data": lambda: _observed_data(problem),
        "constant_data": lambda: _constant_data(problem),
        "optimization_history": lambda: _history(posterior),
    }
    with torch.no_grad():
        made = {name: makers[name]() for name in GROUPS if name in wanted}
    found = sequences_of(problem)
    made = {name: gathered(group, found) for name, group in made.items()}
    coords = {plate_dim(k): np.asarray(labels) for k, labels in problem.coords.items()}
    coords |= {step_dim(stem): np.asarray(steps.numbers) for stem, steps in found.items()}
    stats = made.get("sample_stats", {})
    if "pareto_khat" in stats:
        attrs["pareto_khat"] = float(stats["pareto_khat"][1])
        coords["khat_site"] = np.asarray(list(problem.continuous))
    if "optimization_history" in made:
        coords["optimization_step"] = np.asarray(posterior.history.steps)
    return Groups({name: group for name, group in made.items() if group}, coords, attrs)


class _Draws:
    """One set of draws of a fit, and the groups that lie over ``chain`` and ``draw``."""

    def __init__(self, posterior: Posterior, num_samples: int | None, seed: int) -> None:
        self.posterior, self.problem, self.seed = posterior, posterior.problem, seed
        self.log_q: Tensor | None = None
        if isinstance(posterior, DrawsPosterior):
            chains = _thinned(posterior.draws, num_samples)
            self.shape = tuple(next(iter(chains.values())).shape[:2])
            self.values = {name: value.flatten(0, 1) for name, value in chains.items()}
        else:
            count = DEFAULT_DRAWS if num_samples is None else num_samples
            self.shape = (1, count)
            if posterior.points:
                self.values = posterior.sample(count, seed)
            else:
                self.values, self.log_q = posterior.sample_with_log_prob(count, seed)
        self.count = math.prod(self.shape)

    @lazy
    def hidden(self) -> dict[str, Tensor]:
        """Draws of the discrete latents from their conditionals."""
        if not self.problem.discrete:
            return {}
        if not self.values:
            return self.posterior.sample(self.count, self.seed, discrete=True)
        return self.problem.sample_discrete(self.values, self.seed + 1)

    def posterior_group(self) -> dict[str, Variable]:
        drawn = self.values | self.hidden
        group = {name: self._of_site(site, drawn[name]) for name, site in self._latents()}
        if self.problem.deterministics:
            derived = self.problem.predictive(drawn, self.seed + 2)
            for name, site in self.problem.deterministics.items():
                group[name] = self._of_site(site, derived[name])
        return group

    def predictive_group(self) -> dict[str, Variable]:
        # A new row has new discrete latents, but where all latents are discrete they are the fit.
        given = self.values or self.hidden
        replicated = self.problem.predictive(given, self.seed + 3)
        return {
            name: self._of_site(site, replicated[name])
            for name, site in self.problem.observed.items()
        }

    def log_likelihood_group(self) -> dict[str, Variable]:
        found = self.problem.pointwise_log_likelihood(self.values)
        plates = self.problem.unit_plates(self.values)
        return {
            name: self._over_draws(
                tuple(plate_dim(plate) for plate in plates[name]),
                tuple(self.problem.plates[plate].size for plate in plates[name]),
                value,
            )
            for name, value in found.items()
        }

    def log_prior_group(self) -> dict[str, Variable]:
        found = self.problem.log_prior(self.values)
        return {name: self._over_draws((), (), value) for name, value in found.items()}

    def sample_stats_group(self) -> dict[str, Variable]:
        log_p = self.problem.log_joint(self.values)
        group = {"log_p": self._over_draws((), (), log_p)}
        if self.log_q is None:
            return group
        group["log_q"] = self._over_draws((), (), self.log_q)
        log_weights = (log_p - self.log_q).expand(self.count)
        if len(log_weights) < MIN_DRAWS or not bool(log_weights.isfinite().all()):
            return group
        group["pareto_khat"] = (), np.asarray(pareto_khat(log_weights))
        if self.values:
            found = site_khats(self.problem, self.values, log_weights)
            group["site_khat"] = ("khat_site",), np.asarray([k.value for k in found.values()])
        return group

    @lazy
    def prior_groups(self) -> dict[str, dict[str, Variable]]:
        if not has_prior(self.problem):
            return {"prior": {}, "prior_predictive": {}}
        return prior_groups(self.problem, min(self.count, MOST_PRIOR_DRAWS), self.seed + 4)

    def _latents(self) -> Iterable[tuple[str, Site]]:
        return (self.problem.drawn | self.problem.discrete).items()

    def _of_site(self, site: Site, value: Tensor) -> Variable:
        return self._over_draws(*site_dims(site, tuple(value.shape[1:])), value)

    def _over_draws(self, dims: tuple[str, ...], sizes: tuple[int, ...], value: Tensor) -> Variable:
        return over_draws(self.shape, dims, sizes, value)


def _thinned(draws: dict[str, Tensor], num_samples: int | None) -> dict[str, Tensor]:
    chains, length = next(iter(draws.values())).shape[:2]
    if num_samples is None or num_samples >= chains * length:
        return draws
    check_count(num_samples)
    kept = torch.linspace(0, length - 1, max(1, num_samples // chains)).long()
    return {name: value[:, kept] for name, value in draws.items()}


def _observed_data(problem: Problem) -> dict[str, Variable]:
    group = {}
    for name, site in problem.observed.items():
        assert site.value is not None
        value = site.value.expand(torch.broadcast_shapes(site.value.shape, site.shape))
        dims, sizes = site_dims(site, tuple(value.shape))
        group[name] = dims, _numpy(value.reshape(sizes))
    return group


def _history(posterior: Posterior) -> dict[str, Variable]:
    history = posterior.history
    if not len(history):
        return {}
    return {
        "elbo": (("optimization_step",), np.asarray(history.elbo)),
        "seconds": (("optimization_step",), np.asarray(history.seconds)),
    }


def _constant_data(problem: Problem) -> dict[str, Variable]:
    observed = [site.value for site in problem.observed.values() if site.value is not None]
    group = {}
    for name, argument in problem.arguments.items():
        value = torch.from_numpy(argument) if isinstance(argument, np.ndarray) else argument
        if not isinstance(value, Tensor) or any(_is_same(value, data) for data in observed):
            continue
        dims, sizes = argument_dims(problem, name, value)
        is_taken = name in dims  # by the labels of the dim
        group[f"{name}_argument" if is_taken else name] = dims, _numpy(value.reshape(sizes))
    return group


def _is_same(argument: Tensor, data: Tensor) -> bool:
    return argument.numel() == data.numel() and bool(
        (argument.cpu().flatten() == data.cpu().flatten()).all()
    )


def _attrs(posterior: Posterior) -> dict[str, str | int | float]:
    return {
        "inference_library": "vitools",
        "inference_library_version": __version__,
        "pyro_version": pyro.__version__,
        "torch_version": str(torch.__version__),
        "model": posterior.problem.name,
        "engine": posterior.engine,
        "status": posterior.status.label,
        "detail": posterior.detail,
        "seed": posterior.seed,
        "seconds": float(posterior.seconds),
    } | ({"divergences": posterior.divergences} if isinstance(posterior, DrawsPosterior) else {})


def _checked(include: Iterable[str]) -> set[str]:
    wanted = {include} if isinstance(include, str) else set(include)
    for name in wanted - set(GROUPS):
        raise OptionError(
            f"no group '{name}' to export (groups: {', '.join(GROUPS)}).{nearest(name, GROUPS)}"
        )
    return wanted


def _numpy(value: Tensor) -> np.ndarray:
    return value.detach().cpu().numpy()
