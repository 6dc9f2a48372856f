"""Data that arrive: the posterior of the rows so far is the prior of the next."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from vitools.engines.cavi.cavi import cavi
from vitools.engines.dadvi import dadvi
from vitools.engines.laplace import laplace
from vitools.engines.svi.svi import svi
from vitools.errors import NotSupportedError
from vitools.posterior import GaussianPosterior, GuidePosterior, Posterior, carry_over
from vitools.problem import Problem


def update(
    fit: Posterior | str | Path,
    problem: Problem,
    *,
    rows: str | Sequence[str] | None = None,
    forgetting: float = 1.0,
    **options: Any,
) -> Posterior:
    """Take new rows into a fit of ``cavi``, ``laplace``, ``dadvi`` or ``svi``, by the same engine.

    Reference: Broderick et al. 2013, "Streaming variational Bayes".

    Latents outside the plates of rows have the fit's factors as their priors; those of single rows belong
    to the new rows. Where one factor holds all that is carried over and its updates are conjugate,
    the answer is that of one fit of all rows, in whatever order they come; several factors forget what ties
    them at each step. Of ``svi`` a guide that is one Gaussian on the reals is taken, and a new one of its
    class fitted. The bound is that of the new rows given the fit: the sum over steps is one of all rows.

    Args:
        fit: what is known, or the path of a saved fit; the rows it was made from are not needed.
        problem: the same model with the new rows.
        rows: the plates whose elements are new; by default those that observed sites stand in.
        forgetting: λ in the prior q^λ: rows that came k steps ago count λ^k times.
        **options: of the engine. ``nested`` of ``cavi()`` is ``()`` unless given, so that the answer
            can be updated again.

    Returns:
        The fit; its ``problem`` is the model with the new priors
        (:func:`~vitools.posterior.carried.carry_over` makes it, for :func:`~vitools.load`).

    Example:
        >>> import pyro, torch
        >>> import pyro.distributions as dist
        >>> from vitools import Problem, cavi, update
        >>> def coin(flips):
        ...     p = pyro.sample("p", dist.Beta(1.0, 1.0))
        ...     with pyro.plate("flips", len(flips)):
        ...         pyro.sample("heads", dist.Bernoulli(p), obs=flips)
        >>> fit = cavi(Problem(coin, torch.tensor([1.0, 1.0, 0.0])))
        >>> fit = update(fit, Problem(coin, torch.tensor([0.0])))
        >>> round(float(fit.mean()["p"]), 4)
        0.5
    """
    carried = carry_over(fit, problem, rows=rows, forgetting=forgetting)
    if isinstance(fit, GuidePosterior):
        return svi(carried, type(fit.guide), **options)
    if isinstance(fit, GaussianPosterior):
        engine = {"laplace": laplace, "dadvi": dadvi}.get(fit.engine)
        if engine is None:
            raise NotSupportedError(
                f"update: of a Gaussian by {fit.engine} nothing says which engine is to go on. Fit "
                "carry_over(fit, problem), from vitools.posterior, by the one you want."
            )
        return engine(carried, **options)
    options.setdefault("nested", ())
    return cavi(carried, **options)
