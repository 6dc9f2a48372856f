"""A mixed model: a level and slopes for all, and each group's own departure from them.

    y_n = β₀ + x_nᵀ β + u_g[n],0 + x_nᵀ u_g[n],1: + ε_n        row n of group g[n]
    u_g ~ Normal(0, Σ)                                          [D], D = 1 + columns of x
    ε_n ~ Normal(0, 1/τ)

Of binomial counts the right-hand side, without ε, is the log-odds of a success.

**Priors**, scaled by the data, so that units do not matter: s_y is the standard deviation of y (2.5 for
log-odds), s_d that of column d of x. Each is worth little beside a few groups of data:

    β₀ ~ Normal(mean of y, (10 s_y)²),   β_d ~ Normal(0, (10 s_y / s_d)²)        (log-odds: 4 for 10)
    τ ~ Gamma(½, ½ s_y²)                 as much as one observation would say
    D = 1:  σ_u ~ half-Cauchy(A₀)        where groups differ in their level alone
    D > 1:  the sds of Σ half-t with 2 degrees of freedom and scales A_d, any correlation alike likely

A₀ = s_y, A_d = s_y / s_d. The last is Huang and Wand's (2013) prior, all of whose updates are closed:

    b_d ~ Gamma(½, 1/A_d²),   Σ⁻¹ ~ Wishart(D + 1, (4 diag b)⁻¹)

References: A. Huang, M. Wand, "Simple marginally noninformative prior distributions for covariance
matrices", Bayesian Analysis 8, 2013. D. Bates et al., "Fitting linear mixed-effects models using lme4",
Journal of Statistical Software 67, 2015.
"""

from dataclasses import dataclass
from typing import Any

import pyro
import pyro.distributions as dist
import torch
from torch import Tensor

from vitools.errors import DataError, OptionError
from vitools.models import Example
from vitools.models.columns import as_codes, as_column, as_real, as_table
from vitools.models.facts import Facts

ODDS_SPREAD = 2.5  # of log-odds: probabilities from .01 to .99 are within two of it


def model(
    y: Tensor,
    group: Tensor,
    x: Tensor | None = None,
    fixed: Tensor | None = None,
    *,
    coefficient_scale: float = 10.0,
    effect_scale: float = 1.0,
    facts: Facts | None = None,
) -> None:
    """A normal outcome.

    Sites: ``level`` [], ``slope`` in plate *slopes* (of x, then of ``fixed``), ``effect`` in plate
    *groups*, ``noise_precision``; ``effect_sd`` [] or, with x, ``effect_precision`` [D, D] and
    ``half_t_rate`` [D]. Computed from these: ``noise_sd``, ``effect_sd`` [D], ``effect_correlation``
    [D (D - 1) / 2], of (slope 1, level), (slope 2, level), (slope 2, slope 1), …

    Args:
        y: the outcome, [N].
        group: the group of each row, [N]: whole numbers, of whatever values.
        x: what the groups' own slopes are of, [N] or [N, columns].
        fixed: what has one slope for all groups, [N] or [N, columns].
        coefficient_scale: the prior sd of level and slopes, in units of s_y and s_y / s_d.
        effect_scale: of the groups' scales A, in the same units.
        facts: what the priors need of all rows, where these are some of them.
    """
    y = as_column("y", y)
    facts = facts or facts_of_rows(y, group, x, fixed)
    spread = facts.spread(["y", *_words(y, x, fixed)])[0]
    noise = pyro.sample("noise_precision", dist.Gamma(y.new_tensor(0.5), 0.5 * spread**2))
    pyro.deterministic("noise_sd", noise.rsqrt())
    mean = _predictor(y, facts, True, group, x, fixed, coefficient_scale, effect_scale)
    with pyro.plate("rows", len(y)):
        pyro.sample("y", dist.Normal(mean, noise.rsqrt()), obs=y)


def binomial(
    y: Tensor,
    group: Tensor,
    trials: Tensor | None = None,
    x: Tensor | None = None,
    fixed: Tensor | None = None,
    *,
    coefficient_scale: float = 4.0,
    effect_scale: float = 1.0,
    facts: Facts | None = None,
) -> None:
    """Successes ``y`` of ``trials`` (of one if omitted), else as :func:`model`, on the log-odds."""
    y = as_column("y", y)
    trials = torch.ones_like(y) if trials is None else as_column("trials", trials, len(y)).to(y)
    wrong = (y < 0) | (y > trials) | (y != y.round()) | (trials != trials.round())
    if bool(wrong.any()):
        row = int(wrong.nonzero()[0])
        raise DataError(
            f"y: {y[row].item():g} of {trials[row].item():g} trials in row {row} (counting from 0); "
            "expected whole numbers from 0 to the trials. Give the trials of each row as 'trials'."
        )
    facts = facts or _facts_of_counts(y, group, trials, x, fixed)
    log_odds = _predictor(y, facts, False, group, x, fixed, coefficient_scale, effect_scale)
    with pyro.plate("rows", len(y)):
        pyro.sample("y", dist.Binomial(trials, logits=log_odds), obs=y)


def facts_of_rows(
    y: Tensor, group: Tensor, x: Tensor | None = None, fixed: Tensor | None = None, **_: object
) -> Facts:
    """What the priors need of all rows: means and spreads, and which groups there are."""
    y = as_column("y", y)
    return _facts(y, [y[:, None]], group, x, fixed)


def _facts_of_counts(
    y: Tensor,
    group: Tensor,
    trials: Tensor | None = None,
    x: Tensor | None = None,
    fixed: Tensor | None = None,
    **_: object,
) -> Facts:
    return _facts(as_column("y", y), [], group, x, fixed)


def _words(y: Tensor, x: Tensor | None, fixed: Tensor | None) -> list[str]:
    """What the columns of x and ``fixed`` are called."""
    return [
        f"{name}, column {column} (counting from 0)"
        for name, table in (("x", x), ("fixed", fixed))
        if table is not None
        for column in range(as_table(name, table, y).shape[1])
    ]


def _facts(
    y: Tensor, own: list[Tensor], group: Tensor, x: Tensor | None, fixed: Tensor | None
) -> Facts:
    given = [as_table(k, v, y) for k, v in (("x", x), ("fixed", fixed)) if v is not None]
    return Facts.of(
        torch.cat([y.new_zeros(len(y), 0), *own, *given], 1), group=as_real("group", group)
    )


model.facts_of_rows = facts_of_rows  # type: ignore[attr-defined]
binomial.facts_of_rows = _facts_of_counts  # type: ignore[attr-defined]


def _predictor(
    y: Tensor,
    facts: Facts,
    is_normal: bool,
    group: Tensor,
    x: Tensor | None,
    fixed: Tensor | None,
    coefficient_scale: float,
    effect_scale: float,
) -> Tensor:
    """Sample coefficients and effects; the level and slopes of each row's group, [N].

    Args:
        is_normal: whether the units are those of y, the first column of the facts; else log-odds.
    """
    for name, value in {
        "coefficient_scale": coefficient_scale,
        "effect_scale": effect_scale,
    }.items():
        if not value > 0:
            raise OptionError(f"{name}: expected a positive number, got {value!r}.")
    member, num_groups = as_codes("group", group, len(y), among=facts.values["group"])
    given = {k: as_table(k, v, y) for k, v in (("x", x), ("fixed", fixed)) if v is not None}
    words = _words(y, x, fixed)
    spreads = facts.spread(["y", *words] if is_normal else words)
    if is_normal:
        centre, spread, spreads = facts.mean[0], spreads[0], spreads[1:]
    else:
        centre, spread = y.new_zeros(()), y.new_tensor(ODDS_SPREAD)
    predictor = pyro.sample("level", dist.Normal(centre, coefficient_scale * spread))
    if given:
        columns, scales = torch.cat([*given.values()], 1), spread / spreads
        with pyro.plate("slopes", len(scales)):
            slope = pyro.sample("slope", dist.Normal(0 * scales, coefficient_scale * scales))
        predictor = predictor + slope @ columns.mT
    if x is None:
        sd = pyro.sample("effect_sd", dist.HalfCauchy(effect_scale * spread))
        with pyro.plate("groups", num_groups):
            effect = pyro.sample("effect", dist.Normal(0 * spread, sd))
        return predictor + effect[member]
    precision = _precision(effect_scale * torch.cat([spread[None], scales[: given["x"].shape[1]]]))
    with pyro.plate("groups", num_groups):
        zero = y.new_zeros(precision.shape[-1])
        effect = pyro.sample("effect", dist.MultivariateNormal(zero, precision_matrix=precision))
    columns = torch.cat([torch.ones_like(y)[:, None], given["x"]], 1)
    return predictor + (effect[member] * columns).sum(-1)


def _precision(scales: Tensor) -> Tensor:
    """Σ⁻¹ [D, D] under half-t sds with scales [D], and what is read of it."""
    size = len(scales)
    with pyro.plate("terms", size):
        rate = pyro.sample("half_t_rate", dist.Gamma(scales.new_tensor(0.5), scales**-2))
    precision = pyro.sample(
        "effect_precision",
        dist.Wishart(scales.new_tensor(size + 1.0), precision_matrix=torch.diag_embed(4 * rate)),
    )
    # scaled to a unit diagonal first, for terms in units far apart; inv_ex, because what is singular to the
    # last digit (a point that a search for modes tries) is no reason to stop
    scale = precision.diagonal(dim1=-2, dim2=-1).rsqrt()
    inverse = torch.linalg.inv_ex(scale[..., :, None] * precision * scale[..., None, :])[0]
    root = inverse.diagonal(dim1=-2, dim2=-1).sqrt()
    pyro.deterministic("effect_sd", scale * root)
    correlation = inverse / (root[..., :, None] * root[..., None, :])
    rows, columns = torch.tril_indices(size, size, -1)
    pyro.deterministic("effect_correlation", correlation[..., rows, columns])
    return precision


@dataclass(frozen=True)
class GroupData:
    """Simulated rows in groups, float64, with the truth behind them.

    Attributes:
        y, group: [N].
        x: [N].
        trials: [N], of binomial counts.
        truth: ``level`` [], ``slope`` [1], ``effect`` [groups, 2] (of counts [groups]), ``effect_sd``,
            ``effect_correlation`` [1], ``noise_sd`` [].
    """

    y: Tensor
    group: Tensor
    x: Tensor
    trials: Tensor | None
    truth: dict[str, Tensor]


def simulate(num_groups: int = 24, rows_per_group: int = 10, seed: int = 0) -> GroupData:
    """Reaction times over days without sleep: all slow down, each person at their own pace.

    Levels 250 ± 25 and slopes 10 ± 6 a day, correlated by .3, noise ± 25.

    >>> data = simulate(3, 4)
    >>> data.y.shape, data.group.tolist(), data.truth["effect"].shape
    (torch.Size([12]), [0, 0, 0, 0, 1, 1, 1, 1, 2, 2, 2, 2], torch.Size([3, 2]))
    """
    generator = torch.Generator().manual_seed(seed)
    group, x = _layout(num_groups, rows_per_group)
    truth = {
        "level": _number(250.0),
        "slope": _number(10.0)[None],
        "effect_sd": torch.tensor([25.0, 6.0], dtype=torch.float64),
        "effect_correlation": _number(0.3)[None],
        "noise_sd": _number(25.0),
    }
    correlation = torch.tensor([[1.0, 0.3], [0.3, 1.0]], dtype=torch.float64)
    root = torch.linalg.cholesky(correlation) * truth["effect_sd"][:, None]
    truth["effect"] = _noise(generator, num_groups, 2) @ root.mT
    own = truth["effect"][group]
    y = 250 + own[:, 0] + (10 + own[:, 1]) * x + 25 * _noise(generator, len(x))
    return GroupData(y, group, x, None, truth)


def simulate_binomial(num_groups: int = 20, rows_per_group: int = 4, seed: int = 0) -> GroupData:
    """Cases among 15 animals of a herd, in four periods: rarer from one to the next.

    The log-odds are -1 - ½ period + the herd's own effect, ± .8.
    """
    generator = torch.Generator().manual_seed(seed)
    group, x = _layout(num_groups, rows_per_group)
    truth = {"level": _number(-1.0), "slope": _number(-0.5)[None], "effect_sd": _number(0.8)}
    truth["effect"] = 0.8 * _noise(generator, num_groups)
    trials = torch.full_like(x, 15.0)
    log_odds = -1 - 0.5 * x + truth["effect"][group]
    y = torch.binomial(trials, log_odds.sigmoid(), generator=generator)
    return GroupData(y, group, x, trials, truth)


def _layout(num_groups: int, rows_per_group: int) -> tuple[Tensor, Tensor]:
    """The group of each row, and how many rows of it came before."""
    if num_groups < 2 or rows_per_group < 2:
        raise OptionError(
            f"expected at least 2 groups of 2 rows, got {num_groups} of {rows_per_group}."
        )
    group = torch.arange(num_groups).repeat_interleave(rows_per_group)
    return group, torch.arange(rows_per_group, dtype=torch.float64).repeat(num_groups)


def _number(value: float) -> Tensor:
    return torch.tensor(value, dtype=torch.float64)


def _noise(generator: torch.Generator, *shape: int) -> Tensor:
    return torch.randn(shape, generator=generator, dtype=torch.float64)


def example(seed: int) -> Example:
    """240 reaction times of 24 people."""
    data = simulate(seed=seed)
    return Example(
        model,
        (data.y, data.group, data.x),
        "240 rows of 24 groups, a level and a slope each (simulated)",
        pictures=pictures,
    )


def binomial_example(seed: int) -> Example:
    """Cases in 20 herds."""
    data = simulate_binomial(seed=seed)
    return Example(
        binomial,
        (data.y, data.group, data.trials, None, data.x),
        "80 counts of 20 groups (simulated)",
        pictures=pictures,
    )


def pictures(posterior: Any) -> dict[str, Any]:
    """The effects of the groups, in order."""
    from vitools.models.pictures import plot_effects

    terms = posterior.problem.latents["effect"].shape[1:].numel()
    titles = ["level"] if terms == 1 else ["level", *(f"slope {d + 1}" for d in range(terms - 1))]
    return {"effects": plot_effects(posterior, "effect", titles=titles)}
