"""``Posterior``: what every engine returns, and all that a diagnostic may ask of a fit."""

import copy
import pickle
from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from importlib import import_module
from inspect import isfunction
from textwrap import wrap
from typing import Any, Self, SupportsIndex

import torch
from torch import Tensor

from vitools.errors import NotSupportedError, OptionError
from vitools.notebook.markup import paragraphs, preformatted, table
from vitools.posterior.ladder import Ladder
from vitools.posterior.results import BySite, Estimate, History, Status, check_count, shorten
from vitools.problem import Problem
from vitools.problem.dims import element_words
from vitools.problem.new_data import carried_to
from vitools.problem.reading.program import fingerprint
from vitools.problem.sequences import Steps, sequences
from vitools.problem.sites import nearest

ELSEWHERE = "vitools.posterior.elsewhere"  # knows the kinds of posterior, which know this one
DRAWS_FOR_MOMENTS = 4000
DRAWS_FOR_FINGERPRINT = 4
WIDTH, MAX_ROWS, FEW = 80, 20, 6
"""What fits on a screen when a posterior is printed; entries of one site."""


@dataclass(frozen=True)
class Saved:
    """What a file holds of a posterior.

    Attributes:
        tensors, meta: what ``_state`` gave.
        common: the arguments of ``Posterior.__init__`` but for the problem.
        guide: the user's own, where one was passed to :func:`~vitools.load`.
        kinds: the classes of posteriors by name, for a posterior that is made of others.
        is_part: whether it is one of those others.
    """

    problem: Problem
    tensors: dict[str, Tensor]
    meta: dict[str, Any]
    common: dict[str, Any]
    guide: Any
    kinds: Mapping[str, "type[Posterior]"]
    is_part: bool = False

    def part(self, number: int, described: Mapping[str, Any], problem: Problem) -> "Posterior":
        """One of the posteriors that this one is made of, from its kind and meta and its tensors."""
        prefix = f"{number}."
        tensors = {
            name.removeprefix(prefix): value
            for name, value in self.tensors.items()
            if name.startswith(prefix)
        }
        saved = replace(
            self, problem=problem, tensors=tensors, meta=described["meta"], is_part=True
        )
        return self.kinds[described["kind"]]._restore(saved)


class Posterior(ABC):
    """A fitted approximation (or draws, or the exact answer) over a problem's latents.

    The density concerns the latents in ``problem.drawn``, the *continuous* ones but for models
    with discrete latents whose values cannot be listed. Other discrete latents are summed out of
    the problem, and drawn on request from their exact conditionals given those.

    Attributes:
        problem: the :class:`~vitools.problem.Problem` that was fitted, with fitted
            ``pyro.param`` values in place where the model has any.
        engine: the name of the engine, e.g. ``"svi"``.
        status: a :class:`Status`.
        detail: the engine's own words on the status, e.g. ``"R-hat 1.00, ESS 3100"``.
        history: a :class:`History`.
        seconds: wall-clock time of the fit.
        seed: the seed it was run with.
        ladder: what was tried before it, where :func:`~vitools.infer` made it; else ``None``.
    """

    ladder: Ladder | None = None
    points: tuple[str, ...] = ()
    """Latents of which the fit is a point estimate: it has no density then, and no widths."""

    part: str = ""
    """Whose rows the problem has, where a fit of more rows has left some with other processes."""

    def __init__(
        self,
        problem: Problem,
        *,
        engine: str,
        status: Status,
        history: History | None = None,
        seconds: float = 0.0,
        seed: int = 0,
        detail: str = "",
    ) -> None:
        self.problem = problem
        self.engine = engine
        self.status = status
        self.history = history or History()
        self.seconds = seconds
        self.seed = seed
        self.detail = detail

    # ---- what each kind of posterior provides ---------------------------------------------

    @abstractmethod
    def sample_with_log_prob(
        self, num_samples: int, seed: int = 0
    ) -> tuple[dict[str, Tensor], Tensor]:
        """Draws of all ``problem.drawn``, ``{site: [num_samples, *shape]}``, and log q of each, ``[n]``.

        Raises :class:`NotSupportedError` where there is no density (NUTS).
        """

    @abstractmethod
    def log_prob(self, values: Mapping[str, Tensor]) -> Tensor:
        """log q(values) for values ``{site: [*S, *shape]}`` of all ``problem.drawn``, ``[*S]``."""

    @abstractmethod
    def _state(self) -> tuple[dict[str, Tensor], dict[str, Any]]:
        """Tensors and JSON-able metadata from which :meth:`_restore` rebuilds the posterior."""

    @classmethod
    @abstractmethod
    def _restore(cls, saved: Saved) -> "Posterior":
        """The inverse of :meth:`_state`."""

    @property
    def fingerprint(self) -> str:
        """A digest of the numbers this fit consists of; of some draws where no file can hold it."""
        try:
            numbers = self._state()[0]
        except NotSupportedError:
            numbers = self.sample(DRAWS_FOR_FINGERPRINT)
        return fingerprint((), numbers)

    # ---- fits made elsewhere -----------------------------------------------------------------

    @staticmethod
    def from_guide(problem: Problem, guide: Any, *, name: str = "guide") -> "Posterior":
        """:func:`~vitools.posterior.elsewhere.from_guide`: a Pyro guide trained by other means."""
        return import_module(ELSEWHERE).from_guide(problem, guide, name=name)

    @staticmethod
    def from_draws(problem: Problem, draws: Any, *, name: str = "draws") -> "Posterior":
        """:func:`~vitools.posterior.elsewhere.from_draws`: draws from another program, or a file."""
        return import_module(ELSEWHERE).from_draws(problem, draws, name=name)

    @staticmethod
    def from_gaussian(
        problem: Problem, mean: Any, covariance: Any, *, name: str = "gaussian"
    ) -> "Posterior":
        """:func:`~vitools.posterior.elsewhere.from_gaussian`: N(mean, covariance) on the reals."""
        return import_module(ELSEWHERE).from_gaussian(problem, mean, covariance, name=name)

    # ---- copies -----------------------------------------------------------------------------

    def __deepcopy__(self, memo: dict[int, Any]) -> Self:
        memo[id(self)] = copied = copy.copy(self)
        copied.__dict__ = copy.deepcopy(self.__dict__, memo)
        return copied

    def __copy__(self) -> Self:
        copied = object.__new__(type(self))
        copied.__dict__.update(self.__dict__)
        return copied

    def __reduce_ex__(self, protocol: SupportsIndex) -> str | tuple[Any, ...]:
        """For pickle, which keeps of a function no more than where it can be imported from."""
        for program in filter(isfunction, (self.problem.model, getattr(self, "guide", None))):
            try:
                pickle.dumps(program)
            except (pickle.PicklingError, AttributeError) as error:
                raise NotSupportedError(
                    f"this fit of model '{self.problem.name}' cannot be pickled, because function "
                    f"'{program.__qualname__}' cannot be imported by its name. Define it at the "
                    "top of a module, or use save(fit, path) and load(path, problem)."
                ) from error
        return super().__reduce_ex__(protocol)

    # ---- derived ----------------------------------------------------------------------------

    def sample(
        self, num_samples: int, seed: int = 0, *, discrete: bool = False
    ) -> dict[str, Tensor]:
        """Draws ``{site: [num_samples, *shape]}``, the same for the same ``seed`` (0 if omitted).

        With ``discrete``, of the discrete latents too.
        """
        check_count(num_samples)
        values = self._draw(num_samples, seed)
        if discrete and self.problem.discrete:
            values = values | self.problem.sample_discrete(
                values, seed + 1, num_samples=num_samples
            )
        return values

    def _draw(self, num_samples: int, seed: int) -> dict[str, Tensor]:
        return self.sample_with_log_prob(num_samples, seed)[0]

    def log_weights(self, num_samples: int, seed: int = 0) -> Tensor:
        """log p(x, θ) - log q(θ) at ``num_samples`` draws from q, discrete latents summed out: ``[n]``."""
        return self.sample_with_log_weights(num_samples, seed)[1]

    def sample_with_log_weights(
        self, num_samples: int, seed: int = 0
    ) -> tuple[dict[str, Tensor], Tensor]:
        """Draws as of :meth:`sample_with_log_prob`, and the :meth:`log_weights` of them."""
        self.refuse_part("importance weights")
        values, log_q = self.sample_with_log_prob(num_samples, seed)
        with torch.no_grad():
            return values, self.problem.log_joint(values) - log_q

    def refuse_part(self, subject: str) -> None:
        """Raise where the problem has some of the rows that the fit is of.

        Args:
            subject: what would need all rows, for the message.
        """
        if self.part:
            raise NotSupportedError(
                f"this fit of model '{self.problem.name}' is of the rows of several processes, of which "
                f"its problem has those of {self.part}, so {subject} would hold it against these alone. "
                "Its moments, draws and bound are those of all rows; to weigh them, fit where all rows are "
                "(cavi with batch_rows= holds some at a time)."
            )

    def elbo(self, num_samples: int = 1000, seed: int = 0) -> Estimate:
        """E_q[log p(x, θ) - log q(θ)], discrete latents summed out, with its standard error.

        Engines that know their own bound exactly report that instead (standard error 0).
        """
        return Estimate.of_mean(self.log_weights(num_samples, seed))

    def mean(self) -> dict[str, Tensor]:
        """Posterior means of the latents drawn, exact where the family gives them."""
        return self._by_site({name: self._moments(name)[0] for name in self.problem.drawn})

    def sd(self) -> dict[str, Tensor]:
        """Posterior standard deviations, exact where the family gives them."""
        return self._by_site({name: self._moments(name)[1] for name in self.problem.drawn})

    def _by_site(self, values: dict[str, Tensor]) -> "BySite":
        found = BySite(values)
        found.summed_out = tuple(self.problem.discrete)
        return found

    def _moments(self, name: str) -> tuple[Tensor, Tensor]:
        """Mean and sd of one site; by Monte Carlo unless a subclass knows better."""
        draws = self._moment_draws()[name].double()
        return draws.mean(0), draws.std(0)

    def _moment_draws(self) -> dict[str, Tensor]:
        if not hasattr(self, "_cached_draws"):
            self._cached_draws = self._draw(DRAWS_FOR_MOMENTS, self.seed)
        return self._cached_draws

    def marginal(self, site: str) -> Any:
        """q(site) as a torch distribution, where the family is known in closed form."""
        self._latent(site)
        raise NotSupportedError(
            f"the marginal of '{site}' under {self.engine} has no closed form; "
            f"use sample(n)['{site}'] instead."
        )

    def _steps(self, name: str) -> Steps | None:
        """The steps of a loop, where ``name`` is the one that they have in common."""
        return None if name in self.problem.latents else sequences(self.problem.latents).get(name)

    def _latent(self, name: str) -> None:
        steps = self._steps(name)
        if steps is not None:
            raise NotSupportedError(
                f"the marginal of all {len(steps.sites)} steps of '{name}' together is not known in closed "
                f"form under {self.engine}. Use marginal('{steps.sites[0]}') of a step, or "
                f"sample(n), of which it is stacked."
            )
        if name not in self.problem.latents:
            raise OptionError(
                f"no latent site '{name}' (latents: {', '.join(self.problem.latents)})."
                f"{nearest(name, self.problem.latents)}"
            )

    def predictive(
        self, num_samples: int, seed: int = 0, *, at: Problem | None = None
    ) -> dict[str, Tensor]:
        """``num_samples`` replicated data sets from the posterior predictive, ``{site: [num_samples, *shape]}``.

        Each uses a fresh draw of the latents. A replicated row has new discrete latents of its
        own; discrete latents outside every plate are drawn from the posterior like the rest.

        Args:
            at: the same model of other data, ``Problem(model, *other_arguments)``: new rows, and new
                elements of other plates (groups), drawn from their prior given the rest. Elements with the
                same labels (``with_coords``) are the same; in a plate without labels, that observed
                sites do not stand in, the first are those of the fit.
        """
        local = {k for k, site in self.problem.discrete.items() if any(site.plates)}
        draws = self.sample(num_samples, seed, discrete=len(local) < len(self.problem.discrete))
        kept = {k: v for k, v in draws.items() if k not in local}
        if at is not None:
            whole, parts, places = carried_to(self.problem, at, kept)
            if self.problem.has_given_params:
                at = at.with_params(self.problem.params)
            return at.predictive(
                whole, seed + 1, num_samples=num_samples, parts=parts, places=places
            )
        return self.problem.predictive(kept, seed + 1, num_samples=num_samples)

    # ---- reading it ------------------------------------------------------------------------------

    def __str__(self) -> str:
        lines = [
            part for line in self._head() for part in wrap(line, WIDTH, subsequent_indent="  ")
        ]
        lines += self._table()
        return "\n".join([*lines, *([] if self.ladder is None else ["", self.ladder.text])])

    def _repr_html_(self) -> str:
        rows = self._rows()
        shown = [["site", "mean", "sd"], *map(list, rows[:MAX_ROWS])]
        climbed = "" if self.ladder is None else preformatted(self.ladder.text)
        return paragraphs(self._head()) + table(shown) + paragraphs(self._rest(rows)) + climbed

    def _head(self) -> list[str]:
        """Engine and seconds, status and advice, the bound."""
        detail = f" ({self.detail})" if self.detail else ""
        lines = [
            f"{self.engine} fit of model '{self.problem.name}' in {self.seconds:.1f} s",
            f"status: {self.status.label}{detail}. {self.status.advice}",
        ]
        with suppress(NotSupportedError):  # draws have no bound; the line is left out
            lines.append(f"bound:  {self.elbo(num_samples=1000, seed=self.seed)}")
        return lines

    def _rows(self) -> list[tuple[str, str, str]]:
        """Label, mean and sd of the first entries of each site, the steps of a loop as one."""
        rows: list[tuple[str, str, str]] = []
        drawn = self.problem.drawn
        loops = sequences(drawn)
        steps = {name: loop for loop in loops.values() for name in loop.sites}
        for name in drawn:
            if name not in steps:
                rows += self._entries(name, (name,))
            elif name == steps[name].sites[0]:
                rows += self._entries(steps[name].stem, steps[name].sites)
        return rows

    def _rest(self, rows: Sequence[tuple[str, str, str]]) -> list[str]:
        """What is said in the place of rows beyond :data:`MAX_ROWS`."""
        rest = len(rows) - MAX_ROWS
        words = f"… {rest} more row{'s' * (rest > 1)}; mean() and sd() have them all"
        return [words] if rest > 0 else []

    def _table(self) -> list[str]:
        """The rows as text, at most :data:`MAX_ROWS` of them."""
        rows = self._rows()
        shown = [(shorten(name), mean, sd) for name, mean, sd in rows[:MAX_ROWS]]
        width = max([len("site"), *(len(name) for name, _, _ in shown)])
        lines = [f"{'site':<{width}}  {'mean':>10}  {'sd':>8}"] if shown else []
        lines += [f"{name:<{width}}  {mean:>10}  {sd:>8}".rstrip() for name, mean, sd in shown]
        return lines + self._rest(rows)

    def _entries(self, title: str, sites: tuple[str, ...]) -> list[tuple[str, str, str]]:
        """Label, mean and sd of the first entries of some sites, and how many more there are."""
        rows: list[tuple[str, str, str]] = []
        for name in sites:
            if len(rows) >= FEW:
                break
            mean, sd = self._moments(name)
            rows += [
                (self._element(name, i), f"{float(mean[i]):.4g}", f"{float(sd[i]):.2g}")
                for i in _indices(mean.shape, limit=FEW - len(rows))
            ]
        rest = sum(self.problem.drawn[name].shape.numel() for name in sites) - len(rows)
        return [*rows, (f"{title}: {rest} more", "", "")] if rest else rows

    def _element(self, name: str, index: tuple[int, ...]) -> str:
        """An element of a site by its labels."""
        return element_words(self.problem.latents[name], self.problem.coords, index)

    def __repr__(self) -> str:
        return f"<{self.engine} posterior of '{self.problem.name}': {self.status.label}>"


def _indices(shape: torch.Size, limit: int) -> list[tuple[int, ...]]:
    count = min(limit, shape.numel())
    return [
        tuple(int(i) for i in torch.unravel_index(torch.tensor(k), shape)) for k in range(count)
    ]
