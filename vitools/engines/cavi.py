"""Automatic coordinate ascent: closed-form updates derived from an unmodified Pyro model."""

from __future__ import annotations

import time
from collections.abc import Sequence

import torch
from torch import Tensor

from vitools.conjugacy import ConjugateModel
from vitools.conjugacy.coordinates import (
    change,
    coordinates,
    extrapolated,
    mean_parameters,
    move_to,
)
from vitools.engines.loop import Progress, ProgressCallback
from vitools.engines.squarem import extrapolate, step_length
from vitools.errors import NumericalError, OptionError
from vitools.isolation import full_plates, isolated
from vitools.posterior import FactorisedPosterior, History, Status
from vitools.problem import Problem

# A bound that falls by less than this part of its size has only been rounded.
ROUNDING = 1e-9
LONGEST_STEP = 1e4


def cavi(
    problem: Problem,
    *,
    joint: Sequence[Sequence[str] | str] = (),
    factorised: Sequence[str] = (),
    max_sweeps: int = 1000,
    tol: float = 1e-8,
    accelerate: bool = True,
    restarts: int = 1,
    seed: int = 0,
    order: Sequence[str] | None = None,
    inner: Sequence[str] = (),
    inner_sweeps: int = 1,
    warmup_sweeps: int = 0,
    collapse: bool = True,
    progress: ProgressCallback | None = None,
) -> FactorisedPosterior:
    """Fit q(θ, z) = ∏ q(block) by coordinate ascent, every update in closed form.

    The model is any Pyro model whose latents are conditionally conjugate; the updates are derived
    from it (Winn and Bishop 2005, "Variational message passing"). The bound is exact, in float64.

    Args:
        joint: blocks of sites that share one factor: ``("z1", "z2")`` for discrete sites of one
            plate or for Gaussian sites; ``"W[factors]"`` for a Gaussian site with one covariance
            along that plate. Elements of a Gaussian site that a factor couples always share one.
        factorised: Gaussian sites to keep fully factorised instead, updated element by element.
        max_sweeps: updates of every block, per restart (an accelerated step counts three).
        tol: stop when the bound's relative change is at most ``tol`` **and** no factor moved by more
            than ``tol ** 0.75`` (root of the symmetrised KL divergence); the bound alone can be flat
            where q still moves.
        accelerate: extrapolate with SQUAREM where the bound does not fall; never changes a fixed
            point.
        restarts: random starts; the best is returned, all bounds are in ``restart_bounds``.
        order: the sites in the order of their updates; by default children before parents.
        inner: sites swept ``inner_sweeps`` times in each sweep before the others move; by default
            the discrete ones. For topic models: the assignments and the topic weights.
        inner_sweeps: how often.
        warmup_sweeps: sweeps at the start in which the inner sites begin afresh each time, so that
            early globals do not tie them down; the bound may fall until they are over.
        collapse: treat rows of equal data as one row with a multiplicity (exact).
        progress: called a few times a second with a :class:`~vitools.engines.loop.Progress`.

    Returns:
        A :class:`~vitools.posterior.FactorisedPosterior`.

    Raises:
        NotConjugate: a site has no closed-form update; the message names it and says why.

    Example:
        >>> import pyro, torch
        >>> import pyro.distributions as dist
        >>> from vitools import Problem
        >>> def coin(flips):
        ...     p = pyro.sample("p", dist.Beta(1.0, 1.0))
        ...     with pyro.plate("flips", len(flips)):
        ...         pyro.sample("heads", dist.Bernoulli(p), obs=flips)
        >>> fit = cavi(Problem(coin, torch.tensor([1.0, 1.0, 0.0])))
        >>> round(float(fit.mean()["p"]), 4), str(fit.elbo())
        (0.6, '-2.48 (exact)')
    """
    _check_options(max_sweeps, tol, restarts, inner_sweeps)
    if not isinstance(warmup_sweeps, int) or warmup_sweeps < 0:
        raise OptionError(f"warmup_sweeps: expected a number at least 0, got {warmup_sweeps!r}.")
    start = time.perf_counter()
    with isolated(problem.params), full_plates(), torch.no_grad():
        model = ConjugateModel(
            problem.model,
            problem.args,
            problem.kwargs,
            joint=joint,
            factorised=factorised,
            order=order,
            inner=inner,
            collapse=collapse,
        )
        runs = []
        for number in range(restarts):
            model.initialise(seed + number)
            ascent = Ascent(model, tol, accelerate, inner_sweeps)
            for _ in range(min(warmup_sweeps, max_sweeps - 1)):
                ascent.warm_up()
            status, history = ascent.run(max_sweeps, progress, start)
            runs.append((ascent.bound, status, history, model.snapshot()))
            if status is Status.INTERRUPTED:
                break
        was_interrupted = status is Status.INTERRUPTED
        bound, status, history, state = max(runs, key=lambda run: run[0])
        if was_interrupted:
            if not len(history):
                raise KeyboardInterrupt  # not one sweep was finished: there is no fit to keep
            status = Status.INTERRUPTED
        model.reset(state)
        factors = model.factors()
    posterior = FactorisedPosterior(
        problem,
        factors,
        bound,
        engine="cavi",
        status=status,
        detail=f"{history.steps[-1] if len(history) else 0} sweeps"
        + (f", best of {len(runs)} starts" if restarts > 1 else ""),
        history=history,
        seconds=time.perf_counter() - start,
        seed=seed,
    )
    posterior.restart_bounds = [run[0] for run in runs]  # type: ignore[attr-defined]
    return posterior


def _check_options(max_sweeps: int, tol: float, restarts: int, inner_sweeps: int) -> None:
    for name, value in (
        ("max_sweeps", max_sweeps), ("restarts", restarts), ("inner_sweeps", inner_sweeps)
    ):  # fmt: skip
        if not isinstance(value, int) or value < 1:
            raise OptionError(f"{name}: expected a positive number of them, got {value!r}.")
    if not tol >= 0:
        raise OptionError(f"tol: expected a number at least 0, got {tol!r}.")


class Ascent:
    """One run from one start: sweeps, acceleration, the guard on the bound, the stopping rule."""

    def __init__(self, model: ConjugateModel, tol: float, accelerate: bool, inner_sweeps: int):
        self.model = model
        self.tol = tol
        self.accelerate = accelerate
        self.inner_sweeps = inner_sweeps
        self.moving = [block for block in model.blocks if extrapolated(block)]
        self.bound = float("-inf")
        self.sweeps = 0
        self.longest = 4.0

    def run(
        self, max_sweeps: int, progress: ProgressCallback | None, start: float
    ) -> tuple[Status, History]:
        history = History()
        last_report = time.perf_counter()
        status = Status.STOPPED_AT_LIMIT
        whole = self.model.snapshot(), self.bound
        try:
            while self.sweeps < max_sweeps:
                before = self.bound
                marks = [(b.natural, mean_parameters(b)) for b in self.moving]
                room = max_sweeps - self.sweeps
                bounds = (
                    self._cycle()
                    if self.accelerate and room >= 3 and self.sweeps
                    else ([self._sweep()])
                )
                whole = self.model.snapshot(), self.bound
                now = time.perf_counter()
                for i, bound in enumerate(bounds):
                    history.record(self.sweeps - len(bounds) + 1 + i, bound, now - start)
                gain = abs(self.bound - before)
                if gain <= self.tol * abs(self.bound) and self._settled(marks):
                    status = Status.CONVERGED
                    break
                if progress is not None and now - last_report > 0.2:
                    progress(Progress("cavi", self.sweeps, max_sweeps, self.bound, now - start))
                    last_report = now
        except KeyboardInterrupt:  # back to where the bound belongs to the factors
            status = Status.INTERRUPTED
            state, self.bound = whole
            self.model.reset(state)
        if progress is not None:
            seconds = time.perf_counter() - start
            progress(Progress("cavi", self.sweeps, max_sweeps, self.bound, seconds))
        return status, history

    def _settled(self, marks: list[tuple[tuple[Tensor, ...], tuple[Tensor, ...]]]) -> bool:
        limit = self.tol**0.75
        return all(
            change(block, natural, means) <= limit
            for block, (natural, means) in zip(self.moving, marks, strict=True)
        )

    def warm_up(self) -> None:
        """A sweep in which the inner sites start afresh."""
        self.model.restart_inner()
        self.model.sweep(self.inner_sweeps)
        self.sweeps += 1

    def _sweep(self) -> float:
        """One plain sweep; the bound must not fall."""
        before = self.bound
        self.model.sweep(self.inner_sweeps)
        self.sweeps += 1
        self.bound = self.model.elbo()
        if not self.bound >= before - ROUNDING * max(1.0, abs(before)):
            raise NumericalError(self._explain_fall(before))
        return self.bound

    def _explain_fall(self, before: float) -> str:
        """Sweep on with the bound taken after every update, to name the site that lowers it."""
        culprit, value = "an update", self.bound
        for block in self.model.order:
            self.model.update(block)
            now = self.model.elbo()
            if not now >= value - ROUNDING * max(1.0, abs(value)):
                culprit = f"the update of {block.title!r}"
                break
            value = now
        return (
            f"sweep {self.sweeps}: the bound fell from {before:.10g} to {self.bound:.10g} through "
            f"{culprit}, which closed-form updates cannot do; the data or the prior may be too "
            "badly scaled for float64, otherwise please report this model"
        )

    def _cycle(self) -> list[float]:
        """Two plain sweeps, a jump, and a sweep from there, kept if the bound did not fall."""
        points = [self._point()]
        bounds = []
        for _ in range(2):
            bounds.append(self._sweep())
            points.append(self._point())
        alpha = step_length(points[0], points[1], points[2], self.longest)
        if alpha > -1.01:
            return bounds
        safe, safe_bound = self.model.snapshot(), self.bound
        self.sweeps += 1
        try:
            self._move(extrapolate(points[0], points[1], points[2], alpha))
            self.model.sweep(self.inner_sweeps)
            reached = self.model.elbo()
        except NumericalError:
            reached = float("-inf")
        if reached >= safe_bound:
            self.bound = reached
            if alpha == -self.longest:
                self.longest = min(LONGEST_STEP, 4 * self.longest)
        else:
            self.model.reset(safe)
            self.longest = max(4.0, self.longest / 2)
        return [*bounds, self.bound]

    def _point(self) -> list[Tensor]:
        return [x for block in self.moving for x in coordinates(block)]

    def _move(self, point: list[Tensor]) -> None:
        start = 0
        for block in self.moving:
            count = len(coordinates(block))
            move_to(block, point[start : start + count])
            start += count
