"""Which sites get values where nobody says: as few as leave a rule for each of the others."""

from __future__ import annotations

from collections.abc import Callable, Mapping

from torch import Tensor

from vitools.calculus.values.reading import Reader, Reading
from vitools.errors import NotConjugateError


def sites_for_values(
    reader: Reader, draws: Mapping[str, Tensor], make: Callable[[Reading], object]
) -> tuple[str, ...]:
    """A set of sites with values from which none can be taken away.

    Beginning with all, the largest are set free first: what is left on values is small.

    Args:
        draws: of all continuous latents, ``{site: [M, *shape]}``.
        make: refuses a reading that has sites without a rule.

    Returns:
        Nothing where that is no help: even with all of them on values there is no rule for the rest,
        or none can be set free.
    """
    held = dict(draws)
    freed = False
    for name in sorted(draws, key=lambda n: (-draws[n][0].numel(), -list(draws).index(n))):
        others = {k: v for k, v in held.items() if k != name}
        if not others or not _can(reader, others, make):
            continue
        held, freed = others, True
    is_rest = freed or _can(reader, held, make)
    return tuple(name for name in draws if name in held) if is_rest else ()


def _can(reader: Reader, draws: Mapping[str, Tensor], make: Callable[[Reading], object]) -> bool:
    try:
        make(reader.anew()(_open(draws)))
    except NotConjugateError:
        return False
    return True


def _open(draws: Mapping[str, Tensor]) -> dict[str, Tensor]:
    return {name: value.detach().clone().requires_grad_() for name, value in draws.items()}
