"""Flows that learn to sample from known densities: two wells in the plane, and a φ⁴ lattice.

    python benchmarks/flow_energy.py [--out benchmarks/results]

Writes flow_energy.json (log Z by importance sampling beside its truth, the variational free energy,
the effective sample size, seconds) and flow_energy.png (energies, draws, magnetisation).
"""

import argparse
import json
import math
import time
from pathlib import Path

import numpy as np
import torch
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from scipy.sparse.linalg import LinearOperator, eigsh
from torch import Tensor

from vitools import fit_density
from vitools.learned import EnergyDensity

SIDE = 4
DRAWS = 10_000


def two_wells(x: Tensor) -> Tensor:
    """Curved wells of unequal depth around u = ±2, ``[…, 2] -> […]``."""
    u, v = x[..., 0], x[..., 1]
    return (u**2 - 4) ** 2 / 4 + (v - u / 2) ** 2 + 0.4 * u + 0.6 * torch.cos(3 * v)


def phi4(x: Tensor, mass: float = -4.0, coupling: float = 6.0) -> Tensor:
    """Σ_i [Σ_μ φ_i (2 φ_i - φ_{i+μ} - φ_{i-μ}) + m² φ_i² + λ φ_i⁴], periodic, ``[…, 16] -> […]``."""
    field = x.unflatten(-1, (SIDE, SIDE))
    kinetic = sum(field * (2 * field - field.roll(1, d) - field.roll(-1, d)) for d in (-1, -2))
    return (kinetic + mass * field**2 + coupling * field**4).flatten(-2).sum(-1)


def log_normaliser_by_quadrature(temperature: float) -> float:
    """log Z of the two wells by the trapezoid rule on [-8, 8]²."""
    grid = torch.linspace(-8, 8, 1601, dtype=torch.float64)
    points = torch.stack(torch.meshgrid(grid, grid, indexing="ij"), -1)
    step = (grid[1] - grid[0]).item()
    values = -two_wells(points) / temperature
    return values.flatten().logsumexp(0).item() + 2 * math.log(step)


def log_normaliser_by_transfer_matrix(points: int = 24, half_width: float = 1.7) -> float:
    """log Z of the lattice: tr M⁴ for the transfer matrix M between rows, by quadrature.

    With g Gauss-Legendre points a site, M = D^½ (K ⊗ K ⊗ K ⊗ K) D^½ acts on g⁴ states: K couples
    a site to the one in the next row, D holds the terms within a row. Eigenvalues fall fast, and
    the leading ones give the trace.
    """
    x, weight = np.polynomial.legendre.leggauss(points)
    x, weight = x * half_width, weight * half_width
    kernel = np.exp(2 * np.outer(x, x))
    log_site = np.log(weight) - (2 * 2 - 4.0) * x**2 - 6.0 * x**4
    axes = np.meshgrid(*[np.arange(points)] * SIDE, indexing="ij")
    bonds = sum(2 * x[axes[i]] * x[axes[(i + 1) % SIDE]] for i in range(SIDE))
    root = np.exp((sum(log_site[axis] for axis in axes) + bonds) / 2)

    def apply(vector: np.ndarray) -> np.ndarray:
        state = vector.reshape((points,) * SIDE) * root
        for axis in range(SIDE):
            state = np.moveaxis(np.tensordot(kernel, state, (1, axis)), 0, axis)
        return (state * root).ravel()

    operator = LinearOperator((points**SIDE,) * 2, matvec=apply, dtype=float)
    values = eigsh(operator, k=40, return_eigenvectors=False)
    return math.log((values**SIDE).sum())


def report(name: str, fit: EnergyDensity, seconds: float, truth: float) -> dict[str, object]:
    log_z, free_energy = fit.log_normaliser(DRAWS), fit.variational_free_energy(DRAWS)
    row = {
        "density": name,
        "truth_log_z": truth,
        "log_z": log_z.value,
        "log_z_standard_error": log_z.standard_error,
        "free_energy": free_energy.value,
        "free_energy_standard_error": free_energy.standard_error,
        "exact_free_energy": -fit.temperature * truth,
        "effective_sample_size": fit.effective_sample_size(DRAWS).value,
        "draws": DRAWS,
        "seconds": seconds,
    }
    print(
        f"{name:10} log Z {log_z.value:.4f} ± {log_z.standard_error:.4f} (truth {truth:.4f})  "
        f"F_q {free_energy.value:.4f} (F {-fit.temperature * truth:.4f})  "
        f"ESS {row['effective_sample_size']:.0f} of {DRAWS}  {seconds:.0f} s"
    )
    return row


def draw(wells: EnergyDensity, lattice: EnergyDensity, path: Path) -> None:
    """Energy and draws of the wells; the lattice's magnetisation before and after weighting."""
    figure = Figure(figsize=(13, 4), layout="constrained")
    FigureCanvasAgg(figure)
    left, middle, right = figure.subplots(1, 3)
    u, v = torch.linspace(-4, 4, 201), torch.linspace(-4, 4, 201)
    grid = torch.stack(torch.meshgrid(u, v, indexing="xy"), -1)
    levels = torch.linspace(-2, 10, 25).tolist()
    contours = left.contourf(u, v, two_wells(grid), levels=levels, cmap="viridis_r", extend="both")
    figure.colorbar(contours, ax=left, label="energy E")
    left.set(title="the energy", xlabel="u", ylabel="v")
    points = wells.sample(3000)
    middle.contour(u, v, two_wells(grid), levels=levels[::3], colors="0.7", linewidths=0.7)
    middle.scatter(points[:, 0], points[:, 1], s=2, alpha=0.4, color="tab:blue")
    middle.set(title="3000 draws of the fitted flow", xlabel="u", ylabel="v")
    magnetisation = lattice.sample(DRAWS).mean(-1)
    weights = lattice.log_weights(DRAWS).softmax(0)
    bins = torch.linspace(-1.2, 1.2, 41).tolist()
    right.hist(magnetisation, bins, density=True, alpha=0.5, label="flow")
    right.hist(
        magnetisation,
        bins,
        weights=weights,
        density=True,
        histtype="step",
        color="k",
        label="weighted to the exact density",
    )
    right.set(title=f"φ⁴ on {SIDE} × {SIDE}: magnetisation", xlabel="mean of φ", ylabel="density")
    right.set_ylim(top=1.5 * right.get_ylim()[1])
    right.legend(loc="upper center")
    figure.savefig(path, dpi=120)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--out", type=Path, default=Path("benchmarks/results"))
    out = parser.parse_args().out
    out.mkdir(parents=True, exist_ok=True)
    began = time.perf_counter()
    wells = fit_density(energy=two_wells, dim=2, scale=2.0, max_steps=800)
    seconds = time.perf_counter() - began
    rows = [report("two wells", wells, seconds, log_normaliser_by_quadrature(1.0))]
    began = time.perf_counter()
    lattice = fit_density(energy=phi4, dim=SIDE**2, max_steps=600)
    seconds = time.perf_counter() - began
    rows.append(report("phi4 4x4", lattice, seconds, log_normaliser_by_transfer_matrix()))
    (out / "flow_energy.json").write_text(json.dumps(rows, indent=2) + "\n")
    draw(wells, lattice, out / "flow_energy.png")


if __name__ == "__main__":
    main()
