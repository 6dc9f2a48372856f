"""Few causes of many columns: principal components, and factor analysis, with a relevance for each.

    w_vk ~ Normal(0, 1 / a_k)                      loadings of column v on factor k = 1, …, K
    a_k ~ Gamma(1, s²)                             the relevance of a factor that explains nothing grows
    z_nk ~ Normal(0, 1)                            scores of row n
    m_v ~ Normal(mean of column v, (10 s_v)²)
    x_nv ~ Normal(m_v + Σ_k z_nk w_vk, 1/τ)        one noise for all columns: principal components
                            … or 1/τ_v)            one for each: factor analysis
    τ ~ Gamma(½, ½ (s/10)²),   τ_v ~ Gamma(½, ½ (s_v/10)²)       one row of a tenth of the spread

s_v is the standard deviation of column v, s² the mean of their squares. What data say of z Wᵀ they say of
no rotation of it: the prior of W turns the factors onto its axes, and q(z) q(W) is sure of a direction that
the posterior is not. Its verdict is therefore poor although the plane that the factors span is found; ask of
the fit what no rotation changes (z Wᵀ, the shares of the variance, the noise).

References: C. Bishop, "Variational principal components", ICANN 1999; M. Tipping, C. Bishop, "Probabilistic
principal component analysis", JRSS B 61, 1999.
"""

from dataclasses import dataclass
from typing import Any

import pyro
import pyro.distributions as dist
import torch
from torch import Tensor

from vitools.errors import DataError, OptionError
from vitools.models import Example
from vitools.models.columns import as_table, spread_of


def model(data: Tensor, factors: int = 2) -> None:
    """Principal components.

    Sites: ``relevance`` in plate *factors*, ``mean`` and ``loadings`` [K] in plate *variables*, ``scores``
    [K] in plate *rows*, ``noise_precision``.

    Args:
        data: [N, V].
        factors: K.
    """
    _table_of_factors(data, factors, own_noise=False)


def factor_analysis(data: Tensor, factors: int = 2) -> None:
    """The same with a noise for each column, ``noise_precision`` in plate *variables*."""
    _table_of_factors(data, factors, own_noise=True)


def _table_of_factors(data: Tensor, factors: int, own_noise: bool) -> None:
    data = as_table("data", data)
    spread = spread_of("data", data)
    num_rows, size = data.shape
    if not isinstance(factors, int) or not 1 <= factors < size:
        raise (DataError if size < 3 else OptionError)(
            f"factors: expected a whole number from 1 to below the {size} columns of data, got "
            f"{factors!r}. Give more columns, or fewer factors."
        )
    half, zero = data.new_tensor(0.5), data.new_zeros(factors)
    total = spread.square().mean()
    with pyro.plate("factors", factors):
        relevance = pyro.sample("relevance", dist.Gamma(torch.ones_like(total), total))
    if not own_noise:
        noise = pyro.sample("noise_precision", dist.Gamma(half, half * total / 100))
    variables = pyro.plate("variables", size, dim=-1)
    rows = pyro.plate("rows", num_rows, dim=-2)
    with variables:
        mean = pyro.sample("mean", dist.Normal(data.mean(0), 10 * spread))
        loadings = pyro.sample("loadings", dist.Normal(zero, relevance.rsqrt()).to_event(1))
        if own_noise:
            noise = pyro.sample("noise_precision", dist.Gamma(half, half * spread**2 / 100))
    with rows:
        scores = pyro.sample("scores", dist.Normal(zero, torch.ones_like(zero)).to_event(1))
    with rows, variables:
        location = mean + (scores * loadings).sum(-1)
        pyro.sample("data", dist.Normal(location, noise.rsqrt()), obs=data)


@dataclass(frozen=True)
class Tables:
    """A simulated table [N, V] and the truth: ``loadings`` [V, 2], ``scores`` [N, 2], ``noise_sd`` [V]."""

    data: Tensor
    truth: dict[str, Tensor]


def simulate(
    num_rows: int = 150, num_columns: int = 8, seed: int = 0, own_noise: bool = False
) -> Tables:
    """Two factors, the first with four times the variance of the second; noise of .5, or of .3 to .9."""
    if num_rows < 3 or num_columns < 3:
        raise OptionError(f"expected 3 rows and columns at least, got {num_rows}, {num_columns}.")
    generator = torch.Generator().manual_seed(seed)

    def normal(*shape: int) -> Tensor:
        return torch.randn(shape, generator=generator, dtype=torch.float64)

    loadings = normal(num_columns, 2) * torch.tensor([2.0, 1.0], dtype=torch.float64)
    scores = normal(num_rows, 2)
    noise = torch.full((num_columns,), 0.5, dtype=torch.float64)
    if own_noise:
        noise = torch.linspace(0.3, 0.9, num_columns, dtype=torch.float64)
    data = scores @ loadings.mT + noise * normal(num_rows, num_columns)
    return Tables(data, {"loadings": loadings, "scores": scores, "noise_sd": noise})


def example(seed: int) -> Example:
    """150 rows of 8 columns, of two factors."""
    return _example(model, simulate(seed=seed))


def factor_analysis_example(seed: int) -> Example:
    """The same with noise that differs by column."""
    return _example(factor_analysis, simulate(seed=seed, own_noise=True))


def _example(function: Any, tables: Tables) -> Example:
    return Example(
        function,
        (tables.data,),
        "150 rows of 8 columns, 2 factors (simulated)",
        pictures=pictures,
    )


def variances(posterior: Any) -> Tensor:
    """Σ_v E[w_vk²], what each factor adds to the variances of all columns: [K]."""
    mean, sd = posterior.mean()["loadings"], posterior.sd()["loadings"]
    return (mean.square() + sd.square()).reshape(-1, mean.shape[-1]).sum(0)


def pictures(posterior: Any) -> dict[str, Any]:
    """What each factor explains, and the columns' loadings on it."""
    from vitools.models.pictures import labels_of, plot_loadings

    mean = posterior.mean()["loadings"]
    figure = plot_loadings(
        mean.reshape(-1, mean.shape[-1]), variances(posterior), labels_of(posterior, "loadings", -2)
    )
    return {"factors": figure}
