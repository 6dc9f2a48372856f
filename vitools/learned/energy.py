"""Learning to sample from an explicitly known density p(x) = exp(-E(x) / T) / Z on ℝ^D.

A flow q is fitted by minimising the variational free energy

    F_q = E_q[E(x)] + T E_q[log q(x)]  ≥  F = -T log Z,

which needs E but no draws from p. Importance weights w = exp(-E(x)/T) / q(x) then estimate
log Z = log E_q[w], and say by their spread how far q still is from p. F. Noé et al. (2019),
"Boltzmann generators", Science 365; M. Albergo et al. (2019), "Flow-based generative models for
Markov chain Monte Carlo in lattice field theory", Phys. Rev. D 100.
"""

import math
import time
from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

from vitools.diagnostics.weights.khat import pareto_khat
from vitools.engines.progress import Listener, Progress
from vitools.errors import NumericalError, OptionError
from vitools.guides.flow.flow import Bijection, FlowDistribution
from vitools.guides.flow.zuko_flows import FlowMap
from vitools.guides.joint.affine import scale_tril
from vitools.isolation import seeded
from vitools.posterior import Estimate
from vitools.whole_numbers import check_whole

_HOTTEST = 10.0  # the fit cools from this multiple of T, over the first part of the steps
_COOLING = 0.4

NUM_SAMPLES = 10_000
EVERY = 25
"""Steps between two reports."""


@dataclass(frozen=True, eq=False)
class EnergyDensity:
    """A flow fitted to exp(-E(x) / T) / Z.

    Attributes:
        energy: E, of points ``[n, D]``.
        temperature: T.
        q: the fitted distribution on ``[D]``; carries no gradient.
        history: F_q / T at every step, each at the temperature of that step (see
            :func:`vitools.fit_density`).
    """

    energy: Callable[[Tensor], Tensor]
    temperature: float
    q: FlowDistribution
    history: Tensor

    def log_prob(self, x: Tensor) -> Tensor:
        """log q of points ``[…, D]``."""
        return self.q.log_prob(x)

    def sample(self, num_samples: int, seed: int = 0) -> Tensor:
        """``[n, D]`` draws of q."""
        check_whole("num_samples", num_samples, 1)
        with seeded(seed), torch.no_grad():
            return self.q.sample((num_samples,))

    def log_weights(self, num_samples: int = NUM_SAMPLES, seed: int = 0) -> Tensor:
        """-E(x)/T - log q(x), ``[n]``, at the draws that :meth:`sample` gives for this seed."""
        check_whole("num_samples", num_samples, 2)
        with seeded(seed), torch.no_grad():
            draws = self.q.sample((num_samples,))
            return (-self.energy(draws) / self.temperature - self.q.log_prob(draws)).double()

    def log_normaliser(self, num_samples: int = NUM_SAMPLES, seed: int = 0) -> Estimate:
        """log Z by importance sampling, with the error of log w̄ by the delta method.

        The error is to be believed where :meth:`effective_sample_size` is a good part of ``n`` and :meth:`khat`
        below .7. A mode of p in which q never draws adds to none of them: start the fit wide.
        """
        log_weights = self.log_weights(num_samples, seed)
        weights = torch.exp(log_weights - log_weights.max())
        mean = weights.mean()
        value = log_weights.max() + mean.log()
        return Estimate(value.item(), (weights.std() / mean).item() / math.sqrt(num_samples))

    def free_energy(self, num_samples: int = NUM_SAMPLES, seed: int = 0) -> Estimate:
        """F = -T log Z, from :meth:`log_normaliser`."""
        log_z = self.log_normaliser(num_samples, seed)
        return Estimate(-self.temperature * log_z.value, self.temperature * log_z.standard_error)

    def variational_free_energy(self, num_samples: int = NUM_SAMPLES, seed: int = 0) -> Estimate:
        """F_q, an upper bound of F, which needs no weights to be even."""
        return Estimate.of_mean(-self.temperature * self.log_weights(num_samples, seed), "upper")

    def effective_sample_size(self, num_samples: int = NUM_SAMPLES, seed: int = 0) -> Estimate:
        """(Σ w)² / Σ w², between 1 and ``n``, with its error by the delta method."""
        log_weights = self.log_weights(num_samples, seed)
        w = torch.exp(log_weights - log_weights.max())
        first, second = w.mean(), w.square().mean()
        # d(m₁²/m₂): what one more draw of weight w changes
        influence = 2 * first / second * (w - first) - (first / second) ** 2 * (w.square() - second)
        error = influence.std() * math.sqrt(num_samples)
        return Estimate((num_samples * first**2 / second).item(), error.item())

    def khat(self, num_samples: int = NUM_SAMPLES, seed: int = 0) -> float:
        """Pareto's k̂ of the weights: above .7 the errors of the other figures say too little."""
        return pareto_khat(self.log_weights(num_samples, seed))

    def __str__(self) -> str:
        """log Z, free energies, how even the weights are, at the default number of draws."""
        return "\n".join(
            [
                f"density of {self.q.event_shape[0]} numbers known up to Z, T = {self.temperature:g}",
                f"log Z {self.log_normaliser()}",
                f"free energy {self.free_energy()}, variational {self.variational_free_energy()}",
                f"effective draws {self.effective_sample_size()} of {NUM_SAMPLES}, k̂ {self.khat():.2f}",
            ]
        )


def learn(
    energy: Callable[[Tensor], Tensor],
    dim: int,
    *,
    temperature: float,
    kind: str,
    loc: Tensor | None,
    scale: Tensor | float,
    layers: int,
    width: int,
    max_steps: int,
    batch: int,
    learning_rate: float,
    seed: int,
    tell: Listener | None,
) -> EnergyDensity:
    """Fit a flow to exp(-E(x) / T) / Z, differentiating through its draws.

    The temperature falls from 10 T to T over the first two fifths of the steps, so that separate
    modes are found while they are still joined; the step size falls to 0 along a cosine.
    """
    began = time.monotonic()
    start = torch.zeros(dim) if loc is None else loc.detach()
    flow = None
    if kind != "normal":
        flow = FlowMap(kind, dim, layers=layers, width=width, seed=seed).to(start)
    bijection: Bijection = no_map if flow is None else flow
    shift = start.clone().requires_grad_()
    log_scale = torch.as_tensor(scale).to(start).log().expand(dim).clone().requires_grad_()
    correlation = torch.zeros(dim, dim).to(start).requires_grad_()
    parameters = [shift, log_scale, correlation, *([] if flow is None else flow.parameters())]
    optimizer = torch.optim.Adam(parameters, lr=learning_rate)
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, max_steps)
    history = []
    with seeded(seed):
        for step in range(max_steps):
            hot = _HOTTEST ** max(0.0, 1 - step / (_COOLING * max_steps))
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
            if tell is not None and step % EVERY == 0:
                note = f"variational free energy over T {float(history[-1]):.3f}"
                seconds = time.monotonic() - began
                tell(Progress("density", step, max_steps, math.nan, seconds, note=note))
    if flow is not None:
        flow.requires_grad_(False)
    tril = scale_tril(log_scale, correlation).detach()
    q = FlowDistribution(bijection, shift.detach(), tril)
    return EnergyDensity(energy, temperature, q, torch.stack(history))


def no_map(z: Tensor, inverse: bool = False) -> tuple[Tensor, Tensor]:
    """The identity in place of a flow: q is a normal."""
    return z, z.new_zeros(z.shape[:-1])
