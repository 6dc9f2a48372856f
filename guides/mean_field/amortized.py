"""Amortised inference: local latents' q computed by a network from their row's features.

    q(z_n) = q(z_n; λ_n),  λ_n = network(features_n)

One network serves every row of a plate, so parameters do not grow with the data and a new row
needs no fit. The network starts constant, at the prior. D. P. Kingma and M. Welling (2014),
"Auto-encoding variational Bayes".
"""

from collections.abc import Callable, Mapping
from operator import attrgetter
from typing import Any

import torch
from pyro.infer.autoguide.utils import deep_setattr
from pyro.nn.module import PyroModule, PyroParam
from torch import Tensor, nn
from torch.distributions import Distribution
from torch.func import functional_call

from vitools.errors import ModelError, OptionError
from vitools.guides.family import LatentSite, Parameter
from vitools.guides.mean_field.mean_field import AutoMeanField
from vitools.isolation import seeded


class Amortized(AutoMeanField):
    """Mean field, with the sites inside one plate served by an encoder network.

    Args:
        model: a Pyro model.
        plate: name of the plate whose rows the network encodes; every continuous latent inside
            it must be in no other plate.
        features: called with the model's arguments, returns a ``[rows, F]`` tensor for *all* rows
            of the plate (minibatches are taken by the plate itself).
        network: makes the encoder, an ``nn.Module`` from ``[…, F]`` to ``[…, P]``, when called
            with F and P; by default two hidden layers of 64.
        families, init_scale, jitter, seed, create_plates: as in :class:`AutoMeanField`; the
            default network's weights come from ``seed`` too.

    >>> import pyro, torch
    >>> import pyro.distributions as dist
    >>> def model(x):
    ...     with pyro.plate("rows", len(x), subsample_size=4) as rows:
    ...         z = pyro.sample("z", dist.Normal(0.0, 1.0))
    ...         pyro.sample("x", dist.Normal(z, 1.0), obs=x[rows])
    >>> guide = Amortized(model, plate="rows", features=lambda x: x.unsqueeze(-1))
    >>> with pyro.get_param_store().scope():
    ...     value = guide(torch.arange(10.0))["z"]
    >>> value.shape, guide.marginal("z").batch_shape
    (torch.Size([4]), torch.Size([10]))
    """

    def __init__(
        self,
        model: Callable,
        *,
        plate: str,
        features: Callable[..., Tensor],
        network: Callable[[int, int], nn.Module] | None = None,
        **options: Any,
    ):
        super().__init__(model, **options)
        self._plate = plate
        self._compute_features = features
        self._make_network = network or small_network
        self._layout: dict[str, dict[str, torch.Size]] = {}

    def _setup_prototype(self, *args: Any, **kwargs: Any) -> None:
        self._starts: list[Tensor] = []
        super()._setup_prototype(*args, **kwargs)
        if not self._layout:
            raise OptionError(
                f"plate {self._plate!r} holds no continuous latent of the model, whose plates "
                f"with latents are {', '.join(map(repr, self._prototype_frames)) or 'none'}"
            )
        features = self._read_features(args, kwargs)
        outputs = torch.cat(self._starts)
        with seeded(self.options["seed"]):
            network = self._make_network(features.shape[-1], len(outputs)).to(outputs)
        # Weights are the guide's own PyroParams, applied functionally: parameters of a nested
        # module would not follow Pyro's store, from which a saved fit is read back.
        self._network = (network,)
        self._weight_names = [name for name, _ in network.named_parameters()]
        self.weights = PyroModule()
        for name, weight in network.named_parameters():
            deep_setattr(self.weights, name, PyroParam(weight.detach().clone()))
        self.output = PyroParam(outputs)

    def _register(self, name: str, start: Mapping[str, Parameter]) -> None:
        """Local sites get a stretch of the network's output, starting at the mean over rows."""
        stack = self.prototype_trace.nodes[name]["cond_indep_stack"]
        plates = [frame.name for frame in stack]
        if self._plate not in plates:
            super()._register(name, start)
            return
        if len(plates) > 1:
            raise ModelError(
                f"site {name!r} is in the plates {', '.join(plates)}: one network serves latents "
                f"of plate {self._plate!r} alone; make the others event dims with to_event"
            )
        self._layout[name] = {}
        for key, parameter in start.items():
            event = parameter.start.shape[parameter.start.dim() - parameter.event_dim :]
            self._layout[name][key] = event
            self._starts.append(parameter.start.reshape(-1, event.numel()).mean(0))

    def _read_features(self, args: tuple, kwargs: dict[str, Any]) -> Tensor:
        features = self._compute_features(*args, **kwargs)
        frame = self._prototype_frames[self._plate]
        rows = frame.full_size or frame.size
        if features.dim() != 2 or len(features) != rows:
            raise OptionError(
                f"features: expected a tensor of shape [{rows}, F], a row for each of plate "
                f"{self._plate!r}, got {tuple(features.shape)}"
            )
        self._features = features  # for marginals, asked for without the model's arguments
        return features

    def _create_plates(self, *args: Any, **kwargs: Any) -> dict[str, Any]:
        plates = super()._create_plates(*args, **kwargs)
        features = self._read_features(args, kwargs)
        self._encoded = self._encode(features[plates[self._plate].indices])
        return plates

    def _values(self, name: str) -> dict[str, Tensor]:
        if name not in self._layout:
            return super()._values(name)
        return self._take(name, self._encoded)

    def marginal(self, site: str) -> Distribution:
        """q of one site for every row of the features last seen; no gradient flows."""
        self._require_site(site)
        if site not in self._layout:
            return super().marginal(site)
        with torch.no_grad():
            parameters = self._take(site, self._encode(self._features))
        return self._families[site].distribution(self._latent_sites[site], parameters)

    def _encode(self, features: Tensor) -> Tensor:
        weights = {name: attrgetter(name)(self.weights) for name in self._weight_names}
        features = features.to(self.output.dtype)
        return self.output + functional_call(self._network[0], weights, (features,))

    def _take(self, name: str, encoded: Tensor) -> dict[str, Tensor]:
        """One site's parameters out of ``[B, P]``, with the plate at its own dim."""
        begin, parameters = 0, {}
        frame = self._prototype_frames[self._plate]
        for site, shapes in self._layout.items():
            for key, event in shapes.items():
                end = begin + event.numel()
                if site == name:
                    shape = (len(encoded), *(1,) * (-frame.dim - 1), *event)
                    parameters[key] = encoded[:, begin:end].reshape(shape)
                begin = end
        return parameters

    def _start_at(self, draws: Mapping[str, Tensor], sites: Mapping[str, LatentSite]) -> None:
        """Global sites only: a network has no single parameter to set for a row."""
        super()._start_at(draws, {k: v for k, v in sites.items() if k not in self._layout})


def small_network(inputs: int, outputs: int, width: int = 64) -> nn.Module:
    """Two hidden layers of ``width``; the last layer starts at 0, so the network starts constant."""
    last = nn.Linear(width, outputs)
    nn.init.zeros_(last.weight)
    nn.init.zeros_(last.bias)
    layers = [nn.Linear(inputs, width), nn.SiLU(), nn.Linear(width, width), nn.SiLU()]
    return nn.Sequential(*layers, last)
