"""The rungs of the ladder: engines from the cheapest to the surest, each with where it applies.

A rung is not for a model, which :attr:`Rung.left_out` says in words, or it may still fail, which its
error says.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch

from vitools.diagnostics import Mode
from vitools.engines import cavi, exact, nuts, svi
from vitools.engines.progress import Listener
from vitools.guides import AutoFlow, AutoMultivariate
from vitools.guides.default import default_guide
from vitools.inference.known import Known
from vitools.inference.mixture import mix
from vitools.posterior import MixturePosterior, Posterior, Status
from vitools.problem import Problem
from vitools.problem.coordinates.unconstrained import UnconstrainedSpace

RESTARTS = 10
MOST_BENT = 50
"""Unconstrained numbers up to which a flow is worth its cost."""

MOST_MODES, LEAST_SHARE = 8, 1e-3
"""Modes that get a fit of their own, and the share of the mass that is worth one."""

DRAWS: dict[str, Any] = {"num_samples": 1000, "num_warmup": 1000, "num_chains": 4}


@dataclass(frozen=True)
class Rung:
    """A way to fit.

    Attributes:
        label: its name in the table.
        run: ``run(known, seed=…, progress=…)``, a fit.
        left_out: why it is not for a model of which so much is known; empty where it is.
    """

    label: str
    run: Callable[..., Posterior]
    left_out: Callable[[Known], str]


# ---- exact --------------------------------------------------------------------------------------


def quadrature_size(problem: Problem) -> int:
    """The continuous numbers up to which quadrature is the first thing to try.

    At an edge it is not accurate enough over two.
    """
    return 1 if problem.moving_ends else 2


def _exact(known: Known, *, seed: int, progress: Listener) -> Posterior:
    return exact(known.problem, seed=seed, progress=progress)


def _not_exact(known: Known) -> str:
    size, most = UnconstrainedSpace(known.problem).size, quadrature_size(known.problem)
    return "" if size <= most else f"{size} continuous numbers, quadrature is for {most}"


# ---- coordinate ascent ----------------------------------------------------------------------------


def _cavi(known: Known, *, seed: int, progress: Listener) -> Posterior:
    return cavi(known.problem, nested=known.nested, restarts=RESTARTS, seed=seed, progress=progress)


def joint_blocks(problem: Problem) -> list[tuple[str, ...]]:
    """Discrete latents that share their plates, which one factor may hold together."""
    groups: dict[Any, list[str]] = {}
    for site in problem.discrete.values():
        if site.states:
            continue
        groups.setdefault(site.plates, []).append(site.name)
    return [tuple(names) for names in groups.values() if len(names) > 1]


def _cavi_joint(known: Known, *, seed: int, progress: Listener) -> Posterior:
    blocks = joint_blocks(known.problem)
    return cavi(known.problem, joint=blocks, restarts=RESTARTS, seed=seed, progress=progress)


def _not_joint(known: Known) -> str:
    if not known.has_ascended:
        return "no fit by coordinate ascent"
    return "" if joint_blocks(known.problem) else "no two discrete latents in the same plates"


def _nested_site(known: Known) -> str | None:
    """The scalar on which the weights of coordinate ascent's best fit hang most."""
    khats = known.site_khats
    latents = known.problem.continuous
    scalars = [name for name in khats if latents[name].shape.numel() == 1]
    return max(scalars, key=lambda name: khats[name].value, default=None)


def _cavi_nested(known: Known, *, seed: int, progress: Listener) -> Posterior:
    site = _nested_site(known)
    assert site is not None
    return cavi(known.problem, nested=[site], seed=seed, progress=progress)


def _not_nested(known: Known) -> str:
    if not known.has_ascended:
        return "no fit by coordinate ascent"
    if any(isinstance(fit, MixturePosterior) for fit in known.ascents.values()):
        return "coordinate ascent did so by itself"
    return "" if _nested_site(known) else "no scalar latent to nest the others in"


# ---- stochastic gradients ---------------------------------------------------------------------------


def _svi(known: Known, *, seed: int, progress: Listener) -> Posterior:
    guide = default_guide(known.problem)
    return svi(known.problem, guide, start=known.start, seed=seed, progress=progress)


def _flow(known: Known, *, seed: int, progress: Listener) -> Posterior:
    start = known.start or known.fits.get(GUIDE)
    return svi(known.problem, AutoFlow, start=start, seed=seed, progress=progress)


def _not_flow(known: Known) -> str:
    if set(known.problem.drawn) != set(known.problem.continuous):
        return "latents whose values cannot be listed"
    size = UnconstrainedSpace(known.problem).size
    if not size:
        return "no continuous latents"
    return "" if size <= MOST_BENT else f"{size} continuous numbers, a flow is for {MOST_BENT}"


def _without_continuous(known: Known) -> str:
    return "" if known.problem.continuous else "no continuous latents"


# ---- several at once -----------------------------------------------------------------------------------


def _of_modes(known: Known, *, seed: int, progress: Listener) -> Posterior:
    """A Gaussian trained at each mode that the judge's scan has found, and the mixture of them."""
    fits = {}
    modes = worth_a_fit(known)
    for number, mode in enumerate(modes):
        covariance = torch.linalg.inv(mode.precision)
        at_mode = Posterior.from_gaussian(known.problem, mode.point, covariance, name="a mode")
        fits[f"mode {number + 1}"] = svi(
            known.problem, AutoMultivariate, start=at_mode, seed=seed, progress=progress
        )
        if fits[f"mode {number + 1}"].status is Status.INTERRUPTED:
            raise KeyboardInterrupt  # a mixture of some modes is no answer
    return mix(fits, seed=seed)


def worth_a_fit(known: Known) -> list[Mode]:
    """The largest modes."""
    return [mode for mode in known.modes if mode.share > LEAST_SHARE][:MOST_MODES]


def _no_modes(known: Known) -> str:
    return "" if len(worth_a_fit(known)) > 1 else "no second mode was found"


def _mix(known: Known, *, seed: int, progress: Listener) -> Posterior:
    return mix(known.scored, seed=seed)


def _not_mixed(known: Known) -> str:
    return "" if len(known.scored) > 1 else "fewer than two fits with a density"


# ---- Markov chains ----------------------------------------------------------------------------------------


def _nuts(known: Known, *, seed: int, progress: Listener) -> Posterior:
    return nuts(known.problem, start=known.start, seed=seed, progress=progress, **DRAWS)


GUIDE = "SVI"
RUNGS = (
    Rung("exact", _exact, _not_exact),
    Rung("CAVI", _cavi, lambda known: ""),
    Rung("CAVI joint", _cavi_joint, _not_joint),
    Rung("CAVI nested", _cavi_nested, _not_nested),
    Rung(GUIDE, _svi, _without_continuous),
    Rung("modes", _of_modes, _no_modes),
    Rung("flow", _flow, _not_flow),
    Rung("mix", _mix, _not_mixed),
    Rung("NUTS", _nuts, _without_continuous),
)
"""From the ground up."""
