"""Pyro's side of a comparison: ``poutine.trace`` and the losses of its ELBOs. Nothing here knows vitools."""

import itertools
import math
from contextlib import contextmanager

import pyro
import torch
from pyro import poutine
from pyro.infer import Trace_ELBO, TraceEnum_ELBO, config_enumerate

ASSIGNMENTS = 64
"""Of the discrete latents, at most, that are run one by one; beyond, Pyro enumerates them in parallel."""


@contextmanager
def own_run(seed=0):
    """A parameter store of its own, no check of values (grey pixels, NaN under a mask), a seed."""
    with (
        pyro.get_param_store().scope(),
        pyro.validation_enabled(False),
        torch.random.fork_rng(devices=[]),
    ):
        torch.manual_seed(seed)
        yield


def log_joint(model, arguments, values, discrete):
    """log p(x, θ) at one point, the latents in ``discrete`` summed out, subsampled plates run in full.

    A plate that takes b of its N rows at a time scales them by N / b: the mean over batches that part
    the rows is the log density of all.
    """
    held = poutine.condition(model, data=values)
    batches = _batches(poutine.trace(held).get_trace(*arguments))
    runs = [_summed(poutine.condition(held, data=b), arguments, discrete) for b in batches]
    return torch.stack(runs).mean()


def _batches(trace):
    """``[{plate: rows}, …]`` of the plates that do not take all of their rows."""
    taken = {
        name: node["value"].reshape(-1)
        for name, node in trace.nodes.items()
        if type(node.get("fn")).__name__ == "_Subsample"
    }
    sizes = {name: trace.nodes[name]["fn"].size for name in taken}
    parts = {
        name: torch.arange(sizes[name]).split(len(rows))
        for name, rows in taken.items()
        if len(rows) < sizes[name]
    }
    return [dict(zip(parts, rows, strict=True)) for rows in itertools.product(*parts.values())]


def _summed(model, arguments, discrete):
    nodes = poutine.trace(model).get_trace(*arguments).nodes
    cells = {name: _unmasked(nodes[name]) for name in discrete}
    support = {name: nodes[name]["fn"].enumerate_support(expand=False) for name in discrete}
    if math.prod(len(support[k]) ** len(cells[k]) for k in discrete) > ASSIGNMENTS:
        enumerated = config_enumerate(model, default="parallel")
        bound = -TraceEnum_ELBO(max_plate_nesting=3).loss(enumerated, lambda *_: None, *arguments)
        return torch.as_tensor(bound)
    terms = []
    for choice in itertools.product(
        *(
            itertools.product(support[k].reshape(len(support[k]), -1)[:, 0], repeat=len(cells[k]))
            for k in discrete
        )
    ):
        given = {}
        for name, chosen in zip(discrete, choice, strict=True):
            value = nodes[name]["value"].clone()
            if chosen:
                value.reshape(-1)[cells[name]] = torch.stack(chosen)
            given[name] = value
        run = poutine.trace(poutine.condition(model, data=given)).get_trace(*arguments)
        terms.append(torch.as_tensor(run.log_prob_sum()))
    return torch.logsumexp(torch.stack(terms), 0)


def _unmasked(node):
    """The cells of a latent that its mask leaves; a masked one has no say, so that it is not summed."""
    mask, shape = node["mask"], node["value"].shape
    if mask is None:
        return torch.arange(shape.numel())
    return torch.as_tensor(mask).expand(shape).reshape(-1).nonzero().reshape(-1)


def guide_draw(guide, arguments, discrete):
    """Values of a guide's draws, and log q of them, those of ``discrete`` left out."""
    run = poutine.trace(guide).get_trace(*arguments)
    run.compute_log_prob()
    drawn = {
        name: node
        for name, node in run.nodes.items()
        if node["type"] == "sample" and not node["is_observed"] and name not in discrete
    }
    log_q = (torch.zeros(()) + sum(node["log_prob_sum"] for node in drawn.values())).detach()
    return {name: node["value"].detach() for name, node in drawn.items()}, log_q


def bounds(model, guide, arguments, discrete, count):
    """``count`` independent estimates of the bound by Pyro's own loss, of one particle each."""
    loss = TraceEnum_ELBO(max_plate_nesting=3) if discrete else Trace_ELBO()
    if discrete:
        model = config_enumerate(model, default="parallel")
    return torch.tensor([-loss.loss(model, guide, *arguments) for _ in range(count)])


def bounds_one_by_one(model, guide, arguments, discrete, count):
    """The same, each from a draw of the guide and the sum over all assignments at it."""
    terms = []
    for _ in range(count):
        values, log_q = guide_draw(guide, arguments, discrete)
        terms.append(log_joint(model, arguments, values, discrete) - log_q)
    return torch.stack(terms).detach()
