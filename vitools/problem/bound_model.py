"""A Pyro model bound to its data, and what one inspection of it tells: sites, plates, labels."""

import copy
from collections.abc import Callable, Collection, Iterator, Mapping, Sized
from contextlib import AbstractContextManager, contextmanager, nullcontext
from typing import Any, Self

from pyro import poutine
from torch import Tensor

from vitools.errors import ModelError, NotSupportedError, OptionError, VitoolsError, first_words
from vitools.isolation import ParamState, full_plates, isolated
from vitools.notebook.markup import paragraphs, table
from vitools.problem.density.counted import CountedRows
from vitools.problem.density.improper import StandIns
from vitools.problem.dims import site_dims
from vitools.problem.reading.inspection import inspect_model
from vitools.problem.reading.program import Program, fingerprint, name_of
from vitools.problem.reading.refused_forms import ReadingRules
from vitools.problem.reading.side_effects import at_rest
from vitools.problem.sites import Site, nearest


class BoundModel:
    """What is known of a model and its data; :class:`~vitools.problem.problem.Problem` computes with it.

    Args:
        model: any Pyro callable with at least one observed site (or ``pyro.factor``).
        *args, **kwargs: what the model is called with.
    """

    def __init__(self, model: Callable[..., Any], *args: Any, **kwargs: Any) -> None:
        if not callable(model):
            raise OptionError(f"expected a Pyro model (a callable), got {type(model).__name__}.")
        self.model, self.args, self.kwargs = model, args, kwargs
        self.name = name_of(model)
        self._program = Program(model, args, kwargs, self.name)
        self._structure = structure = inspect_model(self._program)
        self.latents = structure.latents
        self.observed = structure.observed
        self.deterministics = structure.deterministics
        self.plates = structure.plates
        self.params: ParamState = structure.params
        self.has_given_params = False
        self.max_plate_nesting = structure.max_plate_nesting
        self.coords: dict[str, list[Any]] = {}
        self._counted: tuple[str, float] | None = None
        self.not_summed: dict[str, str] = {}  # trajectories, and the site that is to blame
        self.kept: dict[str, Any] = {}  # what was found out about the density, for all its copies
        self.invariants: Callable[..., dict[str, Tensor]] | None = getattr(
            model, "invariants", None
        )

    def __repr__(self) -> str:
        def words(sites: Mapping[str, Site]) -> str:
            return ", ".join(name + self._plate_words(site) for name, site in sites.items())

        latents, observed = words(self.latents) or "none", words(self.observed) or "factors only"
        return f"{type(self).__name__}({self.name}: latents {latents}; observed {observed})"

    def _repr_html_(self) -> str:
        rows = [["site", "", "distribution", "shape", "plates"]]
        for role, sites in (("latent", self.latents), ("observed", self.observed)):
            for name, site in sites.items():
                plates = self._plate_words(site).strip(" []")
                shape = " × ".join(map(str, site.shape)) or "number"
                rows.append([name, role, site.distribution, shape, plates])
        return paragraphs([f"{type(self).__name__} of model '{self.name}'"]) + table(rows)

    def _plate_words(self, site: Site) -> str:
        names = [f"{p} {self.plates[p].size}" for p in site.plates if p]
        return f" [{' × '.join(names)}]" if names else ""

    @property
    def is_large(self) -> bool:
        """Whether running the model on values makes a large tensor on the way.

        It is then read from a dry run: sites, plates, supports and the checks of the data are
        as ever; checks that need values of latents wait for the first density, or are left out.
        """
        return self._structure.need is not None

    def refuse_beyond_memory(self, subject: str) -> None:
        """Raise for what runs the model on values, where there is no memory for that."""
        need = self._structure.need
        if need is not None and need.exceeds_memory:
            raise need.refusal(f"{subject} runs {self._program.title} on values")

    @property
    def continuous(self) -> dict[str, Site]:
        """The latents that are not discrete."""
        return {k: s for k, s in self.latents.items() if not s.is_discrete}

    @property
    def discrete(self) -> dict[str, Site]:
        """The discrete latents with a finite support, which densities sum out."""
        return {k: s for k, s in self.latents.items() if s.is_summed_out}

    @property
    def drawn(self) -> dict[str, Site]:
        """The latents that a density is given and a fit draws: all that are not summed out."""
        return {k: s for k, s in self.latents.items() if not s.is_summed_out}

    def refuse_unlisted(self, subject: str, but: Collection[str] = ()) -> None:
        """Raise for discrete latents that can neither be summed out nor differentiated through.

        Args:
            but: distributions that the subject has factors for.
        """
        for name, site in self.drawn.items():
            if not site.is_discrete or site.distribution in but:
                continue
            if name in self.not_summed:
                raise NotSupportedError(_not_by_steps(name, self.not_summed[name], subject))
            raise NotSupportedError(
                f"site '{name}' ({site.distribution}) is a discrete latent whose values cannot "
                f"be listed, so {subject} cannot sum it out. Use svi() with a guide that draws "
                "it, a latent with listed values (Categorical over a truncated range, "
                "Binomial), or integrate it out by hand (e.g. Gamma-Poisson is "
                "NegativeBinomial)."
            )

    @property
    def moving_ends(self) -> frozenset[str]:
        """Observed sites whose support depends on latents, or may: beyond it their density is 0."""
        return self._structure.moving_ends

    @property
    def free_params(self) -> list[str]:
        """Names of the model's own parameters, those that :func:`~vitools.svi` trains."""
        return [k for k, v in self._structure.params["params"].items() if v.requires_grad]

    @property
    def arguments(self) -> dict[str, Any]:
        """The model's arguments by name (defaults filled in)."""
        return self._program.arguments()

    @property
    def fingerprint(self) -> str:
        """A digest of sites, data and tensor arguments, by which a saved fit knows its problem."""
        sites = (*self.latents.values(), *self.observed.values())
        return fingerprint(sites, (self.args, dict(self.kwargs)))

    def call(self) -> Any:
        """Run the model on its data, inside whatever Pyro handlers are active."""
        rules = ReadingRules(self._structure.batch_dims, moving_ends=self.moving_ends)
        with rules, self.counted_rows():
            return self.model(*self.args, **self.kwargs)

    def counted_rows(self) -> AbstractContextManager[Any]:
        """Inside the block rows count as :meth:`counting` says; the guide of such a problem runs there."""
        return nullcontext() if self._counted is None else CountedRows(*self._counted)

    def counting(self, plate: str, times: float) -> Self:
        """The same problem in which each row of a plate counts so many times, in the place of others."""
        other = copy.copy(self)
        other._counted, other.kept = (plate, times), {}
        return other

    @contextmanager
    def _isolated(self) -> Iterator[None]:
        stand_ins = StandIns((self.args, self.kwargs))
        with isolated(self.params, self.model), full_plates(), stand_ins, self.at_rest():
            yield

    def refuse_moving_data(self, subject: str) -> None:
        """Raise for observations that the model draws anew, where they have to stay the same."""
        words = self._structure.moving_data
        if words is not None:
            raise NotSupportedError(
                f"{words}, but {subject} needs the same data throughout. Use svi(), or make the "
                "data before and give them to the model; for minibatches use "
                "pyro.plate(…, subsample_size=…)."
            )

    def at_rest(self) -> AbstractContextManager[None]:
        """Inside the block modules that draw while they are trained, as dropout does, do not."""
        return at_rest(self._structure.noisy_modules)

    def with_params(self, params: ParamState) -> Self:
        """The same problem with ``pyro.param`` values (fitted ones, say) put in place."""
        other = copy.copy(self)
        other.params = params
        other.has_given_params = True
        return other

    def given(self, values: Mapping[str, Tensor]) -> Self:
        """The problem of the other latents, these held at values as if they were data."""
        other = copy.copy(self)
        other.model = poutine.condition(self.model, data=dict(values))
        other.latents = {name: s for name, s in self.latents.items() if name not in values}
        other.kept = {}
        return other

    @property
    def dims(self) -> dict[str, int]:
        """Sizes of all that labels can be given to: plates, and the ``{site}_dim_{i}`` of latents."""
        found = {name: plate.size for name, plate in self.plates.items()}
        for site in self.latents.values():
            for name, size in zip(*site_dims(site, tuple(site.shape)), strict=True):
                found.setdefault(name, size)
        return found

    def with_coords(self, **coords: Any) -> Self:
        """The same problem with labels for the elements of its plates and other :attr:`dims`."""
        sizes = self.dims
        for name, labels in coords.items():
            if name not in sizes:
                raise OptionError(
                    f"no plate '{name}' in model '{self.name}' (plates and other dims: "
                    f"{', '.join(sizes) or 'none'}).{nearest(name, sizes)}"
                )
            if not isinstance(labels, Sized):
                raise OptionError(f"'{name}': expected a list of labels, got {labels!r}.")
            if len(labels) != sizes[name]:
                kind = "plate" if name in self.plates else "dim"
                raise OptionError(
                    f"{kind} '{name}': expected {sizes[name]} labels, got {len(labels)}."
                )
        other = copy.copy(self)
        other.coords = self.coords | {k: list(v) for k, v in coords.items()}
        return other

    @contextmanager
    def _explained(self) -> Iterator[None]:
        """Turns what a model or an elimination raises into an error that says whose it is."""
        try:
            yield
        except (VitoolsError, Warning):
            raise
        except NotImplementedError as error:
            raise NotSupportedError(
                f"{self._program.title}: its discrete latents cannot be summed out exactly "
                f"({first_words(error)})."
            ) from error
        except Exception as error:
            raise ModelError(
                f"{self._program.title} raised {type(error).__name__} at the given values: "
                f"{first_words(error)}."
            ) from error


def _not_by_steps(name: str, reader: str, subject: str) -> str:
    """Why a trajectory of discrete states is not summed out."""
    if not reader:
        return (
            f"site '{name}' is a trajectory of discrete states in a model that is too large for "
            f"{subject}, or has more than 64 states of all its trajectories together. Use cavi()."
        )
    return (
        f"site '{name}' is a trajectory of discrete states, and a row of site '{reader}' does not depend on "
        f"one of its steps alone, so {subject} cannot sum it out by the forward algorithm. Let each row read "
        "one step (level[z], in a plate over time), or use cavi()."
    )
