"""Clusters: a mixture of normals with full covariances.

    w ~ Dirichlet(1, …, 1)                      shares of the K components
    P_k ~ Wishart(D + 2, ((D + 2) S / K^(2/D))⁻¹)    their precisions [D, D]
    m_k ~ Normal(mean of the data, 4 S)         their locations [D]
    z_n ~ Categorical(w),   x_n ~ Normal(m_z[n], P_z[n]⁻¹)

S is the covariance of all rows: K components of one size that fill the space of the data have about
S / K^(2/D), which is what the prior expects of each, with the weight of D + 2 rows. Components may change
places, so of K! equal modes a fit shows one.

Reference: C. Bishop, "Pattern Recognition and Machine Learning", 2006, section 10.2.
"""

from dataclasses import dataclass
from typing import Any

import pyro
import pyro.distributions as dist
import torch
from torch import Tensor

from vitools.errors import DataError, OptionError
from vitools.models import Example
from vitools.models.columns import as_table
from vitools.models.facts import Facts


def model(data: Tensor, components: int = 2, *, facts: Facts | None = None) -> None:
    """Sites: ``weights`` [K]; ``precision`` [D, D] and ``location`` [D] in plate *components*;
    ``component`` in plate *rows*.

    Args:
        data: [N, D], or [N] for D = 1.
        components: K.
        facts: what the priors need of all rows, where these are some of them.
    """
    if not isinstance(components, int) or components < 2:
        raise OptionError(f"components: expected a whole number from 2, got {components!r}.")
    data = as_table("data", data)
    num_rows, size = data.shape
    facts = facts or Facts.of(data)
    facts.spread([f"data, column {column} (counting from 0)" for column in range(size)])
    covariance = facts.covariance
    if int(torch.linalg.matrix_rank(covariance, hermitian=True)) < size:
        raise DataError(
            f"data: {facts.count} rows of {size} columns span fewer than {size} dimensions: a column is a "
            "sum of others, or there are too few rows. Leave columns out."
        )
    one = data.new_ones(())
    freedom = (size + 2) * one
    weights = pyro.sample("weights", dist.Dirichlet(data.new_ones(components)))
    with pyro.plate("components", components):
        rate = freedom * covariance / components ** (2 / size)
        precision = pyro.sample("precision", dist.Wishart(freedom, precision_matrix=rate))
        location = pyro.sample("location", dist.MultivariateNormal(facts.mean, 4 * covariance))
    with pyro.plate("rows", num_rows):
        component = pyro.sample("component", dist.Categorical(weights))
        pyro.sample(
            "data",
            dist.MultivariateNormal(location[component], precision_matrix=precision[component]),
            obs=data,
        )


def invariants(values: dict[str, Tensor]) -> dict[str, Tensor]:
    """What no change of labels moves: the components from the left to the right of the first column.

    Args:
        values: ``weights`` [*lead, K], ``location`` [*lead, K, D] and ``precision`` [*lead, K, D, D].
    """
    location = values["location"]
    order = location[..., 0].argsort(-1)
    found = {}
    for name, dims in (("weights", 0), ("location", 1), ("precision", 2)):
        value = values[name]
        index = order.reshape(*order.shape, *[1] * dims).expand(value.shape)
        found[f"{name}_in_order"] = value.gather(order.dim() - 1, index)
    return found


def facts_of_rows(data: Tensor, components: int = 2) -> Facts:
    """What the priors need of all rows."""
    return Facts.of(as_table("data", data))


model.invariants = invariants  # type: ignore[attr-defined]
model.facts_of_rows = facts_of_rows  # type: ignore[attr-defined]


@dataclass(frozen=True)
class Clusters:
    """Simulated rows [N, 2], the component of each [N], and the truth by site."""

    data: Tensor
    component: Tensor
    truth: dict[str, Tensor]


def simulate(num_rows: int = 300, seed: int = 0) -> Clusters:
    """Eruptions, short ones after short waits and long ones after long waits, a third of them short."""
    if num_rows < 10:
        raise OptionError(f"num_rows: expected at least 10, got {num_rows}.")
    generator = torch.Generator().manual_seed(seed)
    location = torch.tensor([[2.0, 55.0], [4.3, 80.0]], dtype=torch.float64)
    covariance = torch.tensor(
        [[[0.07, 0.45], [0.45, 34.0]], [[0.17, 0.95], [0.95, 36.0]]], dtype=torch.float64
    )
    weights = torch.tensor([0.35, 0.65], dtype=torch.float64)
    component = torch.multinomial(weights, num_rows, replacement=True, generator=generator)
    noise = torch.randn(num_rows, 2, generator=generator, dtype=torch.float64)
    root = torch.linalg.cholesky(covariance)[component]
    data = location[component] + (root @ noise[:, :, None])[:, :, 0]
    truth = {"weights": weights, "location": location, "covariance": covariance}
    return Clusters(data, component, truth)


def example(seed: int) -> Example:
    """300 rows in two clusters."""
    clusters = simulate(seed=seed)
    return Example(
        model,
        (clusters.data,),
        "300 rows of 2 columns in 2 clusters (simulated)",
        pictures=pictures,
    )


def responsibilities(posterior: Any) -> Tensor:
    """P(row n is of component k | data), at the means of weights, locations and precisions: [N, K]."""
    mean, data = posterior.mean(), as_table("data", posterior.problem.observed["data"].value)
    parts = dist.MultivariateNormal(mean["location"], precision_matrix=mean["precision"])
    return (mean["weights"].log() + parts.log_prob(data[:, None])).softmax(-1)


def pictures(posterior: Any) -> dict[str, Any]:
    """The components over the data."""
    from vitools.models.pictures import plot_clusters

    mean = posterior.mean()
    figure = plot_clusters(
        as_table("data", posterior.problem.observed["data"].value),
        responsibilities(posterior),
        mean["location"],
        torch.linalg.inv(mean["precision"]),
        mean["weights"],
    )
    return {"clusters": figure}
