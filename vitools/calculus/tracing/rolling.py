"""Loops over time read as sites with a time axis: x_0, …, x_T-1 become one x of T steps.

Sites whose names differ in a number at the end are the steps of one sequence. Steps are alike if their
arguments are the same expressions but for data, with references to other sequences as far apart in time
(x_t-1 seen from x_t). A latent sequence that refers to itself at another time is a Markov chain; where there is
one, every sequence is rolled: data of like steps are stacked along a new label, and references become
reads of the time axis. A sequence may have a few kinds of steps (the first; those without an observation), each of
which keeps a density of its own over the steps that are of it. What keeps a chain from being rolled is
written down in the trace.
"""

from __future__ import annotations

import re
from collections.abc import Container, Hashable, Iterable, Mapping
from dataclasses import replace

from vitools.calculus.algebra.discrete import Discrete
from vitools.calculus.algebra.expression import Expression
from vitools.calculus.tracing.stacking import Roller
from vitools.calculus.tracing.steps import Different, StepReader, StepSites
from vitools.calculus.tracing.trace import ModelTrace, TracedSite

SHORTEST = 8
"""Steps from which a sequence is rolled."""
MOST_KINDS = 6
"""Kinds of steps that a sequence may have."""
CHAINS = ("Normal", "MultivariateNormal", "Categorical", "Bernoulli")
"""Distributions of latents that have a factor for neighbours."""


def rolled(trace: ModelTrace, but: Iterable[str] = ()) -> ModelTrace:
    """The trace with its sequences rolled; as it is where there is no chain among them.

    Args:
        but: sites that are spoken of one by one.
    """
    sequences, reasons = _sequences(trace, set(but))
    while sequences:
        reader = StepReader(sequences)
        kinds: dict[str, list[list[int]]] = {}
        for stem, sequence in sequences.items():
            try:
                kinds[stem] = _kinds(reader, sequence)
            except Different as reason:
                reasons[stem] = str(reason)
        for stem in reader.chains:
            distribution = sequences[stem].first.distribution
            if distribution not in CHAINS and kinds.pop(stem, None) is not None:
                reasons[stem] = _no_chain(distribution)
        if len(kinds) == len(sequences):
            if reader.chains:
                try:
                    trace = Roller(trace, sequences, kinds).rolled()
                except Different as reason:
                    reasons |= dict.fromkeys(reader.chains, str(reason))
            break
        sequences = {stem: sequences[stem] for stem in kinds}
    return step_by_step(trace, reasons) if reasons else trace


def step_by_step(trace: ModelTrace, reasons: Mapping[str, str] | str) -> ModelTrace:
    """The trace with the reasons why the steps of some chains, or of all, are read one by one."""
    chains = [stem for stem, steps in _numbered(trace).items() if _is_chain(steps)]
    if isinstance(reasons, str):
        reasons = dict.fromkeys(chains, reasons)
    apart = {stem: reasons[stem] for stem in chains if stem in reasons}
    return replace(trace, step_by_step=apart) if apart else trace


def _no_chain(distribution: str) -> str:
    return f"a {distribution} has no factor with its neighbours"


def _numbered(trace: ModelTrace) -> dict[str, dict[int, TracedSite]]:
    """Sites whose names end in numbers, by what stands before these."""
    found: dict[str, dict[int, TracedSite]] = {}
    for name, site in trace.sites.items():
        match = re.fullmatch(r"(.*?)(0|[1-9]\d*)", name)
        if match:
            found.setdefault(match[1], {})[int(match[2])] = site
    return {stem: steps for stem, steps in found.items() if len(steps) >= SHORTEST}


def _is_chain(steps: Mapping[int, TracedSite]) -> bool:
    """Whether latent steps refer to one another."""
    names = {site.name for site in steps.values() if site.is_latent}
    return any(
        names & argument.sites()
        for site in steps.values()
        if site.is_latent
        for argument in site.arguments.values()
        if isinstance(argument, Expression | Discrete)
    )


def _sequences(trace: ModelTrace, but: set[str]) -> tuple[dict[str, StepSites], dict[str, str]]:
    """The sequences, and why some that are numbered are none."""
    found, reasons = {}, {}
    for stem, steps in _numbered(trace).items():
        named = but & {site.name for site in steps.values()}
        why = f"{min(named)!r} is named" if named else _fault(steps, trace.auxiliary)
        if why is None:
            found[stem] = StepSites(stem, steps)
        else:
            reasons[stem] = why
    return found, reasons


def _fault(steps: Mapping[int, TracedSite], auxiliary: Container[str]) -> str | None:
    """Why steps are no sequence, but for their arguments."""
    numbers, sites = list(steps), list(steps.values())
    first = sites[0]
    if any(site.switch is not None for site in sites):
        return "latents decide on a mask of them"
    outline = _outline(first)
    other = next((site for site in sites if _outline(site) != outline), None)
    if other is not None:
        return f"{other.name!r} has another distribution, shape or plate than {first.name!r}"
    if numbers != sorted(numbers):
        return "their numbers do not count up"
    if not first.is_latent:
        return None
    if numbers != list(range(numbers[0], numbers[0] + len(numbers))):
        return "a number is left out"
    if any(s.mask is not None and not bool(s.mask.all()) for s in sites):
        return "a latent is masked"
    if first.distribution not in CHAINS and any(site.name not in auxiliary for site in sites):
        return _no_chain(first.distribution)
    return None


def _outline(site: TracedSite) -> Hashable:
    plates = tuple((dim, plate.name) for dim, plate in site.plates.items())
    scale = site.scale if isinstance(site.scale, float) else id(site.scale)
    dtype = None if site.observed is None else site.observed.dtype
    return (site.distribution, site.shape, site.batch_shape, site.to_event, plates, scale, dtype,
            site.support_size, tuple(site.arguments))  # fmt: skip


def _kinds(reader: StepReader, sequence: StepSites) -> list[list[int]]:
    """The steps of each kind."""
    found: dict[Hashable, list[int]] = {}
    for step, site in sequence.steps.items():
        found.setdefault(reader.site(site, step, sequence.stem), []).append(step)
        if len(found) > MOST_KINDS:
            raise Different(f"they are of more than {MOST_KINDS} kinds")
    return list(found.values())
