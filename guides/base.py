"""What all guides here share: one look at the model, a start near the prior or at another fit."""

from abc import abstractmethod
from collections.abc import Callable, Iterable, Mapping
from dataclasses import replace
from typing import Any

import torch
from pyro.infer.autoguide import AutoGuide
from torch import Tensor
from torch.distributions import Distribution

from vitools.errors import ModelError, OptionError
from vitools.guides.family import LatentSite
from vitools.guides.starts.mode_search import Region, search
from vitools.guides.starts.prototype import Prototype, draws_per_site
from vitools.isolation import seeded
from vitools.problem import Problem


class PriorCentredGuide(AutoGuide):
    """A guide over the continuous latents of ``model`` that starts near their prior's centre.

    Discrete latents that can be enumerated are left to the ELBO. See
    :class:`vitools.guides.AutoMeanField` for the arguments.

    Attributes:
        learning_rate: the step of Adam that suits the guide's parameters; set another on a guide
            or its class. :func:`vitools.svi` may start from it; Pyro's own SVI knows nothing of it.
    """

    learning_rate: float = 0.05

    def __init__(
        self,
        model: Callable,
        *,
        init_scale: float | None = None,
        jitter: float = 0.1,
        seed: int = 0,
        create_plates: Callable | None = None,
    ):
        AutoGuide.__init__(self, model, create_plates=create_plates)
        if init_scale is not None and not init_scale > 0:
            raise OptionError(f"init_scale: expected a number above 0, got {init_scale}")
        if not 0 <= jitter < 1:
            raise OptionError(f"jitter: expected a number in [0, 1), got {jitter}")
        self.options: dict[str, Any] = {"init_scale": init_scale, "jitter": jitter, "seed": seed}
        self._prototype = Prototype(seed, jitter)
        self._latent_sites: dict[str, LatentSite] = {}

    @abstractmethod
    def marginal(self, site: str) -> Distribution:
        """q of one site at the fitted parameters, plates at full size; no gradient flows."""

    @abstractmethod
    def _start_at(self, draws: Mapping[str, Tensor], sites: Mapping[str, LatentSite]) -> None:
        """Set the parameters to match ``draws``, whose moments are those of ``sites``."""

    def initialise_from(self, fit: Any, num_samples: int = 1000, seed: int = 0) -> None:
        """Move to the moments of another fit of the same model.

        Args:
            fit: has ``sample(n, seed) -> {site: draws}`` or ``marginal(site)``, a distribution.
                Sites it lacks stay where they are. A guide that has not seen its model run sees it
                on the fit's own ``problem``.
            num_samples: how many of its draws to match (fewer where a site is very large).
            seed: of the draws.
        """
        problem = getattr(fit, "problem", None)
        if self.prototype_trace is None and isinstance(problem, Problem):
            self._setup_prototype(*problem.args, **problem.kwargs)
        self._require_set_up()
        sites = self._latent_sites
        count = min([num_samples, *(draws_per_site(site.mean) for site in sites.values())])
        with seeded(seed), torch.no_grad():
            if hasattr(fit, "sample"):
                drawn = dict(fit.sample(count, seed))
            else:
                drawn = {name: fit.marginal(name).sample((count,)) for name in sites}
            drawn = {name: drawn[name].to(sites[name].mean) for name in sites if name in drawn}
            matched = {name: _match(sites[name], value) for name, value in drawn.items()}
            self._start_at(drawn, matched)

    def initialise_near_mode(self, problem: Problem, seed: int = 0) -> None:
        """Move to where a quick search finds high posterior mass.

        The search is that of :mod:`vitools.guides.starts.mode_search`.

        Worth its seconds where the prior's centre is far from the posterior. Like any start it
        settles near one mode.

        Args:
            problem: the guide's model with its data.
            seed: of the search's draws.

        >>> import pyro
        >>> import pyro.distributions as dist
        >>> from vitools import Problem
        >>> from vitools.guides import AutoLogisticNormal
        >>> def model(x):
        ...     level = pyro.sample("level", dist.Normal(0.0, 100.0))
        ...     pyro.sample("x", dist.Normal(level, 1.0), obs=x)
        >>> guide = AutoLogisticNormal(model)
        >>> guide.initialise_near_mode(Problem(model, torch.tensor(42.0)))
        >>> guide.marginal("level").loc.round()
        tensor(42.)
        """
        if self.prototype_trace is None:
            self._setup_prototype(*problem.args, **problem.kwargs)
        self._start_in(search(problem, self._latent_sites, seed), seed)

    def _start_in(self, region: Region, seed: int) -> None:
        self.initialise_from(region, seed=seed)

    def units(self) -> dict[str, Tensor]:
        """By how much each parameter moves q by about one of its standard deviations.

        Returns:
            ``{name of the parameter in this module: unit}``; what is missing has 1. An optimiser
            whose steps do not follow the size of the gradient, like Adam, should step in these.
        """
        return {}

    def _setup_prototype(self, *args: Any, **kwargs: Any) -> None:
        self.prototype_trace = self._prototype.run(self.model, *args, **kwargs)
        if self.master is not None:
            self.master()._check_prototype(self.prototype_trace)
        self._prototype_frames: dict[str, Any] = {}
        for name, node in self.prototype_trace.iter_stochastic_nodes():
            self._record_plates(name, node["cond_indep_stack"])
            self._latent_sites[name] = self._prototype.site(name, node)
        self._refuse_rows_it_cannot_know()
        self._prototype.refuse_moving_supports(self.prototype_trace, self.model, *args, **kwargs)
        if not self._latent_sites:
            raise ModelError(
                "the model has no continuous latent site: there is nothing for a guide to fit"
            )

    def _record_plates(self, name: str, stack: Iterable[Any]) -> None:
        for frame in stack:
            if not frame.vectorized:
                raise ModelError(
                    f"site {name!r} is inside the sequential plate {frame.name!r}: "
                    f"write it as `with pyro.plate({frame.name!r}, …):`"
                )
            self._prototype_frames[frame.name] = frame

    def _refuse_rows_it_cannot_know(self) -> None:
        """Pyro's own guides would draw rows of their own and silently replace the model's."""
        owner = self if self.master is None else self.master()
        given = self._prototype.plates_with_given_rows & set(self._prototype_frames)
        if given and owner.create_plates is None:
            name = min(given)
            raise ModelError(
                f"the model says which rows plate {name!r} takes (subsample=…): tell the guide too, "
                f"by create_plates, a function of the model's arguments that returns "
                f"pyro.plate({name!r}, size, subsample=…, dim={self._prototype_frames[name].dim})"
            )

    def _require_set_up(self) -> None:
        if self.prototype_trace is None:
            raise OptionError(
                "the guide has not seen its model run: call it once with the model's arguments"
            )

    def _require_site(self, site: str) -> None:
        self._require_set_up()
        if site not in self._latent_sites:
            raise OptionError(f"site {site!r} is not in this guide; its sites: {self._known()}")

    def _known(self) -> str:
        return ", ".join(map(repr, self._latent_sites))


def _match(site: LatentSite, draws: Tensor) -> LatentSite:
    """The site with the moments of ``draws`` in place of its prior's."""
    if draws.shape[1:] != site.mean.shape:
        raise OptionError(
            f"site {site.name!r}: expected draws of shape {tuple(site.mean.shape)} to start from, "
            f"got {tuple(draws.shape[1:])}"
        )
    unconstrained = site.to_reals(draws)
    tiny = torch.finfo(draws.dtype).eps
    return replace(
        site,
        mean=draws.mean(0),
        variance=draws.var(0).clamp(min=tiny**2),
        location=unconstrained.mean(0),
        scale=unconstrained.std(0).clamp(min=tiny),
    )
