"""A model's graph, read by moving one site at a time.

Site u is a parent of site d exactly when moving u, with every other site held where it is, changes
the density of d:

    p(x_d | x_u, rest) ≠ p(x_d | x_u', rest).

That sentence is carried out: the model is run once, then again for each site with that site moved
and the others held. Nothing about how the model computes matters (indexing by discrete sites,
writing into buffers, ``float(x)``, NumPy), where tracking tensors through operations
(``pyro.infer.inspect.get_model_relations``) silently loses edges at each of the last three.
"""

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any

import pyro
import pyro.distributions as dist
import torch
from pyro import poutine
from pyro.distributions import constraints, transforms
from pyro.poutine.messenger import Messenger
from torch import Tensor

from vitools.distributions.layers import base_distribution
from vitools.errors import ModelError
from vitools.isolation import alone, seed_generators, validating
from vitools.problem.density.improper import StandIns
from vitools.problem.density.mappable import mappable_densities
from vitools.problem.sites import is_deterministic, is_subsample, support_of
from vitools.reporting.graph.record import DrawnPlate, GraphNode, ModelGraph, Role

__all__ = ["extract"]

# Small and large moves in unconstrained space: a smooth dependence shows at the first, a threshold
# (a change point, a rectifier) only once a larger one steps over it.
_STEPS = (0.1, 1.0, 3.0)

MANY = 40
"""Sites from which all are moved in one run."""

MOST_NUMBERS = 2**24
"""Numbers that all moves together may hold for that."""


def extract(
    model: Callable,
    args: Sequence[Any] = (),
    kwargs: Mapping[str, Any] | None = None,
    *,
    hyperparameters: bool = False,
    deterministic: bool = False,
) -> ModelGraph:
    """Read a model's graph; the options are those of :func:`~vitools.draw`.

    >>> import torch, pyro, pyro.distributions as dist
    >>> def model(y):
    ...     mu = pyro.sample("mu", dist.Normal(0.0, 1.0))
    ...     with pyro.plate("rows", len(y)):
    ...         pyro.sample("y", dist.Normal(mu, 1.0), obs=y)
    >>> graph = extract(model, (torch.zeros(3),))
    >>> graph.edges
    (('mu', 'y'),)
    >>> graph.plates
    (DrawnPlate(name='rows', size=3, nodes=('y',)),)
    """

    def run(held: Mapping[str, Tensor]) -> dict[str, dict]:
        return _run(model, args, kwargs or {}, held)

    def shown(site: dict) -> bool:
        if site["type"] == "param":
            return hyperparameters
        if site["type"] != "sample" or is_subsample(site):
            return False
        return deterministic or not _is_deterministic(site)

    with _left_as_found():
        try:
            first = {name: site for name, site in run({}).items() if shown(site)}
        except Exception as error:
            raise ModelError(
                f"the model could not be run to read its graph: {type(error).__name__}: {error}. "
                "Check that it runs with these arguments by itself."
            ) from error
        if not any(site["type"] == "sample" for site in first.values()):
            raise ModelError("the model has no pyro.sample site, so there is nothing to draw")
        held = {name: torch.as_tensor(site["value"]) for name, site in first.items()}
        # The reference is a run with all sites held too, so that randomness outside of sites
        # (dropout, say) meets the same generator state in every run that is compared.
        reference = run(held)
        found, changed = _edges(run, held, reference, arguments_too=hyperparameters)

    sites = {n: s for n, s in reference.items() if n in first and s["type"] == "sample"}
    nodes = [_node(name, site) for name, site in sites.items()]
    members: dict[str, list[str]] = {}
    sizes: dict[str, int] = {}
    depths: dict[str, int] = {}
    for name, site in sites.items():
        for frame in site["cond_indep_stack"]:
            if frame.vectorized:  # a sequential plate's sites are separate nodes already
                members.setdefault(frame.name, []).append(name)
                sizes[frame.name] = int(frame.full_size or frame.size)
                depths[frame.name] = frame.dim
    edges = [(u, d) for u, d in found if u in sites]
    if hyperparameters:
        used = dict.fromkeys(u for u, _ in found if u not in sites)
        nodes = [GraphNode(name, "", "parameter") for name in used] + nodes
        edges = found
        for name, site in sites.items():
            for constant, inside in _constants(name, site, changed[name]):
                nodes.append(constant)
                edges.append((constant.name, name))
                for plate in inside:
                    members[plate].append(constant.name)
    plates = sorted(members, key=lambda plate: (-len(members[plate]), depths[plate]))
    return ModelGraph(
        tuple(nodes),
        tuple(edges),
        tuple(DrawnPlate(name, sizes[name], tuple(members[name])) for name in plates),
    )


class _Hold(Messenger):
    """Hands the model the held value of each site, whatever was drawn or observed there."""

    def __init__(self, held: Mapping[str, Tensor]) -> None:
        super().__init__()
        self.held = held
        self.computed: dict[str, Tensor] = {}

    def _pyro_post_sample(self, message: Any) -> None:
        if message["name"] in self.held:
            self.computed[message["name"]] = message["value"]
            message["value"] = self.held[message["name"]]

    _pyro_post_param = _pyro_post_sample


def _run(model: Callable, args: Sequence, kwargs: Mapping, held: Mapping) -> dict[str, dict]:
    """One run: site name → message, with what the model itself computed kept as ``computed``."""
    seed_generators(0)
    with torch.no_grad(), StandIns((args, kwargs)), _Hold(held) as hold:
        trace = poutine.trace(model).get_trace(*args, **kwargs)
    return {
        name: {**site, "computed": hold.computed.get(name, site.get("value"))}
        for name, site in trace.nodes.items()
    }


@contextmanager
def _left_as_found() -> Iterator[None]:
    """Leaves the random generators, Pyro's parameters and the validation flags as they were."""
    devices = list(range(torch.cuda.device_count())) if torch.cuda.is_initialized() else []
    store = pyro.get_param_store()
    with (
        alone(),
        torch.random.fork_rng(devices=devices),
        store.scope(store.get_state()),
        # A site that was moved may stand outside a support which depends on another site.
        validating(False),
    ):
        yield


def _edges(
    run: Callable[[Mapping[str, Tensor]], dict[str, dict]],
    held: Mapping[str, Tensor],
    reference: dict[str, dict],
    *,
    arguments_too: bool,
) -> tuple[list[tuple[str, str]], dict[str, set[str]]]:
    """All (parent, child) pairs, and for each site the arguments that some parent decides."""
    densities = {n: _density(reference[n]) for n in held if reference[n]["type"] == "sample"}
    arguments = {n: _arguments(reference[n]["fn"]) if arguments_too else {} for n in densities}
    edges: list[tuple[str, str]] = []
    changed: dict[str, set[str]] = {name: set() for name in densities}
    # What a deterministic site can be is what its own parents' moves have made of it.
    elsewhere: dict[str, list[Tensor]] = {name: [] for name in held}
    order = {name: place for place, name in enumerate(held)}
    seed_generators(0)
    moves = {
        parent: [_moved(reference[parent], attempt) for attempt in range(len(_STEPS))]
        for parent, value in held.items()
        if value.numel() and not _is_deterministic(reference[parent])  # no pyro.factor
    }
    together: dict[str, set[str]] = {}
    if len(held) >= MANY and not arguments_too:
        together = _edges_together(run, held, moves, densities) or {}
    for parent in held:
        if parent in together:
            found = [c for c in densities if order[c] > order[parent] and c in together[parent]]
            edges += [(parent, child) for child in found]
            continue
        if held[parent].numel() == 0:  # pyro.factor
            continue
        if _is_deterministic(reference[parent]):
            moves[parent] = elsewhere[parent][: len(_STEPS)]
        children = set()
        failures = []
        for value in moves[parent]:
            # A far move can leave the numbers (a matrix no longer positive definite): the nearer
            # moves then decide, and only a site that cannot be moved at all is an error.
            try:
                moved = run({**held, parent: value})
                later = [c for c in densities if order[c] > order[parent] and c in moved]
                now = {child: _density(moved[child]) for child in later}
            except (RuntimeError, ValueError, ArithmeticError, LookupError) as error:
                failures.append(error)
                continue
            for child, density in now.items():
                if _differ(density, densities[child]):
                    children.add(child)
                    if _is_deterministic(moved[child]):
                        elsewhere[child].append(density)
                if arguments_too:
                    given = _arguments(moved[child]["fn"])
                    for key, argument in arguments[child].items():
                        if key not in given or _differ(given[key], argument):
                            changed[child].add(key)
        if failures and len(failures) == len(moves[parent]):
            raise ModelError(
                f"site {parent!r}: the model fails at every other value of it that was tried, so "
                f"its children cannot be told ({type(failures[0]).__name__}: {failures[0]})"
            ) from failures[0]
        edges += [(parent, child) for child in densities if child in children]
    return edges, changed


def _edges_together(
    run: Callable[[Mapping[str, Tensor]], dict[str, dict]],
    held: Mapping[str, Tensor],
    moves: Mapping[str, list[Tensor]],
    densities: Mapping[str, Tensor],
) -> dict[str, set[str]] | None:
    """What each site changes, all moves in one run under vmap; None where the model refuses that.

    One run for each move of each of n sites takes time like n².
    """
    if any(name not in moves for name in held if held[name].numel()):  # deterministic sites
        return None
    rows = [(parent, value) for parent, values in moves.items() for value in values]
    if len(rows) * sum(value.numel() for value in held.values()) > MOST_NUMBERS:
        return None
    values = {name: value.expand(len(rows), *value.shape).clone() for name, value in held.items()}
    for row, (parent, value) in enumerate(rows):
        values[parent][row] = value

    def densities_at(at: Mapping[str, Tensor]) -> dict[str, Tensor]:
        moved = run(at)
        return {child: _density(moved[child]) for child in densities}

    try:
        with mappable_densities():
            found = torch.vmap(densities_at, randomness="same")(values)
    except Exception:  # vmap's refusals share no type; one run after another tells real errors
        return None
    children: dict[str, set[str]] = {parent: set() for parent in moves}
    for child, density in found.items():
        if density.shape[1:] != densities[child].shape:
            return None
        differs = ~torch.isclose(density, densities[child], rtol=1e-5, atol=1e-8, equal_nan=True)
        for row in differs.reshape(len(rows), -1).any(1).nonzero().flatten().tolist():
            children[rows[row][0]].add(child)
    return children


def _moved(site: dict, attempt: int) -> Tensor:
    """Another value of a site, inside its support, farther away at each attempt."""
    value, step, places = site["value"], _STEPS[attempt], attempt + 1
    is_param = site["type"] == "param"
    support = site["kwargs"].get("constraint") if is_param else support_of(site["fn"])
    if support is None:
        return site["fn"].sample()
    if support.is_discrete:
        while isinstance(support, constraints.independent):
            support = support.base_constraint
        if support.event_dim:  # one-hot vectors, counts that add up
            return value.roll(places, -1)
        up, down = value + places, value - places
        return torch.where(support.check(up), up, torch.where(support.check(down), down, value))
    try:
        bijection = transforms.biject_to(support)
    except NotImplementedError:
        return site["fn"].sample() if site["type"] == "sample" else value * (1 + step)
    free = bijection.inv(value if value.is_floating_point() else value.double())
    return bijection(free + step * torch.randn_like(free))


def _density(site: dict) -> Tensor:
    """What a parent can change: the log density of the held value, or a computed value."""
    return site["computed"] if _is_deterministic(site) else site["fn"].log_prob(site["value"])


def _differ(new: Tensor, old: Tensor) -> bool:
    if new.shape != old.shape:
        return True
    return not torch.allclose(new, old, rtol=1e-5, atol=1e-8, equal_nan=True)


def _is_deterministic(site: dict) -> bool:
    return site["type"] == "sample" and is_deterministic({**site, "value": site["computed"]})


def _node(name: str, site: dict) -> GraphNode:
    if _is_deterministic(site):
        return GraphNode(name, "", "deterministic", not site["value"].is_floating_point())
    base = base_distribution(site["fn"])
    role: Role = "observed" if site["is_observed"] else "latent"
    if isinstance(base, dist.Unit):
        return GraphNode(name, "factor", role)
    is_discrete = bool(getattr(support_of(base), "is_discrete", False))
    return GraphNode(name, type(base).__name__, role, is_discrete)


def _arguments(distribution: Any) -> dict[str, Tensor]:
    """The distribution's own arguments, one of each pair that says the same thing twice."""
    base = base_distribution(distribution)
    found = {}
    for key in getattr(base, "arg_constraints", {}):
        # A lazy property computes the twin of what was given (logits of probs): left alone.
        given = key in vars(base) or isinstance(getattr(type(base), key, None), property)
        if given and isinstance(value := getattr(base, key), Tensor):
            found[key] = value
    for preferred, twins in (
        ("probs", ("logits",)),
        ("covariance_matrix", ("precision_matrix", "scale_tril")),
        ("precision_matrix", ("scale_tril",)),
    ):
        if preferred in found:
            for twin in twins:
                found.pop(twin, None)
    return found


def _constants(name: str, site: dict, changed: set[str]) -> list[tuple[GraphNode, tuple[str, ...]]]:
    """One node for the fixed arguments that share plates, with the plates along which they vary."""
    base = base_distribution(site["fn"])
    groups: dict[tuple[str, ...], list[tuple[str, Tensor]]] = {}
    for key, value in _arguments(site["fn"]).items():
        if key in changed:
            continue
        own_dims = value.dim() - len(base.batch_shape) + site["fn"].event_dim - base.event_dim
        inside = []
        for frame in site["cond_indep_stack"]:
            if not frame.vectorized or value.dim() < own_dims - frame.dim:
                continue
            dim = frame.dim - own_dims
            if bool((value != value.narrow(dim, 0, 1)).any()):
                inside.append(frame.name)
        groups.setdefault(tuple(inside), []).append((key, value))
    nodes = []
    for plates, arguments in groups.items():
        label = f"{name}({', '.join(key for key, _ in arguments)})"
        text = ", ".join(_as_text(key, value) for key, value in arguments)
        nodes.append((GraphNode(label, text, "constant"), plates))
    return nodes


def _as_text(key: str, value: Tensor) -> str:
    """``scale = 2`` where all elements agree, else only the name."""
    first = value.reshape(-1)[:1]
    if value.numel() and bool((value == first).all()):
        return f"{key} = {first.item():.4g}"
    return key
