"""A fitted Pyro guide with its own parameters, independent of the global store."""

from collections.abc import Collection, Iterator, Mapping
from contextlib import contextmanager
from importlib import import_module
from typing import Any

import torch
from pyro import poutine
from pyro.infer.autoguide import AutoContinuous, AutoGuide
from pyro.poutine import Trace
from pyro.poutine.messenger import Messenger
from torch import Tensor
from torch.distributions import Independent, Normal

from vitools.distributions.rounding import inside
from vitools.errors import NotSupportedError, OptionError
from vitools.isolation import ParamState, full_plates, isolated, lazy, seeded, snapshot
from vitools.posterior.base import Posterior, Saved
from vitools.posterior.gaussian import GaussianPosterior
from vitools.posterior.results import check_count
from vitools.problem import Problem
from vitools.problem.coordinates.unconstrained import UnconstrainedSpace
from vitools.problem.density.improper import StandIns
from vitools.problem.density.vectorise import DrawMapper
from vitools.problem.sites import is_delta, is_subsample, listed
from vitools.supports import from_reals

KNOWN_GUIDES = ("vitools.guides.", "pyro.infer.autoguide.")
"""Where a guide class named in a saved file may come from."""


def guide_log_density(run: Trace, without: Collection[str] = ()) -> Tensor:
    """log q of the values in a trace of a guide (auxiliary sites and Jacobians included).

    Args:
        without: sites whose terms are left out.
    """
    run.compute_log_prob()
    terms = [node["log_prob_sum"] for name, node in drawn_sites(run).items() if name not in without]
    return torch.stack(terms).sum() if terms else torch.zeros(())


def point_sites(problem: Problem, guide: Any) -> tuple[str, ...]:
    """Latents that a guide draws from a Delta whose place no other draw of it decides."""

    def run(rows: Mapping[str, Tensor]) -> Trace:
        held = poutine.condition(guide, data=dict(rows)) if rows else guide
        return poutine.trace(held).get_trace(*problem.args, **problem.kwargs)

    with torch.enable_grad():
        first = run({})
        nodes = {k: n for k, n in drawn_sites(first).items() if k in problem.drawn and is_delta(n)}
        if not nodes:
            return ()
        rows = {
            k: n["value"]
            for k, n in first.nodes.items()
            if n["type"] == "sample" and is_subsample(n)
        }
        again = run(rows).nodes
        noise = [n["value"] for n in drawn_sites(first).values() if not is_delta(n)]
        noise = [value for value in noise if value.requires_grad]
        return tuple(
            name
            for name, node in nodes.items()
            # draws may be equal after rounding, at the edge of a support
            if torch.equal(again[name]["value"], node["value"])
            and not _follows_from(node["value"], noise)
        )


def _follows_from(value: Tensor, others: list[Tensor]) -> bool:
    if not value.requires_grad or not others:
        return False
    slopes = torch.autograd.grad(value.sum(), others, retain_graph=True, allow_unused=True)
    return any(slope is not None for slope in slopes)


class GuidePosterior(Posterior):
    """q(θ) given by any Pyro guide at fixed parameters.

    The parameters are copied, so that training the same guide again does not change a fit.
    Draws of latents that the model sums out are ignored.

    Args:
        problem: the fitted problem.
        guide: a Pyro guide called with the problem's arguments.
        params: state of a parameter store holding the fitted values of guide and model.
        validation: the bound of other data after so many steps, in nats, where a run was watched by
            one (:func:`~vitools.svi_validated`).
    """

    def __init__(
        self,
        problem: Problem,
        guide: Any,
        params: ParamState,
        *,
        validation: Mapping[int, float] | None = None,
        **common: Any,
    ) -> None:
        super().__init__(problem.with_params(snapshot(params)), **common)
        self.validation = dict(validation or {})
        self.guide = guide
        self.params = self.problem.params
        bytes_per_draw = 8 * sum(site.shape.numel() for site in problem.latents.values())
        self._sampling = DrawMapper(None, bytes_per_draw)
        # apart, because whether a density can be mapped must not change what a seed draws
        self._density = DrawMapper(None, bytes_per_draw)

    @contextmanager
    def _fitted(self) -> Iterator[None]:
        """The guide and the model with this fit's parameters, plates at full size."""
        with isolated(self.params, self.guide, self.problem.model), full_plates():
            yield

    @lazy
    def points(self) -> tuple[str, ...]:
        with self._fitted(), seeded(0):
            return point_sites(self.problem, self.guide)

    def _draw(self, num_samples: int, seed: int) -> dict[str, Tensor]:
        return self._sampled(num_samples, seed)[0]

    def _moments(self, name: str) -> tuple[Tensor, Tensor]:
        if name not in self.points:
            return super()._moments(name)
        place = self._draw(1, self.seed)[name][0].double()
        return place, torch.zeros_like(place)

    def _refuse_points(self) -> None:
        if self.points:
            raise NotSupportedError(
                f"{self._title} is a point estimate of {listed(self.points)}: a point has no density, "
                "no bound and no widths. laplace(problem) gives widths around a mode, svi() with "
                "AutoMultivariate of vitools.guides those of a fitted distribution."
            )

    def _run_guide(self, data: Mapping[str, Tensor] | None = None) -> tuple[Trace, Tensor]:
        """A trace of the guide, optionally with sites held at ``data``, and log q of its draws."""
        guide = poutine.condition(self.guide, data=dict(data)) if data else self.guide
        with self._fitted(), _Inside():
            run = poutine.trace(guide).get_trace(*self.problem.args, **self.problem.kwargs)
            return run, guide_log_density(run, without=self.problem.discrete)

    def sample_with_log_prob(
        self, num_samples: int, seed: int = 0
    ) -> tuple[dict[str, Tensor], Tensor]:
        self._refuse_points()
        return self._sampled(num_samples, seed)

    def _sampled(self, num_samples: int, seed: int) -> tuple[dict[str, Tensor], Tensor]:
        check_count(num_samples)
        with seeded(0), torch.no_grad():
            self._refuse_unusable(self._run_guide()[0])

        def once(_: Tensor) -> tuple[dict[str, Tensor], Tensor]:
            run, log_q = self._run_guide()
            return {k: run.nodes[k]["value"] for k in self.problem.drawn}, log_q

        with seeded(seed), torch.no_grad():
            return self._sampling(once, torch.zeros(num_samples), randomness="different")

    def _refuse_unusable(self, run: Trace) -> None:
        drawn = drawn_sites(run)
        missing = [k for k in self.problem.drawn if k not in drawn]
        if missing:
            raise NotSupportedError(
                f"{self._title} does not draw {', '.join(map(repr, missing))}: every latent that is "
                "not summed out needs a draw."
            )
        if not any(k in drawn for k in self.problem.discrete):
            return
        # log q(θ) is the sum of the other sites' terms only where none looks at a summed-out one
        held = {k: drawn[k]["value"] for k in drawn if k not in self.problem.discrete}
        densities = []
        for seed in range(4):
            with seeded(seed):
                densities.append(self._run_guide(held)[1])
        if not torch.allclose(densities[0], torch.stack(densities)):
            raise NotSupportedError(
                f"{self._title} draws other latents given {', '.join(map(repr, self.problem.discrete))}, "
                "which are summed out, so the density of the others alone is not available. Leave "
                "those out of the guide; they are summed out exactly."
            )

    def log_prob(self, values: Mapping[str, Tensor]) -> Tensor:
        self._refuse_points()
        flat, sample_shape = self.problem.checked_draws(values)
        held = {k: v for k, v in flat.items() if k in self.problem.drawn}
        with torch.no_grad():
            with seeded(0):
                run, _ = self._run_guide()
            self._refuse_unusable(run)
            if isinstance(self.guide, AutoContinuous):
                return self._log_prob_of_vector(held).reshape(sample_shape)
            held = self._unconstrained_helpers(run, held)
            if not held:  # every latent is summed out: q is of nothing
                return torch.zeros(sample_shape)
            with seeded(0):
                log_q = self._density(
                    lambda draw: self._run_guide(draw)[1], held, randomness="different"
                )
        return log_q.reshape(sample_shape)

    def _unconstrained_helpers(self, run: Trace, values: dict[str, Tensor]) -> dict[str, Tensor]:
        """Values to hold at the sites that a guide really draws.

        Pyro's ``AutoNormal`` and others draw ``<site>_unconstrained`` and map it to the site.
        """
        held, used = {}, set()
        for name, value in values.items():
            helper = f"{name}_unconstrained"
            if not is_delta(run.nodes[name]):
                held[name] = value
            elif helper in run.nodes:
                support = self.problem.latents[name].support
                held[helper] = from_reals(support).inv(value)
                used.add(helper)
        drawn = drawn_sites(run)
        unknown = set(drawn) - set(values) - used - set(self.problem.discrete)
        unknown |= {k for k in values if k not in held and f"{k}_unconstrained" not in held}
        if unknown:
            raise NotSupportedError(
                f"{self._title} draws {', '.join(map(repr, sorted(unknown)))} through a "
                "transformation, so its density at given values is not available; "
                "sample_with_log_prob() gives it at the guide's own draws."
            )
        return held

    def _log_prob_of_vector(self, values: Mapping[str, Tensor]) -> Tensor:
        space = UnconstrainedSpace(self.problem)
        vector = space.from_values(values)
        with seeded(0), self._fitted():
            self.guide(*self.problem.args, **self.problem.kwargs)  # takes its parameters now
            order = [name for name, _ in self.guide.prototype_trace.iter_stochastic_nodes()]
            base = self.guide.get_posterior(*self.problem.args, **self.problem.kwargs)
            columns = torch.cat(
                [torch.arange(space.size, device=vector.device)[space.slices[k]] for k in order]
            )
            return base.log_prob(vector[:, columns]) - space.log_jacobian(vector)

    def as_gaussian(self) -> GaussianPosterior | None:
        """The same density as a Gaussian on the reals; None where the guide is none."""
        if not isinstance(self.guide, AutoContinuous):
            return None
        space = UnconstrainedSpace(self.problem)
        with seeded(0), self._fitted(), torch.no_grad():
            self.guide(*self.problem.args, **self.problem.kwargs)  # takes its parameters now
            order = [name for name, _ in self.guide.prototype_trace.iter_stochastic_nodes()]
            base = self.guide.get_posterior(*self.problem.args, **self.problem.kwargs)
            if isinstance(base, Independent):
                base = base.base_dist
            if isinstance(base, Normal):
                matrix = torch.diag(base.scale**2)
            elif hasattr(base, "covariance_matrix"):
                matrix = base.covariance_matrix
            else:
                return None
            columns = torch.cat([torch.arange(space.size)[space.slices[name]] for name in order])
            location = torch.zeros_like(base.loc)
            location[columns] = base.loc
            covariance = torch.zeros_like(matrix)
            covariance[columns[:, None], columns] = matrix
        return GaussianPosterior(
            self.problem,
            location=location.double(),
            scale_tril=torch.linalg.cholesky(covariance.double()),
            location_error=torch.zeros_like(location.double()),
            engine=self.engine,
            status=self.status,
        )

    def marginal(self, site: str) -> Any:
        self._latent(site)
        if not hasattr(self.guide, "marginal"):
            return super().marginal(site)
        with seeded(0), self._fitted(), torch.no_grad():
            self.guide(*self.problem.args, **self.problem.kwargs)  # takes its parameters now
            return self.guide.marginal(site)

    @property
    def _title(self) -> str:
        return f"guide {getattr(self.guide, '__name__', type(self.guide).__name__)}"

    def _state(self) -> tuple[dict[str, Tensor], dict[str, Any]]:
        kind = type(self.guide)
        meta = {
            "guide": f"{kind.__module__}:{kind.__qualname__}",
            "options": getattr(self.guide, "options", {}),
            "validation": list(self.validation.items()),
        }
        return {k: v.detach() for k, v in self.params["params"].items()}, meta

    @classmethod
    def _restore(cls, saved: Saved) -> "GuidePosterior":
        name, guide = saved.meta["guide"], saved.guide
        if guide is None or (saved.is_part and name.startswith(KNOWN_GUIDES)):
            guide = _known_guide(name)  # of the parts of a mixture some may be the user's own
        made = build_guide(saved.problem, guide, **saved.meta["options"])
        stand_ins = StandIns((saved.problem.args, saved.problem.kwargs))
        isolation = isolated(None, made, saved.problem.model)
        with seeded(0), isolation as params, stand_ins, torch.no_grad():
            made(*saved.problem.args, **saved.problem.kwargs)  # registers names and constraints
            saved.problem.call()
        expected = {k: tuple(v.shape) for k, v in params["params"].items()}
        found = {k: tuple(v.shape) for k, v in saved.tensors.items()}
        if expected != found:
            raise NotSupportedError(
                f"the saved parameters {found} are not those of guide {type(made).__name__}: "
                f"{expected}. Pass guide= as it was when the fit was made."
            )
        params["params"] = {k: torch.nn.Parameter(v) for k, v in saved.tensors.items()}
        looks = dict(saved.meta.get("validation", ()))
        return cls(saved.problem, made, params, validation=looks, **saved.common)


class _Inside(Messenger):
    """Keeps draws inside their support, to whose edge they may round."""

    def _pyro_post_sample(self, msg: Any) -> None:
        if not msg["is_observed"] and not is_subsample(msg):
            msg["value"] = inside(msg["fn"], msg["value"])


def drawn_sites(run: Trace) -> dict[str, Any]:
    """The sample statements of a guide's trace, minibatch choices aside."""
    return {
        name: node
        for name, node in run.nodes.items()
        if node["type"] == "sample" and not is_subsample(node)
    }


def build_guide(problem: Problem, guide: Any, **options: Any) -> Any:
    """A guide as it is, or a guide class called with the problem's model."""
    if not callable(guide):
        raise OptionError(
            f"guide: expected a Pyro guide or a class of them, such as AutoMultivariate of "
            f"vitools.guides, got {guide!r}."
        )
    return guide(problem.model, **options) if isinstance(guide, type) else guide


def _known_guide(path: str) -> Any:
    """A guide class by the name in a saved file, from the two collections in :data:`KNOWN_GUIDES`."""
    module, _, name = path.partition(":")
    if module.startswith(KNOWN_GUIDES):
        found = getattr(import_module(module), name, None)
        if isinstance(found, type) and issubclass(found, AutoGuide):
            return found
    raise NotSupportedError(
        f"this fit used the guide {name} of {module}; pass it: load(path, problem, guide=…)."
    )
