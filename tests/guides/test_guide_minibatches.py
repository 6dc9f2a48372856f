"""Guide and model on the same rows of the data, and what is said where they are not."""

from collections.abc import Callable

import pyro
import pyro.distributions as dist
import pytest
import torch
from pyro import poutine
from pyro.infer import SVI, Trace_ELBO
from pyro.infer.autoguide import AutoGuideList, AutoNormal
from torch import Tensor

from vitools import Problem, preflight
from vitools.errors import ModelError, OptionError
from vitools.guides import Amortized, AutoKumaraswamy, AutoLogisticNormal

DATA = torch.arange(10.0, dtype=torch.float64)
ROWS = torch.tensor([1, 4, 7])


@pytest.fixture(autouse=True)
def own_store_and_generator(clean_process):
    """Each test works on its own parameter store and leaves torch's generator alone."""
    with pyro.get_param_store().scope(), torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        yield


def rows_given(x: Tensor, rows: Tensor) -> None:
    """The model chooses the minibatch outside the plate and indexes its data itself."""
    with pyro.plate("rows", len(x), subsample=rows):
        z = pyro.sample("z", dist.Normal(x.new_zeros(()), 1.0))
        pyro.sample("y", dist.Normal(z, 1.0), obs=x[rows])


def same_rows(x: Tensor, rows: Tensor) -> pyro.plate:
    return pyro.plate("rows", len(x), subsample=rows, dim=-1)


def rows_drawn(x: Tensor) -> None:
    with pyro.plate("rows", len(x), subsample_size=3) as rows:
        z = pyro.sample("z", dist.Normal(x.new_zeros(()), 1.0))
        pyro.sample("y", dist.Normal(z, 1.0), obs=x[rows])


def encoder(model: Callable, **options: object) -> Amortized:
    return Amortized(model, plate="rows", features=lambda x, *_: x.unsqueeze(-1), **options)


@pytest.mark.parametrize("make", [AutoLogisticNormal, AutoKumaraswamy, encoder])
def test_rows_that_the_model_chooses_are_refused_or_followed(make: Callable) -> None:
    with pytest.raises(ModelError, match=r"which rows plate 'rows' takes.*create_plates"):
        make(rows_given)(DATA, ROWS)
    guide = make(rows_given, create_plates=same_rows)
    preflight(Problem(rows_given, DATA, ROWS), guide).enforce()
    trace = poutine.trace(guide).get_trace(DATA, ROWS)
    assert torch.equal(trace.nodes["rows"]["value"], ROWS)


def test_only_the_rows_of_the_minibatch_are_learnt() -> None:
    guide = AutoLogisticNormal(rows_given, create_plates=same_rows, jitter=0.0)
    svi = SVI(rows_given, guide, pyro.optim.Adam({"lr": 0.1}), Trace_ELBO(num_particles=10))
    for _ in range(150):
        svi.step(DATA, ROWS)
    mean = guide.marginal("z").mean
    others = [row for row in range(10) if row not in ROWS]
    assert torch.equal(mean[others], torch.zeros(7))
    assert ((mean[ROWS] - DATA[ROWS] / 2).abs() < 0.3).all()  # z | y ~ N(y / 2, 1 / 2)


def test_a_guide_that_replaces_the_rows_of_the_model_is_refused() -> None:
    """Pyro's own guides draw their own, and replay puts them into the model without a word."""
    problem = Problem(rows_given, DATA, ROWS)
    with pytest.raises(
        OptionError, match=r"which rows plate 'rows' takes .*AutoNormal takes others"
    ):
        preflight(problem, AutoNormal).enforce()
    preflight(problem, AutoNormal(rows_given, create_plates=same_rows)).enforce()


def local(sample: Callable[[], object], *plate: int) -> Callable:
    """A guide of z inside a plate of this size and subsample_size."""

    def guide(x: Tensor) -> None:
        with pyro.plate("rows", *plate):
            sample()

    return guide


@pytest.mark.parametrize(
    ("plate", "message"),
    [
        ((10,), "takes 10 of 10 rows in plate 'rows', the model 3 of 10"),
        ((10, 5), "takes 5 of 10 rows in plate 'rows', the model 3 of 10"),
        ((3,), "takes 3 of 3 rows in plate 'rows', the model 3 of 10"),
    ],
)
def test_plates_of_another_size_are_refused(plate: tuple[int, ...], message: str) -> None:
    guide = local(lambda: pyro.sample("z", dist.Normal(0.0, 1.0)), *plate)
    with pytest.raises(OptionError, match=message):
        preflight(Problem(rows_drawn, DATA), guide).enforce()
    same = local(lambda: pyro.sample("z", dist.Normal(0.0, 1.0)), 10, 3)
    preflight(Problem(rows_drawn, DATA), same).enforce()


def two(x: Tensor) -> None:
    weights = pyro.sample("weights", dist.Normal(torch.zeros(2), 1.0).to_event(1))
    level = pyro.sample("level", dist.Normal(0.0, 1.0))
    pyro.sample("y", dist.Normal(level + weights @ torch.ones(2), 1.0), obs=x[0])


def test_a_value_of_another_shape_is_named_before_the_model_fails_on_it() -> None:
    def guide(x: Tensor) -> None:
        pyro.sample("weights", dist.Normal(torch.zeros(3), 1.0).to_event(1))
        pyro.sample("level", dist.Normal(0.0, 1.0))

    with pytest.raises(OptionError, match=r"'weights' with shape \(3,\).* expects \(2,\)"):
        preflight(Problem(two, DATA), guide).enforce()


def test_point_estimates_among_other_sites_are_named() -> None:
    def guide(x: Tensor) -> None:
        pyro.sample("weights", dist.Delta(pyro.param("w", torch.zeros(2))).to_event(1))
        pyro.sample("level", dist.Normal(pyro.param("l", torch.zeros(())), 1.0))

    report = preflight(Problem(two, DATA), guide)
    report.enforce()
    assert report.points == ("weights",)
    assert "point estimate of weights: no widths, which laplace() gives" in str(report)


def test_points_that_move_with_a_draw_are_no_estimates() -> None:
    """Pyro's joint guides draw one helper vector and read every site from it."""

    def joint(x: Tensor) -> None:
        helper = pyro.sample(
            "helper", dist.Normal(torch.zeros(3), 1.0).to_event(1), infer={"is_auxiliary": True}
        )
        pyro.sample("weights", dist.Delta(helper[:2]).to_event(1))
        pyro.sample("level", dist.Delta(helper[2]))

    parts = AutoGuideList(two)
    parts.append(AutoNormal(poutine.block(two, expose=["level"])))
    parts.append(AutoLogisticNormal(poutine.block(two, expose=["weights"])))
    for guide in (joint, parts):
        preflight(Problem(two, DATA), guide).enforce()
