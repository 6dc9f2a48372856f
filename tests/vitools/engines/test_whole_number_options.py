"""Counts and seeds that are no whole numbers are refused by every engine, by name."""

import pyro
import pyro.distributions as dist
import pytest
import torch

from vitools import Problem, cavi, dadvi, exact, laplace, nuts, svi
from vitools.errors import OptionError
from vitools.guides import AutoMultivariate


def _problem():
    def model(x):
        level = pyro.sample("level", dist.Normal(torch.tensor(0.0).double(), 1.0))
        pyro.sample("x", dist.Normal(level, 1.0), obs=x)

    return Problem(model, torch.tensor(0.3).double())


ENGINES = {
    "svi": lambda problem, **options: svi(problem, AutoMultivariate, **options),
    "cavi": cavi,
    "nuts": nuts,
    "exact": exact,
    "laplace": laplace,
    "dadvi": dadvi,
}
COUNTS = {
    "svi": ("max_steps", "num_particles", "step_backs"),
    "cavi": ("max_sweeps", "restarts"),
    "nuts": ("num_samples", "num_warmup", "num_chains"),
    "exact": ("max_evaluations",),
    "laplace": ("max_steps",),
    "dadvi": ("max_steps", "num_samples", "max_samples"),
}


@pytest.mark.parametrize("seed", [1.5, -1, None, "1", 2**70, torch.tensor(1)])
@pytest.mark.parametrize("engine", ENGINES)
def test_a_seed_that_is_no_whole_number_is_refused(engine, seed):
    with pytest.raises(OptionError, match="seed: expected a whole number from 0"):
        ENGINES[engine](_problem(), seed=seed)


@pytest.mark.parametrize(
    ("engine", "option"), [(engine, option) for engine, all_ in COUNTS.items() for option in all_]
)
@pytest.mark.parametrize("value", [1.5, True, "many", -3])
def test_a_count_that_is_no_whole_number_is_refused(engine, option, value):
    with pytest.raises(OptionError, match=f"{option}: expected a whole number of at least"):
        ENGINES[engine](_problem(), **{option: value})


@pytest.mark.parametrize("draws", ["prior", "predictive", "sample"])
def test_draws_take_no_fractional_seed(draws):
    problem = _problem()
    ask = {
        "prior": lambda: problem.prior(2, 1.5),
        "predictive": lambda: problem.predictive({}, 1.5),
        "sample": lambda: exact(problem).sample(2, 1.5),
    }
    with pytest.raises(OptionError, match="seed: expected a whole number"):
        ask[draws]()
