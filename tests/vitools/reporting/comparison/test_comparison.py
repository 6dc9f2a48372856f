"""The comparison's figures against figures worked out by hand, and its refusals."""

import json
import math
import re

import pandas
import pyro
import pyro.distributions as dist
import pytest
import torch
from torch.distributions import Beta, Normal, kl_divergence

from vitools import Problem, compare
from vitools.diagnostics import Grade, judge
from vitools.diagnostics.verdict.judgement import draw_seed
from vitools.engines import exact
from vitools.errors import FileError, NumericalError, OptionError
from vitools.models import coin
from vitools.posterior import DrawsPosterior, Estimate, FactorisedPosterior, Status
from vitools.reporting.terminal import columns, estimate_words, layout

FLIPS = coin.simulate(20)
HEADS = float(FLIPS.sum())
COIN = Problem(coin.model, FLIPS)
TRUTH = Beta(torch.tensor(1 + HEADS).double(), torch.tensor(21 - HEADS).double())


def beta_fit(a, b, problem=COIN, **options) -> FactorisedPosterior:
    q = Beta(torch.tensor(a).double(), torch.tensor(b).double())
    common = {"engine": "test", "status": Status.CONVERGED} | options
    return FactorisedPosterior(problem, {"p": q}, 0.0, **common)


def draws_fit(seed=0, status=Status.SAMPLED) -> DrawsPosterior:
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        draws = {"p": TRUTH.sample((4, 500))}
    return DrawsPosterior(
        COIN, draws, engine="nuts", status=status, detail="R-hat 1.00, ESS 2000", seconds=21.54
    )


@pytest.fixture(scope="module")
def comparison():
    with torch.random.fork_rng(devices=[]):
        fits = {
            "exact": exact(COIN),
            "posterior": beta_fit(1 + HEADS, 21 - HEADS, seconds=0.081),
            "broad": beta_fit((1 + HEADS) / 2, (21 - HEADS) / 2),
            "elsewhere": beta_fit(5.0, 5.0),
            "chains": draws_fit(),
        }
        return compare(fits, num_samples=800, seed=3)


def test_exact_fit_is_the_reference(comparison):
    assert comparison.reference == "exact"
    assert comparison.table.loc["exact", "verdict"] == "reference"
    assert math.isnan(comparison.table.loc["exact", "mean_error"])
    evidence = coin.exact_log_evidence(FLIPS)
    assert comparison.log_evidence.value == pytest.approx(evidence, abs=1e-7)


def test_figures_of_the_posterior_itself_are_the_best_there_are(comparison):
    row = comparison.table.loc["posterior"]
    assert row["bound"] == pytest.approx(coin.exact_log_evidence(FLIPS), abs=1e-10)
    assert row["bound_se"] == row["khat"] == row["khat_se"] == 0.0
    assert row["mean_error"] == pytest.approx(0.0, abs=1e-8)
    assert row["sd_ratio"] == pytest.approx(1.0, abs=1e-8)
    assert row["verdict"] == "trust"
    assert row["seconds"] == 0.081


def test_figures_of_a_wrong_fit_by_hand(comparison):
    row, fit = comparison.table.loc["elsewhere"], comparison.fits["elsewhere"]
    values, log_q = fit.sample_with_log_prob(800, draw_seed(3, fit))
    log_weights = COIN.log_joint(values) - log_q
    assert row["bound"] == pytest.approx(float(log_weights.mean()))
    assert row["bound_se"] == pytest.approx(float(log_weights.std()) / math.sqrt(800))
    kl = float(kl_divergence(Beta(torch.tensor(5.0).double(), 5.0), TRUTH))
    assert abs(row["gap"] - kl) < 4 * row["bound_se"]
    sd = float(TRUTH.stddev)
    assert row["mean_error"] == pytest.approx(abs(0.5 - float(TRUTH.mean)) / sd, abs=1e-7)
    assert row["sd_ratio"] == pytest.approx(math.sqrt(1 / 44) / sd, abs=1e-7)
    assert row["mean_error_at"] == row["sd_ratio_at"] == "p"
    assert row["verdict"] == "do not use"
    assert "sd from the reference" in row["reason"]


def test_a_fit_is_measured_alike_alone_in_company_and_under_any_name(comparison):
    """Whatever else is compared, and in whatever order."""
    fit = comparison.fits["elsewhere"]
    alone = judge(fit, num_samples=800, seed=3)
    others = {f"a {name}": other for name, other in comparison.fits.items() if other is not fit}
    turned = compare({"z": fit, **dict(reversed(others.items()))}, num_samples=800, seed=3)
    two = compare({"one": fit, "other": fit}, num_samples=800, seed=3)
    found = [comparison.judgements["elsewhere"], turned.judgements["z"], *two.judgements.values()]
    for other in found:
        assert (other.bound, other.khat) == (alone.bound, alone.khat)
        assert other.khat_limit == alone.khat_limit
        assert torch.equal(other.draws["p"], alone.draws["p"])
    assert {other.verdict.grade for other in found[:2]} == {Grade.REJECT}
    assert {other.verdict for other in found[2:]} == {alone.verdict}


def test_the_cost_of_judging_is_told(comparison):
    assert all(found.seconds > 0 for found in comparison.judgements.values())
    assert "judging took" in str(comparison)


def test_chains_have_moments_but_no_bound(comparison):
    row = comparison.table.loc["chains"]
    assert math.isnan(row["bound"])
    assert math.isnan(row["khat"])
    assert row["mean_error"] < 4 * row["mean_error_se"]
    assert row["mean_error_se"] == pytest.approx(1 / math.sqrt(2000), rel=0.3)
    assert row["detail"] == "R-hat 1.00, ESS 2000"
    assert row["verdict"] == "trust"


def test_printed_table(comparison):
    text = str(comparison)
    lines = text.splitlines()
    assert max(map(columns, lines)) <= 80
    assert lines[0].split() == ["fit", "bound", "k̂", "up", "to", "seconds", "verdict"]
    evidence = f"{coin.exact_log_evidence(FLIPS):.2f}"
    assert lines[2].split()[:5] == ["posterior", evidence, "exact", "0.00", "exact"]
    assert lines[5].split() == ["chains", "21.5", "trust"]
    assert lines[7].split() == ["against", "exact", "mean", "error", "at", "sd", "ratio", "at"]
    assert lines[8].split() == ["posterior", "0.00", "exact", "p", "1.00", "exact", "p"]
    assert "bound: E[log p(heads, p) - log q(p)], 800 draws of each fit; k̂" in text
    assert "of up to 64 times as many" in " ".join(text.split())
    assert lines[2].split()[5] == "0.66"  # of an exact fit no more draws are looked at
    assert "log evidence: " in text
    assert "KL(q ‖ posterior): posterior 0.00" in " ".join(text.split())
    assert re.search(
        r"elsewhere: do not use: at \d+ draws, the mean of p is", " ".join(text.split())
    )


def test_best_is_the_best_verdict_and_not_the_reference(comparison):
    assert comparison.best == "posterior"


def test_a_row_does_not_depend_on_the_other_rows(comparison):
    fits = {name: comparison.fits[name] for name in ("elsewhere", "exact")}
    fewer = compare(fits, num_samples=800, seed=3).table
    pandas.testing.assert_series_equal(fewer.loc["elsewhere"], comparison.table.loc["elsewhere"])


def test_equal_seeds_give_equal_tables(comparison):
    again = compare(comparison.fits, num_samples=800, seed=3).table
    pandas.testing.assert_frame_equal(again, comparison.table)
    other = compare(comparison.fits, num_samples=800, seed=4).table
    assert other.loc["broad", "bound"] != again.loc["broad", "bound"]


def test_csv_is_whole_or_absent(comparison, tmp_path, monkeypatch):
    path = tmp_path / "new" / "comparison.csv"
    comparison.to_csv(path)
    read = pandas.read_csv(path, index_col="fit")
    assert read["bound"].to_list()[1:4] == pytest.approx(comparison.table["bound"].to_list()[1:4])
    before = path.read_bytes()

    def fail(self, target):
        target.write_text("half")
        raise OSError("disk full")

    monkeypatch.setattr(pandas.DataFrame, "to_csv", fail)
    with pytest.raises(FileError, match="disk full"):
        comparison.to_csv(path)
    assert path.read_bytes() == before
    assert [p.name for p in path.parent.iterdir()] == ["comparison.csv"]


def test_well_mixed_chains_serve_as_reference_where_nothing_is_exact():
    with torch.random.fork_rng(devices=[]):
        fits = {"q": beta_fit(5.0, 5.0), "stuck": draws_fit(1, Status.NOT_MIXED)}
        alone = compare(fits)
        fits["chains"] = draws_fit()
    assert alone.reference is None
    assert alone.table["mean_error"].isna().all()
    assert "no reference" in str(alone)
    assert "mean error" not in str(alone).splitlines()[0]
    assert alone.table.loc["stuck", "verdict"] == "do not use"
    assert compare(fits).reference == "chains"
    stuck = compare(fits, reference="stuck")
    assert stuck.table.loc["stuck", "verdict"] == "do not use"


def test_bad_status_is_flagged_whatever_the_figures():
    fits = {
        "diverged": beta_fit(1 + HEADS, 21 - HEADS, status=Status.DIVERGED),
        "early": beta_fit(1 + HEADS, 21 - HEADS, status=Status.STOPPED_AT_LIMIT),
    }
    comparison = compare(fits)
    assert comparison.table["verdict"].to_list() == ["do not use", "use with care"]
    assert comparison.best == "early"


def test_draws_of_undefined_density_are_reported_not_raised():
    broken = beta_fit(2.0, 2.0)
    log_prob = broken.log_prob
    broken.log_prob = lambda values: log_prob(values).index_fill(0, torch.tensor([7]), math.nan)
    table = compare({"broken": broken}).table
    assert math.isnan(table.loc["broken", "bound"])
    assert table.loc["broken", "verdict"] == "do not use"
    assert "undefined density" in table.loc["broken", "reason"]


def test_invariants_are_judged_where_the_model_carries_some():
    def model(x):
        mu = pyro.sample("mu", dist.Normal(torch.zeros(2), 1.0).to_event(1))
        pyro.sample("x", dist.Normal(mu.abs().sum(), 1.0), obs=x)

    model.invariants = lambda values: {"size": values["mu"].abs()}
    problem = Problem(model, torch.tensor(1.0))
    locs = torch.tensor([1.0, 2.0])
    q = torch.distributions.Independent(Normal(locs, 0.5), 1)
    mirrored = torch.distributions.Independent(Normal(-locs, 0.5), 1)
    fits = {
        name: FactorisedPosterior(problem, {"mu": d}, 0.0, engine="test", status=Status.CONVERGED)
        for name, d in {"q": q, "mirrored": mirrored}.items()
    }  # the two draw in opposite directions from equal seeds
    comparison = compare(fits, reference="q", num_samples=4000)
    row = comparison.table.loc["mirrored"]
    assert row["mean_error_at"].startswith("size[")
    assert row["mean_error"] < 4 * row["mean_error_se"]
    assert "invariants" in str(comparison)


def test_refusals():
    fit = beta_fit(3.0, 2.0)
    other_data = beta_fit(3.0, 2.0, Problem(coin.model, 1 - FLIPS))
    other_prior = beta_fit(3.0, 2.0, Problem(coin.model, FLIPS, 5.0))
    with pytest.raises(OptionError, match="at least one fit"):
        compare({})
    with pytest.raises(OptionError, match=r"fit 'q': expected a Posterior .* got dict"):
        compare({"q": {}})
    with pytest.raises(OptionError, match="'a' and 'b' are fits of different problems"):
        compare({"a": fit, "b": other_data})
    with pytest.raises(OptionError, match="'a' and 'b'"):
        compare({"a": fit, "b": other_prior})
    with pytest.raises(OptionError, match=r"reference 'nut' is not among.*Did you mean 'nuts'"):
        compare({"nuts": fit}, reference="nut")
    with pytest.raises(OptionError, match="num_samples of at least 100, got 10"):
        compare({"a": fit}, num_samples=10)


def test_models_that_differ_only_in_what_their_code_says_are_told_apart():
    def model(x, prior_sd):
        mu = pyro.sample("mu", dist.Normal(0.0, prior_sd()))
        pyro.sample("x", dist.Normal(mu, 1.0), obs=x)

    def fit(sd):
        problem = Problem(model, torch.tensor(1.0), lambda: torch.tensor(sd))
        q = Normal(torch.tensor(0.5), 0.7)
        return FactorisedPosterior(problem, {"mu": q}, 0.0, engine="test", status=Status.CONVERGED)

    compare({"a": fit(1.0), "b": fit(1.0)})
    with pytest.raises(OptionError, match="different densities"):
        compare({"a": fit(1.0), "b": fit(2.0)})


def test_numbers_in_words():
    assert estimate_words(None) == ("", "")
    assert estimate_words(Estimate(-3456.4, 12.6)) == ("-3456", "± 13")
    assert estimate_words(Estimate(1.234, 0.0001)) == ("1.23", "± 0.01")
    assert estimate_words(Estimate(1.0, math.inf)) == ("1.00", "± ?")


def test_long_names_give_way():
    rows = [["fit", "bound", "verdict"], ["x" * 120, ("-1.00", "± 0.01"), "trust"]]
    lines = layout(rows)
    assert all(columns(line) <= 80 for line in lines)
    assert "…" in lines[1]


@pytest.mark.uses_global_generator
def test_many_fits_of_long_names_stay_within_80_columns_and_apart():
    names = [f"SVI of a guide with a very long name, learning rate {i}" for i in range(30)]
    fits = {name: beta_fit(5.0 + i, 5.0) for i, name in enumerate(names)} | {"chains": draws_fit()}
    lines = str(compare(fits)).splitlines()
    assert max(map(columns, lines)) <= 80
    rows = lines[1 : lines.index("")]
    assert len(rows) == len({row[:40] for row in rows}) == 31


# ---- what cannot be judged -----------------------------------------------------------------


class Ailing(FactorisedPosterior):
    """A fit that cannot be drawn from."""

    ailment: BaseException = NumericalError("no draws today.")

    def sample_with_log_prob(self, *_, **__):
        raise self.ailment

    sample_with_log_weights = sample_with_log_prob


def ailing_fit(ailment=Ailing.ailment):
    fit = Ailing(COIN, {"p": TRUTH}, 0.0, engine="test", status=Status.CONVERGED)
    fit.ailment = ailment
    return fit


def test_a_fit_that_cannot_be_judged_has_a_row_that_says_so(tmp_path):
    sound = {"good": beta_fit(1 + HEADS, 21 - HEADS), "chains": draws_fit()}
    comparison = compare({"ailing": ailing_fit(), **sound})
    assert list(comparison.fits) == list(sound)
    assert comparison.unjudged["ailing"].reason == "no draws today."
    row = comparison.table.loc["ailing"]
    assert (row["verdict"], row["reason"]) == ("not judged", "no draws today.")
    assert math.isnan(row["bound"])
    alone = compare(sound)
    pandas.testing.assert_frame_equal(comparison.table.drop("ailing"), alone.table)
    assert "ailing: not judged: no draws today." in str(comparison)
    comparison.to_json(tmp_path / "comparison.json")
    record = json.loads((tmp_path / "comparison.json").read_text())
    assert record["unjudged"]["ailing"]["reason"] == "no draws today."


def test_an_ailing_reference_gives_way_to_the_next():
    first = exact(COIN)
    first.sample_with_log_weights = ailing_fit().sample_with_log_weights
    comparison = compare({"exact": first, "chains": draws_fit(), "good": beta_fit(8.0, 14.0)})
    assert list(comparison.unjudged) == ["exact"]
    assert comparison.reference == "chains"


def test_where_none_can_be_judged_the_first_error_is_raised():
    with pytest.raises(NumericalError, match="no draws today"):
        compare({"ailing": ailing_fit(), "other": ailing_fit(ValueError("other"))})


def test_ctrl_c_hands_over_what_is_judged():
    fits = {
        "chains": draws_fit(),
        "good": beta_fit(1 + HEADS, 21 - HEADS),
        "slow": ailing_fit(KeyboardInterrupt()),
        "last": beta_fit(5.0, 5.0),
    }
    with pytest.raises(KeyboardInterrupt) as info:
        compare(fits)
    found = info.value.comparison
    assert list(found.fits) == ["chains", "good"]
    assert {name: other.reason for name, other in found.unjudged.items()} == dict.fromkeys(
        ("slow", "last"), "interrupted before it was judged"
    )
    del fits["slow"], fits["last"]
    pandas.testing.assert_frame_equal(found.table.loc[list(fits)], compare(fits).table)
    with pytest.raises(KeyboardInterrupt) as info:
        compare({"slow": ailing_fit(KeyboardInterrupt())})
    assert info.value.comparison is None


def test_at_ctrl_c_a_fit_awaiting_its_second_look_has_no_verdict():
    """A bound so far below the best that a mode may be missed is looked at again."""
    broad = beta_fit((1 + HEADS) / 2, (21 - HEADS) / 2)
    draws = [broad.sample_with_log_weights, ailing_fit(KeyboardInterrupt()).sample_with_log_weights]
    broad.sample_with_log_weights = lambda *args: draws.pop(0)(*args)
    with pytest.raises(KeyboardInterrupt) as info:
        compare({"good": beta_fit(1 + HEADS, 21 - HEADS), "broad": broad})
    assert draws == []
    assert list(info.value.comparison.fits) == ["good"]
    assert list(info.value.comparison.unjudged) == ["broad"]
