"""The ladder: where it ends, what it keeps, and what it says of the way; answers against the truth."""

import math

import pyro
import pyro.distributions as dist
import pytest
import torch
from two_modes import SQUARE, normal, tensor, truth

from vitools import Problem, infer, judge, load, save
from vitools.diagnostics import Grade
from vitools.engines.progress import Progress
from vitools.errors import ModelError, NotSupportedError, NumericalError, OptionError
from vitools.inference.climb import Climb, Clock
from vitools.inference.known import Known
from vitools.inference.rungs import RUNGS, Rung
from vitools.posterior import DrawsPosterior, FactorisedPosterior, Ladder, Status

FLIPS = tensor(1.0, 1.0, 1.0, 0.0, 1.0, 0.0)  # with a flat prior Beta(5, 3)


def coin(flips):
    p = pyro.sample("p", dist.Beta(tensor(1.0)[0], 1.0))
    with pyro.plate("flips", len(flips)):
        pyro.sample("heads", dist.Bernoulli(p), obs=flips)


PROBLEM = Problem(coin, FLIPS)


def beta(a, b, status=Status.CONVERGED, engine="by hand"):
    q = torch.distributions.Beta(tensor(a)[0], tensor(b)[0])
    return FactorisedPosterior(PROBLEM, {"p": q}, 0.0, engine=engine, status=status)


def rung(label, fit, left_out=""):
    """One that gives ``fit``, or raises it; it keeps what it was told."""
    seen = {}

    def run(known, *, seed, progress):
        seen.update(start=known.start, seed=seed, best=known.best)
        if isinstance(fit, BaseException):
            raise fit
        return fit(progress) if callable(fit) else fit

    made = Rung(label, run, lambda known: left_out)
    object.__setattr__(made, "seen", seen)
    return made


GOOD, NARROW, FAR = beta(5.0, 3.0), beta(12.0, 7.0), beta(400.0, 20.0)


def climb(*rungs, wanted=Grade.TRUST, seconds=math.inf):
    found = Climb(Known(PROBLEM), Clock(seconds), 3, None)
    return found.answer(found.until(rungs, wanted))


def verdicts(fit):
    return {each.method: each.verdict for each in fit.ladder.attempts}


# ---- where it ends --------------------------------------------------------------------------------


def test_it_ends_at_the_first_fit_that_is_trusted():
    last = rung("last", FAR)
    fit = climb(rung("far", FAR), rung("narrow", NARROW), rung("good", GOOD), last)
    assert verdicts(fit) == {"far": "do not use", "narrow": "use with care", "good": "trust"}
    assert fit.fingerprint == GOOD.fingerprint
    assert last.seen == {}
    assert (fit.ladder.chosen, fit.ladder.stopped) == ("good", "the judge says 'trust'")
    assert fit.detail == "infer kept good (3 tried): the judge says 'trust'"
    assert GOOD.ladder is None
    assert GOOD.detail == ""


def test_care_is_enough_where_that_is_asked_for():
    fit = climb(rung("far", FAR), rung("narrow", NARROW), rung("good", GOOD), wanted=Grade.CARE)
    assert fit.ladder.chosen == "narrow"


def test_at_the_top_it_keeps_the_best_grade_and_then_the_highest_bound():
    narrower = beta(15.0, 9.0)
    fit = climb(rung("narrower", narrower), rung("narrow", NARROW), rung("far", FAR))
    assert verdicts(fit)["narrower"] == verdicts(fit)["narrow"] == "use with care"
    assert (fit.ladder.chosen, fit.ladder.stopped) == ("narrow", "no rung is left")


def test_each_starts_from_the_best_fit_that_was_not_rejected():
    rungs = [rung("far", FAR), rung("narrow", NARROW), rung("other", FAR), rung("good", GOOD)]
    climb(*rungs)
    starts = [each.seen["start"] for each in rungs]
    assert starts == [None, None, NARROW, NARROW]
    assert {each.seen["seed"] for each in rungs} == {3}


def test_what_is_not_for_a_model_is_listed_with_its_reason():
    fit = climb(rung("other", FAR, "no such latents"), rung("good", GOOD))
    assert fit.ladder.left_out == {"other": "no such latents"}
    assert "not for this model: other (no such latents)" in fit.ladder.text


# ---- what goes wrong --------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("error", "words"),
    [
        (NotSupportedError("quadrature is not for 9 latents"), "quadrature is not for 9 latents."),
        (ZeroDivisionError("division by zero"), "ZeroDivisionError: division by zero"),
    ],
)
def test_a_rung_that_fails_is_recorded_and_the_climb_goes_on(error, words):
    fit = climb(rung("broken", error), rung("good", GOOD))
    assert fit.ladder.attempts[0].verdict == "no answer"
    assert fit.ladder.attempts[0].reason == words
    assert fit.ladder.chosen == "good"


def test_a_fit_that_cannot_be_judged_is_recorded_and_not_kept():
    class Ailing(FactorisedPosterior):
        def sample_with_log_prob(self, *_, **__):
            raise ModelError("no draws today")

        sample_with_log_weights = sample_with_log_prob

    ailing = Ailing(
        PROBLEM, {"p": dist.Beta(tensor(5.0)[0], 3.0)}, 0.0, engine="x", status=Status.CONVERGED
    )
    fit = climb(rung("ailing", ailing), rung("narrow", NARROW))
    assert verdicts(fit) == {"ailing": "not judged", "narrow": "use with care"}
    assert fit.ladder.attempts[0].reason == "no draws today."
    assert fit.ladder.chosen == "narrow"


def test_without_any_fit_there_are_the_reasons_of_all():
    refusals = [
        rung("one", NotSupportedError("too large")),
        rung("two", NotSupportedError("not conjugate")),
    ]
    with pytest.raises(
        OptionError,
        match=r"no engine gave a fit of model 'coin': one: too large; two: not conjugate\.",
    ):
        climb(*refusals)
    with pytest.raises(NumericalError, match="nan at step 3"):
        climb(refusals[0], rung("two", NumericalError("nan at step 3")))
    with pytest.raises(ZeroDivisionError):
        climb(refusals[0], rung("two", ZeroDivisionError()))


def test_ctrl_c_gives_the_best_so_far():
    after = rung("after", GOOD)
    fit = climb(rung("far", FAR), rung("narrow", NARROW), rung("long", KeyboardInterrupt()), after)
    assert fit.ladder.chosen == "narrow"
    assert fit.ladder.is_interrupted
    assert fit.ladder.stopped == "interrupted during long"
    assert after.seen == {}
    cut = beta(5.0, 3.0, Status.INTERRUPTED)
    fit = climb(rung("narrow", NARROW), rung("long", cut))
    assert (fit.ladder.chosen, verdicts(fit)["long"]) == ("narrow", "not judged")
    only = climb(rung("long", cut))
    assert (only.status, only.ladder.chosen) == (Status.INTERRUPTED, "long")
    with pytest.raises(KeyboardInterrupt):
        climb(rung("long", KeyboardInterrupt()))


def slow(status=Status.INTERRUPTED):
    """An engine that is told to end at its first report."""

    def run(progress):
        try:
            progress(Progress("slow", 1, 10, 0.0, 1.0))
        except KeyboardInterrupt:
            return beta(5.0, 3.0, status)
        raise AssertionError("time was not over")

    return run


def test_when_time_is_over_the_engine_ends_and_so_does_the_climb():
    after = rung("after", GOOD)
    fit = climb(rung("slow", slow()), after, seconds=1e-9)
    assert fit.ladder.stopped == "the 1e-09 seconds were over during slow"
    assert verdicts(fit) == {"slow": "use with care"}  # it is judged: there is no other
    assert not fit.ladder.is_interrupted
    assert after.seen == {}
    fit = climb(rung("narrow", NARROW), after, seconds=1e-9)
    assert fit.ladder.stopped == "the 1e-09 seconds were over before after"


def test_reports_bear_the_rungs_name():
    heard = []
    listen = Clock(math.inf).listen(heard.append, "CAVI joint")
    listen(Progress("cavi", 1, 10, -3.0, 1.0))
    assert [(report.engine, report.elbo) for report in heard] == [("CAVI joint", -3.0)]


# ---- the record -------------------------------------------------------------------------------------


def test_the_record_is_printed_tabulated_saved_and_loaded(tmp_path):
    fit = climb(rung("broken", NotSupportedError("not today")), rung("good", GOOD))
    assert "tried:" in str(fit)
    assert "  broken (" in fit.ladder.text
    assert ": no answer: not today." in fit.ladder.text
    assert max(map(len, fit.ladder.text.splitlines())) <= 80
    table = fit.ladder.table
    assert table["verdict"].tolist() == ["no answer", "trust"]
    assert math.isnan(table.loc["broken", "bound"])
    log_evidence = math.lgamma(5) + math.lgamma(3) - math.lgamma(8)
    assert table.loc["good", "bound"] == pytest.approx(log_evidence)
    assert table.loc["good", "bound_se"] == 0.0
    save(fit, tmp_path / "fit.safetensors")
    again = load(tmp_path / "fit.safetensors", PROBLEM)
    assert isinstance(again.ladder, Ladder)
    assert again.ladder.text == fit.ladder.text
    assert again.ladder.attempt == fit.ladder.attempt


# ---- the answers ------------------------------------------------------------------------------------


def test_a_coin_is_exact_and_repeats():
    one, again = (infer(PROBLEM, seed=2) for _ in range(2))
    assert one.engine == "exact"
    assert float(one.mean()["p"]) == pytest.approx(5 / 8)
    assert float(one.sd()["p"]) == pytest.approx((5 * 3 / (64 * 9)) ** 0.5)
    assert one.fingerprint == again.fingerprint


def bent():
    """A banana: y = x₁ - x₀² + x₂ + noise, which coordinate ascent has no rule for at x₀."""
    x = pyro.sample("x", dist.Normal(tensor(0.0, 0.0, 0.0), 1.0).to_event(1))
    pyro.sample("y", dist.Normal(x[1] - torch.sinh(x[0]) ** 2 + x[2], 0.3), obs=tensor(0.5)[0])


@pytest.mark.slow
def test_a_banana_ends_with_a_fit_whose_moments_are_right():
    fit = infer(Problem(bent), seed=1)
    assert fit.ladder.attempt.verdict == "trust"
    # x0 by quadrature: x1 + x2 | x0 is N(0, 2), so y | x0 is N(-sinh² x0, 2.09)
    x = torch.linspace(-6, 6, 100_001, dtype=torch.float64)
    weight = (-0.5 * x**2 - 0.5 * (0.5 + torch.sinh(x) ** 2) ** 2 / 2.09).exp()
    weight = weight / weight.sum()
    draws = fit.sample(4000)["x"][:, 0]
    sd = float((weight * x**2).sum().sqrt())
    assert float(draws.mean()) == pytest.approx(0.0, abs=0.25 * sd)
    assert float(draws.std()) == pytest.approx(sd, rel=0.2)


def two_roots():
    """x₀² + x₁² + x₂ = 4: modes at ± in x₀, which one Gaussian cannot hold."""
    x = pyro.sample("x", dist.Normal(tensor(0.2, 0.0, 0.0), tensor(1.0, 0.3, 0.3)).to_event(1))
    pyro.sample("y", dist.Normal(x[0] ** 2 + x[1] + x[2], 0.5), obs=tensor(4.0)[0])


@pytest.mark.slow
def test_of_two_modes_both_are_in_the_answer():
    fit = infer(Problem(two_roots), seed=0)
    assert fit.ladder.attempt.verdict == "trust"
    x = torch.linspace(-6, 6, 100_001, dtype=torch.float64)
    variance = 0.25 + 2 * 0.09
    weight = (-0.5 * (x - 0.2) ** 2 - 0.5 * (4.0 - x**2) ** 2 / variance).exp()
    below = float(weight[x < 0].sum() / weight.sum())
    share = float((fit.sample(4000)["x"][:, 0] < 0).double().mean())
    assert share == pytest.approx(below, abs=0.05)


# ---- the rungs --------------------------------------------------------------------------------------


def wide():
    x = pyro.sample("x", dist.Normal(torch.zeros(60).double(), 1.0).to_event(1))
    pyro.sample("y", dist.Normal(x.sum(), 1.0), obs=tensor(1.0)[0])


def discrete():
    z = pyro.sample("z", dist.Bernoulli(tensor(0.5)[0]))
    pyro.sample("y", dist.Normal(z, 1.0), obs=tensor(1.0)[0])


@pytest.mark.parametrize(
    ("model", "left_out"),
    [
        (wide, {"exact", "CAVI joint", "CAVI nested", "modes", "flow", "mix"}),
        (discrete, {"CAVI joint", "CAVI nested", "SVI", "modes", "flow", "mix", "NUTS"}),
    ],
)
def test_rungs_know_which_models_they_are_for(model, left_out):
    known = Known(Problem(model))
    assert {each.label for each in RUNGS if each.left_out(known)} == left_out


def test_modes_are_looked_for_where_the_judge_rejects_a_fit_for_something_else():
    known = Known(SQUARE)
    (mean, sd), _ = truth(SQUARE).sides
    known.fits["narrow"] = normal(SQUARE, mean, sd / 10)
    known.judgements["narrow"] = found = judge(known.fits["narrow"])
    assert found.verdict.grade is Grade.REJECT
    assert found.scan is None
    modes = next(each for each in RUNGS if each.label == "modes")
    assert not modes.left_out(known)
    assert sorted(float(mode.values["x"]) < 0 for mode in known.modes) == [False, True]


def test_a_sampler_comes_first_among_equals():
    draws = DrawsPosterior(
        PROBLEM,
        {"p": GOOD.sample(800)["p"].reshape(2, 400)},
        divergences=5,
        engine="nuts",
        status=Status.SAMPLED,
    )
    fit = climb(rung("narrow", NARROW), rung("nuts", draws))
    assert verdicts(fit) == {"narrow": "use with care", "nuts": "use with care"}
    assert fit.ladder.chosen == "nuts"


@pytest.mark.parametrize(
    ("options", "words"),
    [
        (
            {"until": "trusted"},
            "until: expected one of 'trust', 'care', got 'trusted'. Did you mean 'trust'?",
        ),
        ({"until": None}, "until: expected one of 'trust', 'care', got None."),
        ({"until": ["trust"]}, "until: expected one of 'trust', 'care', got ['trust']."),
        (
            {"max_seconds": 0},
            "max_seconds: expected a number of seconds above 0, or None for no limit, got 0.",
        ),
        ({"max_seconds": "10"}, "max_seconds: expected a number of seconds above 0"),
        ({"max_seconds": math.nan}, "max_seconds: expected a number of seconds above 0"),
        ({"max_seconds": True}, "max_seconds: expected a number of seconds above 0"),
        ({"seed": -1}, "seed: expected a whole number from 0"),
        (
            {"progress": 3},
            "progress: expected a function of one report, True for a line, or False for none, got 3.",
        ),
    ],
)
def test_wrong_values_are_refused(options, words):
    with pytest.raises(OptionError) as refusal:
        infer(PROBLEM, **options)
    assert words in str(refusal.value)
    assert str(refusal.value)[-1] in ".?"


def test_what_is_no_problem_is_refused():
    with pytest.raises(OptionError, match=r"infer\(\)"):
        infer(coin)
