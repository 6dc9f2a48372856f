"""What was tried before a fit was settled on, and why the climb ended there."""

from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from textwrap import wrap
from typing import TYPE_CHECKING, Any

from vitools.posterior.results import Estimate

if TYPE_CHECKING:
    import pandas

WIDTH = 80
NO_ANSWER, NOT_JUDGED = "no answer", "not judged"


@dataclass(frozen=True)
class Attempt:
    """One rung.

    Attributes:
        method: its name.
        verdict: the judge's grade, :data:`NO_ANSWER` or :data:`NOT_JUDGED`.
        reason: the judge's; or why there is no answer or no verdict.
        advice: the next thing to try, by the judge.
        seconds: of the fit and its judgement.
        bound, khat: ``None`` where there is none.
    """

    method: str
    verdict: str
    reason: str
    advice: str = ""
    seconds: float = 0.0
    bound: Estimate | None = None
    khat: Estimate | None = None

    def __str__(self) -> str:
        figures = [f"{self.seconds:.2g} s" if self.seconds < 100 else f"{self.seconds:.0f} s"]
        figures += [f"bound {self.bound}"] * (self.bound is not None)
        return f"{self.method} ({', '.join(figures)}): {self.verdict}: {self.reason}"


@dataclass(frozen=True)
class Ladder:
    """All rungs, and which of them the fit is.

    Attributes:
        attempts: in the order in which they were made.
        chosen: the method of the fit that was kept.
        stopped: why no further rung was tried.
        left_out: ``{method: why it is not for this model}``.
        is_interrupted: whether Ctrl-C ended it.
    """

    attempts: tuple[Attempt, ...]
    chosen: str
    stopped: str
    left_out: Mapping[str, str] = field(default_factory=dict)
    is_interrupted: bool = False

    @property
    def attempt(self) -> Attempt:
        """The one that was kept."""
        return next(each for each in self.attempts if each.method == self.chosen)

    @property
    def words(self) -> str:
        """In one clause."""
        return f"{self.chosen} ({len(self.attempts)} tried): {self.stopped}"

    @property
    def text(self) -> str:
        """A line or more for each attempt, and why there are no more."""
        lines = ["tried:"]
        for attempt in self.attempts:
            lines += wrap(str(attempt), WIDTH, initial_indent="  ", subsequent_indent="      ")
        if self.left_out:
            reasons = "; ".join(f"{method} ({why})" for method, why in self.left_out.items())
            lines += wrap(f"not for this model: {reasons}", WIDTH, subsequent_indent="      ")
        return "\n".join(lines + wrap(f"kept: {self.words}", WIDTH, subsequent_indent="      "))

    @property
    def table(self) -> "pandas.DataFrame":
        """A row for each attempt; NaN where a figure does not exist."""
        import pandas

        rows = []
        for attempt in self.attempts:
            row = asdict(attempt)
            for figure in ("bound", "khat"):
                known = getattr(attempt, figure)
                row[figure] = float("nan") if known is None else known.value
                row[f"{figure}_se"] = float("nan") if known is None else known.standard_error
            rows.append(row)
        return pandas.DataFrame(rows).set_index("method")

    def record(self) -> dict[str, Any]:
        """As JSON has it."""
        return asdict(self)

    @classmethod
    def of_record(cls, record: Mapping[str, Any]) -> "Ladder":
        """The inverse of :meth:`record`."""
        attempts = tuple(
            Attempt(**each | {k: Estimate(**each[k]) for k in ("bound", "khat") if each[k]})
            for each in record["attempts"]
        )
        return cls(**{**record, "attempts": attempts})
