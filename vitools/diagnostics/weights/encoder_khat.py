"""Pareto k̂ of an encoder, datum by datum: for which of them q(z | x_n) can stand for the posterior.

A model whose latents stand in one plate has a posterior for each datum, and so a k̂ for each. The
importance weights of one datum, log w_sn = log p(x_n, z_sn) - log q(z_sn | x_n), are judged apart
from those of all others: a total over thousands of data would be heavy-tailed whatever the encoder.

Reference: Vehtari, Simpson, Gelman, Yao, Gabry, *Pareto smoothed importance sampling*, JMLR 25,
2024; for amortised posteriors Yao, Vehtari, Simpson, Gelman, *Yes, but did it work?*, ICML 2018.
"""

from dataclasses import dataclass

import torch
from torch import Tensor

from vitools.diagnostics.weights.khat import khat_estimate, khat_threshold
from vitools.errors import DataError


@dataclass(frozen=True)
class EncoderKhats:
    """k̂ of each datum.

    Attributes:
        values: ``[num_data]``, float64 on the CPU.
        standard_errors: theirs.
        num_samples: of each datum.
    """

    values: Tensor
    standard_errors: Tensor
    num_samples: int

    @property
    def threshold(self) -> float:
        """Above it that many importance weights are of no use."""
        return khat_threshold(self.num_samples)

    @property
    def share_above(self) -> float:
        """The share of the data whose importance-weighted figures are not to be believed."""
        return float((self.values > self.threshold).double().mean())


def encoder_khats(log_weights: Tensor) -> EncoderKhats:
    """k̂ of log weights ``[num_samples, num_data]``, at least 25 draws each.

    For the models of :mod:`vitools.models.vae` they are ``model.log_weights(…).total``.

    Example:
        >>> encoder_khats(torch.zeros(100, 3)).values
        tensor([0., 0., 0.], dtype=torch.float64)
    """
    if log_weights.ndim != 2:
        raise DataError(
            f"log_weights: expected [num_samples, num_data], got shape {list(log_weights.shape)}."
        )
    found = [khat_estimate(column) for column in log_weights.mT]
    return EncoderKhats(
        torch.tensor([khat.value for khat in found], dtype=torch.float64),
        torch.tensor([khat.standard_error for khat in found], dtype=torch.float64),
        len(log_weights),
    )
