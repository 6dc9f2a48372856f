"""Say in words what a model's coordinate updates are, or why a site has none.

Every message is a sum of terms; each is printed as plates to sum over, expectations of the other
sites, and what the data contribute:  ``Dirichlet(1.5 + Σ_rows q(z = k) · data(x))``.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from typing import Any

from vitools.conjugacy.blocks import Block, FamilyBlock
from vitools.conjugacy.gaussian import GaussianBlock
from vitools.conjugacy.symbolic import Refusal
from vitools.conjugacy.term import Atom, Unsupported
from vitools.conjugacy.terms import ClosedTerm, log_density
from vitools.conjugacy.trace import trace_model
from vitools.conjugacy.update import ConjugateModel
from vitools.errors import NotConjugate


def explain(
    model: Callable[..., Any], args: tuple[Any, ...] = (), kwargs: dict[str, Any] | None = None
) -> str:
    """A table of the latents: family of q, parents, closed-form update (or the reason for none).

    Example:
        >>> import pyro, torch
        >>> import pyro.distributions as dist
        >>> def coin(flips):
        ...     p = pyro.sample("p", dist.Beta(1.0, 1.0))
        ...     with pyro.plate("flips", len(flips)):
        ...         pyro.sample("heads", dist.Bernoulli(p), obs=flips)
        >>> print(explain(coin, (torch.tensor([1.0, 1.0, 0.0]),)))
        site  family  parents  update
        p     Beta    -        Beta(3, 2)
        1 of 1 latents have closed-form updates.
    """
    try:
        conjugate = ConjugateModel(model, args, kwargs)
    except NotConjugate as error:
        return _explain_refusal(model, args, kwargs or {}, error)
    rows = []
    for block in conjugate.blocks:
        title = ", ".join(block.names)
        parents = _parents(conjugate, block)
        rows.append((title, _family(block), ", ".join(parents) or "-", _update(conjugate, block)))
    count = len(conjugate.latents)
    lines = [_table(rows), f"{count} of {count} latents have closed-form updates."]
    for plate, distinct in conjugate.rows.items():
        few, many = len(distinct.multiplicity), len(distinct.inverse)
        lines[-1] += f" Data enter as {few} distinct rows of {many} ({plate})."
    return "\n".join(lines)


def _explain_refusal(
    model: Callable[..., Any],
    args: tuple[Any, ...],
    kwargs: dict[str, Any],
    error: NotConjugate,
) -> str:
    """Which sites are at fault: those whose density, or a parent's use, has no rule."""
    try:
        trace = trace_model(model, args, kwargs)
    except NotConjugate as raised:
        return f"no latent has a closed-form update: {raised}"
    simplex = frozenset(n for n, s in trace.sites.items() if s.distribution == "Dirichlet")
    faults: dict[str, str] = {}
    for site in trace.sites.values():
        try:
            log_density(site, simplex)
        except (NotConjugate, Unsupported) as raised:
            involved = {site.name} if site.is_latent else set()
            for argument in site.arguments.values():
                if isinstance(argument, Refusal):
                    involved |= argument.sites
                elif hasattr(argument, "sites"):
                    involved |= argument.sites()
            for name in involved:
                faults.setdefault(name, str(raised))
    latents = [site for site in trace.sites.values() if site.is_latent]
    if not faults:
        faults = {s.name: str(error) for s in latents if repr(s.name) in str(error)}
    rows = [
        (
            s.name,
            s.distribution,
            "",
            f"none: {faults[s.name]}" if s.name in faults else "closed form",
        )
        for s in latents
    ]
    good = len(latents) - sum(s.name in faults for s in latents)
    return f"{_table(rows)}\n{good} of {len(latents)} latents have closed-form updates."


def _table(rows: list[tuple[str, str, str, str]]) -> str:
    cells = [("site", "family", "parents", "update"), *rows]
    widths = [max(len(row[i]) for row in cells) for i in range(3)]
    return "\n".join(
        "  ".join([*(text.ljust(w) for text, w in zip(row, widths, strict=False)), row[3]]).rstrip()
        for row in cells
    )


def _family(block: Block) -> str:
    if isinstance(block, GaussianBlock):
        return "Normal, element by element" if block.elementwise else "MultivariateNormal"
    if isinstance(block, FamilyBlock):
        return block.family.name
    return "Categorical" if len(block.names) == 1 else "joint Categorical"


def _parents(model: ConjugateModel, block: Block) -> list[str]:
    found = {
        atom.site
        for term in model.joint.terms
        if term.origin in block.names
        for atom in term.atoms
        if atom.site not in block.names
    }
    return [name for name in model.latents if name in found]


ROUNDING = 1e-12  # a coefficient that small beside the others is what centring the data left

Message = tuple[float, str]  # a number times an expectation; "" for the number alone


def _update(model: ConjugateModel, block: Block) -> str:
    """The optimal factor, its parameters written as sums of messages."""
    sums: dict[Any, list[Message]] = {}
    for term in model.joint.terms:
        mine = [atom for atom in term.atoms if atom.site in block.names]
        if mine:
            key: Any = "outer" if len(mine) > 1 else mine[0].function
            message = _message(model, term, block)
            if message not in sums.setdefault(key, []) or not message[1]:
                sums[key].append(message)

    def total(*keys: Any, scale: float = 1.0, plus: float = 0.0) -> str:
        messages = [m for key in keys for m in sums.get(key, [])]
        return _added([(scale * number, text) for number, text in messages], plus)

    name = _family(block)
    if name == "Beta":
        return f"Beta({total('log', plus=1)}, {total('log1m', plus=1)})"
    if name == "Dirichlet":
        return f"Dirichlet({total('log', plus=1)})"
    if name == "Gamma":
        return f"Gamma({total('log', plus=1)}, {total(1.0, scale=-1)})"
    if name == "InverseGamma":
        return f"InverseGamma({total('log', scale=-1, plus=-1)}, {total(-1.0, scale=-1)})"
    if name == "Wishart":
        degrees = total("log_determinant", scale=2)
        return f"Wishart(ν = D + 1 + {degrees}, V⁻¹ = {total(1.0, scale=-2)})"
    if "Categorical" in name:
        return f"softmax({total('indicator')})"
    precision = total(2.0, "outer", scale=-2)
    return f"Normal with precision P = {precision} and mean P⁻¹({total(1.0)})"


def _added(messages: list[Message], plus: float) -> str:
    """number + a·E[…] - b·E[…] …"""
    number = plus + sum(value for value, text in messages if not text)
    parts = [(value, text) for value, text in messages if text]
    largest = max((abs(value) for value, _ in parts), default=0.0)
    parts = [part for part in parts if abs(part[0]) > ROUNDING * largest]
    words = [f"{number:.6g}"] if number or not parts else []
    for value, text in parts:
        size = "" if abs(value) == 1 else f"{abs(value):.6g} "
        sign = ("- " if value < 0 else "+ ") if words else ("-" if value < 0 else "")
        words.append(f"{sign}{size}{text}")
    return " ".join(words)


def _message(model: ConjugateModel, term: ClosedTerm, block: Block) -> Message:
    labels = {number: name for name, number in model.joint.plate_labels.items()}
    own = {label for atom in term.atoms if atom.site in block.names for label in atom.labels}
    every = term.atom_labels() | term.constant_labels()
    plates = [labels[x] for x in sorted(every) if x in labels and x not in own]
    words = _expectations([atom for atom in term.atoms if atom.site not in block.names])
    if term.constants or term.selections:
        observed = model.trace.sites.get(term.origin)
        if observed is not None and not observed.is_latent:
            words.append(f"data({term.origin})")
        else:
            number = _one_number(term)
            if number is not None:
                return number, "".join(f"Σ_{plate} " for plate in plates) + " · ".join(words)
            if not words:
                words.append(f"prior({term.origin})")
    summed = "".join(f"Σ_{plate} " for plate in plates)
    return term.coefficient, summed + " · ".join(words)


def _one_number(term: ClosedTerm) -> float | None:
    """The value of a term's only constant where all its elements agree."""
    if len(term.constants) != 1 or term.selections:
        return None
    values = term.constants[0].tensor * term.coefficient
    first = float(values.flatten()[0])
    return first if bool((values == first).all()) else None


def _expectations(atoms: list[Atom]) -> list[str]:
    """One expectation a statistic; two plain atoms of a site are its outer product."""
    plain = Counter(atom.site for atom in atoms if atom.function == 1)
    words = [
        f"E[{atom.site} {atom.site}ᵀ]"
        if atom.function == 1 and plain[atom.site] == 2
        else _expectation(atom)
        for atom in atoms
    ]
    return list(dict.fromkeys(words))


def _expectation(atom: Atom) -> str:
    name = atom.site
    if atom.function == "indicator":
        return f"q({name})"
    words = {"log": f"log {name}", "log1m": f"log(1-{name})", "log_determinant": f"log|{name}|"}
    if isinstance(atom.function, str):
        return f"E[{words[atom.function]}]"
    return f"E[{name}]" if atom.function == 1 else f"E[{name}^{atom.function:g}]"
