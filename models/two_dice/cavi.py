"""Coordinate ascent for two dice by hand: the formulas of ``updates`` in a loop, no engine."""

import math
import time
from dataclasses import dataclass, replace

import torch
from torch import Tensor
from torch.distributions import Categorical, Dirichlet, Distribution

from vitools.errors import OptionError
from vitools.models.two_dice.prior import (
    Concentrations,
    Hyperparameter,
    check_count,
    prior_concentrations,
)
from vitools.models.two_dice.rows import CountedRows, RollsLike, distinct_rows
from vitools.models.two_dice.updates import (
    JointResponsibilities,
    Responsibilities,
    elbo,
    update_globals,
    update_rows_factorised,
    update_rows_joint,
)

FACTORISATIONS = ("factorised", "joint")


@dataclass(frozen=True)
class HandDerivedFit:
    """What :func:`hand_derived_cavi` found.

    Attributes:
        alpha1_hat: α̂¹ of q(π¹), shape [D₁].
        alpha2_hat: α̂² of q(π²), shape [D₂].
        beta_hat: β̂ of q(ρ), shape [S, V].
        responsibilities: q(z¹, z²) on distinct rows; ``.phi1``, ``.phi2`` and ``.table()``.
        row_index: the distinct row of each row of the data, shape [N]:
            ``fit.responsibilities.phi1[fit.row_index]`` is q(z¹_n) of every row.
        elbo_history: the bound after each sweep, in nats.
        seconds: the duration of each sweep.
        converged: whether both the bound and the parameters had stopped moving.
        restart_elbos: the final bound of every restart; the best one is reported here.
    """

    alpha1_hat: Tensor
    alpha2_hat: Tensor
    beta_hat: Tensor
    responsibilities: Responsibilities
    row_index: Tensor
    elbo_history: list[float]
    seconds: list[float]
    converged: bool
    restart_elbos: list[float]

    @property
    def concentrations(self) -> Concentrations:
        """(α̂¹, α̂², β̂), for example as ``init`` of a further run."""
        return Concentrations(self.alpha1_hat, self.alpha2_hat, self.beta_hat)

    def factors(self) -> dict[str | tuple[str, ...], Distribution]:
        """q as torch distributions by site of the model, in the shapes of the sites.

        A joint q(z¹, z²) is a ``Categorical`` over all pairs, the sides of z² fastest.
        """
        factors: dict[str | tuple[str, ...], Distribution] = {
            "pi1": Dirichlet(self.alpha1_hat),
            "pi2": Dirichlet(self.alpha2_hat),
            "rho": Dirichlet(self.beta_hat),
        }
        responsibilities = self.responsibilities
        if isinstance(responsibilities, JointResponsibilities):
            pairs = responsibilities.table().flatten(1)
            factors["z1", "z2"] = Categorical(pairs[self.row_index][:, None])
        else:
            factors["z1"] = Categorical(responsibilities.phi1[self.row_index][:, None])
            factors["z2"] = Categorical(responsibilities.phi2[self.row_index][:, None])
        return factors


def starting_point(
    rows: CountedRows, prior: Concentrations, generator: torch.Generator
) -> Concentrations:
    """A random q(π¹, π², ρ): the prior plus as many pseudo-counts as there are data.

    The hidden dice get N flat-Dirichlet pseudo-throws each, every visible die its share N·J/S of
    the rolls with random loadings. Equal starts for π¹ and π² would never part.
    """

    def flat(like: Tensor) -> Tensor:
        draws = torch.empty(like.shape, dtype=like.dtype).exponential_(generator=generator)
        return (draws / draws.sum(-1, keepdim=True)).to(like.device)

    num_rows = rows.multiplicity.sum()
    rolls_per_die = (rows.multiplicity @ rows.counts).sum() / prior.beta.shape[0]
    return Concentrations(
        prior.alpha1 + num_rows * flat(prior.alpha1),
        prior.alpha2 + num_rows * flat(prior.alpha2),
        prior.beta + rolls_per_die * flat(prior.beta),
    )


def hand_derived_cavi(
    rolls: RollsLike,
    sides1: int = 3,
    sides2: int = 4,
    faces: int = 6,
    alpha1: Hyperparameter | None = None,
    alpha2: Hyperparameter | None = None,
    beta: Hyperparameter | None = None,
    *,
    factorisation: str = "factorised",
    seed: int = 0,
    max_sweeps: int = 1000,
    tol: float = 1e-8,
    init: Concentrations | None = None,
    restarts: int = 1,
) -> HandDerivedFit:
    """Maximise the ELBO by its explicit coordinate updates, in float64.

    A sweep updates q(z) given q(π, ρ) (factorised: z¹, then z²), then q(π¹), q(π²), q(ρ). It
    stops when the relative change of the bound **and** the largest relative change of a Dirichlet
    parameter are both at most ``tol``: the bound alone can be flat where q still moves.

    Args:
        rolls: x, integers in 0, …, V-1, shape [N, J].
        sides1: D₁. The hyperparameters as for :func:`vitools.models.two_dice.model`.
        factorisation: ``"factorised"`` for q(z¹) q(z²), ``"joint"`` for q(z¹, z²).
        seed: of the random starts.
        max_sweeps: at most so many, for each restart.
        tol: see above; with 0, only a fixed point of floating-point arithmetic stops a run early.
        init: start here instead of at random (factorised: with φ² = E_q π² in every row).
        restarts: random starts; the one with the highest bound is returned.

    Returns:
        A :class:`HandDerivedFit`.

    Raises:
        DataError: rolls that are not faces.
        OptionError: impossible options or hyperparameters.

    Example:
        >>> from vitools.models.two_dice import simulate
        >>> fit = hand_derived_cavi(simulate(seed=0).rolls, max_sweeps=20)
        >>> len(fit.elbo_history), fit.elbo_history[-1] > fit.elbo_history[0], fit.beta_hat.shape
        (20, True, torch.Size([6, 6]))
    """
    if factorisation not in FACTORISATIONS:
        raise OptionError(
            f"factorisation: expected one of {', '.join(FACTORISATIONS)}, got {factorisation!r}."
        )
    check_count("max_sweeps", max_sweeps)
    check_count("restarts", restarts)
    if not (tol >= 0 and math.isfinite(tol)):
        raise OptionError(f"tol: expected a number at least 0, got {tol!r}.")
    if init is not None and restarts != 1:
        raise OptionError(f"init: one start cannot serve {restarts} restarts; give one of the two.")
    rows = distinct_rows(rolls, faces)
    given = prior_concentrations(
        sides1, sides2, faces, alpha1, alpha2, beta, device=rows.counts.device
    )
    prior = Concentrations(*(value.double() for value in given))
    starts: list[Concentrations]
    if init is not None:
        try:
            checked = prior_concentrations(sides1, sides2, faces, *init, device=rows.counts.device)
        except OptionError as error:
            raise OptionError(f"init: {error}") from error
        starts = [Concentrations(*(value.double() for value in checked))]
    else:
        generator = torch.Generator().manual_seed(seed)
        starts = [starting_point(rows, prior, generator) for _ in range(restarts)]
    fits = [_climb(rows, prior, start, factorisation, max_sweeps, tol) for start in starts]
    finals = [fit.elbo_history[-1] for fit in fits]
    return replace(fits[finals.index(max(finals))], restart_elbos=finals)


def _climb(
    rows: CountedRows,
    prior: Concentrations,
    q: Concentrations,
    factorisation: str,
    max_sweeps: int,
    tol: float,
) -> HandDerivedFit:
    """All sweeps from one start."""
    mean_pi2 = q.alpha2 / q.alpha2.sum()
    phi2 = mean_pi2.expand(rows.counts.shape[0], -1)
    bounds: list[float] = []
    seconds: list[float] = []
    converged = False
    responsibilities: Responsibilities
    for _ in range(max_sweeps):
        started = time.perf_counter()
        if factorisation == "joint":
            responsibilities = update_rows_joint(rows, q)
        else:
            responsibilities = update_rows_factorised(rows, q, phi2)
            phi2 = responsibilities.phi2
        previous, q = q, update_globals(rows, prior, responsibilities)
        bounds.append(elbo(rows, prior, q, responsibilities).item())
        seconds.append(time.perf_counter() - started)
        if len(bounds) > 1 and abs(bounds[-1] - bounds[-2]) <= tol * abs(bounds[-1]):
            moved = max(
                float(((new - old).abs() / new).max()) for new, old in zip(q, previous, strict=True)
            )
            converged = moved <= tol
            if converged:
                break
    return HandDerivedFit(
        alpha1_hat=q.alpha1,
        alpha2_hat=q.alpha2,
        beta_hat=q.beta,
        responsibilities=responsibilities,
        row_index=rows.row_index,
        elbo_history=bounds,
        seconds=seconds,
        converged=converged,
        restart_elbos=bounds[-1:],
    )
