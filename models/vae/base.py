"""What every deep generative model here is: networks, stated as a Pyro model and its guide.

    model(data, …, batch_size=None)    p(x, z): decoders, weights as Pyro parameters
    guide(data, …, batch_size=None)    q(z | x): encoders, one for all rows (amortisation)

A subclass of :class:`DeepModel` makes its networks and states those two; minibatches, weights
that an engine can replace, and checks of the data stand here once.
"""

from collections.abc import Callable
from functools import partial
from typing import Any

import pyro
import torch
from torch import Tensor

from vitools.errors import DataError, OptionError
from vitools.models.vae.networks.precision import check_precision
from vitools.models.vae.weights import LogWeights, log_weights


class DeepModel(torch.nn.Module):
    """A ``torch.nn.Module`` whose ``model`` and ``guide`` are an ordinary Pyro pair.

    They run under ``pyro.infer.SVI`` or any engine here. Pyro's param store holds the weights by
    name (``decoder.network.0.weight``), and what the store holds is used: train each model in a
    store of its own, ``with pyro.get_param_store().scope():``.

    The recipe for a subclass, with networks ``decoder`` and ``encoder`` that return distributions::

        def model(self, images, batch_size=None):
            decoder = self._network("decoder")
            with self._plate(images, batch_size):
                batch = self._batch(images)
                latents = pyro.sample("z", self.prior(images))
                pyro.sample("x", decoder(latents), obs=batch)

        def guide(self, images, batch_size=None):
            encoder = self._network("encoder")
            with self._plate(images, batch_size):
                pyro.sample("z", encoder(self._batch(images)))

    All sites stand in the one plate, at dim -1, so that what is said of a trained model
    (:meth:`log_weights`) can be said image by image. Networks take any leading dims ([..., size]).

    Args:
        num_pixels: length of a row of the data.
    """

    rows = "images"
    """What the rows of the data are: the plate's name, and the word in messages."""

    decoder: torch.nn.Module
    """The network that gives p(x | z). The data are held against its attributes ``support`` (a
    constraint on one pixel), ``expects`` (the same in words) and ``advice`` (what else to do)."""

    def __init__(self, num_pixels: int) -> None:
        super().__init__()
        self.num_pixels = num_pixels

    def model(self, *data: Any, **options: Any) -> None:
        """p(x, z)."""
        raise NotImplementedError

    def guide(self, *data: Any, **options: Any) -> None:
        """q(z | x)."""
        raise NotImplementedError

    def check(self, data: Tensor) -> Tensor:
        """The data, or a ``DataError`` where their shape, dtype or values do not fit the model."""
        self._check_shape(data)
        return self._check_values(data)

    def log_weights(self, *data: Any, num_samples: int) -> LogWeights:
        """The terms of log p(x, z) - log q(z | x), with the networks' own weights.

        Draws come from torch's global generator: call it under ``vitools.isolation.seeded``. The
        memory is that of ``num_samples`` images for each row: cut long data, or many draws, up.
        """
        with pyro.get_param_store().scope():
            return log_weights(self.model, self.guide, *data, num_samples=num_samples)

    def set_precision(self, precision: str) -> None:
        """Run the encoders and decoders in ``"full"`` or ``"bf16"`` precision (``networks/precision.py``)."""
        check_precision(precision)
        for module in self.modules():
            if hasattr(module, "precision"):
                module.precision = precision  # type: ignore[assignment]

    # ---- what a subclass states its model with -----------------------------------------------

    def _network(self, name: str) -> Callable[..., Any]:
        """The network of that name, run on the weights that ``pyro.param`` returns.

        Called outside the plate. With ``pyro.module`` it would run on its own tensors and ignore
        the values that an engine puts in the weights' place.
        """
        network = getattr(self, name)
        weights = {
            key: pyro.param(f"{name}.{key}", value) for key, value in network.named_parameters()
        }
        return partial(_call, network, weights)

    def _plate(self, data: Tensor, batch_size: int | None) -> pyro.plate:
        """The plate over the rows of ``data``, whose shape is checked; a minibatch of a size."""
        self._check_shape(data)
        if batch_size is not None and not 1 <= batch_size <= len(data):
            raise OptionError(
                f"batch_size: expected 1 to {len(data)}, the number of {self.rows}; "
                f"got {batch_size}"
            )
        return pyro.plate(self.rows, len(data), batch_size, dim=-1, device=data.device)

    def _batch(self, data: Tensor) -> Tensor:
        """The rows of the minibatch, their values checked; called inside the plate."""
        return self._check_values(pyro.subsample(data, event_dim=data.dim() - 1))

    # ---- checks ------------------------------------------------------------------------------

    def _check_shape(self, data: Tensor) -> None:
        expected = f"{self.rows}: expected a float tensor [num_{self.rows}, {self.num_pixels}]"
        if not isinstance(data, Tensor):
            raise DataError(f"{expected}, got {type(data).__name__}")
        if data.ndim != 2 or data.shape[1] != self.num_pixels or len(data) == 0:
            raise DataError(
                f"{expected}, got shape {list(data.shape)}; flatten each row: "
                f"{self.rows}.flatten(1)"
            )
        weight = next(self.parameters())
        if data.dtype != weight.dtype:
            raise DataError(
                f"{self.rows}: {data.dtype} where the weights are {weight.dtype}; convert one: "
                f"{self.rows}.to({weight.dtype}) or the model, .to({data.dtype})"
            )

    def _check_values(self, data: Tensor) -> Tensor:
        if pyro.settings.get("validate_distributions_torch"):
            fits = self.decoder.support.check(data) & data.isfinite()  # type: ignore[operator,union-attr]
            if not fits.all():
                raise DataError(
                    f"{self.rows}: {type(self.decoder).__name__} needs {self.decoder.expects}, "
                    f"got {data[~fits][0].item():g}{self.decoder.advice}"
                )
        return data


def _call(network: torch.nn.Module, weights: dict[str, Tensor], *inputs: Tensor) -> Any:
    return torch.func.functional_call(network, weights, inputs)
