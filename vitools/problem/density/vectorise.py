"""One function of one draw, applied to many: vmap where the model allows it, a loop where not.

Where there is so much to do that it repays, the function is recorded and compiled for the call.
"""

import math
import warnings
from collections.abc import Callable, Mapping
from typing import Any

import torch
from torch import Tensor
from torch.autograd import forward_ad
from torch.linalg import LinAlgError
from torch.utils._pytree import tree_flatten, tree_map, tree_unflatten

from vitools.errors import OptionError, VitoolsError, VitoolsWarning, callers_level
from vitools.graphs.over_draws import Programs
from vitools.problem.density.draws import vmap_can_draw
from vitools.problem.density.mappable import mappable_densities

CHUNK_BYTES = 2**24
"""Draws are taken in chunks whose intermediate tensors stay near the size of a processor's cache …"""

BYTES_PER_STATEMENT = 300_000
"""… unless a chunk's arithmetic took less time than the run of the model around it: what a sample
statement costs in Python, in bytes that torch goes through meanwhile."""

MOST_BYTES, MOST_DRAWS = 2**27, 1024
"""A chunk is no larger for all that."""

WORTH_RECORDING = 1e9
"""Bytes touched by all draws together, a second or more of torch's time, from which on a function
is recorded to see whether machine code would be worth while."""

COMPARED = 2  # draws by which a compiled function is held against torch's


class DrawMapper:
    """Maps a function over the leading dimension of a tree of tensors.

    ``torch.vmap`` runs ordinary Pyro code on all draws at once. Models it cannot take
    (branches on values, in-place writes) are looped over instead, after one warning
    that carries vmap's reason; the choice is remembered for the life of the mapper.

    Random draws depend on torch's generator alone: the loop starts from the state in which
    a failed vmap found it.

    Args:
        subject: what the warning calls the mapped code, e.g. ``"model 'eight_schools'"``;
            ``None`` for no warning (torch's own samplers are often not vectorised).
        bytes_per_draw: memory one draw touches, which sets the chunk.
        statements: the sample statements of a model that the code runs.

    Attributes:
        programs: what was compiled for draws, by name.
    """

    def __init__(self, subject: str | None, bytes_per_draw: int = 0, statements: int = 0) -> None:
        self.subject, self.bytes_per_draw = subject, bytes_per_draw
        self.bytes_per_run = BYTES_PER_STATEMENT * statements
        together = max(CHUNK_BYTES, min(self.bytes_per_run, MOST_BYTES))
        self.chunk = max(1, min(MOST_DRAWS, together // max(1, bytes_per_draw)))
        self.can_vmap = True
        self.programs = Programs()

    @property
    def cost_per_draw(self) -> int:
        """Of many draws, in bytes that torch goes through in the same time.

        Code that cannot be vectorised, as the first call finds out, is run once for each.
        """
        return max(self.bytes_per_draw, 0 if self.can_vmap else self.bytes_per_run)

    def __call__(
        self,
        function: Callable[[Any], Any],
        draws: Any,
        *,
        randomness: str = "error",
        name: str = "",
    ) -> Any:
        """``function`` of each draw, stacked: leaves of ``draws`` are ``[n, …]``, so are the results'.

        Args:
            name: by which what is compiled for the call is kept for later ones.
        """
        num_samples = tree_flatten(draws)[0][0].shape[0]
        if num_samples == 0:
            raise OptionError("expected at least one draw, got none.")
        generators = _generator_states()
        if (
            self.can_vmap
            and randomness == "error"
            and num_samples * self.bytes_per_draw >= WORTH_RECORDING
        ):
            compiled = self._by_machine_code(function, draws, num_samples, name)
            if compiled is not None:
                return compiled
            _set_generator_states(generators)
        if not self.can_vmap:
            return self._looped(function, draws, num_samples)
        try:
            return self._vmapped(function, draws, randomness)
        except (VitoolsError, LinAlgError):  # no refusal: a matrix is singular at one of the draws
            raise
        except Exception as error:  # vmap's refusals share no type; the loop re-raises real errors
            reason = _reason(error)
        _set_generator_states(generators)
        result = self._looped(function, draws, num_samples)
        self.can_vmap = False
        if self.subject is not None:
            warnings.warn(
                f"{self.subject} cannot be vectorised over draws and is run once per draw "
                f"(slower, same numbers): {reason}",
                VitoolsWarning,
                stacklevel=callers_level(),
            )
        return result

    def _by_machine_code(
        self, function: Callable[[Any], Any], draws: Any, num_samples: int, name: str
    ) -> Any:
        """The results, or None; without a name recorded for this call alone."""
        leaves, spec = tree_flatten(draws)
        some = [leaf[:COMPARED] for leaf in leaves]
        if any(map(_is_transformed, leaves)):
            return None
        try:
            results, made = tree_flatten(
                self._vmapped(function, tree_unflatten(some, spec), "error")
            )
        except (VitoolsError, LinAlgError):
            raise
        except Exception:  # vmap refuses it, and says so when it is asked for all draws
            return None
        if torch.is_grad_enabled() and any(t.requires_grad for t in results):
            return None

        def flat(*values: Tensor) -> list[Tensor]:
            return tree_flatten(function(tree_unflatten(list(values), spec)))[0]

        programs = self.programs if name else Programs()
        program = programs.over_draws(f"{name} {spec}", flat, some, results, num_samples)
        return None if program is None else tree_unflatten(program(*leaves), made)

    def _vmapped(self, function: Callable[[Any], Any], draws: Any, randomness: str) -> Any:
        with warnings.catch_warnings(), mappable_densities():
            warnings.filterwarnings("ignore", message="There is a performance drop")
            if randomness == "different":
                with vmap_can_draw():
                    return torch.vmap(function, randomness=randomness, chunk_size=self.chunk)(draws)
            return torch.vmap(function, randomness=randomness, chunk_size=self.chunk)(draws)

    @staticmethod
    def _looped(function: Callable[[Any], Any], draws: Any, num_samples: int) -> Any:
        results = [function(tree_map(lambda leaf: leaf[i], draws)) for i in range(num_samples)]  # noqa: B023
        flat, specs = zip(*(tree_flatten(result) for result in results), strict=True)
        columns = [torch.stack(column) for column in zip(*flat, strict=True)]
        return tree_unflatten(columns, specs[0])


def _is_transformed(tensor: Tensor) -> bool:
    """Whether it carries more than its numbers: a vmapped batch, or a forward derivative."""
    return (
        torch._C._functorch.is_functorch_wrapped_tensor(tensor)
        or forward_ad.unpack_dual(tensor).tangent is not None
    )


def _reason(error: Exception) -> str:
    words = " ".join(str(error).split())
    if "data-dependent control flow" in words:
        return "it branches on a value (if, while); torch.where chooses without"
    return f"{type(error).__name__}: {words[:200]}"


def _generator_states() -> list[Tensor]:
    cuda = torch.cuda.get_rng_state_all() if torch.cuda.is_available() else []
    return [torch.get_rng_state(), *cuda]


def _set_generator_states(states: list[Tensor]) -> None:
    torch.set_rng_state(states[0])
    if len(states) > 1:
        torch.cuda.set_rng_state_all(states[1:])


def split_draws(
    values: Mapping[str, Tensor], event_ndims: Mapping[str, int]
) -> tuple[dict[str, Tensor], torch.Size]:
    """Flatten leading sample dimensions: ``{name: [*S, *shape]}`` to ``({name: [n, *shape]}, S)``.

    Sample shapes that differ between sites are broadcast against each other.
    """
    shapes = {k: v.shape[: v.dim() - event_ndims[k]] for k, v in values.items()}
    try:
        sample_shape = torch.broadcast_shapes(*shapes.values())
    except RuntimeError:
        described = ", ".join(f"'{k}' {tuple(shape)}" for k, shape in shapes.items())
        raise OptionError(
            f"the sites' leading sample dims do not fit each other: {described}."
        ) from None
    count = math.prod(sample_shape)
    flat = {}
    for name, value in values.items():
        rest = value.shape[value.dim() - event_ndims[name] :]
        flat[name] = value.expand(sample_shape + rest).reshape((count, *rest))
    return flat, sample_shape
