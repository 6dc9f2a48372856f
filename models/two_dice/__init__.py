"""Two dice: a Dirichlet mixture whose component is the sum of two hidden throws.

Two hidden dice are thrown for every row; their sum chooses which of the visible dice is rolled::

    π¹ ~ Dirichlet(α¹)                    the D₁ sides of the first hidden die
    π² ~ Dirichlet(α²)                    the D₂ sides of the second
    ρ_s ~ Dirichlet(β_s)                  the V faces of visible die s = 0, …, S-1, S = D₁ + D₂ - 1
    z¹_n ~ Categorical(π¹)                row n = 1, …, N; sides count from 0
    z²_n ~ Categorical(π²)
    x_nj ~ Categorical(ρ_{z¹_n + z²_n})   roll j = 1, …, J; faces count from 0

::

    α¹ ──► π¹ ──► z¹_n ─┐
                        ├──► x_nj ◄── ρ_s ◄── β_s
    α² ──► π² ──► z²_n ─┘
                  └ plates: rows n ⊃ throws j ┘    └ plate: dice s ┘

Small enough to do everything by hand, and rich enough to show what goes wrong: z¹_n and z²_n are
independent before the rolls and dependent after them, labels can be permuted, and two fair hidden
dice are a singular point.

Every full conditional is conjugate, so coordinate ascent has explicit formulas (``updates``), the
evidence of a few rows can be enumerated (``evidence``), and ``docs/derivations/two_dice.md``
derives each of them.

References:
    Bishop, *Pattern Recognition and Machine Learning*, 2006, section 10.2 (variational mixtures).
    Blei, Kucukelbir, McAuliffe, *Variational inference: a review for statisticians*, JASA 2017.
    Saul, Jordan, *Exploiting tractable substructures in intractable networks*, NIPS 1995
    (structured mean field: the joint q(z¹, z²)).
"""

from vitools.models import Example
from vitools.models.two_dice.cavi import HandDerivedFit, hand_derived_cavi, starting_point
from vitools.models.two_dice.evidence import exact_log_evidence
from vitools.models.two_dice.model import Simulation, model, simulate
from vitools.models.two_dice.prior import Concentrations, prior_concentrations
from vitools.models.two_dice.rows import CountedRows, distinct_rows
from vitools.models.two_dice.symmetry import Symmetry, invariants, match, symmetries
from vitools.models.two_dice.updates import (
    FactorisedResponsibilities,
    JointResponsibilities,
    elbo,
    expected_log,
    expected_log_likelihood,
    sum_distribution,
    update_globals,
    update_rows_factorised,
    update_rows_joint,
    update_z1,
    update_z2,
)

__all__ = [
    "Concentrations",
    "CountedRows",
    "FactorisedResponsibilities",
    "HandDerivedFit",
    "JointResponsibilities",
    "Simulation",
    "Symmetry",
    "distinct_rows",
    "elbo",
    "exact_log_evidence",
    "example",
    "expected_log",
    "expected_log_likelihood",
    "hand_derived_cavi",
    "invariants",
    "match",
    "model",
    "prior_concentrations",
    "simulate",
    "starting_point",
    "sum_distribution",
    "symmetries",
    "update_globals",
    "update_rows_factorised",
    "update_rows_joint",
    "update_z1",
    "update_z2",
]

# What Problem and hand_derived() look for on a model.
model.invariants = invariants  # type: ignore[attr-defined]
model.hand_derived_cavi = hand_derived_cavi  # type: ignore[attr-defined]
model.exact_log_evidence = exact_log_evidence  # type: ignore[attr-defined]


def example(seed: int) -> Example:
    """200 rows of 20 rolls, simulated from the prior: enough per row to tell the sums apart."""
    rolls = simulate(num_rows=200, num_rolls=20, sides1=2, sides2=3, seed=seed).rolls
    description = (
        f"200 rows × 20 rolls, hidden dice of 2 and 3 sides, 4 dice of 6 faces "
        f"(simulated, seed {seed})"
    )
    return Example(model, (rolls, 2, 3), description)
