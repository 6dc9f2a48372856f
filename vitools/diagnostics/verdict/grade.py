"""How much to rely on a fit: the grades, and a verdict with its reason."""

from dataclasses import dataclass
from enum import Enum


class Grade(Enum):
    """How much to rely on a fit, best first."""

    TRUST = "trust"
    CARE = "use with care"
    REJECT = "do not use"

    @property
    def rank(self) -> int:
        """0 for the best."""
        return list(Grade).index(self)


@dataclass(frozen=True)
class Verdict:
    """A grade, the reason in one sentence, and the next thing to try (empty where all is well).

    Attributes:
        advice: the next thing to try.
    """

    grade: Grade
    reason: str
    advice: str = ""

    def __str__(self) -> str:
        return self.grade.value
