"""What the tests of densities share: seeded numbers, and Pyro's own log joint."""

import pyro
import torch
from pyro import poutine
from pyro.infer.mcmc.util import TraceEinsumEvaluator


def generator(seed=0):
    return torch.Generator().manual_seed(seed)


def randn(*shape, seed=0):
    return torch.randn(shape, generator=generator(seed))


def rand(*shape, seed=0):
    return torch.rand(shape, generator=generator(seed))


def pyro_log_joint(problem, values):
    """Pyro's own log density of one draw, discrete latents enumerated by Pyro's own evaluator."""
    enumerated = pyro.infer.config_enumerate(problem.model, "parallel")
    depth = problem.max_plate_nesting
    conditioned = poutine.condition(enumerated, data=values)
    if problem.discrete:
        conditioned = poutine.enum(conditioned, first_available_dim=-1 - depth)
    with torch.random.fork_rng(devices=[]), pyro.get_param_store().scope(problem.params):
        run = poutine.trace(conditioned).get_trace(*problem.args, **problem.kwargs)
        if not problem.discrete:
            return run.log_prob_sum()
        return TraceEinsumEvaluator(run, True, depth).log_prob(run)


def assert_close(found, expected, tol=1e-10):
    torch.testing.assert_close(found, torch.as_tensor(expected), rtol=tol, atol=tol)
