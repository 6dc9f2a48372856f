"""The observations of a problem as functions of its latents: what Fisher's information is taken from."""

from collections.abc import Callable, Mapping
from typing import Any

import torch
from pyro import poutine
from torch import Tensor
from torch.distributions import Distribution
from torch.func import jacrev

from vitools.errors import NotSupportedError, OptionError
from vitools.information.matrices import Point
from vitools.isolation import seeded
from vitools.problem import Problem
from vitools.problem.sites import is_factor, listed, nearest
from vitools.supports import from_reals


class Observations:
    """A problem at one value of its latents.

    Args:
        at: ``{latent: value}`` for each in ``problem.drawn``.
    """

    def __init__(self, problem: Problem, at: Any) -> None:
        problem.refuse_unlisted("fisher_information()")
        refuse_factors(problem, seed=0)
        if not isinstance(at, Mapping):
            raise OptionError(
                f"at: expected {{site: value}} for {listed(list(problem.drawn))}, got "
                f"{type(at).__name__}."
            )
        for name in at:
            if name not in problem.drawn:
                raise OptionError(
                    f"at: no latent '{name}' with a density (latents: {', '.join(problem.drawn)})."
                    f"{nearest(str(name), problem.drawn)}"
                )
        missing = [name for name in problem.drawn if name not in at]
        if missing:
            raise OptionError(f"at: expected a value of '{missing[0]}' too, got none.")
        given = Point.of({name: at[name] for name in problem.drawn})
        for name, site in problem.drawn.items():
            if given.shapes[name] != site.shape:
                raise OptionError(
                    f"at['{name}']: expected shape {list(site.shape)}, got {list(given.shapes[name])}."
                )
            if torch.Size(from_reals(site.support).inverse_shape(site.shape)) != site.shape:
                raise NotSupportedError(
                    f"site '{name}' has support {site.support}, whose entries are not free: Fisher's "
                    "information is a matrix in free coordinates. Write the model in such, or give a "
                    "function of them in place of the problem."
                )
            value = given.named(given.vector)[name].to(site.dtype)
            if not bool(site.support.check(value).all()):
                raise OptionError(
                    f"at['{name}']: expected a value in {site.support}, got {at[name]!r}."
                )
        self.problem, self.point = problem, given

    def _values(self, vector: Tensor) -> dict[str, Tensor]:
        latents = self.problem.latents
        return {k: v.to(latents[k].dtype) for k, v in self.point.named(vector).items()}

    def _nodes(self, vector: Tensor, data: Mapping[str, Tensor]) -> Mapping[str, Any]:
        with seeded(0), self.problem._isolated():
            run = poutine.condition(self.problem.call, data={**self._values(vector), **data})
            return poutine.trace(run).get_trace().nodes

    def maker(self, name: str) -> Callable[[Tensor], Distribution]:
        """The distribution of one observed site as a function of the vector of latents."""
        return lambda vector: self._nodes(vector, {})[name]["fn"]

    def makers_beside_discrete(self) -> list[Callable[[Tensor], Distribution]]:
        """Those of observed and of discrete sites, the latter held at a draw."""
        problem = self.problem
        drawn = self._nodes(self.point.vector, {})
        held = {name: drawn[name]["value"] for name in problem.discrete}

        def maker(name: str) -> Callable[[Tensor], Distribution]:
            return lambda vector: self._nodes(vector, held)[name]["fn"]

        return [maker(name) for name in (*problem.observed, *problem.discrete)]

    def are_independent(self, seed: int) -> bool:
        """Whether each observed entry's distribution is known from the latents alone.

        It is not where discrete latents are summed out, where data are masked or weighted, or where
        one observation depends on another: then it changes with the data.
        """
        problem = self.problem
        if problem.discrete or any(p.subsample_size != p.size for p in problem.plates.values()):
            return False
        now = self._nodes(self.point.vector, {})
        other = self._nodes(self.point.vector, self._replicated(1, seed, first=True))
        for name, site in problem.observed.items():
            node = now[name]
            masked = "Masked" in str(_layers(node["fn"])) or node["mask"] is not None
            if masked or not _is_one(node["scale"]) or site.value is None:
                return False
            here, there = (nodes[name]["fn"].log_prob(site.value) for nodes in (now, other))
            if not torch.equal(here, there):
                return False
        return True

    def _replicated(self, count: int, seed: int, first: bool = False) -> dict[str, Tensor]:
        values = self._values(self.point.vector)
        wide = {k: v.expand(count, *v.shape) for k, v in values.items()}
        data = self.problem.predictive(wide, seed)
        return {k: data[k][0] if first else data[k] for k in self.problem.observed}

    def scores(self, num_samples: int, seed: int) -> Tensor:
        """∂ log p(y | θ) of simulated data, discrete latents summed out: ``[n, P]``."""

        def score(data: Mapping[str, Tensor]) -> Tensor:
            def log_likelihood(vector: Tensor) -> Tensor:
                graph = self.problem.factors({**self._values(vector), **data})
                return graph.log_likelihood(self.problem.observed)

            return jacrev(log_likelihood)(self.point.vector)

        data = self._replicated(num_samples, seed)
        return self.problem.map_draws(score, data).detach().double()


def refuse_factors(problem: Problem, seed: int) -> None:
    """Raise where a statement may be of the prior or of the data, and has no data to simulate."""
    with seeded(seed), problem._isolated():
        run = poutine.trace(problem.call).get_trace()
    refuse_factors_among(run.nodes, problem.name)


def refuse_factors_among(nodes: Mapping[str, Any], model: str) -> None:
    """The same of a run of the model that is at hand."""
    named = [k for k, node in nodes.items() if node["type"] == "sample" and is_factor(node)]
    if named:
        raise NotSupportedError(
            f"model '{model}' has a pyro.factor statement ('{named[0]}'), which may be of "
            "the prior or of the data: what data tell cannot be separated. Write it as a sample "
            "statement."
        )


def _layers(fn: Any) -> list[str]:
    names = []
    while fn is not None:
        names.append(type(fn).__name__)
        fn = getattr(fn, "base_dist", None)
    return names


def _is_one(scale: Any) -> bool:
    return bool((torch.as_tensor(scale) == 1).all())
