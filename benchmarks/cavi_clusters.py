"""Gaussian mixtures of Old Faithful's eruptions and of the galaxies' velocities, as a picture.

    python benchmarks/cavi_clusters.py path/to/faithful.csv path/to/galaxies.csv

Both are fitted by ``cavi`` with more components than needed and a sparse prior on the weights, which
empties those that are not. Writes results/cavi_clusters.png.
"""

import argparse
from pathlib import Path

import pandas
import pyro
import pyro.distributions as dist
import torch
from matplotlib.figure import Figure
from matplotlib.patches import Ellipse
from torch import Tensor

from vitools import Problem, cavi

COMPONENTS = 6
COLOURS = [f"C{i}" for i in range(COMPONENTS)]


def mixture(y: Tensor) -> None:
    """Full covariances; y standardised, [n, d]."""
    d = y.shape[1]
    eye = torch.eye(d, dtype=y.dtype)
    weights = pyro.sample("weights", dist.Dirichlet(torch.full((COMPONENTS,), 0.01, dtype=y.dtype)))
    with pyro.plate("components", COMPONENTS):
        mean = pyro.sample("mean", dist.MultivariateNormal(torch.zeros_like(y[0]), 4 * eye))
        precision = pyro.sample("precision", dist.Wishart(y.new_tensor(d + 1.0), 4 * eye))
    with pyro.plate("rows", len(y)):
        z = pyro.sample("z", dist.Categorical(weights))
        pyro.sample("y", dist.MultivariateNormal(mean[z], precision_matrix=precision[z]), obs=y)


def fitted(values: Tensor) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Weights, means, covariances on the data's scale, and the likeliest component of each row."""
    centre, scale = values.mean(0), values.std(0)
    fit = cavi(Problem(mixture, (values - centre) / scale), restarts=20)
    print(fit)
    found = fit.mean()
    covariance = torch.linalg.inv(found["precision"]) * scale * scale[:, None]
    return (
        found["weights"],
        found["mean"] * scale + centre,
        covariance,
        fit.marginal("z").logits.argmax(-1),
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("faithful", type=Path)
    parser.add_argument("galaxies", type=Path)
    options = parser.parse_args()
    geysers = torch.tensor(pandas.read_csv(options.faithful).to_numpy(float))[:, -2:]
    galaxies = torch.tensor(pandas.read_csv(options.galaxies).to_numpy(float))[:, -1:] / 1000
    figure = Figure(figsize=(9, 3.6), layout="constrained")
    left, right = figure.subplots(1, 2)
    weights, means, covariances, labels = fitted(geysers)
    left.scatter(*geysers.T, c=[COLOURS[k] for k in labels], s=8)
    for k in torch.nonzero(weights > 0.02).flatten():
        lengths, axes = torch.linalg.eigh(covariances[k])
        angle = float(torch.rad2deg(torch.atan2(axes[1, 1], axes[0, 1])))
        width, height = (4 * lengths.sqrt()).flip(0).tolist()
        left.add_patch(
            Ellipse(means[k].tolist(), width, height, angle=angle, fill=False, color=COLOURS[k])
        )
    left.set(xlabel="eruption, minutes", ylabel="wait, minutes", title="Old Faithful")
    weights, means, covariances, labels = fitted(galaxies)
    grid = torch.linspace(5, 40, 400, dtype=torch.float64)
    total = torch.zeros_like(grid)
    for k in torch.nonzero(weights > 0.02).flatten():
        normal = torch.distributions.Normal(means[k, 0], covariances[k, 0, 0].sqrt())
        part = weights[k] * normal.log_prob(grid).exp()
        total += part
        right.plot(grid, part, color=COLOURS[k])
    right.plot(grid, total, color="0.3", linestyle="--")
    right.hist(galaxies[:, 0].numpy(), bins=35, density=True, color="0.85")
    right.set(xlabel="velocity, 1000 km/s", title="galaxies in Corona Borealis")
    figure.savefig(Path(__file__).parent / "results" / "cavi_clusters.png", dpi=120)


if __name__ == "__main__":
    main()
