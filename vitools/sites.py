"""What one run of a model reveals: its sample sites, its plates, and the first refusals.

A model is run twice with different seeds. What differs between the runs (names, shapes,
supports) cannot be fitted and is refused here, by name, before any engine starts.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from difflib import get_close_matches
from typing import Any

import pyro
import torch
from pyro.distributions import Delta, Independent, MaskedDistribution
from pyro.distributions.torch_distribution import ExpandedDistribution, TorchDistributionMixin
from pyro.poutine import Trace, trace
from pyro.poutine.subsample_messenger import _Subsample
from torch import Tensor
from torch.distributions import constraints

from vitools.errors import DataError, ModelError, OptionError
from vitools.isolation import ParamState, full_plates, isolated, seeded


@dataclass(frozen=True)
class Plate:
    """An independence context: ``dim`` counts from the right; sequential plates have none."""

    name: str
    size: int
    dim: int | None
    subsample_size: int


@dataclass(frozen=True)
class Site:
    """One sample statement of the model.

    A value has shape ``batch_shape + event_shape``; batch dims belong to plates,
    ``plates[d]`` naming the plate of batch dim ``d`` (``None`` where no plate spans it).
    """

    name: str
    distribution: str
    shape: torch.Size
    event_dim: int
    plates: tuple[str | None, ...]
    support: Any
    is_discrete: bool
    is_observed: bool
    dtype: torch.dtype
    device: torch.device
    scale: float = 1.0
    value: Tensor | None = field(default=None, repr=False)

    @property
    def batch_shape(self) -> torch.Size:
        return self.shape[: len(self.shape) - self.event_dim]

    @property
    def event_shape(self) -> torch.Size:
        return self.shape[len(self.shape) - self.event_dim :]


@dataclass(frozen=True)
class ModelStructure:
    """Everything :class:`~vitools.problem.Problem` learns from running the model."""

    latents: dict[str, Site]
    observed: dict[str, Site]
    deterministics: dict[str, Site]
    plates: dict[str, Plate]
    params: ParamState
    max_plate_nesting: int


def inspect_model(
    model: Callable[..., Any], args: tuple[Any, ...], kwargs: Mapping[str, Any], title: str
) -> ModelStructure:
    """Run the model twice and describe it, or refuse it with a :class:`VitoolsError`."""
    minibatch, _ = _run(model, args, kwargs, title, seed=0, whole=False)
    first, params = _run(model, args, kwargs, title, seed=0, whole=True)
    second, _ = _run(model, args, kwargs, title, seed=1, whole=True)
    sites, again = _describe(first), _describe(second)
    _refuse_unstable(sites, again, title)
    latents = {k: s for k, s in sites.items() if not s.is_observed}
    observed = {
        k: s for k, s in sites.items() if s.is_observed and not _is_deterministic(first.nodes[k])
    }
    deterministics = {
        k: s for k, s in sites.items() if s.is_observed and _is_deterministic(first.nodes[k])
    }
    if not any(s.distribution != "Unit" for s in observed.values()):
        raise ModelError(
            f"{title} observes nothing: expected at least one sample statement with obs=…, "
            f"got latent sites only ({', '.join(latents) or 'none'}). Pass the data, or check that "
            "the argument that carries them is not None."
        )
    for name, site in latents.items():
        _refuse_unenumerable(name, site, first.nodes[name]["fn"])
    for name in observed:
        _refuse_bad_data(name, first.nodes[name])
    plates = _plates(first, minibatch)
    _refuse_non_finite_density(first, observed, args, kwargs, title)
    nesting = max((-p.dim for p in plates.values() if p.dim is not None), default=0)
    return ModelStructure(
        latents,
        {k: s for k, s in observed.items() if s.distribution != "Unit"},
        deterministics,
        plates,
        params,
        nesting,
    )


def _run(
    model: Callable[..., Any],
    args: tuple[Any, ...],
    kwargs: Mapping[str, Any],
    title: str,
    *,
    seed: int,
    whole: bool,
) -> tuple[Trace, ParamState]:
    try:
        with seeded(seed), isolated() as params, pyro.validation_enabled(True):
            if whole:
                with full_plates():
                    return trace(model, graph_type="flat").get_trace(*args, **kwargs), params
            return trace(model, graph_type="flat").get_trace(*args, **kwargs), params
    except (KeyboardInterrupt, SystemExit, ModelError, DataError, OptionError):
        raise
    except Exception as error:
        raise ModelError(
            f"{title} raised {type(error).__name__} when run on its data: {error}. "
            "Run the model by itself, outside vitools, to find the line."
        ) from error


def _is_deterministic(node: Mapping[str, Any]) -> bool:
    return bool(node["infer"].get("_deterministic")) or isinstance(
        base_distribution(node["fn"]), Delta
    )


def base_distribution(fn: Any) -> Any:
    """The distribution under ``expand``, ``to_event`` and ``mask``."""
    while isinstance(fn, Independent | MaskedDistribution | ExpandedDistribution):
        fn = fn.base_dist
    return fn


def _describe(run: Trace) -> dict[str, Site]:
    sites = {}
    for name, node in run.nodes.items():
        if node["type"] != "sample" or is_subsample(node):
            continue
        fn, value = node["fn"], node["value"]
        if not isinstance(fn, TorchDistributionMixin):
            raise ModelError(
                f"site '{name}' is drawn from {type(fn).__name__}, which is not a distribution over "
                "tensors; use one from pyro.distributions."
            )
        shape = fn.shape()
        names: list[str | None] = [None] * (len(shape) - fn.event_dim)
        for frame in node["cond_indep_stack"]:
            if frame.vectorized and -frame.dim <= len(names):
                names[frame.dim] = frame.name
        scale = node["scale"]
        sites[name] = Site(
            name=name,
            distribution=type(base_distribution(fn)).__name__,
            shape=shape,
            event_dim=fn.event_dim,
            plates=tuple(names),
            support=None if type(fn).__name__ == "Unit" else fn.support,
            is_discrete=bool(fn.has_enumerate_support or getattr(fn.support, "is_discrete", False)),
            is_observed=bool(node["is_observed"]),
            dtype=value.dtype,
            device=value.device,
            scale=float(scale)
            if not isinstance(scale, Tensor) or scale.dim() == 0
            else float("nan"),
            value=value if node["is_observed"] else None,
        )
    return sites


def _plates(whole: Trace, minibatch: Trace) -> dict[str, Plate]:
    sub = {f.name: f.size for n in minibatch.nodes.values() for f in n.get("cond_indep_stack", ())}
    plates: dict[str, Plate] = {}
    for node in whole.nodes.values():
        for frame in node.get("cond_indep_stack", ()):
            if frame.vectorized:
                plates[frame.name] = Plate(
                    frame.name, frame.size, frame.dim, sub.get(frame.name, frame.size)
                )
    return plates


def _refuse_unstable(first: dict[str, Site], second: dict[str, Site], title: str) -> None:
    if set(first) != set(second):
        only = ", ".join(sorted(set(first) ^ set(second)))
        raise ModelError(
            f"{title} has different sites from run to run ({only}): its structure depends on what it "
            "draws. Give every run the same sites, e.g. with mask= instead of an if."
        )
    for name, site in first.items():
        other = second[name]
        if site.shape != other.shape:
            raise ModelError(
                f"site '{name}' changes shape from run to run ({tuple(site.shape)}, then "
                f"{tuple(other.shape)}). Give it a fixed shape and mask the unused entries."
            )
        if not site.is_discrete and not site.is_observed and _bounds(site) != _bounds(other):
            raise ModelError(
                f"site '{name}': its support depends on other latents ({_bounds(site)}, then "
                f"{_bounds(other)}). Draw it on a fixed support and transform it "
                "(e.g. low + (high - low) * u with u ~ Uniform(0, 1))."
            )


def _bounds(site: Site) -> tuple[Any, ...]:
    support = site.support
    while isinstance(support, constraints.independent):
        support = support.base_constraint
    bounds = (getattr(support, name, None) for name in ("lower_bound", "upper_bound"))
    return tuple(b.tolist() if isinstance(b, Tensor) else b for b in bounds)


def _refuse_unenumerable(name: str, site: Site, fn: Any) -> None:
    if site.is_discrete and not fn.has_enumerate_support:
        raise ModelError(
            f"site '{name}' ({site.distribution}) is a discrete latent with unbounded support, which "
            "cannot be enumerated. Use a bounded one (Categorical over a truncated range, Binomial), "
            "or integrate it out by hand (e.g. Gamma-Poisson is NegativeBinomial)."
        )


def _refuse_bad_data(name: str, node: Mapping[str, Any]) -> None:
    fn, value = node["fn"], node["value"]
    if type(fn).__name__ == "Unit":
        return
    seen = torch.ones((), dtype=torch.bool, device=value.device)
    layer = fn
    while isinstance(layer, Independent | MaskedDistribution | ExpandedDistribution):
        if isinstance(layer, MaskedDistribution) and isinstance(layer._mask, bool | Tensor):
            seen = seen & torch.as_tensor(layer._mask, device=value.device)
        layer = layer.base_dist
    if node["mask"] is not None:
        seen = seen & torch.as_tensor(node["mask"], device=value.device)
    if value.shape != fn.shape():
        try:
            torch.broadcast_shapes(value.shape, fn.shape())
        except RuntimeError:
            raise DataError(
                f"site '{name}': the model expects observations of shape {tuple(fn.shape())}, got "
                f"{tuple(value.shape)}. Check the data's shape against the plates."
            ) from None
        value = value.expand(torch.broadcast_shapes(value.shape, fn.shape()))
    finite = torch.isfinite(value) if value.is_floating_point() else torch.ones_like(value).bool()
    for _ in range(fn.event_dim):
        finite = finite.all(-1)
    _report(name, value, finite | ~seen, fn.event_dim, "a finite number", "drop or mask the entry")
    inside = fn.support.check(value)
    expected = f"a value in the support of {type(base_distribution(fn)).__name__} ({_words(fn)})"
    _report(name, value, inside | ~seen, fn.event_dim, expected, "recode or mask the entry")


def _words(fn: Any) -> str:
    support = fn.support
    while isinstance(support, constraints.independent):
        support = support.base_constraint
    low, high = (getattr(support, name, None) for name in ("lower_bound", "upper_bound"))

    def plain(bound: Any) -> str:
        bound = bound.max() if isinstance(bound, Tensor) else bound
        return f"{float(bound):g}"

    if low is not None and high is not None:
        kind = "integers counted from 0, " if support.is_discrete else ""
        return f"{kind}{plain(low)} to {plain(high)}"
    return str(support).replace("Constraint", "").strip("_() ")


def _report(
    name: str, value: Tensor, good: Tensor, event_dim: int, expected: str, remedy: str
) -> None:
    if bool(good.all()):
        return
    where = (~good).nonzero()[0].tolist()
    found = value[tuple(where)] if where else value
    if found.dim() > 0 and found.numel() > 12:
        found = found.flatten()[:12]
    place = f" at index {where[0] if len(where) == 1 else tuple(where)}" if where else ""
    raise DataError(
        f"site '{name}': expected {expected}, got {found.tolist()}{place} "
        f"({int((~good).sum())} such of {good.numel()}). Indices count from 0: {remedy}."
    )


def _refuse_non_finite_density(
    run: Trace,
    observed: Mapping[str, Site],
    args: tuple[Any, ...],
    kwargs: Mapping[str, Any],
    title: str,
) -> None:
    """Observed values are fine by now, so a NaN density points at another argument."""
    run.compute_log_prob(lambda name, node: name in observed)
    for name in observed:
        if bool(torch.isnan(run.nodes[name]["log_prob"]).any()):
            suspects = [
                str(key)
                for key, value in [*enumerate(args), *kwargs.items()]
                if isinstance(value, Tensor)
                and value.is_floating_point()
                and not bool(torch.isfinite(value).all())
            ]
            hint = (
                f"argument {', '.join(suspects)} of {title} holds NaN or infinity; clean it"
                if suspects
                else "check the parameters of its distribution at a draw from the prior"
            )
            raise DataError(f"site '{name}': its log density is NaN: {hint}.")


def nearest(word: str, known: Any) -> str:
    """A hint for a mistyped name: ``" Did you mean 'rho'?"`` or nothing."""
    match = get_close_matches(str(word), [str(k) for k in known], n=1, cutoff=0.5)
    return f" Did you mean '{match[0]}'?" if match else ""


def is_subsample(node: Mapping[str, Any]) -> bool:
    """Whether a trace node is a plate's choice of indices rather than a site of the model."""
    return isinstance(node["fn"], _Subsample)
