"""The commands: what they print, what they write, how they end."""

import dataclasses
import math
import os
import re
import subprocess
import sys
from contextlib import contextmanager
from importlib.metadata import version
from pathlib import Path

import arviz
import pandas
import pytest
import torch
import typer
from matplotlib.figure import Figure
from scipy import stats
from typer.testing import CliRunner

import vitools.cli
from vitools import Problem, Status, load, svi
from vitools.cli.app import app
from vitools.cli.methods import METHODS, find_method
from vitools.errors import NumericalError
from vitools.guides import AutoKumaraswamy
from vitools.models import SHIPPED, coin
from vitools.posterior import FactorisedPosterior

FLIPS = coin.simulate(20, seed=0)
TRUTH = stats.beta(1 + FLIPS.sum().item(), 1 + 20 - FLIPS.sum().item())
REPORT = {
    "index.html",
    "comparison.csv",
    "comparison.json",
    "posterior.nc",
    "bound.png",
    "marginals.png",
    "moments.png",
    "graph.png",
}
PNG = b"\x89PNG"


@pytest.fixture
def replace_fit(monkeypatch):
    """``replace_fit("normal", function)`` puts another engine behind a method's name."""

    def replace(name, fit):
        monkeypatch.setitem(METHODS, name, dataclasses.replace(METHODS[name], fit=fit))

    return replace


def five_steps(target, *, seed, **_):
    return svi(target.problem, AutoKumaraswamy, max_steps=5, seed=seed)


def far_off(target, *, seed, **_):
    q = torch.distributions.Beta(torch.tensor(2.0), torch.tensor(200.0))
    return FactorisedPosterior(
        target.problem, {"p": q}, -99.0, engine="guess", status=Status.CONVERGED
    )


def lose(*_, **__):
    raise NumericalError("no mode of finite density.")


def stumble(*_, **__):
    raise ZeroDivisionError("by hand")


def press_ctrl_c(*_, **__):
    raise KeyboardInterrupt


def printed_moments(output, entry):
    """Mean and sd of an entry, from the lines of a printed fit."""
    (line,) = re.findall(rf"^{re.escape(entry)} +(\S+) +(\S+)$", output, re.MULTILINE)
    return tuple(map(float, line))


# ---- starting up -----------------------------------------------------------------------


@pytest.mark.parametrize("command", ["--help", "compare --help", "list", "methods"])
def test_help_imports_nothing_heavy(command):
    program = (
        "import sys, vitools.cli\n"
        f"sys.argv = ['vitools', *{command.split()!r}]\n"
        "try:\n"
        "    vitools.cli.main()\n"
        "finally:\n"
        "    heavy = {'torch', 'pyro', 'numpy', 'scipy', 'pandas', 'arviz', 'matplotlib'}\n"
        "    print('loaded:', *sorted(heavy & set(sys.modules)))\n"
    )
    run = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, encoding="utf-8"
    )
    assert run.returncode == 0, run.stderr
    assert len(run.stdout) > 200
    assert run.stdout.rstrip().endswith("loaded:")


@pytest.mark.parametrize(
    "command", ["", *(c.name for c in typer.main.get_command(app).commands.values())]
)
def test_every_help_has_worked_examples(vitools, command):
    """Each example is a command the parser knows, with options that command has."""
    result = vitools(*command.split(), "--help")
    assert result.exit_code == 0
    _, _, text = result.stdout.partition("Examples:")
    examples = [line.split() for line in text.splitlines() if line.strip().startswith("vitools ")]
    assert examples
    group = typer.main.get_command(app)
    for _, name, *words in examples:
        known = group if name.startswith("-") else group.commands[name]
        options = {o for parameter in known.params for o in parameter.opts}
        given = {word for word in [name, *words] if word.startswith("-")}
        assert given <= options


@pytest.mark.parametrize(
    ("typed", "offered"),
    [
        ("compare two", ["two-dice"]),
        ("fit coin --method nu", ["nuts"]),
        ("compare coin --methods cavi,nu", ["cavi,nuts"]),
    ],
)
def test_the_shell_completes_models_and_methods(vitools, monkeypatch, typed, offered):
    # what the line that --install-completion adds to ~/.bashrc asks
    monkeypatch.setenv("_VITOOLS_COMPLETE", "complete_bash")
    monkeypatch.setenv("COMP_WORDS", f"vitools {typed}")
    monkeypatch.setenv("COMP_CWORD", str(len(typed.split())))
    result = CliRunner().invoke(app, [], prog_name="vitools")
    assert result.stdout.split() == offered


@pytest.mark.parametrize(
    ("arguments", "code"),
    [("list", 0), ("draw coin --out coin.txt", 2), ("fit", 2), ("nonsense", 2)],
)
def test_main_ends_with_the_exit_code(folder, monkeypatch, capsys, arguments, code):
    monkeypatch.setattr(sys, "argv", ["vitools", *arguments.split()])
    with pytest.raises(SystemExit) as end:
        vitools.cli.main()
    assert end.value.code == code
    assert bool(capsys.readouterr().err) == bool(code)


def test_list_names_every_shipped_model(vitools):
    result = vitools("list")
    assert result.exit_code == 0
    assert [line.split()[0] for line in result.stdout.splitlines()] == list(SHIPPED)


def test_methods_names_every_method(vitools):
    result = vitools("methods")
    assert result.exit_code == 0
    assert [line.split()[0] for line in result.stdout.splitlines()] == list(METHODS)


def test_version(vitools):
    assert vitools("--version").stdout == f"vitools {version('vitools')}\n"


# ---- draw ------------------------------------------------------------------------------


@pytest.mark.parametrize(("suffix", "start"), [("svg", b"<?xml"), ("png", PNG), ("pdf", b"%PDF")])
def test_draw_writes_the_format_of_the_suffix(vitools, folder, suffix, start):
    result = vitools("draw", "coin", "--out", f"coin.{suffix}")
    assert result.exit_code == 0, result.output
    assert result.stdout == f"written: coin.{suffix}\n"
    assert (folder / f"coin.{suffix}").read_bytes().startswith(start)
    assert os.listdir(folder) == [f"coin.{suffix}"]


def test_draw_refuses_another_suffix(refused, folder):
    message = refused("draw", "coin", "--out", "coin.txt")
    assert "'coin.txt' ends in '.txt'; expected .svg, .png or .pdf" in message
    assert os.listdir(folder) == []


# ---- explain ---------------------------------------------------------------------------


def test_explain_states_the_update_of_the_coin(vitools):
    result = vitools("explain", "coin")
    assert result.exit_code == 0, result.output
    (row,) = [line for line in result.stdout.splitlines() if line.startswith("p ")]
    assert "Beta" in row


# ---- fit -------------------------------------------------------------------------------


def test_fit_prints_the_exact_posterior_of_the_coin(vitools):
    result = vitools("fit", "coin", "--method", "exact")
    assert result.exit_code == 0, result.output
    assert result.stderr == ""
    mean, sd = printed_moments(result.stdout, "p")
    assert mean == pytest.approx(TRUTH.mean(), rel=1e-3)  # four digits are printed
    assert sd == pytest.approx(TRUTH.std(), rel=0.05)  # two
    (bound,) = re.findall(r"bound: +(\S+)", result.stdout)
    assert float(bound) == pytest.approx(coin.exact_log_evidence(FLIPS), abs=0.005)


def test_fit_out_can_be_loaded_by_vitools_and_by_arviz(vitools, folder):
    result = vitools("fit", "coin", "--method", "exact", "--out", "new/fits")
    assert result.exit_code == 0, result.output
    assert sorted(os.listdir("new/fits")) == ["fit.safetensors", "posterior.nc"]
    path = Path("new/fits")
    assert f"written to {path}: fit.safetensors · posterior.nc\n" in result.stdout
    loaded = load(path / "fit.safetensors", Problem(coin.model, FLIPS))
    assert loaded.mean()["p"].item() == pytest.approx(TRUTH.mean(), rel=1e-6)
    stored = arviz.from_netcdf(path / "posterior.nc")
    draws = stored.posterior["p"].values.ravel()
    assert abs(draws.mean() - TRUTH.mean()) < 4 * TRUTH.std() / math.sqrt(draws.size)
    assert stored.observed_data["heads"].values.tolist() == FLIPS.tolist()


def test_fit_ends_with_a_verdict(vitools):
    result = vitools("fit", "coin", "--method", "exact")
    assert result.stdout.splitlines()[-1].startswith("verdict: trust: ")


def test_fit_of_a_wrong_answer_says_so_and_ends_with_1(vitools, replace_fit):
    replace_fit("kumaraswamy", far_off)
    result = vitools("fit", "coin", "--method", "kumaraswamy")
    assert result.exit_code == 1
    assert "verdict: do not use: " in result.stdout
    assert " Next: " in " ".join(result.stdout.split())


def test_draws_asked_for_are_stored(vitools):
    vitools("fit", "coin", "--method", "exact", "--out", "fits", "--draws", "30")
    assert arviz.from_netcdf("fits/posterior.nc").posterior["p"].shape == (1, 30)


def test_the_seed_decides_the_simulated_data(vitools):
    outputs = [
        vitools("fit", "coin", "--method", "exact", "--seed", seed).stdout for seed in (1, 1, 2)
    ]
    moments = [printed_moments(output, "p") for output in outputs]
    assert moments[0] == moments[1] != moments[2]


def test_a_fit_that_did_not_converge_is_written_and_ends_with_1(vitools, folder, replace_fit):
    replace_fit("kumaraswamy", five_steps)
    result = vitools("fit", "coin", "--method", "kumaraswamy", "--out", "fits")
    assert result.exit_code == 1
    assert "status: stopped at limit (5 steps" in result.stdout
    loaded = load("fits/fit.safetensors", Problem(coin.model, FLIPS), AutoKumaraswamy)
    assert loaded.status is Status.STOPPED_AT_LIMIT


def test_a_fit_that_diverged_says_where_and_keeps_the_last_good_state(vitools, folder, replace_fit):
    def diverge(target, *, seed, **_):
        error = NumericalError("step 7: site 'p' became nan.")
        error.posterior = five_steps(target, seed=seed)
        error.posterior.status = Status.DIVERGED
        raise error

    replace_fit("kumaraswamy", diverge)
    result = vitools("fit", "coin", "--method", "kumaraswamy", "--out", "fits")
    assert result.exit_code == 1
    place = "see docs/errors.md#a-computation-that-left-the-numbers-numericalerror"
    assert result.stderr == f"vitools: step 7: site 'p' became nan.\n{place}\n"
    assert "status: diverged" in result.stdout
    assert sorted(os.listdir("fits")) == ["fit.safetensors", "posterior.nc"]


def test_numbers_lost_without_a_good_state_end_with_1(refused, replace_fit):
    replace_fit("exact", lose)
    assert refused("fit", "coin", "--method", "exact", code=1) == "no mode of finite density."


def test_an_unknown_method_is_refused_with_the_nearest_before_the_model_is_opened(
    refused, monkeypatch
):
    monkeypatch.setattr("vitools.cli.target.open_target", pytest.fail)
    for command in (["fit", "coin", "--method"], ["compare", "coin", "--methods"]):
        message = refused(*command, "kumaraswami")
        assert message.startswith("no method 'kumaraswami' (methods: infer, exact, ")
        assert message.endswith("Did you mean 'kumaraswamy'?")


def test_a_method_that_does_not_apply_is_refused_with_those_that_do(refused):
    message = refused("fit", "coin", "--method", "own-guide")
    assert "model 'coin' brings no guide of its own" in message
    assert re.search(r"For coin, try --method with one of: exact, .*kumaraswamy", message)


@pytest.mark.parametrize("seed", ["-1", str(2**32), "x"])
def test_an_impossible_seed_is_refused(vitools, seed):
    result = vitools("fit", "coin", "--seed", seed)
    assert result.exit_code == 2
    assert "--seed" in result.stderr


# ---- compare ---------------------------------------------------------------------------


def test_compare_prints_a_table_and_writes_a_report(vitools, folder):
    result = vitools("compare", "coin", "--methods", "exact, kumaraswamy", "--out", "report")
    assert result.exit_code == 0, result.output
    assert result.stderr == ""
    assert result.stdout.startswith("coin: 20 flips (simulated)\n")
    labels = [find_method(name).label for name in ("exact", "kumaraswamy")]
    rows = {
        label: line
        for label in labels
        for line in result.stdout.splitlines()
        if line.startswith(label)
    }
    assert "reference" in rows["exact"]
    stored = {"posterior_SVI_Kumaraswamy.nc"}  # whose weights are too heavy to be trusted
    assert set(os.listdir("report")) == REPORT | stored
    written = result.stdout.partition("written to report: ")[2]
    assert set(re.split(r"[\s·]+", written.strip())) == REPORT | stored
    table = pandas.read_csv("report/comparison.csv", index_col="fit")
    assert list(table.index) == labels
    evidence = coin.exact_log_evidence(FLIPS)
    assert table.loc["exact", "bound"] == pytest.approx(evidence, abs=1e-6)
    approximate = table.loc[labels[1]]
    assert approximate["bound"] < evidence + 4 * approximate["bound_se"]
    assert arviz.from_netcdf("report/posterior.nc").posterior.attrs["fit"] in labels
    for name in REPORT:
        if name.endswith(".png"):
            assert Path("report", name).read_bytes().startswith(PNG)


def test_compare_spares_the_other_methods_one_that_fails(vitools, replace_fit):
    calls = []

    def lose_and_count(*_, **__):
        calls.append("normal")
        lose()

    replace_fit("normal", lose_and_count)
    result = vitools("compare", "coin", "--methods", "own-guide,normal,exact,normal")
    assert result.exit_code == 1, result.output
    for name, reason in (("own-guide", "model 'coin' brings no guide"), ("normal", "no mode of")):
        assert f"{find_method(name).label}: no answer: {reason}" in result.stdout
    assert list(pandas.read_csv("report/comparison.csv")["fit"]) == ["exact"]
    assert calls == ["normal"]  # a method named twice runs once
    refused_only = vitools("compare", "coin", "--methods", "own-guide,exact")
    assert refused_only.exit_code == 0  # the method is none for this model: nothing went wrong


def test_compare_spares_the_other_methods_an_error_nobody_foresaw(vitools, replace_fit):
    replace_fit("normal", stumble)
    result = vitools("compare", "coin", "--methods", "normal,exact")
    assert result.exit_code == 1
    assert f"{find_method('normal').label}: no answer: ZeroDivisionError: by hand" in result.stdout
    assert list(pandas.read_csv("report/comparison.csv")["fit"]) == ["exact"]


class Unjudgeable(FactorisedPosterior):
    """A good fit until it is asked for draws."""

    ailment: type[BaseException] = ZeroDivisionError

    def sample_with_log_prob(self, *_, **__):
        raise self.ailment("by hand")

    sample_with_log_weights = sample_with_log_prob


def unjudgeable(target, **_):
    q = torch.distributions.Beta(torch.tensor(8.0).double(), torch.tensor(14.0).double())
    return Unjudgeable(target.problem, {"p": q}, -9.0, engine="guess", status=Status.CONVERGED)


def test_a_fit_that_cannot_be_judged_is_kept_and_the_others_judged(vitools, replace_fit):
    replace_fit("normal", unjudgeable)
    label = find_method("normal").label
    result = vitools("compare", "coin", "--methods", "normal,exact")
    assert result.exit_code == 1, result.output
    assert f"{label}: not judged: ZeroDivisionError: by hand" in result.stdout
    table = pandas.read_csv("report/comparison.csv").set_index("fit")
    assert table["verdict"].to_dict() == {"exact": "reference", label: "not judged"}
    kept = f"{label.replace(' ', '_')}.safetensors"
    assert set(os.listdir("report")) == REPORT | {kept}
    assert kept in result.stdout
    assert f"<b>{label}</b> was not judged: Zero" in Path("report/index.html").read_text()


def test_where_no_fit_can_be_judged_all_are_kept(vitools, replace_fit):
    replace_fit("normal", unjudgeable)
    with pytest.raises(ZeroDivisionError, match="by hand"):  # with the traceback of a mistake
        vitools("compare", "coin", "--methods", "normal")
    assert os.listdir("report") == [f"{find_method('normal').label.replace(' ', '_')}.safetensors"]


def test_compare_without_any_answer_writes_nothing(refused, folder, replace_fit):
    message = refused("compare", "coin", "--methods", "own-guide")
    assert message.startswith("no method gave an answer:\n  ")
    assert "model 'coin' brings no guide of its own" in message

    replace_fit("exact", lose)
    message = refused("compare", "coin", "--methods", "own-guide,exact", code=1)
    assert message.endswith("exact: no mode of finite density.")
    assert os.listdir(folder) == []


def test_compare_ends_with_1_when_no_fit_can_be_used(vitools, replace_fit):
    replace_fit("kumaraswamy", far_off)
    result = vitools("compare", "coin", "--methods", "kumaraswamy")
    assert result.exit_code == 1
    assert "do not use" in result.stdout
    assert set(os.listdir("report")) == REPORT


# ---- files -----------------------------------------------------------------------------


@pytest.mark.parametrize("below", ["file", "file/deeper"])
@pytest.mark.parametrize("command", [["fit", "coin"], ["compare", "coin"]])
def test_a_folder_that_cannot_be_written_is_refused_before_any_work(
    refused, folder, monkeypatch, command, below
):
    (folder / "file").write_text("kept")
    monkeypatch.setattr("vitools.cli.target.open_target", pytest.fail)
    message = refused(*command, "--out", below)
    assert message == f"cannot write into '{below}': '{folder / 'file'}' is not a folder."
    assert (folder / "file").read_text() == "kept"


def test_draw_below_a_file_is_refused(refused, folder):
    (folder / "file").write_text("kept")
    assert "is not a folder" in refused("draw", "coin", "--out", "file/coin.svg")
    assert os.listdir(folder) == ["file"]


@pytest.mark.parametrize("command", [["fit", "coin"], ["compare", "coin"], ["calibrate", "coin"]])
def test_a_folder_is_tried_out_before_any_work(refused, folder, monkeypatch, command):
    """Links that lead nowhere and names too long have no tell-tale but the attempt."""
    (folder / "link").symlink_to("nowhere")
    monkeypatch.setattr("vitools.cli.target.open_target", pytest.fail)
    assert "link' is not a folder" in refused(*command, "--out", "link")
    assert "File name too long. Choose another folder." in refused(*command, "--out", "x" * 300)
    assert os.listdir(folder) == ["link"]


@pytest.mark.parametrize("name", ["posterior.nc", "fit.safetensors", "index.html"])
def test_a_folder_where_a_file_should_go_is_refused_before_any_work(
    refused, folder, monkeypatch, name
):
    (folder / "out" / name).mkdir(parents=True)
    command = "compare" if name == "index.html" else "fit"
    with monkeypatch.context() as patch:
        patch.setattr("vitools.cli.target.open_target", pytest.fail)
        message = refused(command, "coin", "--out", "out")
    assert message == f"cannot write 'out/{name}': it is a folder. Choose another one."
    assert os.listdir("out") == [name]
    with monkeypatch.context() as patch:
        patch.setattr("vitools.cli.target.open_target", pytest.fail)
        message = refused("draw", "coin", "--out", "out")
    assert message == "cannot write 'out': it is a folder. Choose another one."


# ---- Ctrl-C ----------------------------------------------------------------------------


def test_ctrl_c_in_a_compare_reports_the_fits_made_so_far(vitools, replace_fit):
    replace_fit("normal", press_ctrl_c)
    result = vitools("compare", "coin", "--methods", "exact,normal,nuts")
    assert result.exit_code == 130
    assert "written to report: " in result.stdout
    assert result.stderr == (
        "vitools: interrupted; the report covers exact, "
        f"not {find_method('normal').label}, {find_method('nuts').label}.\n"
    )
    assert set(os.listdir("report")) == REPORT
    assert list(pandas.read_csv("report/comparison.csv")["fit"]) == ["exact"]


def test_ctrl_c_in_the_second_judgement_reports_the_first(vitools, replace_fit, monkeypatch):
    monkeypatch.setattr(Unjudgeable, "ailment", KeyboardInterrupt)
    replace_fit("normal", unjudgeable)
    label = find_method("normal").label
    result = vitools("compare", "coin", "--methods", "exact,normal,kumaraswamy", "--quiet")
    assert result.exit_code == 130
    last = find_method("kumaraswamy").label
    assert result.stderr == (
        f"vitools: interrupted; the report covers exact; fitted but not judged: {label}, {last}.\n"
    )
    table = pandas.read_csv("report/comparison.csv").set_index("fit")
    assert table["reason"][last] == "interrupted before it was judged"
    assert list(table["verdict"]) == ["reference", "not judged", "not judged"]
    kept = f"{last.replace(' ', '_')}.safetensors"
    assert set(os.listdir("report")) == REPORT | {f"{label.replace(' ', '_')}.safetensors", kept}
    loaded = load(f"report/{kept}", Problem(coin.model, FLIPS), AutoKumaraswamy)
    assert loaded.status is Status.CONVERGED


def test_ctrl_c_in_the_first_judgement_keeps_the_fits(vitools, replace_fit, monkeypatch):
    monkeypatch.setattr(Unjudgeable, "ailment", KeyboardInterrupt)
    replace_fit("normal", unjudgeable)
    label = find_method("normal").label
    result = vitools("compare", "coin", "--methods", "normal")
    assert result.exit_code == 130
    assert result.stderr == (f"vitools: interrupted; no report; fitted but not judged: {label}.\n")
    assert os.listdir("report") == [f"{label.replace(' ', '_')}.safetensors"]


def test_ctrl_c_before_the_first_fit_writes_nothing(refused, folder, replace_fit):
    replace_fit("exact", press_ctrl_c)
    for command in (["fit", "coin", "--method"], ["compare", "coin", "--methods"]):
        message = refused(*command, "exact", "--out", "out", code=130)
        assert message == "interrupted; no file is left half-written."
    assert os.listdir(folder) == []


def test_ctrl_c_while_a_picture_is_written_keeps_the_fits_alone(vitools, folder, monkeypatch):
    whole_figure = Figure.savefig

    def half(figure, path, **options):
        if not isinstance(path, Path):  # the page's graph, drawn in memory
            return whole_figure(figure, path, **options)
        path.write_bytes(PNG)
        raise KeyboardInterrupt

    monkeypatch.setattr(Figure, "savefig", half)
    result = vitools("compare", "coin", "--methods", "exact")
    assert result.exit_code == 130
    assert result.stderr == "vitools: interrupted; no report; fits kept: exact.\n"
    assert os.listdir("report") == ["exact.safetensors"]


@pytest.mark.parametrize("moment", ["diagnostics.judge", "reporting.report.save_posterior"])
def test_ctrl_c_after_a_fit_keeps_it(vitools, folder, monkeypatch, moment):
    monkeypatch.setattr(f"vitools.{moment}", press_ctrl_c)
    result = vitools("fit", "coin", "--method", "cavi", "--out", "out")
    assert result.exit_code == 130
    assert result.stderr == "vitools: interrupted; the fit alone is kept.\n"
    assert os.listdir("out") == ["fit.safetensors"]
    assert load("out/fit.safetensors", Problem(coin.model, FLIPS)).status is Status.CONVERGED


def test_ctrl_c_in_an_engine_keeps_the_state_it_reached(vitools, folder, monkeypatch):
    @contextmanager
    def impatient_line(label, quiet):
        yield press_ctrl_c

    monkeypatch.setattr("vitools.cli.progress.progress_line", impatient_line)
    result = vitools("fit", "coin", "--method", "kumaraswamy", "--out", "fits")
    assert result.exit_code == 130
    assert "status: interrupted" in result.stdout
    loaded = load("fits/fit.safetensors", Problem(coin.model, FLIPS), AutoKumaraswamy)
    assert loaded.status is Status.INTERRUPTED
    assert sorted(os.listdir("fits")) == ["fit.safetensors", "posterior.nc"]
