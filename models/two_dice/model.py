"""The two-dice model as an ordinary Pyro model, and data drawn from it."""

from dataclasses import dataclass

import pyro
import pyro.distributions as dist
import torch
from pyro import poutine
from torch import Tensor

from vitools.models.two_dice.prior import (
    Concentrations,
    Hyperparameter,
    check_count,
    prior_concentrations,
    traceable_concentrations,
)
from vitools.models.two_dice.rows import check_layout


def model(
    rolls: Tensor,
    sides1: int = 3,
    sides2: int = 4,
    faces: int = 6,
    alpha1: Hyperparameter | None = None,
    alpha2: Hyperparameter | None = None,
    beta: Hyperparameter | None = None,
) -> None:
    """p(π¹, π², ρ, z¹, z², x) of two dice.

    Sites: ``pi1`` [D₁], ``pi2`` [D₂], ``rho`` [S, V] in plate *dice*, ``z1`` and ``z2`` [N, 1] in
    plate *rows* (dim -2), ``rolls`` [N, J] in plates *rows* and *throws* (dim -1). The discrete
    sites can be enumerated.

    Args:
        rolls: x, integers in 0, …, V-1, shape [N, J]. Their range is left to whoever runs the
            model to check, so that the model can be traced with the rolls as an input.
        sides1: D₁, sides of the first hidden die.
        sides2: D₂, sides of the second.
        faces: V, faces of each of the S = D₁ + D₂ - 1 visible dice.
        alpha1: α¹, a number or [D₁]; 2 when not given.
        alpha2: α², a number or [D₂]; 2 when not given.
        beta: β, a number, [V] or [S, V]; 1 when not given.

    The hyperparameters are float64 unless tensors are given; then all follow their dtype.
    """
    check_layout(rolls)
    prior = traceable_concentrations(
        sides1, sides2, faces, alpha1, alpha2, beta, device=rolls.device
    )
    num_rows, num_rolls = rolls.shape
    pi1 = pyro.sample("pi1", dist.Dirichlet(prior.alpha1))
    pi2 = pyro.sample("pi2", dist.Dirichlet(prior.alpha2))
    with pyro.plate("dice", sides1 + sides2 - 1, dim=-1):
        rho = pyro.sample("rho", dist.Dirichlet(prior.beta))
    with pyro.plate("rows", num_rows, dim=-2):
        z1 = pyro.sample("z1", dist.Categorical(pi1))
        z2 = pyro.sample("z2", dist.Categorical(pi2))
        with pyro.plate("throws", num_rolls, dim=-1):
            pyro.sample("rolls", dist.Categorical(rho[z1 + z2]), obs=rolls)


@dataclass(frozen=True)
class Simulation:
    """Data drawn from the model, with what made them.

    Attributes:
        rolls: x, int64, shape [N, J].
        truth: the latents, by site name and in the shape of their site: ``pi1`` [D₁],
            ``pi2`` [D₂], ``rho`` [S, V], ``z1`` and ``z2`` [N, 1].
        prior: the hyperparameters.
    """

    rolls: Tensor
    truth: dict[str, Tensor]
    prior: Concentrations


def simulate(
    num_rows: int = 500,
    num_rolls: int = 5,
    sides1: int = 3,
    sides2: int = 4,
    faces: int = 6,
    alpha1: Hyperparameter | None = None,
    alpha2: Hyperparameter | None = None,
    beta: Hyperparameter | None = None,
    *,
    seed: int = 0,
) -> Simulation:
    """Draw latents and rolls from the model; torch's global random state is left as it was.

    Args:
        num_rows: N.
        num_rolls: J, rolls per row.
        sides1: D₁. The rest as for :func:`model`.
        seed: equal seeds give equal data.

    Returns:
        A :class:`Simulation`.

    Example:
        >>> data = simulate(num_rows=100, seed=3)
        >>> data.rolls.shape, data.truth["rho"].shape
        (torch.Size([100, 5]), torch.Size([6, 6]))
    """
    check_count("num_rows", num_rows)
    check_count("num_rolls", num_rolls)
    cpu = torch.device("cpu")
    prior = prior_concentrations(sides1, sides2, faces, alpha1, alpha2, beta, device=cpu)
    layout = torch.zeros(num_rows, num_rolls, dtype=torch.long)
    with torch.random.fork_rng(devices=[]), poutine.block():
        # Not torch.manual_seed, which would reseed the GPUs as well.
        torch.default_generator.manual_seed(seed)
        trace = poutine.trace(poutine.uncondition(model)).get_trace(
            layout, sides1, sides2, faces, *prior
        )
    values = {name: trace.nodes[name]["value"] for name in ("pi1", "pi2", "rho", "z1", "z2")}
    return Simulation(trace.nodes["rolls"]["value"], values, prior)
