"""Logistic normals on the simplex: θ = softmax(x), x Gaussian.

Two versions of x: K logits, or K - 1 logits followed by a 0 (``reference=True``). Either way the
log-ratios log(θ_k / θ_K), k < K, are Gaussian, N(m, S), and that is the whole law:

    log p(θ) = log N(log(θ_{<K} / θ_K); m, S) - Σ_k log θ_k

so densities and KLs are those of the K - 1 log-ratios. (The KL between the K-dimensional Gaussians
is larger: it also counts the direction that the softmax forgets.)

J. Aitchison and S. M. Shen (1980), "Logistic-normal distributions", Biometrika 67.
``torch.distributions.LogisticNormal`` is another law, by stick-breaking.
"""

import math
from collections.abc import Callable
from typing import ClassVar

import torch
from pyro.distributions.torch_distribution import TorchDistribution
from torch import Tensor
from torch.distributions import (
    Dirichlet,
    Distribution,
    Independent,
    LowRankMultivariateNormal,
    MultivariateNormal,
    constraints,
)
from torch.distributions.kl import kl_divergence, register_kl

from vitools.distributions.gaussian import (
    Normal,
    covariance,
    deviation,
    draw_noise,
    log_density_of_noise,
)
from vitools.distributions.last_draw import LastDraw


class LogisticNormal(TorchDistribution):
    """softmax of a Gaussian with mean ``loc`` and one of three covariances.

    Args:
        loc: mean of the logits, ``batch + (D,)``; D = K, or K - 1 with ``reference``.
        scale: standard deviations, ``batch + (D,)`` (diagonal covariance), or
        log_scale: their logarithms, or
        scale_tril: Cholesky factor, ``batch + (D, D)`` (full covariance), or
        cov_factor, cov_diag: ``batch + (D, r)`` and ``batch + (D,)`` (low rank plus diagonal).
        reference: append a logit fixed at 0.

    Batch shape ``batch``, event shape ``(K,)``.

    >>> q = LogisticNormal(torch.zeros(2), torch.ones(2), reference=True)
    >>> q.log_prob(torch.tensor([0.2, 0.3, 0.5]))
    tensor(1.1184)
    """

    arg_constraints: ClassVar[dict[str, constraints.Constraint]] = {}
    support = constraints.simplex
    has_rsample = True

    def __init__(
        self,
        loc: Tensor,
        scale: Tensor | None = None,
        *,
        log_scale: Tensor | None = None,
        scale_tril: Tensor | None = None,
        cov_factor: Tensor | None = None,
        cov_diag: Tensor | None = None,
        reference: bool = False,
        validate_args: bool | None = None,
    ):
        gaussian: Distribution
        if scale is not None:
            gaussian = Independent(Normal(loc, scale, validate_args), 1)
        elif log_scale is not None:
            gaussian = Independent(Normal.from_log_scale(loc, log_scale), 1)
        elif scale_tril is not None:
            gaussian = MultivariateNormal(loc, scale_tril=scale_tril, validate_args=validate_args)
        elif cov_factor is not None and cov_diag is not None:
            gaussian = LowRankMultivariateNormal(loc, cov_factor, cov_diag, validate_args)
        else:
            raise ValueError("give scale, or log_scale, or scale_tril, or cov_factor and cov_diag")
        self._set(gaussian, reference)
        super().__init__(gaussian.batch_shape, self._event_shape, validate_args)

    def _set(self, gaussian: Distribution, reference: bool) -> None:
        self.gaussian = gaussian
        self.reference = reference
        self._last_draw: LastDraw | None = None
        self._event_shape = torch.Size([gaussian.event_shape[0] + int(reference)])

    def expand(self, batch_shape, _instance=None):
        new = self._get_checked_instance(LogisticNormal, _instance)
        batch_shape = torch.Size(batch_shape)
        new._set(self.gaussian.expand(batch_shape), self.reference)
        TorchDistribution.__init__(new, batch_shape, self.event_shape, validate_args=False)
        new._validate_args = self._validate_args
        return new

    # -- sampling and density -------------------------------------------------------------------

    def rsample_log(self, sample_shape: torch.Size = torch.Size()) -> Tensor:  # noqa: B008
        """Reparameterised draws of log θ, ``sample_shape + batch + (K,)``."""
        return self._log_of(*draw_noise(self.gaussian, sample_shape))

    def _log_of(self, noise: Tensor, shared: Tensor) -> Tensor:
        """log θ of the draw that this noise makes."""
        logits = self.gaussian.mean + deviation(self.gaussian, noise, shared)
        if self.reference:
            logits = torch.nn.functional.pad(logits, (0, 1))
        return torch.log_softmax(logits, -1)

    def log_prob_log(self, log_value: Tensor) -> Tensor:
        """log p(θ) (a density on the simplex) at the point whose logarithm is given."""
        jacobian = log_value.sum(-1)
        if isinstance(self.gaussian, Independent) and not self.reference:
            return _diagonal_log_density(self.gaussian.base_dist, log_value) - jacobian
        ratios = log_value[..., :-1] - log_value[..., -1:]
        return self.log_ratios.log_prob(ratios) - jacobian

    def rsample(self, sample_shape: torch.Size = torch.Size()) -> Tensor:  # noqa: B008
        noise, shared = draw_noise(self.gaussian, sample_shape)
        log_value = self._log_of(noise, shared)
        value = torch.exp(log_value).clamp(min=torch.finfo(log_value.dtype).tiny)
        self._last_draw = LastDraw(value, log_value, self._density_of(noise, log_value))
        return value

    def _density_of(self, noise: Tensor, log_value: Tensor) -> Callable[[], Tensor] | None:
        """How to score a draw by its noise, with independent logits."""
        if not isinstance(self.gaussian, Independent):
            return None
        log_scale, reference = self.gaussian.base_dist.log_scale, self.reference
        return lambda: _log_density_of_noise(log_scale, noise, reference) - log_value.sum(-1)

    def log_prob(self, value: Tensor) -> Tensor:
        """log p(θ). The last draw of this very object is scored by the noise or the log θ in it."""
        if self._last_draw is not None and self._last_draw.value is value:
            return self._last_draw.score(self.log_prob_log)
        if self._validate_args:
            self._validate_sample(value)
        return self.log_prob_log(torch.log(value.clamp(min=torch.finfo(value.dtype).tiny)))

    @property
    def log_ratios(self) -> Distribution:
        """The Gaussian law of log(θ_k / θ_K), k < K: the K logits mapped by [I, -1]."""
        gaussian = self.gaussian
        if self.reference:
            return gaussian
        loc = gaussian.mean[..., :-1] - gaussian.mean[..., -1:]
        if isinstance(gaussian, MultivariateNormal):
            mapped = gaussian.scale_tril[..., :-1, :] - gaussian.scale_tril[..., -1:, :]
            return MultivariateNormal(loc, mapped @ mapped.mT, validate_args=False)
        # The last logit's own variance is shared by every ratio: one more factor.
        if isinstance(gaussian, LowRankMultivariateNormal):
            diagonal = gaussian.cov_diag
        else:
            diagonal = gaussian.variance
        factor = diagonal[..., -1:].sqrt().expand_as(diagonal[..., :-1]).unsqueeze(-1)
        if isinstance(gaussian, LowRankMultivariateNormal):
            mapped = gaussian.cov_factor[..., :-1, :] - gaussian.cov_factor[..., -1:, :]
            factor = torch.cat([mapped, factor], -1)
        return LowRankMultivariateNormal(loc, factor, diagonal[..., :-1], validate_args=False)

    # -- moments --------------------------------------------------------------------------------

    def mean_and_error(self, num_samples: int = 4096) -> tuple[Tensor, Tensor]:
        """E θ by ``num_samples`` antithetic pairs, and its standard error; same draws every time."""
        pairs = torch.softmax(self._antithetic_logits(num_samples), -1).mean(0)
        return pairs.mean(0), pairs.std(0) / num_samples**0.5

    @property
    def mean(self) -> Tensor:
        """E θ, by :meth:`mean_and_error`."""
        return self.mean_and_error()[0]

    def entropy_and_error(self, num_samples: int = 4096) -> tuple[Tensor, Tensor]:
        """H = H(log-ratios) + Σ_k E x_k - K E log Σ_k e^{x_k}, and its standard error.

        Only the last expectation has no closed form: by quadrature for K = 2 (error 0), otherwise
        by ``num_samples`` antithetic pairs, the same every time.
        """
        size = self.event_shape[0]
        ratios = self.log_ratios
        if size == 2:
            # With r = x₁ - x₂: Σ_k log θ_k = r - 2 log(1 + e^r).
            mean_softplus = _mean_softplus(ratios.mean, ratios.variance.sqrt()).squeeze(-1)
            value = ratios.entropy() + ratios.mean.squeeze(-1) - 2 * mean_softplus
            return value, torch.zeros_like(value)
        pairs = self._antithetic_logits(num_samples).logsumexp(-1).mean(0)
        location = self.gaussian.mean.sum(-1)  # a reference logit adds 0
        value = ratios.entropy() + location - size * pairs.mean(0)
        return value, size * pairs.std(0) / num_samples**0.5

    def entropy(self) -> Tensor:
        """H, by :meth:`entropy_and_error`."""
        return self.entropy_and_error()[0]

    def _antithetic_logits(self, num_samples: int) -> Tensor:
        """Draws of the K logits and their mirror images, ``(2, num_samples) + batch + (K,)``."""
        generator = torch.Generator(device="cpu").manual_seed(0)
        location = self.gaussian.mean
        factors = getattr(self.gaussian, "cov_factor", location).shape[-1]

        def noise(size: int) -> Tensor:
            shape = (num_samples, *location.shape[:-1], size)
            return torch.randn(shape, generator=generator, dtype=torch.float64).to(location)

        step = deviation(self.gaussian, noise(location.shape[-1]), noise(factors))
        logits = torch.stack([location + step, location - step])
        return torch.nn.functional.pad(logits, (0, 1)) if self.reference else logits

    # -- relation to the Dirichlet --------------------------------------------------------------

    @classmethod
    def from_dirichlet(cls, concentration: Tensor, method: str = "moments") -> "LogisticNormal":
        """K logits matched to Dirichlet(α), α of shape ``batch + (K,)``.

        ``"moments"``: μ_k = ψ(α_k), σ_k² = ψ₁(α_k), which has the mean and covariance of every
        log-ratio and minimises KL(Dirichlet ‖ logistic normal) (Aitchison and Shen 1980).
        ``"laplace"``: the Laplace approximation in the softmax basis, its covariance in full
        (Hennig et al. 2012); poor for α < 1, where the density has no mode inside.

        Args:
            concentration: α.
            method: by what it is matched.
        """
        if method == "moments":
            location = torch.digamma(concentration)
            return cls(location, torch.polygamma(1, concentration).sqrt(), validate_args=False)
        if method != "laplace":
            raise ValueError(f"method is 'moments' or 'laplace', not {method!r}")
        # The covariance C diag(1/α) C of the logits, C = I - 11'/K, is singular along 1, which the
        # softmax forgets: their log-ratios are not.
        inverse = 1 / concentration
        spread = torch.diag_embed(inverse[..., :-1]) + inverse[..., -1, None, None]
        ratios = concentration[..., :-1].log() - concentration[..., -1:].log()
        return cls(
            ratios,
            scale_tril=torch.linalg.cholesky(spread),
            reference=True,
            validate_args=False,
        )

    def to_dirichlet(self) -> Dirichlet:
        """The Laplace bridge: α_k = (1 - 2/K + e^{μ_k} Σ_l e^{-μ_l} / K²) / Σ_kk.

        μ and Σ are the mean and covariance of the centred logits x - mean(x).
        """
        size = self.event_shape[0]
        ratios = self.log_ratios
        location = torch.nn.functional.pad(ratios.mean, (0, 1))
        location = location - location.mean(-1, keepdim=True)
        matrix = torch.nn.functional.pad(covariance(ratios), (0, 1, 0, 1))
        row = matrix.mean(-1)
        variance = matrix.diagonal(dim1=-2, dim2=-1) - 2 * row + row.mean(-1, keepdim=True)
        spread = torch.exp(location) * torch.exp(-location).sum(-1, keepdim=True) / size**2
        return Dirichlet((1 - 2 / size + spread) / variance)


def _diagonal_log_density(normal: Normal, log_value: Tensor) -> Tensor:
    """log N of the log-ratios for K independent logits, in O(K).

    The quadratic form is Σ w (r - r̄)², r = log θ - μ, w = 1/σ², r̄ = Σ w r / Σ w.
    """
    size = log_value.shape[-1]
    weight = normal.scale.pow(-2)
    total = weight.sum(-1, keepdim=True)
    residual = log_value - normal.loc
    residual = residual - (weight * residual).sum(-1, keepdim=True) / total
    log_determinant = 2 * normal.scale.log().sum(-1) + total.squeeze(-1).log()
    quadratic = (weight * residual.square()).sum(-1)
    return -0.5 * ((size - 1) * math.log(2 * math.pi) + log_determinant + quadratic)


def _log_density_of_noise(log_scale: Tensor, noise: Tensor, reference: bool) -> Tensor:
    """log N of the log-ratios that σ ε make: :func:`_diagonal_log_density` without rounding them.

    With s_k = σ_k⁻² / Σ w the quadratic form is Σ ε² - (Σ √s ε)². With a reference the log-ratios
    are the logits themselves.
    """
    if reference:
        return (log_density_of_noise(noise) - log_scale).sum(-1)
    log_weight = -2 * log_scale
    along = (torch.exp(0.5 * torch.log_softmax(log_weight, -1)) * noise).sum(-1)
    log_determinant = 2 * log_scale.sum(-1) + log_weight.logsumexp(-1)
    quadratic = noise.square().sum(-1) - along.square()
    return -0.5 * ((noise.shape[-1] - 1) * math.log(2 * math.pi) + log_determinant + quadratic)


def _mean_softplus(mean: Tensor, scale: Tensor) -> Tensor:
    """E log(1 + e^r), r ~ N(mean, scale²), by the trapezoid rule on ± 9 standard deviations.

    The poles of the integrand are π / scale off the real line, so the error falls as
    exp(-2π² / (scale · step)): below 10⁻¹⁰ of the scale up to scale 90.
    """
    nodes = torch.linspace(-9.0, 9.0, 2001, dtype=torch.float64, device=mean.device)
    weights = torch.softmax(-nodes.square() / 2, -1)
    argument = mean.double().unsqueeze(-1) + scale.double().unsqueeze(-1) * nodes
    return (torch.nn.functional.softplus(argument) * weights).sum(-1).to(mean.dtype)


def _as_full(gaussian: Distribution) -> MultivariateNormal:
    return MultivariateNormal(gaussian.mean, covariance(gaussian), validate_args=False)


@register_kl(LogisticNormal, LogisticNormal)
def _kl_logistic_normal(p: LogisticNormal, q: LogisticNormal) -> Tensor:
    """That of the K - 1 log-ratios; diagonal pairs with a reference stay diagonal."""
    if p.reference and q.reference:
        return kl_divergence(p.gaussian, q.gaussian)
    return kl_divergence(_as_full(p.log_ratios), _as_full(q.log_ratios))
