"""One run of the model with every latent near the centre of its prior, for guides to start from."""

from collections.abc import Callable
from typing import Any

import torch
from pyro import poutine
from pyro.infer.autoguide.initialization import InitMessenger
from pyro.ops.tensor_utils import periodic_repeat
from pyro.poutine.messenger import Messenger
from torch import Tensor
from torch.distributions import constraints
from torch.distributions.constraints import Constraint
from torch.distributions.transforms import Transform

from vitools.distributions.layers import base_distribution
from vitools.distributions.markov_chains import CategoricalMarkovChain
from vitools.errors import ModelError
from vitools.guides.family import LatentSite, interior, is_simplex, is_unit_interval
from vitools.isolation import seeded
from vitools.problem.density.improper import float_dtype, is_improper, stand_in
from vitools.problem.sites import is_delta, is_subsample
from vitools.supports import base_support, bounds, from_reals

_MAX_DRAWN = 1_000_000  # numbers drawn from one site's prior
_WIDEST = 3.0  # standard deviation of a start on a transformed scale


def is_left_to_the_elbo(message: dict[str, Any]) -> bool:
    """Whether a site has no place in a guide: observed, fixed by others, summed out."""
    if message["type"] != "sample" or message["is_observed"]:
        return True
    if is_subsample(message) or is_delta(message):
        return True
    enumerable = getattr(message["fn"], "has_enumerate_support", False)
    is_trajectory = isinstance(base_distribution(message["fn"]), CategoricalMarkovChain)
    return bool(enumerable or is_trajectory or message["infer"].get("enumerate"))


def draws_per_site(shaped: Any) -> int:
    """How many draws of a tensor or distribution are worth their memory, at least 15."""
    shape = shaped.shape if isinstance(shaped, Tensor) else shaped.shape()
    return max(15, _MAX_DRAWN // max(1, shape.numel()))


class Prototype:
    """Runs a model with each continuous latent at its prior's centre, parents before children.

    Args:
        seed: of the private generator behind discrete sites, jitter and fallback draws.
        jitter: how far, in [0, 1), to move each centre towards a draw from the prior.
    """

    def __init__(self, seed: int, jitter: float):
        self.seed = seed
        self.jitter = jitter
        self._moments: dict[str, tuple[Tensor, Tensor, Tensor, Tensor]] = {}
        self._note_given_rows = _GivenRows()
        self._dtype = torch.get_default_dtype()

    @property
    def plates_with_given_rows(self) -> set[str]:
        """Plates that take a minibatch which the model itself chooses (``subsample=…``)."""
        return self._note_given_rows.plates

    def run(self, model: Callable, *args: Any, **kwargs: Any) -> poutine.Trace:
        """A trace of the sites that belong in a guide; outer handlers see nothing of it."""
        self._dtype = float_dtype((args, kwargs))
        centred = _Centred(self._centre)(self._note_given_rows(model))
        with seeded(self.seed), torch.no_grad():
            tracer = poutine.trace(poutine.block(centred, hide_fn=is_left_to_the_elbo))
            trace = poutine.block(tracer.get_trace)(*args, **kwargs)
        return trace

    def refuse_moving_supports(
        self, trace: poutine.Trace, model: Callable, *args: Any, **kwargs: Any
    ) -> None:
        """A guide maps each site from the reals onto one support, whatever the other latents are."""
        ends = {name: _ends(node) for name, node in trace.iter_stochastic_nodes()}
        if not any(ends.values()):
            return
        elsewhere = Prototype(self.seed, (1 + self.jitter) / 2).run(model, *args, **kwargs)
        for name, node in elsewhere.iter_stochastic_nodes():
            if not all(map(torch.equal, ends.get(name, []), _ends(node))):
                raise ModelError(
                    f"site {name!r} has a support whose ends move with other latents "
                    f"({type(node['fn']).__name__}): sample it on a fixed support and map it, as "
                    "Uniform(0, 1) times its range"
                )

    def site(self, name: str, node: dict[str, Any]) -> LatentSite:
        """What families may know of one traced site."""
        mean, variance, location, scale = self._moments[name]
        for frame in node["cond_indep_stack"]:
            full_size = frame.full_size or frame.size
            if full_size != frame.size:
                dim = frame.dim - node["fn"].event_dim
                mean, variance = (periodic_repeat(x, full_size, dim) for x in (mean, variance))
                dim = dim - (location.dim() - node["value"].dim())
                location, scale = (periodic_repeat(x, full_size, dim) for x in (location, scale))
        return LatentSite(
            name=name,
            support=node["fn"].support,
            event_dim=node["fn"].event_dim,
            mean=mean.contiguous(),
            variance=variance.contiguous(),
            location=location.contiguous(),
            scale=scale.contiguous(),
        )

    def _centre(self, message: dict[str, Any]) -> Tensor | None:
        if is_left_to_the_elbo(message):
            return None
        name, fn = message["name"], message["fn"]
        if fn.support.is_discrete:
            raise ModelError(
                f"site {name!r} is discrete ({type(fn).__name__}) and cannot be enumerated: "
                "give it a bounded support, sum it out of the model by hand, or write a guide that "
                "draws it"
            )
        try:
            transform = from_reals(fn.support)
        except NotImplementedError as error:
            raise ModelError(
                f"site {name!r} has support {fn.support}, to which no map from the reals is known: "
                "reparameterise it (pyro.infer.reparam) or leave it out with poutine.block"
            ) from error
        draws = interior(self._draws(name, fn, min(255, draws_per_site(fn))), fn.support)
        mean, variance = _moments(fn, draws)
        location, scale = _unconstrained_moments(fn.support, transform, mean, variance, draws)
        location = torch.lerp(location, transform.inv(draws[0]), self.jitter)
        if is_simplex(fn.support) or is_unit_interval(fn.support):
            mean = torch.lerp(mean, draws[0], self.jitter)
        else:
            mean = transform(location)
        self._moments[name] = mean, variance, location, scale
        return mean.clone()

    def _draws(self, name: str, fn: Any, count: int) -> Tensor:
        if is_improper(fn):
            return stand_in(fn, self._dtype, (count,))
        try:
            return fn.sample((count,))
        except NotImplementedError as error:
            raise ModelError(
                f"site {name!r} has a prior that cannot be drawn from ({type(fn).__name__}), and "
                "so no centre to start at: give it a proper prior"
            ) from error


class _Centred(InitMessenger):
    """Sees each site as it is drawn: ``poutine.reparam`` would have it decide on the old ones."""

    def _pyro_get_init_messengers(self, msg: Any) -> None:
        pass


class _GivenRows(Messenger):
    """Notes the plates that arrive with their rows, before any handler may put others there."""

    def __init__(self) -> None:
        super().__init__()
        self.plates: set[str] = set()

    def _pyro_sample(self, msg: Any) -> None:
        given = msg["value"] if is_subsample(msg) else None
        if given is not None and len(given) < msg["fn"].size:
            self.plates.add(msg["name"])


def _ends(node: dict[str, Any]) -> list[Tensor]:
    """The tensors among the bounds of a site's support."""
    return [end for end in bounds(node["fn"].support) if isinstance(end, Tensor)]


def _moments(fn: Any, draws: Tensor) -> tuple[Tensor, Tensor]:
    """Mean and variance of a site's prior, robust sample versions where they are not finite."""
    median, spread = _median_and_spread(draws)
    found = []
    for attribute, fallback in (("mean", median), ("variance", spread.square())):
        try:
            value = getattr(fn, attribute).expand(fallback.shape)
        except (NotImplementedError, AttributeError):
            value = fallback
        found.append(torch.where(value.isfinite(), value, fallback))
    mean, variance = found
    return interior(mean, fn.support), variance.clamp(min=torch.finfo(variance.dtype).tiny ** 0.5)


def _unconstrained_moments(
    support: Constraint, transform: Transform, mean: Tensor, variance: Tensor, draws: Tensor
) -> tuple[Tensor, Tensor]:
    """Location and scale of the prior on the reals."""
    inner = base_support(support)
    if inner is constraints.real:
        return mean, variance.sqrt()
    if isinstance(inner, constraints.greater_than | constraints.greater_than_eq):
        # The log-normal with this mean and variance: draws of Gamma(.001, .001) are all 0.
        above = mean - inner.lower_bound
        log_variance = torch.log1p(variance / above.square())
        location, scale = above.log() - log_variance / 2, log_variance.sqrt()
    else:
        location, scale = _median_and_spread(transform.inv(draws))
    # A prior that spans more than e^{±3} knows no scale: stay near 1, not at its absurd median.
    shrink = (_WIDEST / scale).clamp(max=1.0)
    return location * shrink, scale * shrink


def _median_and_spread(draws: Tensor) -> tuple[Tensor, Tensor]:
    """Median and (q₇₅ - q₂₅) / 1.349 over the first dim: the sd, were the draws normal."""
    ordered = draws.sort(0).values
    count = draws.shape[0]
    low, middle, high = (ordered[round(p * (count - 1))] for p in (0.25, 0.5, 0.75))
    return middle, ((high - low) / 1.349).clamp(min=1e-3)
