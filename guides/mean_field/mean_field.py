"""Mean-field guides: q(latents) = ∏_sites q_site, a family chosen for each site by its support."""

import math
from collections.abc import Callable, Mapping
from contextlib import ExitStack
from operator import attrgetter
from typing import Any, ClassVar

import pyro
import torch
from pyro.infer.autoguide.utils import deep_setattr
from pyro.nn.module import PyroModule, PyroParam
from torch import Tensor
from torch.distributions import Distribution, constraints

from vitools.errors import OptionError
from vitools.guides.base import PriorCentredGuide
from vitools.guides.family import GuideFamily, LatentSite, Parameter, is_simplex, is_unit_interval
from vitools.guides.mean_field.families import FAMILIES
from vitools.guides.mean_field.natural import NATURAL_STEPS, Step
from vitools.problem.sites import nearest


class AutoMeanField(PriorCentredGuide):
    """An independent q for each continuous latent of ``model``, inside the model's own plates.

    Discrete latents that can be enumerated are left out: the ELBO sums over them
    (``TraceEnum_ELBO`` with ``config_enumerate`` on the model, or :func:`vitools.svi`).
    Parameters of a site in a subsampled plate have the plate's full size.

    Args:
        model: a Pyro model.
        families: ``{site: family}`` for the sites that should not take the default; a family is
            a name in :data:`vitools.guides.mean_field.families.FAMILIES`.
        init_scale: starting standard deviation as a multiple of the prior's; by default a tenth
            for normal families, and the prior's own on the simplex and the unit interval.
        jitter: how far, in [0, 1), each site starts from its prior's centre towards a draw from
            the prior. Above 0 it breaks the symmetry between exchangeable components.
        seed: of that draw; the global generator is not touched. Another seed is another start.
        create_plates: as in :class:`pyro.infer.autoguide.AutoGuide`.

    >>> import pyro, torch
    >>> import pyro.distributions as dist
    >>> def coin():
    ...     p = pyro.sample("p", dist.Beta(2.0, 2.0))
    ...     pyro.sample("heads", dist.Binomial(10, p), obs=torch.tensor(7.0))
    >>> guide = AutoKumaraswamy(coin)
    >>> with pyro.get_param_store().scope():
    ...     value = guide()
    >>> guide.site_families()
    {'p': 'kumaraswamy'}
    """

    default_families: ClassVar[dict[str, str]] = {
        "simplex": "logistic_normal",
        "unit_interval": "normal",
        "other": "normal",
    }

    def __init__(
        self,
        model: Callable,
        families: Mapping[str, str] | None = None,
        *,
        init_scale: float | None = None,
        jitter: float = 0.1,
        seed: int = 0,
        create_plates: Callable | None = None,
    ):
        super().__init__(
            model, init_scale=init_scale, jitter=jitter, seed=seed, create_plates=create_plates
        )
        if not isinstance(families, Mapping | None):
            raise OptionError(
                f"families: expected {{site: family}}, e.g. {{'p': 'beta'}}, got {families!r}; "
                f"there are {', '.join(FAMILIES)}.{nearest(families, FAMILIES)}"
            )
        self.options["families"] = dict(families or {})
        self._families: dict[str, GuideFamily] = {}
        self._parameter_names: dict[str, list[str]] = {}

    def site_families(self) -> dict[str, str]:
        """The family of each site, by name."""
        self._require_set_up()
        return {name: family.name for name, family in self._families.items()}

    def marginal(self, site: str) -> Distribution:
        """q of one site at the fitted parameters, plates at full size; no gradient flows."""
        self._require_site(site)
        parameters = {key: value.detach().clone() for key, value in self._values(site).items()}
        return self._families[site].distribution(self._latent_sites[site], parameters)

    @torch.no_grad()
    def units(self) -> dict[str, Tensor]:
        self._require_set_up()
        return {
            f"sites.{name}_{key}": unit
            for name, family in self._families.items()
            for key, unit in family.units(self._values(name)).items()
        }

    @torch.no_grad()
    def natural_step(self, rate: float, radius: float = math.inf) -> None:
        """η ← η + rate · F⁻¹ ∇_η L at every site, from the ``grad`` of the guide's parameters.

        ``grad`` is that of the loss, -L. No element steps further than ``radius`` in its Fisher
        metric. See :mod:`vitools.guides.mean_field.natural`.
        """
        for name, step in self._natural_steps().items():
            values = self._values(name)
            gradient = {
                k: torch.zeros_like(v) if v.grad is None else v.grad for k, v in values.items()
            }
            for key, value in step(values, gradient, rate, radius).items():
                values[key].copy_(value)

    def _natural_steps(self) -> dict[str, Step]:
        self._require_set_up()
        for name, family in self._families.items():
            if type(family) not in NATURAL_STEPS:
                known = ", ".join(made().name for made in NATURAL_STEPS)
                raise OptionError(
                    f"site {name!r}: the family {family.name!r} is no exponential family, so it "
                    f"has no natural gradient here; choose one of {known}"
                )
        return {name: NATURAL_STEPS[type(family)] for name, family in self._families.items()}

    def _setup_prototype(self, *args: Any, **kwargs: Any) -> None:
        super()._setup_prototype(*args, **kwargs)
        self._refuse_unknown_sites()
        self.sites = PyroModule()
        for name, site in self._latent_sites.items():
            family = self._families[name] = self._family_of(site)
            start = family.start(site, self.options["init_scale"])
            self._parameter_names[name] = list(start)
            self._register(name, start)

    def _register(self, name: str, start: Mapping[str, Parameter]) -> None:
        for key, parameter in start.items():
            value = parameter.start.detach().clone()
            param = PyroParam(value, constraints.real, parameter.event_dim)
            deep_setattr(self.sites, f"{name}_{key}", param)

    def _refuse_unknown_sites(self) -> None:
        for name in self.options["families"]:
            if name not in self._latent_sites:
                raise OptionError(
                    f"families names {name!r}, which is no continuous latent of the model; "
                    f"those are {self._known()}"
                )

    def _family_of(self, site: LatentSite) -> GuideFamily:
        kind = "simplex" if is_simplex(site.support) else "other"
        kind = "unit_interval" if is_unit_interval(site.support) else kind
        chosen = self.options["families"].get(site.name, self.default_families[kind])
        if chosen not in FAMILIES:
            raise OptionError(
                f"site {site.name!r}: no family is called {chosen!r}; "
                f"there are {', '.join(FAMILIES)}.{nearest(chosen, FAMILIES)}"
            )
        family = FAMILIES[chosen]()
        if not family.fits(site.support):
            fitting = [name for name, other in FAMILIES.items() if other().fits(site.support)]
            raise OptionError(
                f"site {site.name!r} has support {site.support}, on which the family "
                f"{chosen!r} does not live; choose one of {', '.join(fitting)}"
            )
        return family

    def _start_at(self, draws: Mapping[str, Tensor], sites: Mapping[str, LatentSite]) -> None:
        for name, site in sites.items():
            start = self._families[name].start(site, init_scale=1.0)
            for key, value in self._values(name).items():
                value.copy_(start[key].start)

    def _values(self, name: str) -> dict[str, Tensor]:
        keys = self._parameter_names[name]
        return {key: attrgetter(f"{name}_{key}")(self.sites) for key in keys}

    def forward(self, *args: Any, **kwargs: Any) -> dict[str, Tensor]:
        """Sample every site; returns ``{site: value}``. Takes the model's arguments."""
        if self.prototype_trace is None:
            self._setup_prototype(*args, **kwargs)
        plates = self._create_plates(*args, **kwargs)
        result = {}
        for name, node in self.prototype_trace.iter_stochastic_nodes():
            with ExitStack() as stack:
                for frame in node["cond_indep_stack"]:
                    stack.enter_context(plates[frame.name])
                q = self._families[name].distribution(self._latent_sites[name], self._values(name))
                result[name] = pyro.sample(name, q)
        return result


class AutoLogisticNormal(AutoMeanField):
    """Softmax-normals on the simplex, transformed normals elsewhere: smooth and quick."""

    default_families: ClassVar[dict[str, str]] = {
        "simplex": "logistic_normal",
        "unit_interval": "normal",
        "other": "normal",
    }


class AutoKumaraswamy(AutoMeanField):
    """Kumaraswamy sticks on the simplex, Kumaraswamy on the unit interval, transformed normals else.

    Close to the Beta and Dirichlet of conjugate models, with an elementary reparameterisation.
    """

    default_families: ClassVar[dict[str, str]] = {
        "simplex": "stick_kumaraswamy",
        "unit_interval": "kumaraswamy",
        "other": "normal",
    }


class AutoDirichlet(AutoMeanField):
    """Dirichlets on the simplex, Betas on the unit interval, transformed normals elsewhere.

    Contains the exact posterior of a conjugate site, at the price of slower sampling.
    """

    default_families: ClassVar[dict[str, str]] = {
        "simplex": "dirichlet",
        "unit_interval": "beta",
        "other": "normal",
    }
