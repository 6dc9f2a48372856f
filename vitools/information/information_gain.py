"""What data told: KL from the prior to the posterior of a fit, in nats.

    D = KL(q(θ) ‖ p(θ)) = E_q[log p(x | θ)] - E_q[log p(x, θ) / q(θ)]

of which the second term is the fit's bound. Chains of a sampler have no density; there the bound is
log p(x), found by bridge sampling between the chains and a Gaussian fitted to half of them (Meng and Wong
1996; Gronau et al., "A tutorial on bridge sampling", 2017).
"""

import math

import torch
from torch import Tensor
from torch.distributions import MultivariateNormal

from vitools.errors import NotSupportedError, NumericalError, OptionError
from vitools.information.fisher_of_problem import refuse_factors
from vitools.isolation import seeded
from vitools.posterior import DrawsPosterior, Estimate, GridPosterior, Posterior
from vitools.problem.coordinates.unconstrained import UnconstrainedSpace
from vitools.whole_numbers import check_seed, check_whole

NUM_SAMPLES = 4000
BRIDGE_ROUNDS = 200


def information_gain(
    fit: Posterior, *, discrete: bool = False, num_samples: int = NUM_SAMPLES, seed: int = 0
) -> Estimate:
    """KL(q ‖ prior) of all latents that the fit draws.

    Args:
        fit: of any engine. Of one that is not exact it is what the approximation claims.
        discrete: whether discrete latents, which fits leave summed out, count too, at their exact
            conditionals; they do where a model has no others.
        num_samples, seed: of the draws; a fit on a grid needs none.

    Raises:
        NotSupportedError: the model has ``pyro.factor`` statements, or a prior without a density.

    Example:
        >>> from vitools import Problem, exact
        >>> from vitools.models import coin
        >>> flips = torch.tensor([1.0, 1.0, 0.0]).double()
        >>> found = information_gain(exact(Problem(coin.model, flips)))  # Beta(3, 2) from Beta(1, 1)
        >>> abs(found.value - (math.log(12) + 2 * (1.5 - 25 / 12) + (1 - 25 / 12))) < 1e-6
        True
    """
    if not isinstance(fit, Posterior):
        raise OptionError(
            f"information_gain() expects a fit, got {type(fit).__name__}. Fit the problem first: "
            "information_gain(cavi(problem))."
        )
    check_whole("num_samples", num_samples, 2)
    check_seed(seed)
    problem = fit.problem
    refuse_factors(problem, fit.seed)
    discrete = bool(problem.discrete) and (discrete or not problem.drawn)
    if isinstance(fit, GridPosterior):
        return _on_grid(fit, discrete, num_samples, seed)
    if isinstance(fit, DrawsPosterior):
        return _of_chains(fit, discrete, num_samples, seed)
    values, log_weights = fit.sample_with_log_weights(num_samples, seed)
    terms = _log_likelihood(fit, values, discrete, num_samples, seed) - log_weights.double()
    return _finite(fit, Estimate.of_mean(terms))


def _log_likelihood(
    fit: Posterior, values: dict[str, Tensor], discrete: bool, num_samples: int, seed: int
) -> Tensor:
    """log p(x | θ) at each draw, or log p(x | θ, z) with z drawn from its exact conditional."""
    problem = fit.problem
    if discrete:
        values = values | problem.sample_discrete(values, seed + 1, num_samples=num_samples)

    def once(draw: dict[str, Tensor]) -> Tensor:
        return problem.factors(draw).log_likelihood(problem.observed)

    with torch.no_grad():
        return problem.map_draws(once, values).double()


def _on_grid(fit: GridPosterior, discrete: bool, num_samples: int, seed: int) -> Estimate:
    evidence = fit.log_evidence
    if discrete:
        values = fit.sample(num_samples, seed) if fit.problem.drawn else {}
        terms = _log_likelihood(fit, values, True, num_samples, seed)
        found = Estimate.of_mean(terms - evidence.value)
        error = math.hypot(found.standard_error, evidence.standard_error)
        return Estimate(found.value, error)
    values = UnconstrainedSpace(fit.problem).to_values(fit.nodes)
    log_likelihood = _log_likelihood(fit, values, False, num_samples, seed)
    masses = fit.log_masses.double().exp()
    expected = float(torch.where(masses > 0, masses * log_likelihood, 0.0).sum())
    return Estimate(expected - evidence.value, evidence.standard_error)


def _of_chains(fit: DrawsPosterior, discrete: bool, num_samples: int, seed: int) -> Estimate:
    likelihood = _log_likelihood(fit, fit.pooled(), discrete, num_samples, seed)
    evidence = bridge_log_evidence(fit, seed)
    size = min(fit.ess.values(), default=float(len(likelihood)))
    error = float(likelihood.std()) / math.sqrt(max(size, 1.0))
    total = math.hypot(error, evidence.standard_error)
    return _finite(fit, Estimate(float(likelihood.mean()) - evidence.value, total))


def bridge_log_evidence(fit: DrawsPosterior, seed: int = 0) -> Estimate:
    """log p(x) from a sampler's chains, with the relative error of Frühwirth-Schnatter (2004)."""
    space = UnconstrainedSpace(fit.problem)
    fit.problem.refuse_unlisted("information_gain() of draws")
    chains = space.from_values(fit.draws).double()  # [chains, draws, P]
    half = chains.shape[1] // 2
    first, second = (part.flatten(0, 1) for part in (chains[:, :half], chains[:, half:]))
    if len(first) < 4 * space.size:
        raise NotSupportedError(
            f"{len(chains) * chains.shape[1]} draws are too few to fit a Gaussian over {space.size} "
            "numbers to half of them. Draw more."
        )
    covariance = first.mT.cov()
    covariance = covariance.reshape(space.size, space.size)
    proposal = MultivariateNormal(first.mean(0), covariance)
    count = len(second)
    with seeded(seed), torch.no_grad():
        proposed = proposal.sample(torch.Size([count]))
        log_ratio = [
            space.log_density(points.to(space.dtype)).double() - proposal.log_prob(points)
            for points in (second, proposed)
        ]
    draws = float(min(fit.ess.values(), default=2.0 * count)) / 2  # of the half that is used
    size = min(max(draws, 1.0), float(count))
    log_shares = math.log(size / (size + count)), math.log(count / (size + count))
    level = float(log_ratio[0].median())
    posterior, prior = (r - level for r in log_ratio)
    log_evidence = 0.0

    def below(r: Tensor, log_evidence: float) -> Tensor:
        """log (s₁ r + s₂ p(x))."""
        return torch.logaddexp(r + log_shares[0], r.new_tensor(log_evidence + log_shares[1]))

    for _ in range(BRIDGE_ROUNDS):
        upper = (prior - below(prior, log_evidence)).logsumexp(0)
        lower = (-below(posterior, log_evidence)).logsumexp(0)
        change = float(upper - lower) - log_evidence
        log_evidence += change
        if abs(change) < 1e-10:
            break
    over = (prior - below(prior, log_evidence)).exp()
    under = (log_evidence - below(posterior, log_evidence)).exp()
    variance = float(over.var() / over.mean() ** 2) / count
    variance += float(under.var() / under.mean() ** 2) / size
    return Estimate(log_evidence + level, math.sqrt(variance))


def _finite(fit: Posterior, found: Estimate) -> Estimate:
    if not math.isfinite(found.value):
        raise NumericalError(
            f"model '{fit.problem.name}': log likelihood or log weights of the draws of this fit are "
            "not finite. Judge the fit first: it may reach beyond the support of the data."
        )
    return found
