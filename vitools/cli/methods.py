"""The methods the command line offers by name, each a thin call of an engine.

The names are known to shell completion and ``vitools methods``, which should not wait for torch:
engines and guides are imported when a method runs.
"""

import inspect
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

from vitools.errors import NotConjugateError, NotSupportedError, OptionError

if TYPE_CHECKING:
    from vitools.cli.target import Target
    from vitools.posterior import Posterior
    from vitools.problem import Problem
    from vitools.problem.sites import Site


@dataclass(frozen=True)
class Method:
    """A row of the table. ``fit`` takes a target, a fit to start from, and common options."""

    label: str
    summary: str
    fit: Callable[..., "Posterior"]

    def named_for(self, target: "Target") -> "Method":
        """The same method; a model's own encoder goes by its name, such as VAE, beside its rivals."""
        if self.label != METHODS[OWN_GUIDE].label or not target.held_out:
            return self
        return replace(self, label=type(target.untrained).__name__)

    def run(self, target: "Target", **options: Any) -> "Posterior":
        """Fit ``target``; options are seed, progress and start."""
        return self.fit(target, **options)


RESTARTS = 10
OWN_GUIDE = "own-guide"
OF_PROCESSES = (
    "cavi",
    "own-guide",
    "kumaraswamy",
    "logistic-normal",
    "dirichlet",
    "normal",
    "multivariate",
)
"""Methods whose rows several processes may share."""
INFER = "infer"


def _infer(
    target: "Target",
    *,
    seed: int,
    progress: Any,
    start: Any,
    max_seconds: float | None = None,
) -> "Posterior":
    from vitools.inference import infer

    return infer(
        target.problem,
        max_seconds=max_seconds,
        nested=target.nested,
        seed=seed,
        progress=progress,
    )


def _cavi(target: "Target", *, seed: int, progress: Any, start: Any) -> "Posterior":
    from vitools.engines import cavi

    return cavi(
        target.problem,
        nested=target.nested if target.batch_rows is None and target.sharded is None else (),
        restarts=RESTARTS,
        batch_rows=target.batch_rows,
        sharded=target.sharded,
        seed=seed,
        progress=progress,
    )


def _cavi_joint(target: "Target", *, seed: int, progress: Any, start: Any) -> "Posterior":
    from vitools.engines import cavi
    from vitools.inference.rungs import joint_blocks

    blocks = joint_blocks(target.problem)
    if not blocks:
        raise NotSupportedError(
            f"model '{target.problem.name}' has no two discrete latents in the same plates."
        )
    return cavi(target.problem, joint=blocks, restarts=RESTARTS, seed=seed, progress=progress)


def _by_hand(target: "Target", *, seed: int, progress: Any, start: Any) -> "Posterior":
    from vitools.engines import hand_derived

    derivation = getattr(target.problem.model, "hand_derived_cavi", None)
    accepted = inspect.signature(derivation).parameters if derivation else {}
    options = {"restarts": RESTARTS, "factorisation": "joint"}
    options = {name: value for name, value in options.items() if name in accepted}
    return hand_derived(target.problem, seed=seed, **options)


def _svi(guide: str) -> Callable[..., "Posterior"]:
    def fit(target: "Target", *, seed: int, progress: Any, start: Any) -> "Posterior":
        from vitools import guides
        from vitools.engines import svi

        chosen = getattr(guides, guide)
        return svi(
            target.problem,
            chosen,
            sharded=target.sharded,
            seed=seed,
            progress=progress,
            start=start,
        )

    return fit


def _own_guide(target: "Target", *, seed: int, progress: Any, start: Any) -> "Posterior":
    from vitools.engines import svi

    if target.guide is None:
        raise NotSupportedError(
            f"model '{target.problem.name}' brings no guide of its own. Give one with "
            "--guide path/to/file.py:guide."
        )
    if target.validation:
        from vitools.cli import deep_methods

        return deep_methods.train(target, target.guide.__self__, seed=seed, progress=progress)
    return svi(
        target.problem,
        target.guide,
        learning_rate=target.learning_rate,
        sharded=target.sharded,
        seed=seed,
        progress=progress,
    )


def _deep(name: str) -> Callable[..., "Posterior"]:
    def fit(target: "Target", **options: Any) -> "Posterior":
        from vitools.cli import deep_methods

        return getattr(deep_methods, name)(target, **options)

    return fit


def _dadvi(target: "Target", *, seed: int, progress: Any, start: Any) -> "Posterior":
    from vitools.engines import dadvi

    return dadvi(target.problem, covariance="linear_response", seed=seed, progress=progress)


def _laplace(target: "Target", *, seed: int, progress: Any, start: Any) -> "Posterior":
    from vitools.engines import laplace

    return laplace(target.problem, seed=seed, progress=progress)


def _nuts(target: "Target", *, seed: int, progress: Any, start: Any) -> "Posterior":
    from vitools.engines import nuts

    return nuts(
        target.problem,
        num_samples=600,
        num_warmup=200,
        num_chains=2,
        start=start,
        seed=seed,
        progress=progress,
    )


def _exact(target: "Target", *, seed: int, progress: Any, start: Any) -> "Posterior":
    from vitools.engines import exact

    return exact(target.problem, seed=seed, progress=progress)


METHODS: dict[str, Method] = {
    INFER: Method("infer", "one after another of these, until the judge trusts a fit", _infer),
    "exact": Method("exact", "enumeration and quadrature, for small models", _exact),
    "cavi": Method("CAVI", "coordinate ascent, its updates derived from the model", _cavi),
    "cavi-joint": Method(
        "CAVI joint", "the same with discrete latents of one plate in one factor", _cavi_joint
    ),
    "cavi-by-hand": Method(
        "CAVI by hand", "the model's own hand-derived updates, joint where derived", _by_hand
    ),
    OWN_GUIDE: Method(
        "SVI own guide", "the guide the model brings, or that of --guide", _own_guide
    ),
    "iwae": Method(
        "IWAE", "the model's encoder under an importance-weighted bound (VAE)", _deep("iwae")
    ),
    "hierarchical": Method(
        "hierarchical", "a VAE with two layers of latents (VAE)", _deep("hierarchical")
    ),
    "factor-analysis": Method(
        "factor analysis",
        "a linear decoder; exact for continuous pixels (VAE)",
        _deep("factor_analysis"),
    ),
    "kumaraswamy": Method(
        "SVI Kumaraswamy", "Kumaraswamy sticks and intervals", _svi("AutoKumaraswamy")
    ),
    "logistic-normal": Method(
        "SVI logistic normal", "softmax-Gaussian on simplexes", _svi("AutoLogisticNormal")
    ),
    "dirichlet": Method(
        "SVI Dirichlet", "Dirichlet and Beta, implicit gradients", _svi("AutoDirichlet")
    ),
    "normal": Method("SVI normal", "independent Gaussians, transformed", _svi("AutoMeanField")),
    "multivariate": Method(
        "SVI multivariate",
        "one Gaussian with full covariance, transformed",
        _svi("AutoMultivariate"),
    ),
    "dadvi": Method(
        "DADVI", "a Gaussian on fixed draws, linear-response covariance, transformed", _dadvi
    ),
    "laplace": Method(
        "Laplace", "a Gaussian at the mode, as wide as the curvature there, transformed", _laplace
    ),
    "nuts": Method("NUTS", "the no-U-turn sampler", _nuts),
}


def find_method(name: str) -> Method:
    """A method by name, or an error that lists them."""
    from vitools.problem.sites import nearest

    if name not in METHODS:
        raise OptionError(
            f"no method '{name}' (methods: {', '.join(METHODS)}).{nearest(name, METHODS)}"
        )
    return METHODS[name]


def default_methods(target: "Target") -> list[str]:
    """The methods worth comparing on this model, cheapest first, the reference last."""
    from vitools.guides import AutoMultivariate
    from vitools.guides.default import default_guide
    from vitools.inference.rungs import joint_blocks, quadrature_size
    from vitools.problem.coordinates.unconstrained import UnconstrainedSpace

    problem = target.problem
    if target.is_amortised:
        return [OWN_GUIDE, *_rivals(target)]
    size = UnconstrainedSpace(problem).size
    names = ["exact"] if size <= quadrature_size(problem) else []
    if _is_conjugate(problem):
        names.append("cavi")
        if joint_blocks(problem):
            names.append("cavi-joint")
    if hasattr(problem.model, "hand_derived_cavi"):
        names.append("cavi-by-hand")
    if any(_is_bounded(site) for site in problem.continuous.values()):
        names += ["kumaraswamy", "logistic-normal"]
    elif problem.continuous:
        names.append("normal")
    if size > 1 and default_guide(problem) is AutoMultivariate:
        names.append("multivariate")
    if target.guide is not None:
        names.append(OWN_GUIDE)
    return names + (["nuts"] if problem.continuous and "exact" not in names else [])


def _rivals(target: "Target") -> list[str]:
    """The methods that build another model for the same data."""
    if not target.held_out:
        return []
    from vitools.models.vae.model import VAE

    of_vae = ["hierarchical", "factor-analysis"]
    return ["iwae", *(of_vae if isinstance(target.guide.__self__, VAE) else [])]


def _is_conjugate(problem: "Problem") -> bool:
    from vitools.calculus import ConjugateModel

    try:
        ConjugateModel(problem.model, problem.args, problem.kwargs)
    except (NotConjugateError, NotSupportedError):
        return False
    return True


def _is_bounded(site: "Site") -> bool:
    from torch.distributions import constraints

    support = site.support
    while hasattr(support, "base_constraint"):
        support = support.base_constraint
    return support in (constraints.simplex, constraints.unit_interval)
