"""What of a model may be recorded: numbers read from data, things built outside; and what may not."""

import pyro
import pyro.distributions as dist
import pytest
import torch

from vitools import Problem, svi
from vitools.errors import VitoolsWarning
from vitools.guides import AutoMultivariate


def _detail(model, *arguments, guide=AutoMultivariate, **options):
    return svi(Problem(model, *arguments), guide, max_steps=16, **options).detail


def test_numbers_read_from_data_are_recorded():
    def model(x):
        kinds = int(x.max()) + 1
        with pyro.plate("kinds", kinds):
            odds = pyro.sample("odds", dist.Normal(0.0, x.double().std().item()))
        if (x < 0).any() or not torch.equal(x, x.clone()):
            raise AssertionError
        with pyro.plate("rows", len(x.tolist())):
            pyro.sample("x", dist.Categorical(logits=odds), obs=x)

    assert "not recorded" not in _detail(model, torch.tensor([0, 1, 2, 2]))


BUILT_WITH_VALIDATION = dist.Normal(0.0, 1.0).expand([2]).to_event(1)


def test_distributions_built_outside_the_model_are_recorded():
    def model(x):
        level = pyro.sample("level", BUILT_WITH_VALIDATION)
        with pyro.plate("rows", len(x)):
            pyro.sample("x", dist.Normal(level, 1.0).to_event(1), obs=x)

    assert "not recorded" not in _detail(model, torch.zeros(3, 2))


def _branches_on_a_draw(level):
    return 1.0 if float(level.detach()) > 0 else 2.0


def _branches_on_what_a_draw_was_written_into(level):
    table = torch.zeros(3)
    table[0] = level
    return 1.0 if float(table.max().detach()) > 0 else 2.0


def _branches_on_a_parameter(level):
    return pyro.param("width", torch.tensor(1.0)).detach().item()


@pytest.mark.parametrize(
    "width",
    [_branches_on_a_draw, _branches_on_what_a_draw_was_written_into, _branches_on_a_parameter],
)
def test_numbers_that_change_are_not_and_the_reason_says_so(width):
    def model(x):
        level = pyro.sample("level", dist.Normal(0.0, 1.0))
        pyro.sample("x", dist.Normal(level, width(level)), obs=x)

    with pytest.warns(
        VitoolsWarning, match="out of a tensor that depends on a parameter or a draw"
    ):
        detail = _detail(model, torch.tensor(0.2), start="guide")
    assert "not recorded" in detail


@pytest.mark.parametrize("particles", [1, 2])
def test_categorical_draws_of_a_guide_are_recorded_where_no_baseline_remembers(particles):
    def model(x):
        level = pyro.sample("level", dist.Normal(0.0, 1.0))
        pyro.sample("x", dist.Normal(level, 1.0), obs=x)

    def guide(x):
        odds = pyro.param("odds", torch.zeros(2))
        which = pyro.sample("which", dist.Categorical(logits=odds), infer={"is_auxiliary": True})
        pyro.sample("level", dist.Normal(pyro.param("locs", torch.zeros(2))[which], 1.0))

    detail = _detail(model, torch.tensor(0.2), guide=guide, num_particles=particles)
    if particles == 1:
        assert "not recorded, so not compiled: the baseline of draws without a derivative" in detail
    else:
        assert "not recorded" not in detail
