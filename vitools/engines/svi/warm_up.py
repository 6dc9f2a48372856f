"""Training a deep latent-variable model on a KL that is raised step by step.

At the start of training a decoder makes no use of z, and a bound in full turns the encoder off
before there is anything to tell; layers and latents that die then stay dead (Bowman et al. 2016;
Sønderby et al. 2016, "Ladder variational autoencoders"). Here the weight β of the KL climbs in
stages, each a short run of :class:`~vitools.engines.objectives.BetaElbo` on the same parameters,

    β = 0.5/S, 1.5/S, …, (S - 0.5)/S

and what follows is :func:`~vitools.svi` on the bound itself, whose stopping rule then sees one
objective from its first step to its last.
"""

from typing import Any

from vitools.engines.objectives import BetaElbo
from vitools.engines.svi.svi import svi
from vitools.errors import OptionError
from vitools.posterior import GuidePosterior, History, Status
from vitools.problem import Problem
from vitools.whole_numbers import check_seed


def warm_up(
    problem: Problem,
    guide: Any,
    *,
    steps: int,
    stages: int = 10,
    free_bits: float = 0.0,
    free_bits_per: str = "site",
    num_particles: int = 1,
    seed: int = 0,
    **options: Any,
) -> GuidePosterior:
    """``steps`` steps in ``stages`` equal parts while β climbs to 1; trains the guide in place.

    Go on with ``svi(problem, fit.guide)``, ``fit`` being what is returned: the state reached, with
    the bound (β = 1) of every step. A guide class is made once, here.

    Args:
        num_particles: draws from the guide that a step averages over.
        free_bits, free_bits_per: as of ``BetaElbo``, through all stages.
        options: of :func:`~vitools.svi`, for every stage: ``learning_rate``, ``compile``, …; a
            schedule of Adam's begins anew with each.

    Example:
        >>> import pyro.distributions as dist, pyro, torch
        >>> from vitools import Problem, svi
        >>> from vitools.models.vae import VAE
        >>> vae = VAE(num_pixels=4, latent_dim=1, hidden=(3,))
        >>> problem = Problem(vae.model, torch.eye(4))
        >>> warm = warm_up(problem, vae.guide, steps=40, learning_rate=0.01)
        >>> len(warm.history), svi(problem, warm.guide, max_steps=40).status.label
        (40, 'stopped at limit')
    """
    check_seed(seed)
    if stages < 1 or steps < stages:
        raise OptionError(f"expected stages ≥ 1 and steps ≥ stages, got {stages} and {steps}.")
    rows: list[tuple[float, float]] = []
    for stage in range(stages):
        begin, end = steps * stage // stages, steps * (stage + 1) // stages
        fit = svi(
            problem,
            guide,
            objective=BetaElbo((stage + 0.5) / stages, free_bits, num_particles, free_bits_per),
            max_steps=end - begin,
            seed=seed + stage,
            **options,
        )
        guide, earlier = fit.guide, rows[-1][1] if rows else 0.0
        found = zip(fit.history.elbo, fit.history.seconds, strict=True)
        rows += [(bound, earlier + seconds) for bound, seconds in found]
        if fit.status is Status.INTERRUPTED:
            break
    fit.history, fit.seconds, fit.seed = History.of_rows(rows), rows[-1][1], seed
    return fit
