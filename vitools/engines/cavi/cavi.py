"""Automatic coordinate ascent: updates derived from an unmodified Pyro model."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from typing import Any, Literal

import pyro
import torch

from vitools.calculus import ConjugateModel
from vitools.calculus.blocks.dependence import kept_apart, sites_of
from vitools.calculus.lattices import can_stand_on_a_lattice, lattice_of_few
from vitools.calculus.needed_values import needed_values
from vitools.calculus.recession import check_determined
from vitools.calculus.start.on_nodes import with_nodes
from vitools.calculus.tracing.trace import trace_model
from vitools.calculus.values.reading import Reader, Reading
from vitools.calculus.words.dependence import in_words, switches_in_words
from vitools.engines.cavi.coordinate_ascent import Schedule
from vitools.engines.cavi.digits import MOST_RETURNS, lost, own_points
from vitools.engines.cavi.kept import Keeper, checkpoint_of, climb
from vitools.engines.cavi.minibatches.fit import fit_in_batches
from vitools.engines.cavi.minibatches.rows import BatchRows, RowBatches
from vitools.engines.cavi.nested.cells import NestedAscent, takes_cells
from vitools.engines.cavi.nested.choice import check_nested, needs_a_lattice
from vitools.engines.cavi.on_lattice import fit_on_lattice
from vitools.engines.cavi.options import (
    check_lists,
    check_options,
    check_restarts,
    has_jobs,
    refuse_alone,
    refuse_beside,
    refuse_beside_lattice,
)
from vitools.engines.cavi.outcome import Outcome, sweeps_in_words, warn_of_switches
from vitools.engines.cavi.placing import placed, roughly
from vitools.engines.cavi.restarts import best_of_jobs
from vitools.engines.cavi.sharded.fit import fit_in_shards
from vitools.engines.cavi.starting import begin_at, initialiser, starts_inside_rows
from vitools.engines.cavi.training import trained
from vitools.engines.cavi.values.fit import fit_on_values
from vitools.engines.cavi.values.guides import Guides, guides_by_default, read_guides
from vitools.engines.held_params import held_params
from vitools.engines.progress import ProgressCallback, listener
from vitools.engines.start_values import Start, read_start
from vitools.errors import NotConjugateError, NumericalError, OptionError
from vitools.isolation import full_plates, isolated, snapshot
from vitools.posterior import (
    FactorisedPosterior,
    MixturePosterior,
    ProductPosterior,
    Status,
)
from vitools.problem import Problem, check_problem
from vitools.problem.sites import listed

WORDS = ("prior", "data")


def cavi(
    problem: Problem,
    *,
    joint: Sequence[Sequence[str] | str] | None = None,
    nested: Sequence[str] | None = None,
    factorised: Sequence[str] | Literal["all"] | None = None,
    guides: Guides | None = None,
    max_sweeps: int = 1000,
    tol: float = 1e-8,
    accelerate: bool = True,
    restarts: int = 1,
    jobs: int | None = None,
    start: Start | None = None,
    seed: int = 0,
    order: Sequence[str] | None = None,
    inner: Sequence[str] | None = None,
    inner_sweeps: int | None = None,
    warmup_sweeps: int | None = None,
    collapse: bool = True,
    batch_rows: BatchRows | None = None,
    hold_out: int | None = None,
    sharded: str | None = None,
    checkpoint: str | Path | None = None,
    resume: bool = False,
    progress: ProgressCallback | None = None,
) -> FactorisedPosterior | MixturePosterior | ProductPosterior:
    """Fit q(θ, z) = ∏ q(block) by coordinate ascent, the updates derived from the model.

    They are closed where the model is conditionally conjugate (Winn and Bishop 2005, "Variational
    message passing"); other scalars take their optimal factor by one-dimensional integrals, and
    curved functions of Gaussian predictors natural-gradient steps (Khan and Lin 2017):
    ``docs/coordinate_ascent.md`` lists the distributions. The bound is exact, to ten digits where it
    holds integrals; where these are known to a millionth of a nat only or worse, ``detail`` says so.

    Args:
        joint: blocks of sites that share one factor: ``("z1", "z2")`` for discrete sites of one
            plate (three and more that follow one another, as the states of a hidden Markov model
            do, by forward and backward recursions), for Gaussian sites, for discrete sites and one
            Gaussian site of their plate, with a normal in each case, or for two other scalars, with a table on
            nodes; ``"W[factors]"`` for a
            Gaussian site with one covariance along that plate. Elements of a Gaussian site that a
            factor couples always share one. If omitted, Gaussian sites that a term couples share
            one too (the weights and the intercept of a regression), up to 1000 numbers together,
            discrete sites with the Gaussian site whose prior they select, and two scalars that a term ties, one
            of which takes an integral (not with ``checkpoint``); ``()`` for no site with another.
        nested: sites on whose value the factors of all others are to depend,
            q(tau) q(rest | tau): numbers, covariance matrices, Cholesky factors of correlations,
            of up to six numbers in all. Their values are cut into cells, each with factors of its
            own; the bound rises, and the answer is a mixture of factorised posteriors. Of one
            scalar there are as many cells as it needs, of more numbers a lattice of them
            (:mod:`~vitools.engines.cavi.nested.lattice`), at whose values the model is read
            again: what no rule takes may be nested, too. If omitted, the scale of fewer than 50
            group effects (the fewest) in up to 2000 numbers of data, or their covariance of up to
            three numbers, where independent factors are too narrow by a third and more; where there
            are no such groups, the scale of a chain's increments, if it is the only one; and up to
            three numbers that no rule takes. ``()`` for none.
        factorised: Gaussian sites to keep fully factorised instead, updated element by element;
            ``"all"`` for all of them.
        guides: sites that no rule takes, by the guide that gives them values:
            ``{"w": AutoNormal, ("a", "b"): AutoMultivariateNormal}``, classes or instances of guides
            over these sites, or names (``"normal"``, ``"multivariate"``, …). The bound is then that of
            fresh draws, with a standard error. If omitted, sites without a rule that are not nested
            share a multivariate guide where fewer than half as many numbers need values (up to 100) as keep
            a rule, and a :class:`~vitools.errors.VitoolsWarning` says so; ``{}`` refuses such models.
        max_sweeps: updates of every block, per restart (an accelerated step counts three).
        tol: stop when the bound's relative change is at most ``tol`` **and** no factor moved by more
            than ``tol ** 0.75`` (root of the symmetrised KL divergence); the bound alone can be flat
            where q still moves.
        accelerate: extrapolate with SQUAREM where the bound does not fall; never changes a fixed
            point.
        restarts: random starts, run as one batch where memory allows; the best is returned, with
            the bounds of all in ``restart_bounds``.
        jobs: starts that run side by side instead, each as a fit of its own on one thread of a process; -1 for as
            many as there are cores. If omitted, what ``joblib.parallel_config`` says, whose back ends (Dask, Ray,
            Spark) serve, too; else one batch. The numbers are the same, to rounding; cells of nested sites and
            lattices are then of each start.
        start: where to begin; by default near the priors (times what data say of a site without
            the others), with clusters, factors and scales sought in the data. A fit of the same
            model by any engine, by its moments; ``{site: value or distribution}`` for some sites,
            which the others follow; ``"prior"`` for no such search, ``"data"`` for a refusal
            where there is nothing to be sought.
        order: the sites in the order of their updates; by default children before parents.
        inner: sites iterated in each sweep before the others move; by default latents beside the
            data that depend on each other, if one of them is continuous: the topics of words and
            the topic weights of their documents. ``()`` for none.
        inner_sweeps: how often; by default until they settle, at most 10 times.
        warmup_sweeps: sweeps at the start in which the inner sites begin afresh each time, so that
            early globals do not tie them down; the bound may fall until they are over. By default
            as many as raise the bound by a thousandth; 0 for none.
        collapse: treat rows of equal data as one row with a multiplicity (exact).
        batch_rows: take so many rows at a time of the longest plate that observed sites stand in, or
            ``{plate: rows}``: natural-gradient steps on minibatches, then passes over all rows until
            the bound rests (:mod:`~vitools.engines.cavi.minibatches.ascent`). For rows that are many, or
            that memory does not hold; a sweep is then a pass over all rows.
        hold_out: beside ``batch_rows``, so many rows chosen at random that are in no step: the run ends when their
            bound rises by less than a ten-thousandth in a pass, without passes over all rows but one for the bound.
        sharded: the plate of which every process of torch.distributed has some rows, each in a
            ``Problem`` of its own (:mod:`~vitools.engines.sharding.shard`). The factors of what all rows
            share are those of one process with all rows; factors of single rows are where these are.
        checkpoint: file to keep the state of the run in, renewed about every second.
        resume: go on from ``checkpoint`` if the file exists. A run that was killed gives the same numbers
            as one that was not; only ``max_sweeps`` may be changed. Cells of nested sites and the
            training of parameters, which come after the sweeps, begin anew.
        progress: called a few times a second with a :class:`~vitools.engines.progress.Progress`; if omitted,
            the logger ``vitools`` gets a line a minute where it is on for INFO.

    Returns:
        A :class:`~vitools.posterior.FactorisedPosterior`; with ``nested`` sites a
        :class:`~vitools.posterior.MixturePosterior` of them.

    Raises:
        NotConjugateError: a site has no such update, and values are no remedy; the message names
            it and says why.

    Example:
        >>> import pyro, torch
        >>> import pyro.distributions as dist
        >>> from vitools import Problem
        >>> def coin(flips):
        ...     p = pyro.sample("p", dist.Beta(1.0, 1.0))
        ...     with pyro.plate("flips", len(flips)):
        ...         pyro.sample("heads", dist.Bernoulli(p), obs=flips)
        >>> fit = cavi(Problem(coin, torch.tensor([1.0, 1.0, 0.0])))
        >>> round(float(fit.mean()["p"]), 4), str(fit.elbo())
        (0.6, '-2.48 (exact)')
    """
    progress = listener(progress)
    check_options(max_sweeps, tol, restarts, inner_sweeps, warmup_sweeps, seed)
    apart_named = None if factorised == "all" else factorised
    check_lists(joint=joint, nested=nested, factorised=apart_named, order=order, inner=inner)
    began = time.perf_counter()
    check_problem(problem, "cavi()")
    problem.refuse_unlisted("cavi()", but=("CategoricalMarkovChain",))
    check_nested(problem, nested or ())
    refuse_alone(hold_out, batch_rows)
    begin = read_start(problem, start, "cavi", WORDS)
    check_restarts(restarts, set(problem.latents) <= set(begin.sites))
    on_values = {} if guides is None else read_guides(problem, guides)
    if on_values and nested:
        raise OptionError("nested: not beside guides=, whose sites have no cells. Leave one out.")
    model: ConjugateModel | None = None
    trains = bool(problem.free_params) and not problem.has_given_params
    held = [] if trains else held_params(problem, "cavi")
    choices: dict[str, Any] = {
        "joint": joint, "factorised": factorised, "order": order, "inner": inner,
        "cut": () if factorised == "all" else nested,
    }  # fmt: skip
    lattice = tuple(nested or ()) if needs_a_lattice(problem, nested or ()) else ()
    chooses = nested is None and guides is None and factorised != "all" and not trains
    identity = choices | {
        "nested": nested, "tol": tol, "accelerate": accelerate, "restarts": restarts,
        "start": start, "seed": seed, "inner_sweeps": inner_sweeps,
        "warmup_sweeps": warmup_sweeps, "collapse": collapse, "batch_rows": batch_rows,
        "hold_out": hold_out, "sharded": sharded,
    }  # fmt: skip
    others = {"batch_rows": batch_rows, "sharded": sharded, "checkpoint": checkpoint}
    if has_jobs(jobs, restarts, **others):
        same = {k: v for k, v in identity.items() if k not in ("cut", "restarts", "seed")}
        one = partial(
            cavi, problem, **same, guides=guides, max_sweeps=max_sweeps, jobs=1, progress=False
        )
        return best_of_jobs(one, range(seed, seed + restarts), jobs)
    file = None if sharded else checkpoint_of(problem, checkpoint, resume, identity)
    params = snapshot(problem.params)
    isolation = isolated(params, problem.model)
    with isolation, full_plates(), problem.at_rest(), torch.no_grad():
        make = partial(ConjugateModel, problem.model, problem.args, problem.kwargs, **choices)
        at = partial(make, collapse=collapse)
        read = partial(trace_model, problem.model, problem.args, problem.kwargs)
        shares = {name: choices[name] for name in ("joint", "factorised", "cut")}
        reader = Reader(problem.model, problem.args, problem.kwargs, **shares)
        of_reading: Callable[[Reading], ConjugateModel] = partial(
            ConjugateModel.of_reading, **choices
        )
        of_values: Callable[[Reading], ConjugateModel] = partial(
            ConjugateModel.of_reading, **choices | {"cut": ()}
        )
        seeds = list(range(seed, seed + restarts))
        begun = partial(begin_at, start=begin)
        steady = Schedule(tol, max_sweeps, accelerate, inner_sweeps, 0)
        some_rows = partial(ConjugateModel, **choices | {"cut": ()}, collapse=collapse)
        if batch_rows is not None:
            refuse_beside("batch_rows", nested, guides, trains, begin.sites, sharded)
            return fit_in_batches(
                RowBatches(problem, batch_rows, some_rows, hold_out, seed),
                steady,
                seeds,
                begun,
                began,
                progress,
                held,
                file,
                resume,
            )
        if sharded is not None:
            refuse_beside("sharded", nested, guides, trains, begin.sites)
            return fit_in_shards(
                problem,
                sharded,
                some_rows,
                Schedule(tol, max_sweeps, accelerate, inner_sweeps, warmup_sweeps),
                seeds,
                begun,
                began,
                progress,
                held,
                checkpoint,
                resume,
                identity,
            )
        if not on_values and not lattice:
            try:
                if trains:
                    model = of_reading(reader({}))
                else:
                    pairs = factorised != "all" and file is None and not nested
                    model = with_nodes(at, read, joint, pairs=pairs)
                if nested and not takes_cells(model, nested):
                    lattice = tuple(nested)
                elif chooses and not model.nodes:
                    lattice = lattice_of_few(problem, model, sites_of(joint))
            except NotConjugateError as refusal:
                if nested:
                    lattice = tuple(nested)
                elif guides is None:
                    sites = needed_values(problem, refusal, of_values)
                    if chooses and can_stand_on_a_lattice(problem, sites, of_values):
                        lattice = sites
                    else:
                        on_values = guides_by_default(problem, refusal, sites)
                if not on_values and not lattice:
                    raise
        if lattice:
            bound = (problem.model, problem.args, problem.kwargs)
            lattice = tuple(name for name in problem.latents if name in lattice)
            refuse_beside_lattice(lattice, trains=trains, checkpoint=file)
            return fit_on_lattice(
                problem,
                lattice,
                Reader(*bound, joint=joint, factorised=factorised),
                of_values,
                lambda model: begun(model, seed),
                steady,
                begin,
                seed,
                restarts,
                began,
                progress,
                held,
            )
        if model is None:
            if file is not None:
                raise OptionError(
                    "checkpoint: not where sites are given values by a guide, whose draws are not kept "
                    f"({listed([name for sites in on_values for name in sites])}). Leave it out."
                )
            return fit_on_values(
                problem,
                on_values,
                seeds,
                of_values,
                begun,
                steady,
                began,
                progress,
                held,
                trains,
            )
        make = partial(make, collapse=collapse)
        if starts_inside_rows(model, begin):
            make = partial(make, collapse=False, stream=False)
            model = make(nodes=model.nodes)
        if begin.sites and warmup_sweeps is None:
            warmup_sweeps = 0  # a warm-up would forget the start
        schedule = Schedule(tol, max_sweeps, accelerate, inner_sweeps, warmup_sweeps)
        warn_of_switches(problem, model.prior_switches)
        if model.nodes and file is not None:
            raise OptionError(
                f"checkpoint: not where sites stand on nodes that move ({listed(model.nodes)}). Leave it out."
            )
        keeper = Keeper(file, resume)
        began -= keeper.seconds
        for returns in range(MOST_RETURNS + 1):
            initialise = initialiser(problem, model, begin, seed)
            fall: NumericalError | None = None
            try:
                first = roughly(schedule, model)
                runs, interrupted = climb(model, seeds, first, initialise, progress, began, keeper)
                best = max(runs, key=lambda run: run.bound)
                model.load(best.state)
            except NumericalError as error:
                fall, interrupted = error, False
            nats = 0.0 if model.nodes else lost(model)
            if not nats or interrupted or trains or returns == MOST_RETURNS:
                break
            model, keeper = make(points=own_points(model)), Keeper(None, False)
        if fall is not None:
            raise fall
        if model.nodes and not interrupted:
            best, model = placed(model, at, schedule, began, progress)
            interrupted = best.status is Status.INTERRUPTED
        if trains:
            if not interrupted:
                best, model = trained(reader, model, of_reading, best, schedule, began, progress)
            names = listed(problem.free_params)
            held = [f"parameters of the model trained through the bound: {names}"]
            problem = problem.with_params(snapshot(pyro.get_param_store().get_state()))
        check_determined(model)
        remarks = [sweeps_in_words(best, runs, restarts), *held]
        if nats:
            remarks.append(f"terms that cancel leave the bound accurate to about {nats:.1g} nats")
        remarks += [in_words(group) for group in kept_apart(model.blocks, model.joint.terms)]
        if model.prior_switches:
            remarks.append(switches_in_words(model.prior_switches))
        status, history = best.status, best.history
        cells: NestedAscent | None = None
        if model.cut and not interrupted:
            cells = NestedAscent(model, model.cut, best, schedule)
            status = cells.run(progress, began)
            history = cells.history
            remarks.insert(1, cells.in_words())
        made = Outcome(problem, model, [run.bound for run in runs], seed)
        fit = made.factorised(best.bound) if cells is None else made.nested(cells)
        if fit.bound_error:
            remarks.append(f"integrals in the bound accurate to about {fit.bound_error:.1g} nats")
    fit.status = Status.INTERRUPTED if interrupted else status
    fit.detail = "; ".join(remarks)
    fit.history = history
    fit.seconds = time.perf_counter() - began
    return fit
