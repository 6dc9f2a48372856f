"""What svi() says and keeps while it runs and when it ends otherwise than it should."""

import math

import pyro
import pyro.distributions as dist
import pytest
import torch
from pyro.infer.autoguide import AutoNormal

from vitools import Problem, Status, cavi, exact, nuts, svi
from vitools.cli.progress import words
from vitools.engines.dadvi import dadvi
from vitools.engines.laplace import laplace
from vitools.engines.progress import Progress
from vitools.engines.svi.stopping import PlateauRule
from vitools.errors import NumericalError, OptionError, VitoolsWarning
from vitools.guides import AutoMeanField

DATA = torch.linspace(0.0, 4.0, 20)


def model():
    mean = pyro.sample("mean", dist.Normal(0.0, 10.0))
    with pyro.plate("rows", 20):
        pyro.sample("y", dist.Normal(mean, 1.0), obs=DATA)


def cliff():
    """Finite only below 2, while the data pull towards 5."""
    x = pyro.sample("x", dist.Normal(0.0, 1.0))
    pyro.factor("pull", -100 * (x - 5.0) ** 2 + torch.where(x < 2.0, 0.0, math.nan))


def narrow(loc=0.0):
    def guide():
        pyro.sample("x", dist.Normal(pyro.param("loc", torch.tensor(loc)), 1e-4))

    return guide


def test_an_interrupted_run_gives_the_average_of_its_tail():
    seen = []

    def callback(done, bound):
        seen.append((done, bound))
        if done == 300:
            raise KeyboardInterrupt

    fit = svi(Problem(model), AutoNormal, callback=callback, seed=0)
    assert fit.status is Status.INTERRUPTED
    assert "the average of the last 172" in fit.detail  # since step 128, the mark before 256
    assert seen[-1] == (300, fit.history.elbo[-1])
    assert [step for step, _ in seen] == list(range(4, 301, 4))
    last = svi(Problem(model), AutoNormal, max_steps=4, seed=0)
    assert "the average of the last 4" in last.detail


def test_the_average_is_that_of_the_iterates():
    class Still(torch.optim.Optimizer):
        """Adds one to each parameter."""

        def __init__(self, parameters):
            super().__init__(parameters, {"lr": 1.0})

        @torch.no_grad()
        def step(self):
            for group in self.param_groups:
                for parameter in group["params"]:
                    parameter += 1.0

    def guide():
        loc = pyro.param("loc", torch.tensor(0.0))
        pyro.sample("mean", dist.Normal(loc, 1.0))

    fit = svi(Problem(model), guide, optimizer=Still, max_steps=100)
    # iterates 1 to 100; the tail begins after the marks at 4, 8, …: 32 of 100
    assert "the average of the last 68" in fit.detail
    assert float(fit.params["params"]["loc"].detach()) == pytest.approx((33 + 100) / 2)


def test_a_diverged_run_keeps_its_history_and_last_good_state():
    with pytest.raises(NumericalError, match=r"step \d+: .*'pull' in the model became nan") as info:
        svi(Problem(cliff), narrow(), seed=0)
    kept = info.value.posterior
    assert kept.status is Status.DIVERGED
    assert len(kept.history) > 0
    assert all(map(math.isfinite, kept.history.elbo))
    assert 1.0 < float(kept.params["params"]["loc"].detach()) < 2.0


def test_steps_are_taken_back_only_when_asked_and_with_a_warning():
    with (
        pytest.warns(VitoolsWarning, match=r"Stepped back to step \d+ with a fifth") as caught,
        pytest.raises(NumericalError),
    ):
        svi(Problem(cliff), narrow(), seed=0, step_backs=2)
    assert len(caught) == 2


def test_a_clipped_gradient_is_no_longer_than_its_limit():
    moves = {}
    for limit in (None, 0.25):
        fit = svi(
            Problem(model),
            AutoNormal,
            max_steps=1,
            clip_norm=limit,
            optimizer=lambda p: torch.optim.SGD(p, lr=1.0),
        )
        start = svi(
            Problem(model), AutoNormal, max_steps=1, optimizer=lambda p: torch.optim.SGD(p, lr=0.0)
        )
        moves[limit] = math.sqrt(
            sum(
                float((a.detach() - b.detach()).square().sum())
                for a, b in zip(
                    fit.params["params"].values(), start.params["params"].values(), strict=True
                )
            )
        )
    assert moves[None] > 1
    assert moves[0.25] == pytest.approx(0.25)


def test_the_guide_names_its_step_size_and_an_argument_overrules_it():
    class Careful(AutoNormal):
        learning_rate = 1e-6

    def moved(**options):
        fit = svi(Problem(model), Careful, max_steps=8, **options)
        start = svi(Problem(model), Careful, max_steps=1, learning_rate=1e-12)
        return float((fit.mean()["mean"] - start.mean()["mean"]).abs())

    assert moved() < 1e-4
    assert moved(learning_rate=0.1) > 0.01


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"clip_norm": 0.0}, "clip_norm: expected a length above 0"),
        ({"learning_rate": -1.0}, "learning_rate: expected a number above 0"),
        (
            {"learning_rate": 0.1, "optimizer": torch.optim.SGD},
            "no optimizer but Adam.…. beside it, got 0.1 and an optimizer",
        ),
        ({"step_backs": 1, "optimizer": torch.optim.SGD}, "needs Adam, the default optimiser"),
    ],
)
def test_options_that_make_no_sense_are_refused(options, words):
    with pytest.raises(OptionError, match=words):
        svi(Problem(model), AutoNormal, **options)


# ---- the progress line ---------------------------------------------------------------------


@pytest.mark.parametrize("start", [None, "guide"])
def test_a_scale_whose_prior_allows_negative_values_is_named(start):
    def negative():
        scale = pyro.sample("scale", dist.Normal(0.0, 1.0))
        with pyro.plate("rows", 20):
            pyro.sample("y", dist.Normal(0.0, scale), obs=DATA)

    words = r"'y' in the model became nan \(loc 0, scale -.* below 0: its prior needs a support"
    with pytest.raises(NumericalError, match=words):
        svi(Problem(negative), AutoMeanField, start=start, max_steps=300)


@pytest.mark.parametrize("compile", [False, True])
def test_a_gradient_that_is_lost_where_the_density_is_not_is_named(compile):
    def root():
        x = pyro.sample("x", dist.Normal(0.0, 1.0))
        with pyro.plate("rows", 20):
            pyro.sample("y", dist.Normal((x - x).abs().sqrt() + x, 1.0), obs=DATA)

    words = (
        r"step 1: parameter 'AutoMeanField\.sites\.x_loc' became nan: the gradient of site 'y' in "
    )
    with pytest.raises(
        NumericalError, match=words + "the model is nan, though its log dens"
    ) as info:
        svi(Problem(root), AutoMeanField, start="guide", max_steps=100, compile=compile)
    assert "last good state (step 0)" in str(info.value)
    assert all(bool(v.isfinite().all()) for v in info.value.posterior.params["params"].values())


@pytest.mark.parametrize("guide", ["AutoMultivariate", 3, {}])
def test_what_is_no_guide_is_refused(guide):
    with pytest.raises(OptionError, match="guide: expected a Pyro guide or a class of them"):
        svi(Problem(model), guide)


@pytest.mark.parametrize(
    "engine", [cavi, dadvi, exact, laplace, nuts, lambda m: svi(m, AutoMeanField)]
)
def test_a_model_without_its_data_is_refused(engine):
    with pytest.raises(OptionError, match=r"\(\) expects a Problem, got model\. Bind the model"):
        engine(model)


def test_progress_tells_bound_error_pace_and_how_long():
    before = Progress("svi", 9300, 20_000, -8125.0, 3.0)
    now = Progress("svi", 12_400, 20_000, -8123.41, 4.0, 1.2, 27_900 // 10, "compiled")
    assert words("SVI", now, before).replace("\N{NO-BREAK SPACE}", " ") == (
        "SVI  step 12 400  bound -8123.4 ± 1.2  3 100 steps/s (compiled)  stops in about 1 s"
    )
    climbing = Progress("svi", 100, 20_000, -8123.41, 1.0, 1.2, None, "recorded")
    assert "at most 3 min more" in words("SVI", climbing)
    silent = Progress("nuts", 10, 100, math.nan, 1.0)
    assert "bound" not in words("NUTS", silent)


def test_a_run_reports_mean_error_and_expected_end():
    reports = []
    svi(Problem(model), AutoNormal, seed=0, progress=reports.append)
    last = reports[-1]
    assert last.note in ("recorded", "compiled")
    assert last.standard_error > 0
    assert abs(last.elbo) < 1e4


def test_the_rule_expects_an_end_only_where_the_bound_has_stopped_climbing():
    rule = PlateauRule(lambda: None, lambda: torch.zeros(1))
    generator = torch.Generator().manual_seed(0)
    noise = torch.randn(300, generator=generator).tolist()
    for step, value in enumerate(noise[:200]):
        rule(step, 0.5 * step + value)
    assert rule.expect()[2] is None
    rule.begin_stage_again()
    for step, value in enumerate(noise):
        rule(step, value)
    bound, error, left = rule.expect()
    assert abs(bound) < 5 * error
    assert left == 100 + 1000  # the first look of this stage, then that of the last


def test_a_restored_rule_goes_on_as_before():
    noise = (torch.randn(3000, generator=torch.Generator().manual_seed(1)) - 5.0).tolist()

    def ends(cut):
        current = {}
        rule = PlateauRule(lambda: None, lambda: torch.tensor([current["value"]]))
        for step, value in enumerate(noise, 1):
            current["value"] = value
            if rule(step, value) is not None:
                return step
            if step == cut:
                tensors, numbers = rule.seen.parts()
                rule = PlateauRule(lambda: None, lambda: torch.tensor([current["value"]]))
                rule.restore(tensors, numbers, noise[:step])
        return None

    whole = ends(None)
    assert whole is not None
    assert [ends(cut) for cut in (8, 500, whole - 4)] == [whole] * 3
