"""A density learnt from samples by maximum likelihood, with a context or without.

Of the rows some are held back twice. One part watches the training: the weights that serve it best are kept,
and training ends when they no longer change. The other sees nothing of it, and its mean log density is what
the fit says of itself,

    1/m Σ log q(x_i | c_i)  =  -H(p) - KL(p ‖ q)  in expectation,

never above minus the entropy of what the samples come from but for its standard error. Pairs (λ, y) drawn from a
prior and a simulator have p(λ | y) as the best q(λ | y): a posterior for every y at once (amortised; G. Papamakarios
and I. Murray 2016, "Fast ε-free inference of simulation models with Bayesian conditional density estimation").
Whether it is one is for :meth:`LearnedDensity.calibration` to say.
"""

import math
import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch
from torch import Tensor

from vitools.diagnostics.calibration.calibration import Calibration
from vitools.diagnostics.reference.accuracy import entry_name
from vitools.engines.progress import Listener, Progress
from vitools.errors import DataError, NumericalError, OptionError
from vitools.isolation import seeded
from vitools.learned.columns import Columns, as_rows
from vitools.learned.conditional import ConditionalDensity
from vitools.posterior import Estimate, Status
from vitools.whole_numbers import check_whole

EVERY = 25
"""Steps between two looks at the rows that watch."""
FEWEST_ROWS = 50
_AT_ONCE = 20_000
_LARGEST_SHARE = 0.4
_DEPENDENT = 1e-10


@dataclass
class HeldOutHistory:
    """Mean log densities in nats while training: of the last batch, and of the rows that watch.

    Attributes:
        steps: at which they were taken.
        training: of the last batch.
        validation: of the rows that watch.
    """

    steps: list[int] = field(default_factory=list)
    training: list[float] = field(default_factory=list)
    validation: list[float] = field(default_factory=list)


@dataclass(frozen=True, eq=False)
class LearnedDensity:
    """q(x), or q(x | context) for any context.

    Attributes:
        kind: ``"normal"`` or the name of a flow.
        held_out: mean log density of rows that no training has seen, in nats a row.
        gain: what of it the flow adds to the best normal, in nats on the same rows (exactly 0 without one).
        status: whether training came to its end.
        history: mean log densities while training.
        seconds: of training.
    """

    kind: str
    held_out: Estimate
    gain: Estimate
    status: Status
    history: HeldOutHistory
    seconds: float
    _density: ConditionalDensity = field(repr=False)
    _columns: Columns = field(repr=False)

    @property
    def held_out_bits(self) -> Estimate:
        """The same in bits a row."""
        return in_bits(self.held_out)

    def log_prob(self, x: Any, context: Any = None) -> Tensor:
        """log q(x | context), ``[…]``, -∞ outside the support.

        Args:
            x: ``[…, D]``, or ``[…]`` where the samples were numbers.
            context: ``[…, C]``, whose leading dims broadcast with those of ``x``.
        """
        points, given = self._columns.pairs(x, context)
        shape = torch.broadcast_shapes(points.shape[:-1], given.shape[:-1])
        flat, flat_given = (as_rows(one.expand(*shape, one.shape[-1])) for one in (points, given))
        inside, reals, log_det = self._columns.to_reals(flat)
        parts = zip(reals.split(_AT_ONCE), flat_given.split(_AT_ONCE), strict=True)
        values = [self._density.log_prob(part, c) for part, c in parts]
        found = torch.where(inside, torch.cat(values) - log_det, -math.inf)
        return found.reshape(shape).to(self._columns.dtype)

    def sample(self, num_samples: int, context: Any = None, seed: int = 0) -> Tensor:
        """``[n, …, D]`` draws, n for each context ``[…, C]``."""
        check_whole("num_samples", num_samples, 1)
        given = self._columns.context(context)
        wide = given.expand(num_samples, *given.shape)
        with seeded(seed), torch.no_grad():
            drawn = torch.cat(
                [self._density.sample(part) for part in as_rows(wide).split(_AT_ONCE)]
            )
        return self._columns.from_reals(drawn).reshape(
            *wide.shape[:-1], *self._columns.event(drawn)
        )

    def score(self, x: Any, context: Any = None) -> Estimate:
        """Mean log density of rows of your own, in nats a row, with its error if they are independent."""
        with torch.no_grad():
            return Estimate.of_mean(self.log_prob(x, context))

    def calibration(
        self,
        x: Any,
        context: Any = None,
        *,
        num_samples: int = 200,
        names: Sequence[str] | None = None,
        seed: int = 0,
    ) -> Calibration:
        """Simulation-based calibration: do the true ``x`` rank evenly among draws given their contexts?

        Ranked are the columns and, under the name ``log density``, log q(x | context) among those of
        the draws, which sees what no column shows by itself (M. Modrák et al. 2023, "Simulation-based
        calibration checking for Bayesian computation: the choice of test quantities shapes sensitivity").

        Args:
            x, context: pairs ``[M, D]`` and ``[M, C]`` that the training has not seen.
            num_samples: draws for each pair, 20 or more.
            names: of the columns.
        """
        check_whole("num_samples", num_samples, 20)
        points, given = self._columns.pairs(x, context)
        if points.dim() != 2 or (given.shape[-1] and given.shape[:-1] != points.shape[:-1]):
            raise OptionError(
                f"x, context: expected rows [M, D] and a context for each, [M, C], got "
                f"{list(points.shape)} and {list(given.shape)}."
            )
        size = points.shape[-1]
        if names is not None and len(names) != size:
            raise OptionError(f"names: expected {size}, one for each column, got {len(names)}.")
        labels = list(names or (entry_name("x", (d,) if size > 1 else ()) for d in range(size)))
        # without a context as well each row has draws of its own
        wide = given.expand(num_samples, len(points), given.shape[-1])
        with seeded(seed), torch.no_grad():
            parts = as_rows(wide).split(_AT_ONCE)
            draws = self._columns.from_reals(
                torch.cat([self._density.sample(part) for part in parts])
            )
        draws = draws.reshape(num_samples, len(points), size)
        plain = self._columns.spelt(wide)
        with torch.no_grad():
            own = self.log_prob(x, context)
            others = self.log_prob(self._columns.shaped(draws), plain)
        below = (draws < points.to(draws)).double().mean(0).numpy()
        levels = {name: below[:, d] for d, name in enumerate(labels)}
        levels["log density"] = (others < own).double().mean(0).numpy()
        return Calibration(
            {name: np.asarray(found) for name, found in levels.items()},
            {},
            {},
            {"learnt from samples": len(points)},
            num_samples,
        )

    def __str__(self) -> str:
        """What it is, how well it does on rows it has not seen, how training ended."""
        given = f" given {self._columns.num_given}" if self._columns.num_given else ""
        count = f"{self._density.size} numbers" if self._density.size > 1 else "a number"
        lines = [
            f"density of {count}{given}, {self.kind}",
            f"held-out log density {self.held_out} nats = {self.held_out_bits} bits a row",
        ]
        if self.kind != "normal":
            lines.append(f"above the best normal by {self.gain} nats")
            lines.append(f"{self.status.label} after {self.history.steps[-1]} steps")
        return "\n".join(lines)


def in_bits(nats: Estimate) -> Estimate:
    """An estimate in units of log 2."""
    return Estimate(nats.value / math.log(2), nats.standard_error / math.log(2), nats.side)


def learn(
    samples: Any,
    context: Any,
    *,
    kind: str,
    support: Any,
    validation: float,
    layers: int,
    width: int,
    max_steps: int,
    batch: int,
    learning_rate: float,
    seed: int,
    tell: Listener | None,
) -> LearnedDensity:
    """The density of samples; see :func:`vitools.fit_density`."""
    if not isinstance(validation, float) or not 0 < validation <= _LARGEST_SHARE:
        raise OptionError(
            f"validation: expected a share of the rows above 0 and up to {_LARGEST_SHARE}, got {validation!r}."
        )
    columns = Columns(samples, context, support)
    x, c, log_det = columns.checked(samples, context)
    count = len(x)
    watching = math.ceil(validation * count)
    needed = 2 * (x.shape[1] + c.shape[1] + 1)
    if count < FEWEST_ROWS or count - 2 * watching < needed:
        raise DataError(
            f"samples: expected {max(FEWEST_ROWS, needed + 2 * watching)} rows or more, got {count}."
        )
    generator = torch.Generator().manual_seed(seed)
    order = torch.randperm(count, generator=generator)
    test, watch, train = order.split([watching, watching, count - 2 * watching])
    density = ConditionalDensity(x[train], c[train])
    dependent = density.root.diagonal().square() <= _DEPENDENT * x[train].var(0)
    if bool(dependent.any()):
        raise DataError(
            f"samples: column {int(dependent.nonzero()[0])} (counting from 0) is a linear function of the "
            "columns before it or of the context, so that there is no density. Leave it out."
        )
    began = time.monotonic()
    with torch.no_grad():
        normal = density.log_prob(x[test], c[test]) - log_det[test]
    watcher = _Watcher(density, x[watch], c[watch], log_det[watch], max_steps, began, tell)
    status = Status.CONVERGED
    if kind != "normal":
        try:
            density.train(
                x[train],
                c[train],
                kind,
                layers=layers,
                width=width,
                num_steps=max_steps,
                batch=batch,
                learning_rate=learning_rate,
                seed=seed,
                listen=watcher,
            )
            watcher.look(max_steps if not watcher.ended else watcher.history.steps[-1])
            status = watcher.status()
        except KeyboardInterrupt:
            if not watcher.kept:
                raise  # nothing was learnt yet
            status = Status.INTERRUPTED
        watcher.restore()
    with torch.no_grad():
        terms = density.log_prob(x[test], c[test]) - log_det[test]
    gain = Estimate.of_mean(terms - normal) if kind != "normal" else Estimate(0.0)
    return LearnedDensity(
        kind,
        Estimate.of_mean(terms),
        gain,
        status,
        watcher.history,
        time.monotonic() - began,
        density,
        columns,
    )


class _Watcher:
    """Looks at rows that do not train, keeps the best weights, and says when to stop."""

    def __init__(
        self,
        density: ConditionalDensity,
        x: Tensor,
        c: Tensor,
        log_det: Tensor,
        max_steps: int,
        began: float,
        tell: Listener | None,
    ) -> None:
        self.density, self.x, self.c, self.log_det = density, x, c, log_det
        self.max_steps, self.began, self.tell = max_steps, began, tell
        self.history = HeldOutHistory()
        self.kept: dict[str, Tensor] = {}
        self.best, self.best_step, self.ended = -math.inf, 0, False
        self.error, self.loss = math.nan, math.nan

    def __call__(self, step: int, loss: Tensor) -> bool:
        if not bool(loss.isfinite()):
            raise NumericalError(
                f"step {step}: the log density of a batch is {-float(loss)}. Lower learning_rate, or look for "
                "samples or contexts far from all others."
            )
        self.loss = float(loss)
        if step % EVERY == 0:
            self.look(step)
            # a quarter of all steps without a better value: more of them would learn the rows by heart
            self.ended = step - self.best_step > max(self.max_steps // 4, 4 * EVERY)
        return self.ended

    def look(self, step: int) -> None:
        """Write down how well the rows that watch are told, and keep the weights if better than before."""
        if self.history.steps[-1:] == [step]:
            return
        with torch.no_grad():
            terms = self.density.log_prob(self.x, self.c) - self.log_det
        found = Estimate.of_mean(terms)
        self.history.steps.append(step)
        self.history.training.append(-self.loss - float(self.log_det.mean()))
        self.history.validation.append(found.value)
        if found.value > self.best:
            self.best, self.best_step, self.error = found.value, step, found.standard_error
            weights = self.density.flow.state_dict()  # type: ignore[union-attr]
            self.kept = {name: value.clone() for name, value in weights.items()}
        if self.tell is not None:
            seconds = time.monotonic() - self.began
            note = f"held-out rows {found} nats"
            report = Progress("density", step, self.max_steps, math.nan, seconds, note=note)
            self.tell(report)

    def status(self) -> Status:
        """Converged where the last quarter of the steps gained less than the figure's own error."""
        early = [
            value
            for step, value in zip(self.history.steps, self.history.validation, strict=True)
            if step <= 0.75 * self.max_steps
        ]
        if self.ended or self.best - max(early) < self.error:
            return Status.CONVERGED
        return Status.STOPPED_AT_LIMIT

    def restore(self) -> None:
        """Put the best weights in their places."""
        self.density.flow.load_state_dict(self.kept)  # type: ignore[union-attr]
