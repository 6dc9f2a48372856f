"""Natural-gradient steps of the families that are exponential families.

For q(x) = exp(η·t(x) - A(η)) with mean parameters μ = ∇A(η) and Fisher information F = ∇²A(η),

    η ← η + ρ F⁻¹ ∇_η L = η + ρ ∇_μ L

(Amari 1998, "Natural gradient works efficiently in learning"). On a conjugate site with the exact
gradient ρ = 1 is the update of coordinate ascent (Hoffman et al. 2013). Here L's gradient comes in
the parameters that the guides keep, and so does the answer:

    Normal (m, log σ), Λ = σ⁻²:   Λ ← Λ (1 - ρ ∂L/∂log σ),   m ← m + ρ Λ⁻¹ ∂L/∂m   (the new Λ)
    Dirichlet α:                  F = diag ψ'(α) - ψ'(Σα) 11ᵀ, inverted by Sherman and Morrison

Far from the optimum a noisy gradient g asks for steps that no quadratic expansion describes. So ρ
is cut, element by element, to where the step's length in the Fisher metric, ρ √(gᵀF⁻¹g), about the
root of twice its KL divergence, is the radius; and no precision or concentration falls below a
tenth.
"""

from collections.abc import Callable, Mapping

import torch
from torch import Tensor

from vitools.guides.family import GuideFamily
from vitools.guides.mean_field.dirichlet import BetaGuideFamily, DirichletGuideFamily
from vitools.guides.mean_field.normal import NormalGuideFamily

LEAST = 0.1

Values = Mapping[str, Tensor]
Step = Callable[[Values, Values, float, float], dict[str, Tensor]]
"""Parameters, the *loss's* gradient, ρ and the radius to new parameters."""


def normal_step(
    parameters: Values, gradient: Values, rate: float, radius: float
) -> dict[str, Tensor]:
    log_scale = parameters["log_scale"]
    by_loc, by_scale = gradient["loc"], gradient["log_scale"]
    square = (2 * log_scale).exp() * by_loc**2 + by_scale**2 / 2
    step = _within(radius, rate, square)
    log_scale = log_scale - (1 + step * by_scale).clamp(min=LEAST).log() / 2
    loc = parameters["loc"] - step * (2 * log_scale).exp() * by_loc
    return {"loc": loc, "log_scale": log_scale}


def dirichlet_step(
    parameters: Values, gradient: Values, rate: float, radius: float
) -> dict[str, Tensor]:
    log_mean = parameters["logits"].log_softmax(-1)
    by_log = gradient["logits"] + log_mean.exp() * gradient["log_total"]
    log_alpha = parameters["log_total"] + log_mean
    log_alpha = _concentrations(log_alpha, by_log, rate, radius)
    return {
        "logits": log_alpha - log_alpha.mean(-1, keepdim=True),
        "log_total": log_alpha.logsumexp(-1, keepdim=True),
    }


def beta_step(
    parameters: Values, gradient: Values, rate: float, radius: float
) -> dict[str, Tensor]:
    logit = parameters["mean_logit"]
    log_mean = torch.nn.functional.logsigmoid(torch.stack([logit, -logit], -1))
    towards = torch.stack([gradient["mean_logit"], -gradient["mean_logit"]], -1)
    by_log = towards + log_mean.exp() * gradient["log_total"].unsqueeze(-1)
    log_alpha = parameters["log_total"].unsqueeze(-1) + log_mean
    log_alpha = _concentrations(log_alpha, by_log, rate, radius)
    return {
        "mean_logit": log_alpha[..., 0] - log_alpha[..., 1],
        "log_total": log_alpha.logsumexp(-1),
    }


def _concentrations(log_alpha: Tensor, by_log: Tensor, rate: float, radius: float) -> Tensor:
    """log of α - ρ F⁻¹ g, where g is the gradient in α and ``by_log`` that in log α."""
    alpha = log_alpha.exp()
    own = torch.special.polygamma(1, alpha)
    shared = torch.special.polygamma(1, alpha.sum(-1, keepdim=True))
    solved = by_log / (alpha * own)
    correction = shared * solved.sum(-1, keepdim=True) / (1 - shared * (1 / own).sum(-1, True))
    direction = solved + correction / own
    square = (by_log / alpha * direction).sum(-1, keepdim=True)
    step = _within(radius, rate, square)
    return torch.maximum(alpha - step * direction, LEAST * alpha).log()


def _within(radius: float, rate: float, square: Tensor) -> Tensor:
    """ρ, or what makes ρ √(gᵀF⁻¹g) the radius; ``square`` is gᵀF⁻¹g."""
    return (radius / square.clamp(min=0.0).sqrt()).clamp(max=rate)


NATURAL_STEPS: dict[type[GuideFamily], Step] = {
    NormalGuideFamily: normal_step,
    DirichletGuideFamily: dirichlet_step,
    BetaGuideFamily: beta_step,
}
