"""A normalising flow over all continuous latents together: q of nearly any shape.

    z ~ N(0, I),   y = f(z),   x = m + A y,   values = T(x)
    log q(x) = log N(z; 0, I) - log |∂y/∂z| - Σ log A_dd

f is a stack of invertible networks (:mod:`vitools.guides.flow.zuko_flows`) that starts at the identity,
so q starts as the Gaussian of :class:`vitools.guides.AutoMultivariate` and learns what a Gaussian
lacks. D. J. Rezende and S. Mohamed (2015), "Variational inference with normalizing flows".
"""

import math
from collections.abc import Callable
from operator import attrgetter
from typing import Any, ClassVar

import torch
from pyro.distributions.torch_distribution import TorchDistribution
from pyro.infer.autoguide.utils import deep_setattr
from pyro.nn.module import PyroModule, PyroParam
from torch import Tensor
from torch.distributions import Distribution, constraints
from torch.func import functional_call

from vitools.distributions.last_draw import LastDraw
from vitools.errors import NotSupportedError, OptionError
from vitools.guides.flow.zuko_flows import FlowMap
from vitools.guides.joint.affine import Affine
from vitools.guides.joint.joint import JointGuide

_LOG_2_PI = math.log(2 * math.pi)

_WEIGHT_UNIT = 0.1
"""Networks diverge at the steps that suit locations and scales. Their weights are kept in this unit,
so that Adam, whose steps do not depend on the unit, moves them by a tenth of its rate."""

Bijection = Callable[..., tuple[Tensor, Tensor]]
"""Called as ``f(vector, inverse=…)``, returns the image and log |∂y/∂z|, as a :class:`FlowMap`."""


class FlowDistribution(TorchDistribution):
    """The law of loc + tril · f(z), z ~ N(0, I), on vectors of length D.

    Args:
        bijection: f.
        loc: ``[D]``.
        tril: ``[D, D]``, lower triangular with a positive diagonal.
    """

    arg_constraints: ClassVar[dict[str, constraints.Constraint]] = {}
    support = constraints.real_vector
    has_rsample = True

    def __init__(self, bijection: Bijection, loc: Tensor, tril: Tensor):
        self.bijection, self.loc, self.tril = bijection, loc, tril
        self._last_draw: LastDraw | None = None
        super().__init__(torch.Size(), loc.shape, validate_args=False)

    def expand(self, batch_shape, _instance=None):
        new = self._get_checked_instance(FlowDistribution, _instance)
        new.bijection, new.loc, new.tril = self.bijection, self.loc, self.tril
        new._last_draw = None
        TorchDistribution.__init__(new, torch.Size(batch_shape), self.event_shape, False)
        return new

    def rsample(self, sample_shape: torch.Size = torch.Size()) -> Tensor:  # noqa: B008
        shape = self._extended_shape(sample_shape)
        z = torch.randn(shape, dtype=self.loc.dtype, device=self.loc.device)
        y, log_det = self.bijection(z)
        value = self.loc + y @ self.tril.mT
        self._last_draw = LastDraw(value, value, self._log_density(z, log_det))
        return value

    def log_prob(self, value: Tensor) -> Tensor:
        """log q. The last draw of this very object is scored at the z it was made from."""
        if self._last_draw is not None and self._last_draw.value is value:
            return self._last_draw.score(self._log_prob_by_inversion)
        return self._log_prob_by_inversion(value)

    def _log_prob_by_inversion(self, value: Tensor) -> Tensor:
        centred = (value - self.loc).unsqueeze(-1)
        y = torch.linalg.solve_triangular(self.tril, centred, upper=False).squeeze(-1)
        log_density = self._log_density(*self.bijection(y, inverse=True))
        return log_density.expand(torch.broadcast_shapes(log_density.shape, self.batch_shape))

    def _log_density(self, z: Tensor, log_det: Tensor) -> Tensor:
        log_base = -0.5 * (z.square() + _LOG_2_PI).sum(-1)
        return log_base - log_det - self.tril.diagonal().log().sum()


class AutoFlow(JointGuide):
    """A normalising flow over every continuous latent of ``model``, mapped from the reals.

    Draws with their densities cost one pass of the networks whatever the flow; the density of
    *given* values takes 2 passes a layer with ``"realnvp"`` and D with the others. Like any joint
    guide it cannot follow minibatches of a plate with local latents. In :func:`vitools.svi` fit it
    with a smaller step than the default, Adam at .01 and a few particles.

    Args:
        model: a Pyro model.
        flow: ``"spline"`` (autoregressive neural splines: several modes, skew), ``"realnvp"``
            (affine couplings), or ``"autoregressive"`` (affine, inverse autoregressive).
        layers: number of transformations, each with its own network.
        width: of the two hidden layers of a network.
        context: called with the model's arguments, returns a vector ``[C]`` of finite numbers
            that the flow conditions on, so that one guide serves every data set it was trained
            on (amortised inference). Bring the numbers to the scale of 1.
        init_scale: starting standard deviation as a multiple of the prior's (default: a tenth).
            For posteriors of several modes start wide, at 1: a narrow q finds the nearest one.
        jitter, seed: as in :class:`vitools.guides.AutoMeanField`; ``seed`` also draws the weights.

    >>> import pyro, torch
    >>> import pyro.distributions as dist
    >>> def banana():
    ...     a = pyro.sample("a", dist.Normal(0.0, 1.0))
    ...     b = pyro.sample("b", dist.Normal(0.0, 1.0))
    ...     pyro.sample("x", dist.Normal(b - a**2, 0.1), obs=torch.tensor(0.5))
    >>> guide = AutoFlow(banana, "realnvp")
    >>> with pyro.get_param_store().scope():
    ...     value = guide()
    >>> sorted(value)
    ['a', 'b']
    """

    learning_rate = 0.01

    def __init__(
        self,
        model: Callable,
        flow: str = "spline",
        *,
        layers: int = 3,
        width: int = 64,
        context: Callable[..., Tensor] | None = None,
        init_scale: float | None = None,
        jitter: float = 0.1,
        seed: int = 0,
    ):
        super().__init__(model, init_scale=init_scale, jitter=jitter, seed=seed)
        self.options |= {"flow": flow, "layers": layers, "width": width}
        self._compute_context = context

    def _setup_prototype(self, *args: Any, **kwargs: Any) -> None:
        self._context_size = 0
        if self._compute_context is not None:
            self._context_size = len(self._read_context(args, kwargs))
        super()._setup_prototype(*args, **kwargs)

    def _register(self, loc: Tensor, scale: Tensor) -> None:
        self.affine = Affine(loc, scale)
        flow = FlowMap(
            self.options["flow"],
            len(loc),
            layers=self.options["layers"],
            width=self.options["width"],
            context=self._context_size,
            seed=self.options["seed"],
        ).to(loc)
        # Weights are the guide's own PyroParams, applied functionally: parameters of a nested
        # module would not follow Pyro's store, from which a saved fit is read back.
        self._flow = (flow,)
        self._weight_names = [name for name, _ in flow.named_parameters()]
        self.weights = PyroModule()
        for name, weight in flow.named_parameters():
            deep_setattr(self.weights, name, PyroParam(weight.detach() / _WEIGHT_UNIT))

    def get_posterior(self, *args: Any, **kwargs: Any) -> FlowDistribution:
        """The flow on the reals, sites one after another in the model's order."""
        context = None
        if self._compute_context is not None:
            context = self._read_context(args, kwargs).to(self.affine.shift)
        weights = {
            name: attrgetter(name)(self.weights) * _WEIGHT_UNIT for name in self._weight_names
        }

        def bijection(vector: Tensor, inverse: bool = False) -> tuple[Tensor, Tensor]:
            return functional_call(self._flow[0], weights, (vector, context, inverse))

        return FlowDistribution(bijection, self.affine.location(), self.affine.tril())

    def _read_context(self, args: tuple, kwargs: dict[str, Any]) -> Tensor:
        context = self._compute_context(*args, **kwargs)  # type: ignore[misc]
        expected = self._context_size or "C"
        if context.dim() != 1 or len(context) != (self._context_size or len(context)):
            raise OptionError(
                f"context: expected a vector of shape [{expected}], got {tuple(context.shape)}"
            )
        return context

    def marginal(self, site: str) -> Distribution:
        """Refused: the marginals of a flow have no density in closed form."""
        self._require_site(site)
        raise NotSupportedError(
            f"the marginal of {site!r} under a flow has no closed form: use draws of the guide"
        )

    def _take(self, loc: Tensor, tril: Tensor) -> None:
        self.affine.start_at(loc, tril)
        for name, weight in self._flow[0].named_parameters():
            attrgetter(name)(self.weights).copy_(weight / _WEIGHT_UNIT)
