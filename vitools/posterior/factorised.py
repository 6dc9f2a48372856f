"""A product of closed-form factors: the result of coordinate ascent."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import pyro.distributions as dist
import torch
from torch import Tensor
from torch import distributions as td

from vitools.distributions import CategoricalMarkovChain
from vitools.distributions.free_form import FreeForm, FreeFormPair
from vitools.distributions.rounding import Beyond, beyond_log_prob, rounded_draws
from vitools.errors import NotSupportedError
from vitools.families import members
from vitools.families.markov_chain import MarkovChain
from vitools.families.tree_normal import TreeNormal
from vitools.isolation import quiet_draws, seeded
from vitools.posterior.base import Posterior, Saved
from vitools.posterior.masked import MaskedElements, kept_elements
from vitools.posterior.results import Estimate, check_count
from vitools.problem import Problem
from vitools.problem.density.discrete import support_size
from vitools.problem.sequences import Steps

FORMER_NAMES = {"Chain": "MarkovChain"}
"""Distributions by the names that they have in older files."""

LARGEST_JOINT_MARGINAL = 1000
"""Numbers of one site up to which its marginal has their covariance."""


@dataclass(frozen=True)
class Factor:
    """q of one block of sites.

    A block of one site: ``distribution`` has the site's own batch and event shape. A
    Gaussian block of several sites: a ``MultivariateNormal`` over their values flattened
    and concatenated. A discrete block: a ``Categorical`` over the product of supports
    (last site fastest), with the sites' common batch shape; or a ``MarkovChain`` over the sites.
    """

    sites: tuple[str, ...]
    distribution: Any

    @property
    def is_block(self) -> bool:
        return len(self.sites) > 1


class FactorisedPosterior(Posterior):
    """q(θ, z) = ∏ q(block), with the engine's own bound.

    Args:
        factors: ``{site or (site, …): torch distribution}`` covering every latent;
            see :class:`Factor` for what a block's distribution means.
        bound: the engine's final ELBO, discrete factors included.
        restart_bounds: the ELBO that each start reached, where several were tried; also an
            attribute. ``bound`` is the best of them.
        bound_error: by how much ``bound`` may be off, where it holds numerical integrals; 0 is exact.
    """

    def __init__(
        self,
        problem: Problem,
        factors: Mapping[str | tuple[str, ...], Any],
        bound: float,
        restart_bounds: Sequence[float] = (),
        bound_error: float = 0.0,
        **common: Any,
    ) -> None:
        super().__init__(problem, **common)
        self.bound, self.bound_error = bound, bound_error
        self.restart_bounds = list(restart_bounds)
        self.factors = [
            Factor((sites,) if isinstance(sites, str) else tuple(sites), distribution)
            for sites, distribution in factors.items()
        ]
        self._starts: dict[str, int] = {}
        """Of each site the place of its first number in its factor."""
        self._factor_of: dict[str, Factor] = {}
        for factor in self.factors:
            start = 0
            for name in factor.sites:
                self._starts[name], self._factor_of[name] = start, factor
                start += problem.latents[name].shape.numel() if name in problem.latents else 0
        covered = [name for factor in self.factors for name in factor.sites]
        if sorted(covered) != sorted(problem.latents):
            raise NotSupportedError(
                f"factors cover {sorted(covered)}, expected each latent once: "
                f"{sorted(problem.latents)}."
            )
        for factor in self.factors:
            self._refuse_shape(factor)
        first = ((f.sites[0], f.distribution) for f in self.factors)
        kept = {name: kept_elements(problem.latents[name], made) for name, made in first}
        masks = {name: mask for name, mask in kept.items() if mask is not None}
        self._masked = MaskedElements(problem, masks) if masks else None

    def _refuse_shape(self, factor: Factor) -> None:
        """A factor's distribution must be over exactly its sites' values."""
        sites = [self.problem.latents[name] for name in factor.sites]
        made = factor.distribution
        found: tuple[int, ...] = (*made.batch_shape, *made.event_shape)
        expected: tuple[int, ...] = tuple(sites[0].shape)
        if isinstance(made, MarkovChain):
            expected = (*sites[0].batch_shape, len(sites))
        elif sites[0].is_discrete:
            if isinstance(made, td.Categorical):
                found = (*made.batch_shape, made.logits.shape[-1])
                size = math.prod(support_size(site) for site in sites)
                expected = (*sites[0].batch_shape, size)
        elif factor.is_block:
            expected = (sum(site.shape.numel() for site in sites),)
        if found != expected:
            raise NotSupportedError(
                f"q({', '.join(factor.sites)}) is a {type(made).__name__} of shape {found}, "
                f"expected {expected}."
            )

    def elbo(self, num_samples: int = 1000, seed: int = 0) -> Estimate:
        """The coordinate-ascent bound; it counts q(z) of discrete latents as a factor.

        :meth:`log_weights` averages to the bound with discrete latents summed out, which
        is never lower.
        """
        return Estimate(self.bound, self.bound_error)

    def _draw(self, num_samples: int, seed: int) -> dict[str, Tensor]:
        return self._rounded(num_samples, seed)[0]

    def sample_with_log_prob(
        self, num_samples: int, seed: int = 0
    ) -> tuple[dict[str, Tensor], Tensor]:
        """The density is that of the values, which stand for draws beyond them where they are at
        the edge of their support; :meth:`sample_with_log_weights` weighs the draws themselves.
        """
        values, _ = self._rounded(num_samples, seed)
        with torch.no_grad():
            return values, self.log_prob(values).expand(
                num_samples
            )  # no values: all latents are discrete

    def sample_with_log_weights(
        self, num_samples: int, seed: int = 0
    ) -> tuple[dict[str, Tensor], Tensor]:
        self.refuse_part("importance weights")
        values, beyond = self._rounded(num_samples, seed)
        with torch.no_grad():
            log_q = self.log_prob(values).expand(num_samples)
            for name, shift in beyond.items():
                further = beyond_log_prob(self.marginal(name), shift)
                log_q = log_q + further.reshape((num_samples, -1)).sum(-1)
            log_weights = self.problem.log_joint(values, beyond) - log_q
            # no more digits than the model's own terms have
            dtypes = {value.dtype for value in values.values()}
            return values, log_weights.float() if torch.float32 in dtypes else log_weights

    def _rounded(self, num_samples: int, seed: int) -> tuple[dict[str, Tensor], dict[str, Beyond]]:
        """Values of ``num_samples`` draws, and by how much some of the draws lie beyond them."""
        check_count(num_samples)
        latents, values, beyond = self.problem.latents, {}, {}
        with seeded(seed), quiet_draws(), torch.no_grad():
            for factor in self.factors:
                site = latents[factor.sites[0]]
                if site.is_summed_out:
                    continue
                if isinstance(factor.distribution, CategoricalMarkovChain):
                    values[site.name] = factor.distribution.sample(torch.Size([num_samples]))
                elif not site.is_discrete:
                    drawn, shift = rounded_draws(factor.distribution, num_samples, site.dtype)
                    values.update(self._split(factor, drawn))
                    if shift is not None:
                        beyond[site.name] = shift
        if self._masked is not None:
            values.update(self._masked.drawn(values, num_samples, seed + 1))
            beyond = {name: self._masked.without(name, shift) for name, shift in beyond.items()}
        return {k: v.to(latents[k].dtype) for k, v in values.items()}, beyond

    def log_prob(self, values: Mapping[str, Tensor]) -> Tensor:
        latents = self.problem.latents
        flat, sample_shape = self.problem.checked_draws(values)
        total: Any = torch.zeros(sample_shape.numel())
        for factor in self.factors:
            if latents[factor.sites[0]].is_summed_out:
                continue
            if factor.is_block:
                parts = [_flatten(flat[k], latents[k].shape) for k in factor.sites]
                log_density = factor.distribution.log_prob(torch.cat(parts, -1))
            else:
                log_density = factor.distribution.log_prob(flat[factor.sites[0]])
            total = total.to(log_density) + log_density.reshape((len(total), -1)).sum(-1)
        if self._masked is not None:
            total = total + self._masked.log_prob(flat)
        return total.reshape(sample_shape)

    def _split(self, factor: Factor, drawn: Tensor) -> dict[str, Tensor]:
        """A draw ``[n, …]`` of a Gaussian block as ``{site: [num_samples, *shape]}``."""
        if not factor.is_block:
            return {factor.sites[0]: drawn}
        return {name: self._part(name, drawn) for name in factor.sites}

    def _part(self, site: str, drawn: Tensor) -> Tensor:
        """What one site has of a draw ``[n, …]`` of its Gaussian block."""
        shape, start = self.problem.latents[site].shape, self._starts[site]
        return drawn[..., start : start + shape.numel()].reshape(drawn.shape[:-1] + shape)

    def marginal(self, site: str) -> Any:
        """q(site): a torch distribution with the site's batch and event shape.

        Of all steps of a loop, x of x_0, x_1, …, that of their numbers in a row, where they share a
        factor.
        """
        steps = self._steps(site)
        if steps is not None and self._is_joint(steps):
            return self._of_steps(steps)
        self._latent(site)
        factor = self._factor_of[site]
        if not factor.is_block:
            return factor.distribution
        if self.problem.latents[site].is_discrete:
            return td.Categorical(
                probs=self._discrete_block_marginal(factor, site), validate_args=False
            )
        made = factor.distribution
        if isinstance(made, FreeFormPair):
            return self._of_pair(made, factor.sites.index(site), site)
        start = self._starts[site]
        flat = torch.arange(start, start + self.problem.latents[site].shape.numel())
        if isinstance(made, TreeNormal):
            own = self.problem.latents[site]
            return self._tree_marginal(made, flat, own.shape, own.event_dim)
        mean, covariance = made.loc, made.covariance_matrix
        return td.MultivariateNormal(mean[flat], covariance[flat][:, flat], validate_args=False)

    def _is_joint(self, steps: Steps) -> bool:
        """Whether the steps share a factor, and are all of it where that is of discrete states."""
        factors = [self._factor_of[name] for name in steps.sites]
        is_one = all(factor is factors[0] for factor in factors)
        return is_one and (not steps.site.is_discrete or factors[0].sites == steps.sites)

    def _of_steps(self, steps: Steps) -> Any:
        """Of steps that share a factor."""
        factor = self._factor_of[steps.sites[0]]
        made, size = factor.distribution, steps.site.shape.numel()
        if steps.site.is_discrete:
            return made
        index = torch.cat([self._starts[k] + torch.arange(size) for k in steps.sites])
        if isinstance(made, TreeNormal):
            shape = (len(steps.sites), *steps.site.shape)
            return self._tree_marginal(made, index, shape, steps.site.event_dim)
        return td.MultivariateNormal(
            made.loc[index], made.covariance_matrix[index][:, index], validate_args=False
        )

    def _of_pair(self, made: FreeFormPair, number: int, site: str) -> Any:
        shape = self.problem.latents[site].shape
        batch = self.problem.latents[site].batch_shape
        one = made.marginals[number]
        parameters = (getattr(one, name) for name in members()["FreeForm"][1])
        made_one: Any = FreeForm(*(x.reshape((*shape, *x.shape[1:])) for x in parameters))
        events = len(shape) - len(batch)
        return td.Independent(made_one, events) if events else made_one

    def _tree_marginal(
        self, made: TreeNormal, index: Tensor, shape: tuple[int, ...], event_dim: int
    ) -> Any:
        """Up to so many numbers jointly, as of other blocks; else each element's own normal."""
        if len(index) <= LARGEST_JOINT_MARGINAL:
            covariance = made.covariance_of(index)
            return td.MultivariateNormal(made.loc[index], covariance, validate_args=False)
        loc, sd = made.loc[index].reshape(shape), made.variance[index].sqrt().reshape(shape)
        return td.Independent(td.Normal(loc, sd, validate_args=False), event_dim)

    def _discrete_block_marginal(self, factor: Factor, site: str) -> Tensor:
        if isinstance(factor.distribution, MarkovChain):
            return factor.distribution.marginal(factor.sites.index(site))
        sizes = [support_size(self.problem.latents[k]) for k in factor.sites]
        table = factor.distribution.probs
        table = table.reshape(table.shape[:-1] + tuple(sizes))
        others = [i - len(sizes) for i, k in enumerate(factor.sites) if k != site]
        return table.sum(others)

    def _moments(self, name: str) -> tuple[Tensor, Tensor]:
        if self._masked is not None and name in self._masked.kept:
            return super()._moments(name)
        shape = self.problem.latents[name].shape
        factor = self._factor_of[name]
        if isinstance(factor.distribution, TreeNormal):
            made = factor.distribution
            if factor.is_block:
                return self._part(name, made.mean), self._part(name, made.variance.sqrt())
            return made.mean.reshape(shape), made.variance.sqrt().reshape(shape)
        marginal = self.marginal(name)
        try:
            return marginal.mean.reshape(shape), marginal.variance.sqrt().reshape(shape)
        except (AttributeError, NotImplementedError):
            return super()._moments(name)

    def _state(self) -> tuple[dict[str, Tensor], dict[str, Any]]:
        tensors, described, known = {}, [], members()
        for i, factor in enumerate(self.factors):
            base, event_dims = factor.distribution, 0
            if isinstance(base, td.Independent):
                base, event_dims = base.base_dist, base.reinterpreted_batch_ndims
            if isinstance(base, dist.MaskedDistribution):
                tensors[f"{i}.mask"] = torch.as_tensor(base._mask)
                base = base.base_dist
            kind = type(base).__name__
            if kind not in known:
                raise NotSupportedError(
                    f"q({', '.join(factor.sites)}) is a {kind}, which cannot be saved "
                    f"(can: {', '.join(sorted(known))})."
                )
            for parameter in known[kind][1]:
                tensors[f"{i}.{parameter}"] = torch.as_tensor(getattr(base, parameter))
            described.append({"sites": factor.sites, "kind": kind, "event_dims": event_dims})
        bounds = {
            "bound": self.bound,
            "bound_error": self.bound_error,
            "restart_bounds": self.restart_bounds,
        }
        return tensors, {"factors": described, **bounds}

    @classmethod
    def _restore(cls, saved: Saved) -> "FactorisedPosterior":
        made = restored_factors(saved.meta["factors"], saved.tensors)
        factors: dict[str | tuple[str, ...], Any] = {
            sites if len(sites) > 1 else sites[0]: distribution for sites, distribution in made
        }
        return cls(
            saved.problem,
            factors,
            saved.meta["bound"],
            saved.meta.get("restart_bounds", ()),
            saved.meta.get("bound_error", 0.0),
            **saved.common,
        )


def restored_factors(
    described: Sequence[Mapping[str, Any]], tensors: Mapping[str, Tensor]
) -> list[tuple[tuple[str, ...], Any]]:
    """The sites and the distribution of each factor, from what a file holds of them."""
    found = []
    for i, factor in enumerate(described):
        kind = FORMER_NAMES.get(factor["kind"], factor["kind"])
        distribution, names = members()[kind]
        parameters: dict[str, Any] = {p: tensors[f"{i}.{p}"] for p in names}
        made: Any = distribution(**parameters, validate_args=False)
        if f"{i}.mask" in tensors:
            made = dist.MaskedDistribution(made, tensors[f"{i}.mask"])
        if factor["event_dims"]:
            made = td.Independent(made, factor["event_dims"])
        found.append((tuple(factor["sites"]), made))
    return found


def _flatten(value: Tensor, shape: Sequence[int]) -> Tensor:
    return value.reshape(value.shape[: value.dim() - len(shape)] + (-1,))
