"""Checks that hold for every conjugate model, against Pyro's own log density and samples."""

import itertools
import math

import pyro.poutine as poutine
import torch

from vitools.calculus.model import ConjugateModel
from vitools.calculus.start.initialise import initialise
from vitools.engines.cavi.outcome import distributions, factors


def fitted(model, args=(), sweeps=5, seed=0, **options):
    """The model after some sweeps, with the bound of each."""
    conjugate = ConjugateModel(model, args, **options)
    initialise(conjugate, seed)
    bounds = []
    for _ in range(sweeps):
        conjugate.sweep()
        bounds.append(conjugate.elbo())
    return conjugate, bounds


def assert_never_falls(bounds):
    for before, after in itertools.pairwise(bounds):
        assert after >= before - 1e-9 * max(1.0, abs(before))


def log_joint(model, args, values):
    conditioned = poutine.condition(model, data=values)
    trace = poutine.trace(conditioned).get_trace(*args)
    return trace.log_prob_sum().double()


def split(flat, shapes):
    """The values of several sites, flattened one after another."""
    parts = flat.split([math.prod(shape) for shape in shapes.values()], -1)
    return {n: part.reshape(shape) for part, (n, shape) in zip(parts, shapes.items(), strict=True)}


def assert_bound_matches_monte_carlo(conjugate, model, args, draws=1000, seed=1):
    """ELBO = E_q[log p - log q], estimated by drawing from q and asking Pyro for log p."""
    shares = {n: q for n, q in factors(conjugate).items() if isinstance(n, tuple)}
    alone = {n: q for n, q in distributions(conjugate).items() if not any(n in s for s in shares)}
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        estimates = []
        for _ in range(draws):
            values = {name: q.sample() for name, q in alone.items()}
            log_q = sum(q.log_prob(values[name]).sum() for name, q in alone.items())
            for names, q in shares.items():
                flat = q.sample()
                log_q = log_q + q.log_prob(flat)
                values |= split(flat, {name: conjugate.latents[name].shape for name in names})
            estimates.append(log_joint(model, args, values) - log_q)
    estimates = torch.stack(estimates)
    error = float(estimates.std() / math.sqrt(draws))
    assert abs(float(estimates.mean()) - conjugate.elbo()) <= 4 * error + 1e-8 * abs(
        conjugate.elbo()
    ), (float(estimates.mean()), error, conjugate.elbo())


def assert_updates_are_optimal(conjugate, seed=2, step=1e-4):
    """After a site's update, moving its natural parameters either way lowers the bound."""
    generator = torch.Generator().manual_seed(seed)
    for block in conjugate.blocks:
        conjugate.update(block)
        natural = block.natural
        best = conjugate.elbo()
        for _ in range(2):
            directions = []
            for eta in natural:
                noise = torch.randn(eta.shape, generator=generator, dtype=torch.float64)
                if eta.dim() >= 2 and eta.shape[-1] == eta.shape[-2]:
                    noise = (noise + noise.mT) / 2
                directions.append(noise * (eta.abs() * 0.1 + 1e-3))
            values = []
            for sign in (-1.0, 1.0):
                moved = tuple(e + sign * step * d for e, d in zip(natural, directions, strict=True))
                block.restore(moved)
                values.append(conjugate.elbo())
            block.restore(natural)
            assert max(values) <= best + 1e-9 * max(1.0, abs(best))
            slope = (values[1] - values[0]) / (2 * step)
            assert abs(slope) <= 1e-3 * max(1.0, abs(best)), (block.title, slope)
