"""The state of one run of :func:`~vitools.svi`: what a step does, and what a lost one says."""

import hashlib
import math
import warnings
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

import torch
from pyro.poutine import trace
from torch import Tensor

from vitools.engines.checkpoint import Checkpoint
from vitools.engines.edges import EDGE_REMEDY, edge_words
from vitools.engines.objectives import Elbo, Objective, negative_elbo
from vitools.engines.preflight.guide_support import outside_in_words
from vitools.engines.preflight.preflight import asked
from vitools.engines.sharding.shard import Shard
from vitools.engines.svi.compiling import Compiling
from vitools.engines.svi.culprit import find_bad_gradient, find_culprit
from vitools.engines.svi.kept import Kept
from vitools.engines.svi.optimisers.adam import AdamAscent
from vitools.engines.svi.optimisers.adam_settings import Adam
from vitools.engines.svi.optimisers.ascent import BLOCK, GradientAscent
from vitools.engines.svi.optimisers.gradient import EagerGradient, Gradient, recorded_gradient
from vitools.engines.svi.optimisers.natural import NaturalGradient
from vitools.engines.svi.optimisers.optimizer_ascent import OptimizerAscent, OptimizerFactory
from vitools.engines.svi.sharded import SharedGradient, begin_alike
from vitools.engines.svi.starts import Start, begin, is_new
from vitools.engines.svi.stopping import PlateauRule
from vitools.errors import (
    NotSupportedError,
    NumericalError,
    OptionError,
    VitoolsWarning,
    callers_level,
)
from vitools.graphs.compiled import Compile
from vitools.isolation import isolated, seed_generators, seeded, snapshot
from vitools.posterior import GuidePosterior, History, Posterior, Status
from vitools.problem import Problem

LEARNING_RATE = 0.05
REDUCTION = 0.2
KEEP_EVERY = 100  # steps, a multiple of BLOCK
NATS_PER_LATENT = 0.01  # a gain not worth waiting for


@dataclass(frozen=True)
class Options:
    """The options of :func:`~vitools.svi` that a run needs throughout."""

    num_particles: int
    objective: Callable[[Problem, Any], Objective] | None
    max_steps: int
    learning_rate: float | None
    optimizer: OptimizerFactory | Adam | NaturalGradient | None
    clip_norm: float | None
    step_backs: int
    compile: Compile
    seed: int


class SviRun:
    """Parameters, ascent, stopping rule and bounds, and when to compile.

    Steps work on these; after each block all is kept, by one assignment, in a record. What outlives
    the steps, checkpoints and results, is read from that record, never from what may be half changed.

    Attributes:
        params: the parameter store's state, whose parameters are trained.
        rows: the bound and the seconds after each step; the first ``kept.done`` count.
        kept: the run as it was after the last whole block.
        compiling: when the steps are compiled, and what became of it.
    """

    def __init__(
        self,
        problem: Problem,
        guide: Any,
        options: Options,
        start: Posterior | Start | None,
        shard: Shard | None = None,
    ) -> None:
        self.shard, self.options, self.start = shard, options, start
        with isolated() as self.params:
            guide_is_new = is_new(guide)
            report = asked(problem, guide)
            report.enforce()
            if shard is not None:
                problem = problem.counting(shard.plate, shard.weight)
            self.problem = problem
            self.guide = guide = report.guide
            self.wide, self.points = report.wide, report.points
            if self.points and not isinstance(options.objective, Elbo | None):
                raise NotSupportedError(
                    f"{report.title}: a point estimate of {', '.join(self.points)} is fitted by the "
                    "ELBO alone, which is the log joint density there. Leave objective out."
                )
            self.began, self.has_units = begin(problem, guide, start, options.seed, guide_is_new)
            make = options.objective or partial(negative_elbo, num_particles=options.num_particles)
            self.objective = make(problem, guide)
            self.objective.loss()  # registers every parameter of guide and model
        self.parameters = [
            p for p in dict.fromkeys(self.params["params"].values()) if p.requires_grad
        ]
        if not self.parameters:
            raise OptionError(f"guide {type(guide).__name__} has no parameters to fit.")
        if shard is not None:
            with isolated(self.params), seeded(options.seed):
                begin_alike(problem, guide, self.objective, self.parameters, shard)
        self.gradient: Gradient = EagerGradient(self._loss_and_gradient, self.parameters)
        if self.objective.is_recordable:
            subject = f"svi of model '{problem.name}'"
            self.gradient = recorded_gradient(self._loss_and_gradient, self.parameters, subject)
        num_latents = sum(site.shape.numel() for site in problem.drawn.values())
        if shard is not None:
            self.gradient = SharedGradient(self.gradient, shard)
            num_latents = max(shard.ranks.gathered(num_latents))
        self.ascent = self._ascent()
        self.rule = PlateauRule(
            self._reduce_rate,
            lambda: self.ascent.vector(),
            metric=self._metric(),
            resolution=max(0.2, NATS_PER_LATENT * num_latents),
            thin=BLOCK,
        )
        self.rows: list[tuple[float, float]] = []
        self.stepped_back = 0
        self.good = [value.detach().clone() for value in self.ascent.values]
        self.good_step = 0
        self.kept = self._record(0, None)
        self.compiling = Compiling(
            options.compile,
            self.ascent,
            options.max_steps,
            lambda: self.gradient.draw(BLOCK),
            f"svi of model '{problem.name}'",
        )
        if shard is not None:
            self.compiling.how = (
                f"not compiled: gradients of {shard.ranks.size} processes are added up"
            )
        elif not self.objective.is_recordable and self.objective.hindrance:
            self.compiling.how = f"not recorded, so not compiled: {self.objective.hindrance}"

    def _metric(self) -> Callable[[int], Tensor] | None:
        """Adam's; of gradients cut short it would promise too little."""
        if isinstance(self.ascent, AdamAscent) and self.options.clip_norm is None:
            return self.ascent.metric
        return None

    def _ascent(self) -> GradientAscent:
        optimizer, clip = self.options.optimizer or Adam(), self.options.clip_norm
        rate = self.options.learning_rate
        if rate is None:
            rate = float(getattr(self.guide, "learning_rate", LEARNING_RATE))
        kinds = {(p.dtype, p.device) for p in self.parameters}
        if isinstance(optimizer, Adam):
            if len(kinds) == 1:
                units = self._units()
                if self.shard is not None:
                    units = self.shard.ranks.of_first(units)
                return AdamAscent(self.parameters, self.gradient, clip, rate, units, optimizer)
            optimizer = optimizer.of_torch(rate)
        if isinstance(optimizer, NaturalGradient):
            optimizer = optimizer.of(self.guide)
        return OptimizerAscent(self.parameters, self.gradient, clip, optimizer)

    def _units(self) -> Tensor | None:
        """How far a step of 1 takes each number of the parameters, where the guide knows."""
        named = self.guide.units() if self.has_units and hasattr(self.guide, "units") else {}
        if not named:
            return None
        prefix = f"{self.guide._pyro_name}." if self.guide._pyro_name else ""
        names = {id(p): name.removeprefix(prefix) for name, p in self.params["params"].items()}
        units = [named.get(names[id(p)], torch.ones_like(p)).detach() for p in self.parameters]
        return torch.cat(
            [u.expand(p.shape).flatten() for u, p in zip(units, self.parameters, strict=True)]
        )

    def _loss_and_gradient(self) -> tuple[Tensor, ...]:
        with isolated(self.params), torch.enable_grad():
            loss = self.objective.loss()
            gradients = torch.autograd.grad(loss, self.parameters, allow_unused=True)
        return loss.detach(), *(
            torch.zeros_like(p) if g is None else g
            for p, g in zip(self.parameters, gradients, strict=True)
        )

    # ---- steps -------------------------------------------------------------------------

    def advance(self, done: int) -> list[float]:
        """A block of steps after the ``done`` first, to be kept; the bound before each."""
        self.compiling(done)
        count = min(BLOCK, self.options.max_steps - done)
        losses = self._losses(done, count)
        while self.ascent.lost is not None:
            self._step_back(done, losses)
            losses = self._losses(done, count)
        if (done + count) % KEEP_EVERY == 0:
            self.good = [value.detach().clone() for value in self.ascent.values]
            self.good_step = done + count
        return [-loss for loss in losses]

    def keep(self, bounds: Sequence[float], seconds: float) -> Status | None:
        """Keep the block just taken, and what the stopping rule says of it."""
        done = self.kept.done
        self.rows[done:] = [(bound, seconds) for bound in bounds]
        ended = None
        for bound in bounds:
            done += 1
            ended = self.rule(done, bound) or ended
        self.kept = self._record(done, ended)
        return ended

    def _record(self, done: int, ended: Status | None) -> Kept:
        objective = dict(self.objective.state)
        return Kept(done, self.ascent.state(), self.rule.seen, objective, self.stepped_back, ended)

    def return_to_kept(self) -> None:
        """Undo what was not kept of an interrupted block, for the result."""
        self.ascent.restore(*self.kept.ascent)

    @property
    def history(self) -> History:
        """What was kept of the bounds."""
        return History.of_rows(self.rows[: self.kept.done])

    def _losses(self, done: int, count: int) -> list[float]:
        self._seed(done)
        return self.ascent.advance(self.gradient.draw(BLOCK), count)

    def _seed(self, done: int) -> None:
        """Every block has noise of its own, whatever was drawn before it."""
        words = f"{self.options.seed} {done // BLOCK} {self.stepped_back}"
        number = int.from_bytes(hashlib.blake2b(words.encode(), digest_size=4).digest())
        seed_generators(number)

    def is_last_block(self, done: int) -> bool:
        return done > 0 and self.options.max_steps - done < BLOCK

    def _reduce_rate(self) -> None:
        self.ascent.scale_rate(REDUCTION)
        self.ascent.restart_average()

    def place_average(self, *, whole_stage: bool) -> str:
        """Puts an average of iterates in the parameters' place and says which."""
        steps = self.ascent.averaged - (0 if whole_stage else self.ascent.marks[0][0])
        if steps == 0:
            self.ascent.place(self.ascent.values)
            return "the last iterate"
        self.ascent.place(self.ascent.average(tail=not whole_stage))
        return f"the average of the last {steps}"

    def outside_words(self) -> list[str]:
        """What the guide, as it is now, leaves outside the supports of the priors."""
        if not self.wide:
            return []
        with isolated(self.params), seeded(0), torch.no_grad():
            nodes = trace(self.guide).get_trace(*self.problem.args, **self.problem.kwargs).nodes
        return [outside_in_words(self.problem.latents[k], nodes[k]["fn"]) for k in self.wide]

    # ---- checkpoints -------------------------------------------------------------------

    def identity(self) -> dict[str, Any]:
        """What a checkpoint must agree with."""
        options, start, kind = self.options, self.start, type(self.guide)
        shard, optimizer = self.shard, options.optimizer or Adam()
        digest = self.problem.fingerprint if shard is None else shard.fingerprint(self.problem)
        if not isinstance(optimizer, Adam):
            assert isinstance(self.ascent, OptimizerAscent)
            optimizer = type(self.ascent.optimizer)
        return {
            "problem": f"'{self.problem.name}' with data {digest}",
            "guide": getattr(self.guide, "__name__", f"{kind.__module__}.{kind.__qualname__}"),
            "start": f"a fit by {start.engine} ({start.fingerprint})"
            if isinstance(start, Posterior)
            else start,
            "parameters": {k: list(v.shape) for k, v in self.params["params"].items()},
            "objective": f"{options.objective or 'ELBO'} by {options.num_particles}",
            "optimizer": optimizer.words if isinstance(optimizer, Adam) else optimizer.__name__,
            "learning_rate": options.learning_rate,
            "clip_norm": options.clip_norm,
            "compile": options.compile,
            "seed": options.seed,
        }

    def write(self, file: Checkpoint) -> None:
        """Put what is kept into ``file``, unless its last block was cut short by the limit."""
        if self.kept.done % BLOCK == 0:  # else it is no place to go on from
            self.kept.write(file, self.history)

    def restore(self, tensors: dict[str, Tensor], numbers: dict[str, Any]) -> None:
        """Take back what :meth:`write` wrote."""
        device = self.ascent.values[0].device

        def part(name: str) -> dict[str, Tensor]:
            prefix = f"{name}/"
            return {k.removeprefix(prefix): v for k, v in tensors.items() if k.startswith(prefix)}

        self.ascent.restore({k: v.to(device) for k, v in part("ascent").items()}, numbers["ascent"])
        restored = History.from_tensors(part("history"))
        self.rows = list(zip(restored.elbo, restored.seconds, strict=True))
        rule = {k: v.to(device) for k, v in part("rule").items()}
        self.rule.restore(rule, numbers["rule"], restored.elbo)
        for name, value in part("objective").items():
            self.objective.state[name].copy_(value)
        self.stepped_back = numbers["stepped_back"]
        self.good = [value.detach().clone() for value in self.ascent.values]
        self.good_step = len(self.rows)
        ended = None if numbers["ended"] is None else Status[numbers["ended"]]
        self.kept = self._record(len(self.rows), ended)

    # ---- a lost step -------------------------------------------------------------------

    def _step_back(self, done: int, losses: list[float]) -> None:
        """Shorten the steps and go on from the state before the block, or raise."""
        error = self._lost(done, losses)
        if self.stepped_back == self.options.step_backs:
            raise error
        self.stepped_back += 1
        self._reduce_rate()
        self.rule.begin_stage_again()
        reason = str(error).partition(" The last good")[0]
        warnings.warn(
            f"{reason} Stepped back to step {done} with a fifth of the step size "
            f"({self.stepped_back} of {self.options.step_backs}).",
            VitoolsWarning,
            stacklevel=callers_level(),
        )

    def _advice_outside(self) -> str:
        """What to do of a guide that is wider than its prior, or than the data allow; else nothing."""
        words = self.outside_words()
        if not words and self.problem.moving_ends:
            return f"{edge_words(self.problem)}: {EDGE_REMEDY}; else "
        if not words:
            return ""
        return (
            f"a draw beyond the prior has density zero ({words[0]}): start the guide narrower, or take "
            "one that stays inside, such as AutoMultivariate of vitools.guides; else "
        )

    def _lost(self, done: int, losses: list[float]) -> NumericalError:
        first = next((i for i, loss in enumerate(losses) if not math.isfinite(loss)), len(losses))
        ascent = self.ascent
        if isinstance(ascent, AdamAscent):  # it has not taken the block
            self.good, self.good_step = ascent.values, done
            if first < len(losses):
                self._seed(done)
                ascent.lost = ascent.replay(self.gradient.draw(BLOCK), first)
        assert ascent.lost is not None
        ascent.place(ascent.lost)
        culprit = find_culprit(self.problem, self.guide, self.params)
        self.ascent.place(self.good)
        if culprit.startswith("parameter "):
            culprit += find_bad_gradient(self.problem, self.guide, self.params)
        index = done + first
        error = NumericalError(
            f"step {index}: {culprit}. The last good state (step {self.good_step}) is "
            f"kept in this error's .posterior; {self._advice_outside()}try a smaller step "
            "(learning_rate=0.005), "
            "clip_norm=, step_backs=, or another guide for the site; compile=False tells whether "
            "it is compiled code that loses the numbers."
        )
        error.posterior = GuidePosterior(  # type: ignore[attr-defined]
            self.problem,
            self.guide,
            snapshot(self.params),
            engine="svi",
            status=Status.DIVERGED,
            detail=f"lost at step {index}",
            history=self.history,
        )
        return error
