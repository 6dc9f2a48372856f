"""Has the ascent ended, and do its restarts agree? In words.

The history of a bound is cut as a Markov chain is: split-R̂ of its last part compares the two
halves of a window with the scatter inside them,

    R̂² = (W (n - 1)/n + B/n) / W,

B/n the variance between the means of the halves, W the mean variance within. Above 1.1 the record
still has a trend. Dhaka et al. use it on iterates; a bound recorded with noise serves as well. A
deterministic ascent has no noise to compare with: there what counts is what is left to gain.

References:
    Gelman, Rubin, *Inference from iterative simulation*, Statistical Science 7, 1992.
    Dhaka, Catalina, Andersen, Magnusson, Huggins, Vehtari, *Robust, accurate stochastic
    optimization for variational inference*, NeurIPS 2020.
"""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import torch
from pyro.ops.stats import split_gelman_rubin
from torch import Tensor

from vitools.diagnostics.weights.bounds import marginal_bound
from vitools.errors import OptionError
from vitools.posterior import Estimate, History, Posterior

RHAT_LIMIT = 1.1
WINDOW = 0.2
"""The share of the record that is looked at."""
FEWEST = 20
NATS = 0.1
"""A difference of bounds that is worth a sentence."""


def split_rhat(iterates: Tensor) -> float:
    """Split-R̂ of iterates ``[n]`` or of several runs ``[runs, n]``, n ≥ 4.

    Example:
        >>> round(split_rhat(torch.tensor([0.0, 1.0] * 50)), 2), split_rhat(torch.arange(100.0)) > 2
        (0.99, True)
    """
    runs = torch.atleast_2d(iterates.detach().double())
    if runs.shape[-1] < 4:
        raise OptionError(f"split-R̂ needs at least 4 iterates, got {runs.shape[-1]}.")
    runs = runs[:, : runs.shape[-1] // 2 * 2]
    if bool((runs == runs[0, 0]).all()):
        return 1.0
    return float(split_gelman_rubin(runs, chain_dim=0, sample_dim=1))


@dataclass(frozen=True)
class Trend:
    """Whether a bound still rises.

    Attributes:
        rhat: split-R̂ of the last fifth of the record; ``None`` where there is too little of it.
        gain: what the bound won from the first to the second half of that part, in nats.
        words: one sentence.
    """

    rhat: float | None
    gain: float
    words: str

    @property
    def has_ended(self) -> bool:
        return self.rhat is None or self.rhat <= RHAT_LIMIT or self.gain <= NATS


def trend(history: History) -> Trend:
    """Look at the end of a fit's record.

    Args:
        history: the record.

    Example:
        >>> record = History(list(range(200)), [float(-1000 + i) for i in range(200)], [0.0] * 200)
        >>> print(trend(record).words)
        the bound still rises: by 20.0 nats over the last 40 records (split-R̂ 2.58)
    """
    recorded = torch.tensor(history.elbo, dtype=torch.float64)
    last = recorded[-max(FEWEST, int(WINDOW * len(recorded))) :]
    if len(last) < FEWEST or not bool(torch.isfinite(last).all()):
        return Trend(None, 0.0, "too short a record to judge by")
    half = len(last) // 2
    gain = float(last[-half:].mean() - last[:half].mean())
    found = Trend(split_rhat(last), gain, "")
    said = f"over the last {len(last)} records (split-R̂ {found.rhat:.2f})"
    if found.has_ended:
        return Trend(found.rhat, gain, f"the bound has no trend worth following {said}")
    if gain < 0:
        return Trend(found.rhat, gain, f"the bound falls by {-gain:.1f} nats {said}")
    return Trend(found.rhat, gain, f"the bound still rises: by {gain:.1f} nats {said}")


@dataclass(frozen=True)
class Restarts:
    """Bounds of several runs of one method.

    Attributes:
        bounds: ``{name: bound}``.
        best: the name of the highest.
        agree: whether all lie within 0.1 nats, or two standard errors, of the best.
        words: one sentence.
    """

    bounds: dict[str, Estimate]
    best: str
    agree: bool
    words: str


def restarts(
    fits: Mapping[str, Posterior] | Sequence[Posterior], num_samples: int = 1000
) -> Restarts:
    """Compare the bounds of fits of one problem from several starts."""
    named = (
        dict(fits) if isinstance(fits, Mapping) else {f"run {i}": f for i, f in enumerate(fits, 1)}
    )
    if len(named) < 2:
        raise OptionError(f"expected at least two fits to compare, got {len(named)}.")
    bounds = {name: marginal_bound(fit, num_samples, fit.seed) for name, fit in named.items()}
    best = max(bounds, key=lambda name: bounds[name].value)
    top = bounds[best]
    behind = {
        name: top.value - found.value
        for name, found in bounds.items()
        if not top.value - found.value
        <= NATS + 2 * math.hypot(top.standard_error, found.standard_error)
    }
    if not behind:
        return Restarts(bounds, best, True, f"all {len(bounds)} runs end at the same bound")
    worst = max(behind, key=lambda name: behind[name])
    words = (
        f"{len(behind)} of {len(bounds)} runs end below the best ({best}), the lowest by "
        f"{behind[worst]:.1f} nats ({worst}): the start matters; run more of them, and keep the best"
    )
    return Restarts(bounds, best, False, words)
