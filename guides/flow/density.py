"""Learning to sample from an explicitly known density p(x) = exp(-E(x) / T) / Z on ℝ^D.

A flow q is fitted by minimising the variational free energy

    F_q = E_q[E(x)] + T E_q[log q(x)]  ≥  F = -T log Z,

which needs E but no draws from p. Importance weights w = exp(-E(x)/T) / q(x) then estimate
log Z = log E_q[w], and say by their spread how far q still is from p. F. Noé et al. (2019),
"Boltzmann generators", Science 365; M. Albergo et al. (2019), "Flow-based generative models for
Markov chain Monte Carlo in lattice field theory", Phys. Rev. D 100.
"""

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import NamedTuple

import torch
from torch import Tensor

from vitools.errors import NumericalError, OptionError
from vitools.guides.flow.flow import FlowDistribution
from vitools.guides.flow.zuko_flows import FlowMap
from vitools.guides.joint.affine import scale_tril
from vitools.isolation import seeded

_HOTTEST = 10.0  # the fit cools from this multiple of T, over the first part of the steps
_COOLING = 0.4


class WithError(NamedTuple):
    """A Monte Carlo estimate and its standard error."""

    value: float
    standard_error: float


@dataclass(frozen=True)
class DensityFit:
    """A flow fitted to exp(-E(x) / T) / Z.

    Attributes:
        q: the fitted distribution on ``[D]``; carries no gradient.
        history: F_q / T at every step, each at the temperature of that step (see
            :func:`fit_density`).
    """

    energy: Callable[[Tensor], Tensor]
    temperature: float
    q: FlowDistribution
    history: Tensor

    def sample(self, num_samples: int, seed: int = 0) -> Tensor:
        """``[n, D]`` draws of q."""
        with seeded(seed), torch.no_grad():
            return self.q.sample((num_samples,))

    def log_weights(self, num_samples: int, seed: int = 0) -> Tensor:
        """-E(x)/T - log q(x), ``[n]``, at the draws that :meth:`sample` gives for this seed."""
        with seeded(seed), torch.no_grad():
            draws = self.q.sample((num_samples,))
            return -self.energy(draws) / self.temperature - self.q.log_prob(draws)

    def free_energy(self, num_samples: int = 10_000, seed: int = 0) -> WithError:
        """F_q, an upper bound of -T log Z; its error is that of the mean over ``num_samples`` draws."""
        values = -self.temperature * self.log_weights(num_samples, seed).double()
        return WithError(values.mean().item(), values.std().item() / math.sqrt(num_samples))

    def log_normaliser(self, num_samples: int = 10_000, seed: int = 0) -> WithError:
        """log Z by importance sampling, with the error of log w̄ by the delta method.

        The error is to be believed where :meth:`effective_sample_size` is a good part of ``n``.
        A mode of p in which q never draws adds to neither: start the fit wide.
        """
        log_weights = self.log_weights(num_samples, seed).double()
        weights = torch.exp(log_weights - log_weights.max())
        mean = weights.mean()
        value = log_weights.max() + mean.log()
        return WithError(value.item(), (weights.std() / mean).item() / math.sqrt(num_samples))

    def effective_sample_size(self, num_samples: int = 10_000, seed: int = 0) -> float:
        """(Σ w)² / Σ w², between 1 and ``n``."""
        log_weights = self.log_weights(num_samples, seed).double()
        return torch.exp(2 * log_weights.logsumexp(0) - (2 * log_weights).logsumexp(0)).item()


def fit_density(
    energy: Callable[[Tensor], Tensor],
    dim: int,
    *,
    temperature: float = 1.0,
    flow: str = "spline",
    loc: Tensor | None = None,
    scale: Tensor | float = 1.0,
    layers: int = 4,
    width: int = 64,
    num_steps: int = 2000,
    batch: int = 256,
    learning_rate: float = 5e-3,
    seed: int = 0,
) -> DensityFit:
    """Fit a flow to exp(-E(x) / T) / Z, differentiating through its draws.

    The temperature falls from 10 T to T over the first two fifths of the steps, so that separate
    modes are found while they are still joined; the step size falls to 0 along a cosine.

    Args:
        energy: E, differentiable, from ``[batch, D]`` to ``[batch]``.
        dim: D.
        temperature: T > 0.
        flow: a name in :data:`vitools.guides.flow.zuko_flows.FLOWS`.
        loc, scale: of the Gaussian the flow starts as; it should cover the modes. The default
            dtype decides that of the fit unless ``loc`` is given.
        layers, width: of the flow.
        num_steps, batch, learning_rate: of Adam.
        seed: of weights and draws.

    Raises:
        NumericalError: the energy or its gradient left the finite numbers.

    >>> fit = fit_density(lambda x: x.square().sum(-1) / 2, 2, flow="realnvp", num_steps=5)
    >>> value, error = fit.log_normaliser()
    >>> abs(value - math.log(2 * math.pi)) < 0.1
    True
    """
    if not temperature > 0:
        raise OptionError(f"temperature: expected a number above 0, got {temperature}")
    if dim < 1 or num_steps < 1 or batch < 2:
        raise OptionError(
            f"expected dim ≥ 1, num_steps ≥ 1 and batch ≥ 2, got {dim}, {num_steps} and {batch}"
        )
    start = torch.zeros(dim) if loc is None else loc.detach()
    bijection = FlowMap(flow, dim, layers=layers, width=width, seed=seed).to(start)
    shift = start.clone().requires_grad_()
    log_scale = torch.as_tensor(scale).to(start).log().expand(dim).clone().requires_grad_()
    correlation = torch.zeros(dim, dim).to(start).requires_grad_()
    parameters = [shift, log_scale, correlation, *bijection.parameters()]
    optimizer = torch.optim.Adam(parameters, lr=learning_rate)
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, num_steps)
    history = []
    with seeded(seed):
        for step in range(num_steps):
            hot = _HOTTEST ** max(0.0, 1 - step / (_COOLING * num_steps))
            q = FlowDistribution(bijection, shift, scale_tril(log_scale, correlation))
            draws = q.rsample(torch.Size([batch]))
            energies = energy(draws)
            if energies.shape != (batch,):
                raise OptionError(
                    f"energy: expected a tensor of shape ({batch},) for points of shape "
                    f"({batch}, {dim}), got {tuple(energies.shape)}"
                )
            loss = (energies / (hot * temperature) + q.log_prob(draws)).mean()
            optimizer.zero_grad()
            loss.backward()
            size = torch.nn.utils.clip_grad_norm_(parameters, 100.0)
            if not bool(torch.isfinite(loss.detach() + size)):
                raise NumericalError(
                    f"step {step}: the free energy or its gradient became non-finite. Check that "
                    "the energy and its gradient are finite wherever q may draw, or start narrower "
                    "(scale) or slower (learning_rate)."
                )
            optimizer.step()
            schedule.step()
            history.append(loss.detach())
    bijection.requires_grad_(False)
    tril = scale_tril(log_scale, correlation).detach()
    q = FlowDistribution(bijection, shift.detach(), tril)
    return DensityFit(energy, temperature, q, torch.stack(history))
