"""What ``start=`` may be, for every engine: nothing, a fit, values or distributions by site, a word.

Checked here, by name and before anything is computed; the engine is handed moments.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor
from torch.distributions import Distribution, Independent

from vitools.distributions.markov_chains import CategoricalMarkovChain
from vitools.errors import OptionError
from vitools.families.moments import SiteMoments
from vitools.posterior import FactorisedPosterior, Posterior
from vitools.problem import Problem
from vitools.problem.density.discrete import index_in_support
from vitools.problem.density.values import latent_site
from vitools.problem.sites import Site, nearest

STARTS = {
    "cavi": "a fit, {site: value or distribution}, 'prior' or 'data'",
    "svi": "a fit, 'search' or 'guide'",
    "nuts": "a fit or 'prior'",
}
"""What each engine's ``start=`` may be; left out, the engine chooses."""

DRAWS = 200
"""Draws of a fit over which conditional probabilities of discrete latents are averaged."""

StartValue = Tensor | float | Distribution
Start = Posterior | Mapping[str, StartValue] | str
"""What an engine's ``start=`` takes, besides ``None`` for its own choice."""


def wrong_start(engine: str, start: object) -> OptionError:
    """What to say of a start that the engine does not have."""
    others = [f"{other}() takes {words}" for other, words in STARTS.items() if other != engine]
    got = f"{start!r}" if isinstance(start, str) else f"a {type(start).__name__}"
    return OptionError(
        f"start: expected {STARTS[engine]}, got {got}. Leave it out for {engine}()'s own choice "
        f"({'; '.join(others)})."
    )


@dataclass(frozen=True)
class StartMoments:
    """A start that was found to be in order.

    Attributes:
        word: one of the engine's words, or ``"automatic"`` for the sites that are not given.
        sites: the moments of the sites that are.
    """

    word: str = "automatic"
    sites: dict[str, SiteMoments] = field(default_factory=dict)


def read_start(
    problem: Problem, start: Start | None, engine: str, words: Collection[str]
) -> StartMoments:
    """``start`` as moments, or an error that says what is wrong with it.

    Args:
        words: the starts that the engine has a name for.
    """
    if start is None:
        return StartMoments()
    if isinstance(start, str):
        if start not in words:
            raise OptionError(
                f"start: {engine}() has {' and '.join(map(repr, words))}, got {start!r}."
                f"{nearest(start, words)} Give one of these, a fit, or {{site: value}}."
            )
        return StartMoments(start)
    if isinstance(start, Posterior):
        return StartMoments(sites=_of_fit(problem, start))
    if isinstance(start, Mapping):
        if not start:
            raise OptionError("start: the values by site are empty; leave start out for none.")
        found = {}
        for name, value in start.items():
            site = latent_site(problem.latents, name, f"model '{problem.name}', named in start")
            found[name] = _of_value(site, value)
        return StartMoments(sites=found)
    raise OptionError(
        f"start: expected a fit, {{site: value or distribution}} or one of "
        f"{', '.join(map(repr, words))}, got {type(start).__name__}."
    )


# ---- a fit --------------------------------------------------------------------------------------


def _of_fit(problem: Problem, fit: Posterior) -> dict[str, SiteMoments]:
    expected, found = (
        {name: tuple(site.shape) for name, site in made.latents.items()}
        for made in (problem, fit.problem)
    )
    if expected != found:
        raise OptionError(
            f"start is a fit of model '{fit.problem.name}' with sites {found}, expected those of "
            f"model '{problem.name}': {expected}. Give a fit of the same model, or the values of "
            "the sites that both have."
        )
    mean, sd = fit.mean(), fit.sd()
    moments = {}
    for name in problem.drawn:
        moments[name] = SiteMoments(mean[name].detach().double(), sd[name].detach().double())
    if problem.discrete:
        moments.update(_discrete(problem, fit))
    for name, each in moments.items():
        parts = [each.mean] if each.sd is None else [each.mean, each.sd]
        if not all(bool(part.isfinite().all()) for part in parts):
            raise OptionError(
                f"start: site '{name}' has a mean or standard deviation that is no number under the "
                f"{fit.engine} fit. Give another fit, or values by site."
            )
    return moments


def _discrete(problem: Problem, fit: Posterior) -> dict[str, SiteMoments]:
    if isinstance(fit, FactorisedPosterior):
        marginals = {name: fit.marginal(name) for name in problem.discrete}
        return {
            name: SiteMoments(_probabilities(problem.latents[name], marginal))
            for name, marginal in marginals.items()
        }
    draws = fit.sample(DRAWS) if problem.drawn else {}
    with torch.no_grad():
        found = fit.problem.discrete_marginals(draws)
    return {k: SiteMoments((v.mean(0) if draws else v).double()) for k, v in found.items()}


# ---- a value or a distribution -----------------------------------------------------------------


def _of_value(site: Site, value: Any) -> SiteMoments:
    if isinstance(value, Distribution):
        return _of_distribution(site, value)
    try:
        tensor = torch.as_tensor(value).detach()
    except (TypeError, ValueError, RuntimeError):
        raise OptionError(
            f"start: site '{site.name}' was given a {type(value).__name__}, expected a tensor or "
            "number, or a distribution."
        ) from None
    if tensor.is_complex():
        raise OptionError(f"start: site '{site.name}' was given complex numbers.")
    if tensor.dim() and tensor.shape != site.shape:
        raise _wrong_shape(site, tuple(tensor.shape))
    value = tensor.double().expand(site.shape)
    _refuse_nan(site, value, "value")
    if site.states and bool(site.support.check(value)):
        return SiteMoments(torch.nn.functional.one_hot(value.long(), site.states).double())
    if site.support_values is not None:
        index = index_in_support(site, value)
        if bool((index < 0).any()):
            raise _outside(site, "value")
        return SiteMoments(torch.nn.functional.one_hot(index, len(site.support_values)).double())
    if not bool(site.support.check(value).all()):
        raise _outside(site, "value")
    return SiteMoments(value)


def _of_distribution(site: Site, given: Distribution) -> SiteMoments:
    shape = (*given.batch_shape, *given.event_shape)
    if shape != tuple(site.shape):
        raise _wrong_shape(site, shape)
    if site.is_summed_out:
        return SiteMoments(_probabilities(site, given))
    try:
        mean, variance = given.mean.detach().double(), given.variance.detach().double()
    except NotImplementedError:
        raise OptionError(
            f"start: site '{site.name}' was given a {type(given).__name__}, whose mean and variance "
            "are not known. Give another distribution, or a value."
        ) from None
    mean = mean.expand(site.shape)
    _refuse_nan(site, mean, "distribution's mean")
    _refuse_nan(site, variance, "distribution's variance")
    if not bool(site.support.check(mean).all()):
        raise _outside(site, "distribution's mean")
    return SiteMoments(mean, variance.expand(site.shape).sqrt())


def _probabilities(site: Site, given: Distribution) -> Tensor:
    """Of the cases of a discrete site, ``[*batch_shape, K]``; of each step of a trajectory, ``[*shape, K]``."""
    while isinstance(given, Independent):
        given = given.base_dist
    if site.states:
        if not isinstance(given, CategoricalMarkovChain) or given.num_states != site.states:
            raise OptionError(
                f"start: site '{site.name}' was given a {type(given).__name__}, expected a "
                f"CategoricalMarkovChain of {site.states} states."
            )
        return given.state_probs.detach().double().reshape((*site.shape, site.states))
    assert site.support_values is not None
    cases = []
    for value in site.support_values:
        try:
            log_prob = given.log_prob(value.expand(site.shape))
        except (ValueError, RuntimeError, IndexError):
            log_prob = torch.full((), torch.nan)
        cases.append(log_prob.detach().double().expand(site.batch_shape))
    table = torch.stack(cases, -1).softmax(-1)
    if bool(table.isnan().any()):
        raise OptionError(
            f"start: site '{site.name}' was given a {type(given).__name__} that is no distribution "
            f"over its {len(site.support_values)} values."
        )
    return table


# ---- refusals -------------------------------------------------------------------------------------


def _refuse_nan(site: Site, value: Tensor, what: str) -> None:
    if not bool(value.isfinite().all()):
        raise OptionError(f"start: the {what} of site '{site.name}' has nan or infinite entries.")


def _wrong_shape(site: Site, found: tuple[int, ...]) -> OptionError:
    return OptionError(
        f"start: site '{site.name}' has shape {tuple(site.shape)}, got {found}; a number stands for "
        "all entries."
    )


def _outside(site: Site, what: str) -> OptionError:
    if site.support_values is not None:
        listed = ", ".join(str(v.tolist()) for v in site.support_values[:6])
        return OptionError(
            f"start: the {what} of site '{site.name}' is not among those it can take ({listed}"
            f"{', …' if len(site.support_values) > 6 else ''})."
        )
    return OptionError(
        f"start: the {what} of site '{site.name}' lies outside of its support ({site.support})."
    )
