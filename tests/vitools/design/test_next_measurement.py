"""The next measurement, from a list or in a range; a run of them, and its file."""

import json
import math

import pyro
import pyro.distributions as dist
import pytest
import torch
from models_of_experiments import T, coin, line, oscillator, threshold, two_sites

from vitools import Problem, exact, laplace
from vitools.design import expected_information_gain, next_measurement, run_design
from vitools.errors import DataError, FileError, NotSupportedError, OptionError

X = torch.linspace(-1, 1, 9, dtype=torch.float64)


def test_from_a_list():
    fit = laplace(Problem(line, T([1.0]), y=T([0.3])))
    choice = next_measurement(fit, X)
    assert torch.equal(choice.design, T([-1.0]))  # what one measurement at 1 left unknown
    assert choice.gain is choice.gains[0]
    assert str(choice).startswith("measure at -1: ")


def bump(x, y=None):
    """An amplitude seen through a bump: the best place is its middle."""
    a = pyro.sample("a", dist.Normal(T(0.0), 1.0))
    with pyro.plate("measurements", len(x)):
        pyro.sample("y", dist.Normal(a * (-((x - 0.613) ** 2)).exp(), T(0.3)), obs=y)


def test_in_a_range_by_gradient():
    choice = next_measurement(bump, bounds=(-2.0, 3.0))
    assert float(choice.design) == pytest.approx(0.613, abs=1e-4)
    assert choice.gain.value == pytest.approx(0.5 * math.log(1 + 1 / 0.09), abs=1e-4)


def plane(x, y=None):
    a = pyro.sample("a", dist.Normal(T(0.0), 1.0))
    middle = T([0.2, -0.7])
    with pyro.plate("measurements", len(x)):
        pyro.sample("y", dist.Normal(a * (-(x - middle).square().sum(-1)).exp(), T(0.3)), obs=y)


def test_in_two_dims_by_gradient():
    choice = next_measurement(plane, bounds=(T([-1.0, -1.0]), T([1.0, 1.0])))
    assert torch.allclose(choice.design, T([[0.2, -0.7]]), atol=1e-3)


@pytest.mark.slow
def test_a_range_finds_what_a_fine_list_finds():
    fit = exact(Problem(oscillator, T([0.5]), y=T([0.2])))
    found = next_measurement(fit, bounds=(0.0, 8.0), seed=1)
    listed = expected_information_gain(
        fit, torch.linspace(0, 8, 9, dtype=torch.float64), method="contrastive"
    )
    again = expected_information_gain(fit, [found.design], method="contrastive")
    assert again[0].value > float(listed.values.max()) - 3 * again[0].standard_error


@pytest.mark.slow
def test_bisection_is_the_optimum_of_a_threshold():
    """Each label halves the interval: designs 1/2, then the middle of what is left; a bit each."""
    pool = (torch.arange(31, dtype=torch.float64) + 1) / 32
    truth = 0.3
    run = run_design(
        threshold,
        lambda x: (x > truth).double(),
        pool,
        4,
        fit=exact,
    )
    assert run.designs.tolist() == pytest.approx([0.5, 0.25, 0.375, 0.3125], abs=0.04)
    for gain in run.gains:
        assert gain.value == pytest.approx(math.log(2), abs=0.03)


SLOW = T([0.5, 1.0, 2.0])


def measure(x):
    return 0.7 * x + 0.1


def test_a_run_is_that_of_steps_made_by_hand():
    run = run_design(line, measure, SLOW, 2, method="laplace")
    first = next_measurement(line, SLOW, method="laplace")
    fit = laplace(Problem(line, first.design, y=measure(first.design)))
    second = next_measurement(fit, SLOW, method="laplace")
    assert torch.equal(run.designs, torch.cat([first.design, second.design]))
    assert [g.value for g in run.gains] == pytest.approx([first.gain.value, second.gain.value])
    both = laplace(Problem(line, run.designs, y=measure(run.designs)))
    assert torch.allclose(run.fit.location, both.location)
    assert len(run) == 2


def test_an_interrupted_run_goes_on(tmp_path):
    path = tmp_path / "run.jsonl"
    whole = run_design(line, measure, SLOW, 4, method="laplace")
    made = []

    def breaks(x):
        if len(made) == 2:
            raise KeyboardInterrupt
        made.append(x)
        return measure(x)

    with pytest.raises(KeyboardInterrupt):
        run_design(line, breaks, SLOW, 4, method="laplace", path=path)
    with path.open("a") as file:
        file.write('{"design": [0.')  # a line cut short
    after = []
    run = run_design(
        line, lambda x: after.append(x) or measure(x), SLOW, 4, method="laplace", path=path
    )
    assert len(after) == 2
    assert torch.equal(run.designs, whole.designs)
    assert torch.equal(run.outcomes["y"], whole.outcomes["y"])
    assert [g.value for g in run.gains] == [g.value for g in whole.gains]
    assert torch.equal(run.fit.location, whole.fit.location)
    assert len([json.loads(line) for line in path.read_text().splitlines()]) == 5
    again = run_design(line, breaks, SLOW, 4, method="laplace", path=path)
    assert torch.equal(again.designs, whole.designs)


OTHER_SETTINGS = [
    ({"seed": 1}, r"seed 0 \(now 1\)"),
    ({"num_samples": 400}, r"num_samples 1000 \(now 400\)"),
    ({"method": "nested"}, r"method laplace \(now nested\)"),
    ({"method": "posterior", "flow": "spline"}, r"method laplace \(now posterior\), flow None \(now spline\)"),
    ({"targets": "slope"}, r"targets \['offset', 'slope'\] \(now \['slope'\]\)"),
    ({"observations": ["y", "offset"]}, r"observations \['y'\] \(now \['offset', 'y'\]\), targets"),
    ({"fit": exact}, r"fit laplace \(now exact\)"),
    ({"designs": T([0.5, 1.0])}, "designs "),
    ({"model": line}, r"model two_sites \(now line\)"),
]  # fmt: skip


def test_a_run_with_other_settings_is_not_gone_on_with(tmp_path):
    path = tmp_path / "run.jsonl"
    arguments = {"model": two_sites, "designs": SLOW, "method": "laplace"}

    def run(model, designs, **options):
        return run_design(model, measure, designs, 1, path=path, **options)

    run(**arguments)
    for other, words in OTHER_SETTINGS:
        with pytest.raises(FileError, match=f"holds a run of designs with .*{words}"):
            run(**(arguments | other))


def test_files_that_are_no_runs(tmp_path):
    with pytest.raises(FileError, match=r"cannot go on with .*: is a folder"):
        run_design(line, measure, SLOW, 1, method="laplace", path=tmp_path)
    path = tmp_path / "notes.txt"
    path.write_text("milk, eggs\n")
    with pytest.raises(FileError, match=r"notes.txt' is not a run of designs. Choose another path"):
        run_design(line, measure, SLOW, 1, method="laplace", path=path)
    path.write_bytes(b"\xff\xfe\x00")
    with pytest.raises(FileError, match=r"cannot go on with .*: is no text"):
        run_design(line, measure, SLOW, 1, method="laplace", path=path)
    with pytest.raises(FileError, match=r"cannot write into .*notes\.txt. is not a folder"):
        run_design(line, measure, SLOW, 1, method="laplace", path=path / "below")
    with pytest.raises(OptionError, match="path: expected the name of a file or folder, got 3"):
        run_design(line, measure, SLOW, 1, method="laplace", path=3)


@pytest.mark.slow
def test_it_ends_when_enough_is_known():
    told = []
    run = run_design(
        line, measure, SLOW, 50, method="laplace", until=lambda fit: float(fit.sd()["w"].max()) < 0.3, progress=told.append
    )  # fmt: skip
    assert told == list(range(1, len(run) + 1))
    assert 2 < len(run) < 20
    assert float(run.fit.sd()["w"].max()) < 0.3


def test_outcomes_by_name_and_of_models_without_the_argument():
    def plain(x):
        w = pyro.sample("w", dist.Normal(T(0.0), 1.0))
        with pyro.plate("measurements", len(x)):
            pyro.sample("y", dist.Normal(w * x, 1.0))

    run = run_design(plain, lambda x: {"y": 0.5 * x}, SLOW, 2, observations="y", method="laplace")
    assert run.designs.tolist() == [2.0, 2.0]
    assert float(run.fit.mean()["w"]) == pytest.approx(0.5 * 8 / 9, abs=1e-6)


@pytest.mark.parametrize(
    ("call", "kind", "words"),
    [
        (lambda: next_measurement(line), OptionError, "expected one of the two, .* got none"),
        (lambda: next_measurement(line, X, bounds=(0.0, 1.0)), OptionError, "expected one of the two, .* got both"),
        (lambda: next_measurement(line, bounds=(1.0, 0.0)), OptionError, "bounds: expected a finite range"),
        (lambda: next_measurement(line, bounds=(0.0, math.inf)), OptionError, "bounds: expected a finite range"),
        (lambda: next_measurement(line, bounds=3.0), OptionError, "bounds: expected the lowest and the highest"),
        (lambda: next_measurement(line, bounds=("a", "b")), OptionError, "bounds: expected numbers or tensors"),
        (lambda: next_measurement(threshold, bounds=(0.0, 1.0)), NotSupportedError, "outcome 'label' is discrete"),
        (lambda: next_measurement(line, X, method="best"), OptionError, "method: expected one of auto"),
        (lambda: run_design(3, measure, X, 1), OptionError, "model: expected a Pyro model of the design, got int"),
        (lambda: run_design(laplace(Problem(line, X, y=X)), measure, X, 1), OptionError, "next_measurement"),
        (lambda: run_design(line, 3, X, 1), OptionError, "experiment: expected a function, got int"),
        (lambda: run_design(line, measure, X, 1, fit=3), OptionError, "fit: expected a function, got int"),
        (lambda: run_design(line, measure, [X], 1), OptionError, r"designs: expected a tensor \[C, …\], got list"),
        (lambda: run_design(line, measure, X, 0), OptionError, "num_measurements: expected a whole number"),
        (lambda: run_design(line, lambda x: {"z": x}, X, 1, method="laplace"), DataError, "experiment: expected an outcome of y, got z"),
        (lambda: run_design(line, lambda x: T([1.0, 2.0]), X, 1, method="laplace"), DataError, r"expected 'y' of shape \[1\] .* got \[2\]"),
        (lambda: run_design(line, lambda x: x * math.nan, X, 1, method="laplace"), DataError, "expected finite numbers for 'y'"),
    ],
)  # fmt: skip
def test_what_is_refused(call, kind, words):
    with pytest.raises(kind, match=words):
        call()


def test_designs_that_count_are_taken_too():
    choice = next_measurement(coin, T([1.0, 3.0, 7.0]))
    assert float(choice.design) == 7
