"""Who takes what how often: counts of users and items as products of tastes and traits.

    θ_uk ~ Gamma(0.3, 0.3 b)          taste of user u for trait k = 1, …, K
    β_ik ~ Gamma(0.3, 0.3)            how much of trait k is in item i
    n_ui ~ Poisson(Σ_k θ_uk β_ik)     all pairs; most are 0

b makes the rate of a pair that the prior expects the mean of the counts, K/b. Only the pairs that are not
zero are given, and a sweep costs in proportion to them: of the others only the total rate is asked,
Σ_k (Σ_u θ_uk) (Σ_i β_ik). In place of log Σ_k θ_uk β_ik stands its bound by shares of the traits.

References: P. Gopalan, J. Hofman, D. Blei, "Scalable recommendation with hierarchical Poisson
factorization", UAI 2015; A. Cemgil, "Bayesian inference for nonnegative matrix factorisation models", 2009.
"""

from dataclasses import dataclass
from typing import Any

import pyro
import pyro.distributions as dist
import torch
from torch import Tensor

from vitools.errors import DataError, OptionError
from vitools.models import Example
from vitools.models.columns import as_codes, as_column

SPARSITY = 0.3
"""Shape of the gamma priors: below 1 most tastes are next to nothing."""


def model(count: Tensor, user: Tensor, item: Tensor, factors: int = 5) -> None:
    """Sites: ``taste`` [K] by plates *users* × *factors*, ``trait`` by plates *items* × *factors*.

    Args:
        count: how often, [N]; pairs that are not given have 0.
        user, item: whose and of what, [N]: whole numbers, of whatever values; each pair once.
        factors: K.
    """
    if not isinstance(factors, int) or factors < 1:
        raise OptionError(f"factors: expected a positive whole number, got {factors!r}.")
    count = as_column("count", count)
    if bool(((count < 0) | (count != count.round())).any()):
        row = int(((count < 0) | (count != count.round())).nonzero()[0])
        raise DataError(
            f"count: {count[row].item():g} in row {row}; expected whole numbers from 0."
        )
    who, users = as_codes("user", user, len(count))
    what, items = as_codes("item", item, len(count))
    if len(torch.unique(who * items + what)) < len(count):
        raise DataError(
            "user, item: a pair is there twice. Add its counts up to one row for each pair."
        )
    shape = count.new_tensor(SPARSITY)
    scale = factors / (count.sum() / (users * items))
    with pyro.plate("factors", factors, dim=-1):
        with pyro.plate("users", users, dim=-2):
            taste = pyro.sample("taste", dist.Gamma(shape, shape * scale))
        with pyro.plate("items", items, dim=-2):
            trait = pyro.sample("trait", dist.Gamma(shape, shape))
    rate = (taste[who] * trait[what]).sum(-1)
    log_counts = (count * rate.log() - torch.lgamma(count + 1)).sum()
    pyro.factor("count", log_counts - (taste.sum(-2) * trait.sum(-2)).sum(-1))


@dataclass(frozen=True)
class Counts:
    """Counts [N] that are not 0, of whom and what [N], and the ``rate`` of each pair [users, items]."""

    count: Tensor
    user: Tensor
    item: Tensor
    rate: Tensor


def simulate(num_users: int = 80, num_items: int = 40, seed: int = 0) -> Counts:
    """Four kinds of items; each user likes one kind, and a little of another."""
    if min(num_users, num_items) < 4:
        raise OptionError(f"expected 4 users and items at least, got {num_users}, {num_items}.")
    generator = torch.Generator().manual_seed(seed)
    users, items = torch.arange(num_users), torch.arange(num_items)
    likes = torch.eye(4, dtype=torch.float64)[users % 4]
    likes = likes + 0.2 * torch.eye(4, dtype=torch.float64)[(users // 4) % 4]
    popular = 0.5 + 2 * torch.rand(num_items, generator=generator, dtype=torch.float64)
    rate = likes @ (popular[:, None] * torch.eye(4, dtype=torch.float64)[items * 4 // num_items]).mT
    table = torch.poisson(rate, generator=generator)
    user, item = table.nonzero(as_tuple=True)
    return Counts(table[user, item], user, item, rate)


def example(seed: int) -> Example:
    """Counts of 80 users and 40 items."""
    counts = simulate(seed=seed)
    return Example(
        model,
        (counts.count, counts.user, counts.item),
        f"{len(counts.count)} counts of 80 users and 40 items, 5 traits offered (simulated)",
        pictures=pictures,
    )


def pictures(posterior: Any) -> dict[str, Any]:
    """The items of each trait, the largest first."""
    from vitools.models.pictures import labels_of, plot_leaders

    trait = posterior.mean()["trait"].mT  # [K, items]
    size = posterior.mean()["taste"].sum(0)  # of a trait's rate
    figure = plot_leaders(
        trait * size[:, None],
        labels_of(posterior, "trait", -2),
        "trait",
        "expected count, all users",
    )
    return {"traits": figure}
