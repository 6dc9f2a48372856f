"""The shapes of the Kumaraswamy, and the one closest to each of some Betas: a figure for the docs.

python benchmarks/kumaraswamy_shapes.py [--out docs/kumaraswamy.svg]
"""

import argparse
from pathlib import Path

import torch
from matplotlib import rcParams
from matplotlib.backends.backend_svg import FigureCanvasSVG
from matplotlib.figure import Figure
from torch.distributions import Beta

from vitools.distributions import Kumaraswamy

SHAPES = ((0.5, 0.5), (1.0, 3.0), (2.0, 2.0), (5.0, 1.0), (4.0, 20.0))
BETAS = ((0.5, 0.5), (2.0, 5.0), (10.0, 10.0), (60.0, 20.0))


def pair(first: float, second: float) -> tuple[torch.Tensor, torch.Tensor]:
    return torch.tensor(first, dtype=torch.float64), torch.tensor(second, dtype=torch.float64)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--out", type=Path, default=Path("docs/kumaraswamy.svg"))
    out = parser.parse_args().out
    v = torch.linspace(0.002, 0.998, 500, dtype=torch.float64)
    figure = Figure(figsize=(10, 3.6), layout="constrained")
    FigureCanvasSVG(figure)
    left, right = figure.subplots(1, 2)
    for a, b in SHAPES:
        q = Kumaraswamy.from_concentrations(*pair(a, b))
        left.plot(v, q.log_prob(v).exp(), label=f"K({a:g}, {b:g})")
    left.set(title="Kumaraswamy densities", xlabel="v", ylabel="f(v)", ylim=(0, 5))
    for index, (alpha, beta) in enumerate(BETAS):
        target = Beta(*pair(alpha, beta))
        closest, divergence = Kumaraswamy.closest_to(target)
        colour = f"C{index}"
        right.plot(v, target.log_prob(v).exp(), colour, label=f"Beta({alpha:g}, {beta:g})")
        a, b = closest.concentration1.item(), closest.concentration0.item()
        right.plot(
            v,
            closest.log_prob(v).exp(),
            colour,
            linestyle="--",
            label=f"K({a:.2f}, {b:.3g}): {divergence.item():.3f} nats",
        )
    right.set(title="Betas, and the closest Kumaraswamys (dashed)", xlabel="v", ylim=(0, 13))
    left.legend(fontsize="small", ncols=2)
    right.legend(fontsize="small", ncols=2)
    rcParams["svg.hashsalt"] = "kumaraswamy"  # the same file every time
    figure.savefig(out, metadata={"Date": None})


if __name__ == "__main__":
    main()
