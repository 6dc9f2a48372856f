"""Fits made by other programs, as posteriors of a problem."""

import numpy as np
import pyro
import pyro.distributions as dist
import pytest
import torch
import xarray
from pyro.infer import SVI, Trace_ELBO
from pyro.infer.autoguide import AutoNormal

from vitools import Posterior, Problem, Status, VitoolsError, judge
from vitools.isolation import seeded
from vitools.models import coin
from vitools.reporting.arviz.groups import import_arviz, save_netcdf

FLIPS = coin.simulate(20)
HEADS = float(FLIPS.sum())
COIN = Problem(coin.model, FLIPS)
A, B = 1 + HEADS, 1 + 20 - HEADS
DRAWS = np.random.default_rng(0).beta(A, B, size=(2, 500))


def pair(y):
    loc = pyro.sample("loc", dist.Normal(torch.zeros(2).double(), 1.0).to_event(1))
    scale = pyro.sample("scale", dist.LogNormal(torch.zeros(()).double(), 0.5))
    pyro.sample("y", dist.Normal(loc.sum(), scale), obs=y)


PAIR = Problem(pair, torch.tensor(1.0).double())


def test_draws_are_judged_as_any_sampler_is():
    fit = Posterior.from_draws(COIN, {"p": DRAWS})
    assert fit.status is Status.SAMPLED
    assert fit.detail.startswith("R-hat 1.00, ESS ")
    assert float(fit.mean()["p"]) == pytest.approx(A / (A + B), abs=4 * 0.1 / 1000**0.5)
    assert judge(fit).verdict.grade.value == "trust"


def test_draws_without_chains_are_one_chain():
    fit = Posterior.from_draws(COIN, {"p": torch.as_tensor(DRAWS[0])})
    assert fit.draws["p"].shape == (1, 500)


def test_arviz_and_its_files_are_read(tmp_path):
    az = import_arviz()
    stats = {"diverging": np.arange(1000).reshape(2, 500) < 3}
    data = az.from_dict(posterior={"p": DRAWS, "logit": np.log(DRAWS)}, sample_stats=stats)
    found = Posterior.from_draws(COIN, data)
    assert found.divergences == 3
    assert "3 divergences" in found.detail
    assert found.detail.endswith("left out: logit")
    save_netcdf(data, tmp_path / "posterior.nc")
    again = Posterior.from_draws(COIN, tmp_path / "posterior.nc")
    assert torch.equal(found.draws["p"], again.draws["p"])
    assert again.divergences == 3
    assert torch.equal(found.draws["p"], Posterior.from_draws(COIN, data.posterior).draws["p"])


def test_a_datatree_is_read():
    held = xarray.Dataset({"p": (("draw", "chain"), DRAWS.T)})
    tree = xarray.DataTree.from_dict({"/posterior": held})
    assert np.allclose(Posterior.from_draws(COIN, tree).draws["p"], DRAWS)


def test_modules_that_never_entered_the_store_are_taken_as_they_are_now():
    """A decoder and an encoder trained by torch alone: vectorised over draws, and copied."""
    with seeded(0):
        decoder, encoder = torch.nn.Linear(1, 2).double(), torch.nn.Linear(2, 1).double()

    def model(y):
        pyro.module("decoder", decoder)
        z = pyro.sample("z", dist.Normal(torch.zeros(1).double(), 1.0).to_event(1))
        pyro.sample("y", dist.Normal(decoder(z), 1.0).to_event(1), obs=y)

    def guide(y):
        pyro.module("encoder", encoder)
        width = pyro.param("width", lambda: torch.rand(1).double() + 0.1)
        pyro.sample("z", dist.Normal(encoder(y), width).to_event(1))

    pyro.clear_param_store()
    y = torch.tensor([0.5, -1.0]).double()
    problem = Problem(model, y)
    with torch.no_grad():
        for module in (decoder, encoder):
            for value in module.parameters():
                value.fill_(0.3)
    fit = Posterior.from_guide(problem, guide)
    assert len(pyro.get_param_store()) == 0
    with torch.no_grad():
        decoder.weight.fill_(9.0)
        encoder.weight.fill_(9.0)

    mean, width = torch.tensor(0.3 * (0.5 - 1.0) + 0.3).double(), fit.params["params"]["width"]
    values = fit.sample(50)
    q = torch.distributions.Normal(mean, width.detach())
    assert torch.allclose(fit.log_prob(values), q.log_prob(values["z"]).sum(-1))
    p = torch.distributions.Normal(0.3 * values["z"] + 0.3, 1.0).log_prob(y).sum(-1)
    p += torch.distributions.Normal(0.0, 1.0).log_prob(values["z"]).sum(-1)
    assert torch.allclose(fit.problem.log_joint(values), p)  # a warning of a loop is an error here


def test_a_trained_guide_keeps_the_parameters_it_has_now():
    pyro.clear_param_store()
    guide = AutoNormal(coin.model)
    svi = SVI(coin.model, guide, pyro.optim.Adam({"lr": 0.05}), Trace_ELBO(num_particles=8))

    def train(steps):
        with seeded(0):
            for _ in range(steps):
                svi.step(FLIPS)

    train(300)
    fit = Posterior.from_guide(COIN, guide, name="Pyro")
    before = fit.sample(2000)["p"]
    sd = (A * B / (A + B + 1)) ** 0.5 / (A + B)
    assert float(before.mean()) == pytest.approx(A / (A + B), abs=0.25 * sd)
    train(20)
    pyro.clear_param_store()
    assert torch.equal(fit.sample(2000)["p"], before)
    assert fit.engine == "Pyro"
    assert judge(fit).bound.value < coin.exact_log_evidence(FLIPS)


def test_a_mean_and_covariance_live_on_the_reals():
    covariance = torch.tensor([[1.0, 0.3, 0.0], [0.3, 1.0, 0.1], [0.0, 0.1, 0.2]]).double()
    fit = Posterior.from_gaussian(PAIR, [0.5, -0.5, 0.1], covariance)
    assert fit.mean()["loc"].tolist() == [0.5, -0.5]
    logs = fit.sample(4000)["scale"].log()
    assert float(logs.mean()) == pytest.approx(0.1, abs=4 * (0.2 / 4000) ** 0.5)
    assert Posterior.from_gaussian(PAIR, np.zeros(3), np.ones(3)).sd()["loc"].tolist() == [1.0, 1.0]


P = torch.as_tensor(DRAWS)
WRONG = [
    (lambda: Posterior.from_draws(COIN, {"q": P}), "draws of p are missing .given: q"),
    (lambda: Posterior.from_draws(COIN, {}), "given: none"),
    (
        lambda: Posterior.from_draws(COIN, {"p": P + 1}),
        "1000 of 1000 values lie outside its support",
    ),
    (lambda: Posterior.from_draws(COIN, {"p": P[..., None]}), "expected shape .chains, draws. or"),
    (lambda: Posterior.from_draws(COIN, {"p": P / 0}), "finite numbers"),
    (lambda: Posterior.from_draws(COIN, {"p": "many"}), "expected numbers"),
    (lambda: Posterior.from_draws(COIN, {"p": P[:, :3]}), "at least 4 draws"),
    (lambda: Posterior.from_draws(COIN, 3), "expected .site: array., an ArviZ"),
    (lambda: Posterior.from_draws(COIN, "no/such.nc"), "no file 'no/such.nc'"),
    (lambda: Posterior.from_draws(coin.model, {"p": P}), "Problem"),
    (
        lambda: Posterior.from_draws(
            PAIR, {"loc": torch.zeros(1, 9, 2), "scale": torch.ones(1, 8)}
        ),
        "loc 1 × 9, scale 1 × 8",
    ),
    (
        lambda: Posterior.from_draws(COIN, xarray.Dataset({"p": (("draw",), DRAWS[0])})),
        "expected dims chain and draw, got draw",
    ),
    (lambda: Posterior.from_guide(COIN, AutoNormal), "got the class AutoNormal"),
    (lambda: Posterior.from_guide(COIN, 3), "expected a trained Pyro guide"),
    (lambda: Posterior.from_gaussian(PAIR, [0.0], [1.0]), r"mean: expected shape \[3\]"),
    (lambda: Posterior.from_gaussian(PAIR, np.zeros(3), np.ones(2)), "covariance: expected shape"),
    (lambda: Posterior.from_gaussian(PAIR, np.zeros(3), -np.ones(3)), "eigenvalue is -1"),
    (lambda: Posterior.from_gaussian(PAIR, np.zeros(3), np.triu(np.ones((3, 3)))), "symmetric"),
    (lambda: Posterior.from_gaussian(PAIR, [0, 0, np.nan], np.ones(3)), "mean: expected finite"),
]


@pytest.mark.parametrize(("call", "words"), WRONG)
@pytest.mark.filterwarnings("ignore:divide by zero")
def test_what_does_not_fit_the_problem_is_named(call, words):
    with pytest.raises(VitoolsError, match=words):
        call()


def test_a_file_that_holds_no_draws_is_refused(tmp_path):
    path = tmp_path / "x.nc"
    path.write_text("text")
    with pytest.raises(VitoolsError, match="cannot read"):
        Posterior.from_draws(COIN, path)
    xarray.Dataset({"x": ("i", [1.0])}).to_netcdf(path, engine="h5netcdf")
    with pytest.raises(VitoolsError, match="has no group 'posterior'"):
        Posterior.from_draws(COIN, path)
