"""The same model with a posterior in the place of its priors: where new rows meet what is known.

    p(θ | old, new) ∝ p(new | θ) p(θ | old),        p(θ | old) ≈ q(θ)

The sites of q that are not latents of single rows get its factors as their distributions, so that every
engine, diagnostic and draw takes the result as it takes any Pyro model. A factor over several sites, or
over all elements of one, is stated site by site (:mod:`vitools.posterior.normal_given`), and so is a
Gaussian on the reals, through the map from there.

With forgetting λ < 1 the prior is q^λ, normalised: natural parameters times λ, so that rows of long ago
count less and less (Kulhavý and Zarrop 1993, "On a general concept of forgetting").
"""

from __future__ import annotations

import math
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pyro.distributions as dist
import torch
from pyro.poutine.messenger import Messenger
from torch import Tensor
from torch import distributions as td

from vitools.distributions.free_form import FreeForm
from vitools.distributions.joint_normal import JointNormal
from vitools.errors import FileError, NotSupportedError, OptionError
from vitools.families import FAMILIES, members
from vitools.files.archive import read_archive
from vitools.posterior.base import Posterior
from vitools.posterior.factorised import Factor, FactorisedPosterior, restored_factors
from vitools.posterior.gaussian import GaussianPosterior
from vitools.posterior.guided import GuidePosterior
from vitools.posterior.normal_given import NormalGiven, cast, chained
from vitools.problem import Problem
from vitools.problem.reading.program import name_of
from vitools.problem.sites import Site, listed
from vitools.supports import base_support

LARGEST_JOINT = 2000
"""Numbers of one factor whose covariance is written out."""


@dataclass(frozen=True)
class SitePrior:
    """A site's own factor."""

    distribution: Any

    def stated(self, site: Site, values: Mapping[str, Tensor]) -> Any:
        return self.distribution

    @property
    def is_joint(self) -> bool:
        return False


Prior = SitePrior | NormalGiven


class CarriedModel:
    """A model whose sites named in ``priors`` are drawn from these."""

    def __init__(
        self, model: Callable[..., Any], priors: Mapping[str, Prior], sites: Mapping[str, Site]
    ):
        self.model, self.priors, self.sites = model, dict(priors), dict(sites)
        self.__name__ = name_of(model)
        self.__module__ = ""  # whose name the model's is no part of
        self.__wrapped__ = model.forward if isinstance(model, torch.nn.Module) else model
        if hasattr(model, "invariants"):
            self.invariants = model.invariants

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        with _Carrying(self.priors, self.sites):
            return self.model(*args, **kwargs)


class _Carrying(Messenger):
    """Puts distributions in the place of those that the model states."""

    def __init__(self, priors: Mapping[str, Prior], sites: Mapping[str, Site]):
        super().__init__()
        self.priors, self.sites = priors, sites
        self.values: dict[str, Tensor] = {}

    def _pyro_sample(self, msg: Any) -> None:
        prior = self.priors.get(msg["name"])
        if prior is None or msg["is_observed"]:
            return
        msg["fn"] = prior.stated(self.sites[msg["name"]], self.values)
        if prior.is_joint:  # its elements are no longer independent along plates
            stack = msg["cond_indep_stack"]
            msg["cond_indep_stack"] = tuple(frame for frame in stack if not frame.vectorized)

    def _pyro_post_sample(self, msg: Any) -> None:
        if msg["name"] in self.priors:
            self.values[msg["name"]] = msg["value"]


def carry_over(
    fit: Posterior | str | Path,
    problem: Problem,
    *,
    rows: str | Sequence[str] | None = None,
    forgetting: float = 1.0,
) -> Problem:
    """The problem with the fit as the prior of its latents, but for those of single rows.

    Args:
        fit: of the same model to other rows, or the path of a saved one (its rows are not needed).
        problem: the model and the new rows.
        rows: the plates whose elements are new; by default those that observed sites stand in.
        forgetting: λ in q^λ, above 0 and at most 1.

    Raises:
        NotSupportedError: the fit's factors cannot stand as priors, or have other shapes than the
            model's sites (a group that the fit has not seen).
        FileError: the file holds no such fit of this model.
    """
    if not isinstance(problem, Problem):
        raise OptionError(f"update() expects a Problem of the new rows, got {problem!r}.")
    if not isinstance(forgetting, int | float) or not 0 < forgetting <= 1:
        raise OptionError(
            f"forgetting: expected a number above 0 and at most 1, got {forgetting!r}."
        )
    name, factors, gaussian = _parts(fit)
    if name != problem.name:
        raise NotSupportedError(
            f"update: the fit is of model '{name}', the new rows are of '{problem.name}'. Build the "
            "Problem with the fit's model."
        )
    if isinstance(fit, Posterior):
        _refuse_other_labels(fit.problem, problem)
    covered = {site for factor in factors for site in factor.sites}
    expected = set(problem.latents)
    if gaussian is not None:
        covered, expected = set(gaussian.space.slices), set(problem.drawn)
    if covered != expected:
        only_fit, only_new = covered - expected, expected - covered
        raise NotSupportedError(
            f"update: model '{name}' has other latents than the fit (only in the fit: "
            f"{listed(sorted(only_fit)) or 'none'}; only in the model: "
            f"{listed(sorted(only_new)) or 'none'}). Build the Problem with the fit's model."
        )
    local = _local(problem, rows)
    priors: dict[str, Prior] = {}
    for factor in factors:
        if set(factor.sites) <= local:
            continue
        if local & set(factor.sites):
            both = listed([repr(name) for name in factor.sites])
            raise NotSupportedError(
                f"update: one factor holds {both}, of which "
                f"{listed(sorted(local & set(factor.sites)))} belong to single rows. Fit with joint=() "
                "to keep them apart."
            )
        sites = [problem.latents[name] for name in factor.sites]
        _refuse_other_shape(factor, sites)
        priors.update(_priors(factor, sites, float(forgetting)))
    if gaussian is not None:
        priors = _of_gaussian(gaussian, problem, local, float(forgetting))
    if not priors:
        raise NotSupportedError(
            f"update: every latent of model '{name}' belongs to single rows "
            f"({listed(sorted(local))}), so that nothing is carried over. Name the plates of rows: rows=."
        )
    plain = problem.model
    model = CarriedModel(plain, priors, {k: problem.latents[k] for k in priors})
    made = Problem(model, *problem.args, **problem.kwargs)
    if problem.has_given_params:
        made = made.with_params(problem.params)
    labels = {dim: own for dim, own in problem.coords.items() if dim in made.dims}
    return made.with_coords(**labels)


def _parts(
    fit: Posterior | str | Path,
) -> tuple[str, list[Factor], GaussianPosterior | None]:
    """The name of the fit's model, and its factors or the one Gaussian that it is."""
    if isinstance(fit, str | Path):
        header, tensors = read_archive(fit)
        if header.get("kind") != FactorisedPosterior.__name__:
            raise FileError(
                f"'{fit}' holds a {header.get('kind')}, which cannot be carried over: expected the fit "
                "of cavi() (with nested=() where it nests). Fit again."
            )
        state = {k.removeprefix("state."): v for k, v in tensors.items() if k.startswith("state.")}
        made = restored_factors(header["meta"]["factors"], state)
        return header["model"], [Factor(sites, q) for sites, q in made], None
    gaussian = fit.as_gaussian() if isinstance(fit, GuidePosterior) else fit
    if isinstance(gaussian, GaussianPosterior):
        return fit.problem.name, [], gaussian
    if not isinstance(fit, FactorisedPosterior):
        got = type(fit).__name__
        advice = " Fit with nested=()." if got == "MixturePosterior" else ""
        raise NotSupportedError(
            f"update: a {got} cannot be carried over: expected the fit of cavi(), a product of "
            f"factors, or the path of a saved one, or a Gaussian on the reals (of laplace(), dadvi(), or svi() with "
            f"AutoMultivariate or AutoMultivariateNormal).{advice}"
        )
    return fit.problem.name, list(fit.factors), None


def _of_gaussian(
    fit: GaussianPosterior, problem: Problem, local: Collection[str], forgetting: float
) -> dict[str, Prior]:
    """The sites of all rows of a Gaussian on the reals, the others integrated out."""
    space = fit.space
    names = [name for name in space.slices if name not in local]
    for name in names:
        old, new = fit.problem.latents[name], problem.latents[name]
        if old.shape != new.shape:
            raise NotSupportedError(_other_shape([new], tuple(old.shape), tuple(new.shape)))
    if not names:
        return {}
    index = torch.cat([torch.arange(space.size)[space.slices[name]] for name in names])
    covariance = (fit.scale_tril @ fit.scale_tril.mT)[index][:, index] / forgetting
    shapes = {name: tuple(space.shapes[name]) for name in names}
    transforms = {
        name: space.transforms[name]
        for name in names
        if base_support(problem.latents[name].support) is not td.constraints.real
    }
    dtype = problem.latents[names[0]].dtype
    return dict(chained(fit.location[index], covariance, shapes, dtype, transforms))


def _local(problem: Problem, rows: str | Sequence[str] | None) -> set[str]:
    """Latents of single rows."""
    if rows is None:
        plates = {plate for site in problem.observed.values() for plate in site.plates if plate}
    else:
        plates = {rows} if isinstance(rows, str) else set(rows)
        unknown = plates - set(problem.plates)
        if unknown:
            raise OptionError(
                f"rows: no plate {listed(sorted(unknown))} in model '{problem.name}' (plates: "
                f"{listed(list(problem.plates)) or 'none'})."
            )
    return {name for name, site in problem.latents.items() if plates & set(site.plates)}


def _refuse_other_labels(old: Problem, new: Problem) -> None:
    """Codes of words mean the same groups in both."""
    for dim in old.coords.keys() & new.coords.keys():
        before, now = list(old.coords[dim]), list(new.coords[dim])
        if before == now or dim in {p for s in new.observed.values() for p in s.plates}:
            continue
        unseen = [label for label in now if label not in set(before)]
        what = f"unseen: {listed(list(map(str, unseen)))}" if unseen else "in another order"
        raise NotSupportedError(
            f"update: the labels of '{dim}' are not those of the fit ({what}), so that codes mean other "
            "groups. Code the words by the fit's labels: open_table(…, labels=…)."
        )


def _refuse_other_shape(factor: Factor, sites: Sequence[Site]) -> None:
    made = factor.distribution
    found = (*made.batch_shape, *made.event_shape)
    expected: tuple[int, ...] = tuple(sites[0].shape)
    if factor.is_block and not sites[0].is_discrete:
        expected = (sum(site.shape.numel() for site in sites),)
    if found != expected and not sites[0].is_discrete:
        raise NotSupportedError(_other_shape(sites, found, expected))


def _other_shape(sites: Sequence[Site], found: tuple[int, ...], expected: tuple[int, ...]) -> str:
    groups = ", ".join(f"'{p}'" for site in sites for p in site.plates if p)
    where = f" An element of plate {groups} that the fit has not seen?" if groups else ""
    return (
        f"update: {listed([repr(s.name) for s in sites])} has shape {list(found)} in the fit and "
        f"{list(expected)} here.{where} Give the plate the size of all groups there will ever be."
    )


def _priors(factor: Factor, sites: Sequence[Site], forgetting: float) -> dict[str, Prior]:
    made, title = factor.distribution, listed([repr(site.name) for site in sites])
    base, events = made, 0
    while isinstance(base, td.Independent):
        base, events = base.base_dist, events + base.reinterpreted_batch_ndims
    if isinstance(base, dist.MaskedDistribution):
        raise NotSupportedError(
            f"update: q({title}) is masked, and a prior has no masks. Leave the masked elements out."
        )
    if factor.is_block or isinstance(base, JointNormal):
        if sites[0].is_discrete or not hasattr(base, "loc"):
            raise NotSupportedError(
                f"update: q({title}) is a {type(base).__name__} over several sites, which no prior "
                "states. Fit with joint=() to keep them apart."
            )
        mean, covariance = _moments(base, title)
        shapes = {site.name: tuple(site.shape) for site in sites}
        return dict(chained(mean, covariance / forgetting, shapes, sites[0].dtype))
    kind = type(base).__name__
    if kind not in members() or (not hasattr(dist, kind) and not isinstance(base, FreeForm)):
        raise NotSupportedError(
            f"update: q({title}) is a {kind}, which no prior "
            "states. Fit the model on all rows, old and new."
        )
    if forgetting < 1:
        base = _tempered(base, title, forgetting)
    if not isinstance(base, FreeForm):
        kind = type(base).__name__
        dtype = sites[0].dtype
        parameters = {p: cast(getattr(base, p), dtype) for p in members()[kind][1]}
        if kind == "Categorical":
            parameters = {"logits": base.logits}
        base = getattr(dist, kind)(**parameters, validate_args=False)
    return {sites[0].name: SitePrior(base.to_event(events) if events else base)}


def _tempered(base: Any, title: str, power: float) -> Any:
    """q^λ, normalised."""
    for family in FAMILIES.values():
        if type(base) in family.members:
            natural = family.from_distribution(base)
            return family.to_distribution(tuple(power * eta for eta in natural))
    raise NotSupportedError(
        f"update: q({title}) is a {type(base).__name__}, which cannot be forgotten in part. Leave "
        "forgetting out, or give the site a conjugate prior."
    )


def _moments(base: Any, title: str) -> tuple[Tensor, Tensor]:
    """Mean and covariance of all numbers of a normal factor, in the order of the sites."""
    size = math.prod((*base.batch_shape, *base.event_shape))
    if size > LARGEST_JOINT:
        raise NotSupportedError(
            f"update: q({title}) ties {size} numbers in one factor, whose covariance would be written out "
            f"(at most {LARGEST_JOINT}). Fit with factorised= or joint=() to keep them apart."
        )
    if hasattr(base, "covariance_of"):
        return base.loc, base.covariance_of(torch.arange(size))
    if not isinstance(base, JointNormal):
        return base.loc, base.covariance_matrix
    covariance = torch.zeros(size, size, dtype=base.loc.dtype)
    places = base._to_vector(torch.arange(size).reshape(base.event_shape).double()).long()
    blocks = base.vector.covariance_matrix.expand(*places.shape, places.shape[-1])
    rows = places.reshape(-1, places.shape[-1])
    for place, block in zip(rows, blocks.reshape(-1, *blocks.shape[-2:]), strict=True):
        covariance[place[:, None], place[None, :]] = block
    return base.mean.reshape(-1), covariance
