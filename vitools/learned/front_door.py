"""One verb for the two ways of learning a density: from samples, and from an energy."""

import math
from collections.abc import Callable, Sequence
from typing import Any, overload

import torch
from torch import Tensor
from torch.distributions.constraints import Constraint

from vitools.engines.progress import ProgressCallback, listener
from vitools.errors import OptionError
from vitools.guides.flow.zuko_flows import FLOWS
from vitools.learned import energy as by_energy
from vitools.learned import samples as by_samples
from vitools.learned.energy import EnergyDensity
from vitools.learned.samples import LearnedDensity
from vitools.problem.sites import nearest
from vitools.whole_numbers import check_seed, check_whole

KINDS = ("normal", *FLOWS)
VALIDATION = 0.1


@overload
def fit_density(
    samples: Any,
    context: Any = None,
    *,
    kind: str = "spline",
    support: Constraint | Sequence[Constraint | None] | None = None,
    validation: float | None = None,
    layers: int | None = None,
    width: int = 64,
    max_steps: int = 2000,
    batch: int = 256,
    learning_rate: float = 5e-3,
    seed: int = 0,
    progress: ProgressCallback | None = None,
) -> LearnedDensity: ...


@overload
def fit_density(
    *,
    energy: Callable[[Tensor], Tensor],
    dim: int,
    temperature: float | None = None,
    loc: Tensor | None = None,
    scale: Tensor | float | None = None,
    kind: str = "spline",
    layers: int | None = None,
    width: int = 64,
    max_steps: int = 2000,
    batch: int = 256,
    learning_rate: float = 5e-3,
    seed: int = 0,
    progress: ProgressCallback | None = None,
) -> EnergyDensity: ...


def fit_density(
    samples: Any = None,
    context: Any = None,
    *,
    energy: Callable[[Tensor], Tensor] | None = None,
    dim: int | None = None,
    temperature: float | None = None,
    loc: Tensor | None = None,
    scale: Tensor | float | None = None,
    kind: str = "spline",
    support: Constraint | Sequence[Constraint | None] | None = None,
    validation: float | None = None,
    layers: int | None = None,
    width: int = 64,
    max_steps: int = 2000,
    batch: int = 256,
    learning_rate: float = 5e-3,
    seed: int = 0,
    progress: ProgressCallback | None = None,
) -> LearnedDensity | EnergyDensity:
    """Learn a density, from ``samples`` or from an ``energy``.

    **From samples**, by maximum likelihood; rows that do not train decide when to stop, others say how well it
    did (:class:`vitools.learned.LearnedDensity`). With a ``context`` it is q(x | context) for every context:
    pairs drawn from a prior and a simulator give the posterior of any data at once.

    **From an energy**, exp(-E(x) / T) / Z on ℝ^D: the flow that has the least free energy, log Z and its error
    from importance weights (:class:`vitools.learned.EnergyDensity`).

    Args:
        samples: independent rows ``[n, D]``, or numbers ``[n]``.
        context: of each row, ``[n, C]`` or ``[n]``.
        energy: E, differentiable, from ``[batch, D]`` to ``[batch]``.
        dim: D of the energy.
        temperature: T > 0 (default 1).
        loc, scale: of the normal that a fit to an energy starts as (default 0 and 1); it should cover the modes. The
            default dtype decides that of the fit unless ``loc`` is given.
        kind: ``"spline"`` (autoregressive neural splines: several modes, skew), ``"realnvp"`` (affine couplings),
            ``"autoregressive"`` (affine), or ``"normal"`` (linear in the context, in closed form from samples).
        support: where samples may lie: a constraint of one number, such as
            ``torch.distributions.constraints.positive``, or a list with one for each column, ``None`` for the whole
            line. The density is 0 outside.
        validation: share of the rows that watch the training (default a tenth); as many more are the held-out
            ones. Up to .4.
        layers: transformations of the flow (default 3, of an energy 4).
        width: of the two hidden layers of the networks.
        max_steps: of Adam, whose step falls from ``learning_rate`` to 0 along a cosine.
        batch: rows, or draws, in a step.
        seed: of the split, the weights and the steps.
        progress: told of each stretch of steps; ``False`` for silence.

    Raises:
        NumericalError: densities or energies left the finite numbers while training.

    Example:
        >>> x = torch.randn(2000, generator=torch.Generator().manual_seed(0))
        >>> q = fit_density(3 + 2 * x, kind="normal")
        >>> entropy = 0.5 * math.log(2 * math.pi * math.e * 4)
        >>> abs(q.held_out.value + entropy) < 4 * q.held_out.standard_error
        True
        >>> fit = fit_density(energy=lambda x: x.square().sum(-1) / 2, dim=2, kind="normal", max_steps=5)
        >>> log_z = fit.log_normaliser()  # log 2π
        >>> abs(log_z.value - math.log(2 * math.pi)) < 0.05
        True
    """
    if (samples is None) == (energy is None):
        raise OptionError(
            f"expected samples or energy=, got {'neither' if samples is None else 'both'}."
        )
    of_samples = {"context": context, "support": support, "validation": validation}
    of_energy = {"dim": dim, "temperature": temperature, "loc": loc, "scale": scale}
    wrong, what = (of_energy, "an energy") if energy is None else (of_samples, "samples")
    for name, value in wrong.items():
        if value is not None:
            raise OptionError(f"{name}: belongs to {what}, and none is given. Leave it out.")
    if kind not in KINDS:
        raise OptionError(
            f"kind: expected one of {', '.join(KINDS)}, got {kind!r}.{nearest(str(kind), KINDS)}"
        )
    if layers is None:
        layers = 3 if energy is None else 4
    check_whole("layers", layers, 1)
    check_whole("width", width, 1)
    check_whole("max_steps", max_steps, 1)
    check_whole("batch", batch, 2)
    _check_positive("learning_rate", learning_rate)
    check_seed(seed)
    told: dict[str, Any] = {
        "kind": kind,
        "layers": layers,
        "width": width,
        "max_steps": max_steps,
        "batch": batch,
        "learning_rate": learning_rate,
        "seed": seed,
        "tell": listener(progress),
    }
    if energy is None:
        share = VALIDATION if validation is None else validation
        return by_samples.learn(samples, context, support=support, validation=share, **told)
    if not callable(energy):
        raise OptionError(f"energy: expected a function of points [n, D], got {energy!r}.")
    if dim is None:
        raise OptionError("dim: expected the number of dimensions of the energy, got none.")
    check_whole("dim", dim, 1)
    temperature = 1.0 if temperature is None else temperature
    _check_positive("temperature", temperature)
    if loc is not None and (not isinstance(loc, Tensor) or loc.shape != (dim,)):
        got = list(loc.shape) if isinstance(loc, Tensor) else loc
        raise OptionError(f"loc: expected a tensor of shape [{dim}], got {got!r}.")
    width_at_start = torch.as_tensor(1.0 if scale is None else scale)
    if width_at_start.shape not in ((), (dim,)) or not bool((width_at_start > 0).all()):
        raise OptionError(f"scale: expected a positive number, or {dim} of them, got {scale!r}.")
    return by_energy.learn(
        energy, dim, temperature=temperature, loc=loc, scale=width_at_start, **told
    )


def _check_positive(name: str, value: Any) -> None:
    if isinstance(value, bool) or not isinstance(value, (int, float)) or not 0 < value < math.inf:
        raise OptionError(f"{name}: expected a number above 0, got {value!r}.")
