"""Fits made elsewhere, as posteriors of a problem: a trained guide, draws, a mean and covariance.

They are judged and compared as any other fit; see ``docs/existing_fits.md``.
"""

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pyro
import torch
from pyro import poutine
from torch import Tensor

from vitools.errors import FileError, OptionError
from vitools.isolation import ParamState, full_plates, isolated, seeded
from vitools.posterior.draws import DrawsPosterior
from vitools.posterior.gaussian import GaussianPosterior
from vitools.posterior.guided import GuidePosterior
from vitools.posterior.mixing import FEWEST_DRAWS, measure_mixing
from vitools.posterior.results import Status
from vitools.problem import Problem, check_problem
from vitools.problem.coordinates.unconstrained import UnconstrainedSpace
from vitools.problem.density.improper import StandIns
from vitools.problem.sequences import sequences
from vitools.problem.sites import listed, nearest

ELSEWHERE = "made elsewhere"


def from_guide(
    problem: Problem, guide: Callable[..., Any], *, name: str = "guide"
) -> GuidePosterior:
    """What a Pyro guide trained by other means says, with the parameters that it has now.

    They are taken from Pyro's parameter store and from the guide's own modules, and copied: training
    that goes on does not change this posterior.

    Args:
        guide: a function, a ``PyroModule`` or one of Pyro's autoguides, for the problem's model.
        name: what the posterior's ``engine`` is called.
    """
    check_problem(problem, "Posterior.from_guide()")
    if not callable(guide) or isinstance(guide, type):
        got = f"the class {guide.__name__}" if isinstance(guide, type) else repr(guide)
        raise OptionError(
            f"guide: expected a trained Pyro guide (a function or a module), got {got}. "
            "svi(problem, guide) trains one."
        )
    params = _parameters_now(problem, guide)
    return GuidePosterior(
        problem, guide, params, engine=name, status=Status.CONVERGED, detail=ELSEWHERE
    )


def _parameters_now(problem: Problem, guide: Callable[..., Any]) -> ParamState:
    """The store's parameters, and those that guide and model put there when they run.

    A module enters the store with its first run. A run for each draw would enter it each time, which
    cannot be vectorised, and a parameter that starts at random would be another for each draw.
    """
    store = pyro.get_param_store().get_state()
    with (
        seeded(0),
        isolated(store, guide, problem.model) as params,
        full_plates(),
        StandIns((problem.args, problem.kwargs)),
        torch.no_grad(),
    ):
        run = poutine.trace(guide).get_trace(*problem.args, **problem.kwargs)
        poutine.replay(problem.model, trace=run)(*problem.args, **problem.kwargs)
    return params


def from_gaussian(
    problem: Problem, mean: Any, covariance: Any, *, name: str = "gaussian"
) -> GaussianPosterior:
    """A mean and a covariance on the unconstrained space, N(m, Σ) pushed through θ = T(u).

    u lists the continuous latents in the model's order, each mapped to the reals as
    :class:`~vitools.problem.coordinates.unconstrained.UnconstrainedSpace` has it: a positive site by
    its logarithm, one of the unit interval by its logit, a simplex of K by K - 1 numbers.

    Args:
        mean: m, ``[P]``.
        covariance: Σ, ``[P, P]``; or variances ``[P]``.
    """
    check_problem(problem, "Posterior.from_gaussian()")
    space = UnconstrainedSpace(problem)
    words = f"{space.size} unconstrained numbers ({listed(list(space.slices))})"
    m, sigma = (
        _as_tensor(k, v, space.dtype) for k, v in (("mean", mean), ("covariance", covariance))
    )
    if m.shape != (space.size,):
        raise OptionError(f"mean: expected shape [{space.size}] for {words}, got {list(m.shape)}.")
    if sigma.shape == m.shape:
        sigma = sigma.diag()
    if sigma.shape != (space.size, space.size):
        raise OptionError(
            f"covariance: expected shape [{space.size}, {space.size}], or variances "
            f"[{space.size}], for {words}, got {list(sigma.shape)}."
        )
    if not torch.allclose(sigma, sigma.mT, rtol=1e-4, atol=1e-8):
        raise OptionError("covariance: expected a symmetric matrix, got one that is not.")
    root, failed = torch.linalg.cholesky_ex(sigma)
    if int(failed):
        raise OptionError(
            f"covariance: expected a positive definite matrix, got one whose smallest eigenvalue is "
            f"{float(torch.linalg.eigvalsh(sigma)[0]):.3g}."
        )
    return GaussianPosterior(
        problem,
        location=m,
        scale_tril=root,
        location_error=torch.zeros_like(m),
        engine=name,
        status=Status.CONVERGED,
        detail=ELSEWHERE,
    )


def from_draws(problem: Problem, draws: Any, *, name: str = "draws") -> DrawsPosterior:
    """Draws from another program, with R-hat and effective sample sizes of their chains.

    Args:
        draws: constrained values ``{site: [chains, draws, *shape]}`` or ``{site: [draws, *shape]}``,
            NumPy arrays or tensors (``MCMC.get_samples(group_by_chain=True)`` of Pyro or NumPyro,
            ``CmdStanMCMC.stan_variables()``); or an ArviZ ``InferenceData`` or ``DataTree``, or an
            ``xarray.Dataset`` with dims ``chain`` and ``draw`` (PyMC); or the path of a netCDF file.
            The steps of a loop may be one array ``x`` with their axis in front of a site's own dims.
            Variables that are no latents are left out, and named in ``detail``.

    Raises:
        OptionError: a site is missing, has another shape, or a value outside its support.
    """
    check_problem(problem, "Posterior.from_draws()")
    if not problem.continuous:
        raise OptionError(
            f"model '{problem.name}' has only discrete latents, which are summed out: there is "
            "nothing to judge draws by. Use exact(problem)."
        )
    given, divergences = _read(draws)
    given = _step_by_step(problem, given)
    missing = [site for site in problem.continuous if site not in given]
    if missing:
        hint = nearest(missing[0], given)
        raise OptionError(
            f"draws of {listed(missing)} are missing (given: {', '.join(given) or 'none'}).{hint}"
        )
    values = {site: _chains(problem, site, given[site]) for site in problem.continuous}
    lengths = {site: tuple(value.shape[:2]) for site, value in values.items()}
    if len(set(lengths.values())) > 1:
        raise OptionError(
            "expected as many chains and draws of every site, got "
            + ", ".join(f"{site} {c} × {n}" for site, (c, n) in lengths.items())
            + "."
        )
    _, count = next(iter(lengths.values()))
    if count < FEWEST_DRAWS:
        raise OptionError(f"expected at least {FEWEST_DRAWS} draws of each chain, got {count}.")
    mixing = measure_mixing(problem, values, divergences)
    extra = [key for key in given if key not in problem.latents]
    detail = f"{mixing}, {ELSEWHERE}" + (f"; left out: {', '.join(extra)}" if extra else "")
    return DrawsPosterior(
        problem,
        values,
        rhat=mixing.rhat,
        ess=mixing.ess,
        divergences=divergences,
        engine=name,
        status=mixing.status,
        detail=detail,
    )


def _step_by_step(problem: Problem, given: dict[str, Any]) -> dict[str, Any]:
    """Draws in which x with an axis of steps, as it is shown, stands as the sites x_0, x_1, … of a loop."""
    found = dict(given)
    for stem, steps in sequences(problem.continuous).items():
        if stem not in found or any(name in found for name in steps.sites):
            continue
        array = np.asarray(found.pop(stem))
        axis = array.ndim - 1 - len(steps.site.shape)
        if axis not in (1, 2) or array.shape[axis] != len(steps.sites):
            own = "".join(f", {n}" for n in (len(steps.sites), *steps.site.shape))
            raise OptionError(
                f"draws of '{stem}', the steps {steps.sites[0]} to {steps.sites[-1]}: expected shape "
                f"[chains, draws{own}] or [draws{own}], got {list(array.shape)}."
            )
        found |= {name: array.take(k, axis) for k, name in enumerate(steps.sites)}
    return found


def _as_tensor(what: str, value: Any, dtype: torch.dtype) -> Tensor:
    try:
        found = torch.as_tensor(value)
    except (TypeError, ValueError, RuntimeError) as error:
        raise OptionError(
            f"{what}: expected numbers (a tensor or an array), got {type(value).__name__}."
        ) from error
    found = found.detach().to(dtype)
    if not bool(torch.isfinite(found).all()):
        raise OptionError(f"{what}: expected finite numbers, got some that are not.")
    return found


def _read(draws: Any) -> tuple[dict[str, Any], int]:
    """Arrays by name with draws in front, and the number of divergent transitions."""
    if isinstance(draws, str | Path):
        return _read_file(Path(draws))
    is_tree = _has_group(draws, "posterior") or hasattr(draws, "data_vars")
    if isinstance(draws, Mapping) and not is_tree:
        return {str(k): v for k, v in draws.items()}, 0
    posterior = draws["posterior"] if _has_group(draws, "posterior") else draws
    if not hasattr(posterior, "data_vars"):
        raise OptionError(
            "draws: expected {site: array}, an ArviZ InferenceData or DataTree, an xarray Dataset, or "
            f"the path of a netCDF file, got {type(draws).__name__}."
        )
    found = {}
    for name, variable in posterior.data_vars.items():
        lead = [dim for dim in ("chain", "draw") if dim in variable.dims]
        if lead != ["chain", "draw"]:
            raise OptionError(
                f"draws of '{name}': expected dims chain and draw, got {', '.join(variable.dims)}."
            )
        found[str(name)] = variable.transpose("chain", "draw", ...).values
    divergences = 0
    if _has_group(draws, "sample_stats") and "diverging" in draws["sample_stats"]:
        divergences = int(draws["sample_stats"]["diverging"].values.sum())
    return found, divergences


def _has_group(draws: Any, group: str) -> bool:
    """Of an InferenceData, which knows attributes, or a DataTree, which knows keys."""
    return hasattr(draws, group) and not isinstance(getattr(draws, group), Callable)  # type: ignore[arg-type]


def _read_file(path: Path) -> tuple[dict[str, Any], int]:
    import xarray

    if not path.is_file():
        raise FileError(f"no file '{path}'; expected draws as ArviZ stores them (netCDF).")
    try:
        tree = xarray.load_datatree(path, engine="h5netcdf")
    except (OSError, ValueError) as error:
        raise FileError(f"cannot read '{path}' as netCDF: {error}") from error
    if "posterior" not in tree.children:
        raise FileError(
            f"'{path}' has no group 'posterior' (groups: {', '.join(tree.children) or 'none'})."
        )
    return _read(tree)


def _chains(problem: Problem, site: str, given: Any) -> Tensor:
    """``[chains, draws, *shape]`` of one site, checked."""
    latent = problem.continuous[site]
    shape = tuple(latent.shape)
    array = given if isinstance(given, Tensor) else np.asarray(given)
    value = _as_tensor(f"draws of '{site}'", array, latent.dtype)
    extra = value.dim() - len(shape)
    if extra not in (1, 2) or tuple(value.shape[extra:]) != shape:
        own = "".join(f", {n}" for n in shape)
        raise OptionError(
            f"draws of '{site}': expected shape [chains, draws{own}] or [draws{own}], got "
            f"{list(value.shape)}."
        )
    value = value.unsqueeze(0) if extra == 1 else value
    inside = latent.support.check(value)
    if not bool(inside.all()):
        outside = int((~inside).sum())
        raise OptionError(
            f"draws of '{site}': {outside} of {inside.numel()} values lie outside its support "
            f"({latent.support}). Expected are constrained values, as the model has them."
        )
    return value
