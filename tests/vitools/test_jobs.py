"""Many fits side by side: the numbers of one after another, whoever computes them; errors and Ctrl-C as there."""

import json
import os
import signal
import subprocess
import sys
import textwrap
import threading
import time

import joblib
import pyro
import pyro.distributions as dist
import pytest
import torch

from vitools import Problem, cavi, compare, laplace
from vitools.diagnostics import calibrate
from vitools.errors import NotSupportedError, OptionError, ProcessError
from vitools.jobs import each

# Python 3.12 and later warn of any fork beside other threads, which test runners have
pytestmark = pytest.mark.filterwarnings("ignore:.*multi-threaded, use of fork.*:DeprecationWarning")

BACK_ENDS = [
    "threading",
    pytest.param("multiprocessing", marks=pytest.mark.slow),  # hands out lists, pickles by itself
    pytest.param("loky", marks=pytest.mark.slow),  # imports everything anew
]


def number(value):
    return torch.tensor(value, dtype=torch.float64)


def location(y):
    mean = pyro.sample("mean", dist.Normal(number(0.0), 3.0))
    with pyro.plate("rows", len(y)):
        pyro.sample("y", dist.Normal(mean, 1.0), obs=y)


def mixture(y):
    with pyro.plate("components", 2):
        mu = pyro.sample("mu", dist.Normal(number(0.0), 10.0))
    weights = pyro.sample("weights", dist.Dirichlet(torch.ones(2).double()))
    with pyro.plate("rows", len(y)):
        z = pyro.sample("z", dist.Categorical(weights))
        pyro.sample("y", dist.Normal(mu[z], 1.0), obs=y)


PROBLEM = Problem(location, torch.arange(4.0).double())


def beside(backend, compute):
    with joblib.parallel_config(backend=backend, n_jobs=2):
        return compute()


@pytest.mark.parametrize("backend", BACK_ENDS)
def test_every_item_comes_once_and_computes_on_one_thread_elsewhere(backend):
    here, threads = os.getpid(), torch.get_num_threads()

    def square(x):
        return x * x, os.getpid(), torch.get_num_threads()

    found = beside(backend, lambda: list(each(square, range(3))))
    assert sorted((item, number) for item, (number, *_) in found) == [(i, i * i) for i in range(3)]
    assert {place == here for _, (_, place, _) in found} == {backend == "threading"}
    assert {count for _, (*_, count) in found} == {threads if backend == "threading" else 1}
    assert torch.get_num_threads() == threads


@pytest.mark.parametrize("backend", BACK_ENDS)
def test_a_calibration_has_the_numbers_of_one_process(backend):
    shift = 0.5  # a closure, which cannot be pickled by its name

    def fitted(problem):
        return cavi(Problem(location, problem.observed["y"].value + shift))

    def ranks():
        return calibrate(PROBLEM, fitted, num_data_sets=3, num_samples=20).levels["mean"].tolist()

    assert beside(backend, ranks) == ranks()


DEAR = [
    "threading",
    *(pytest.param(b, marks=pytest.mark.slow) for b in ("multiprocessing", "loky")),
]


@pytest.mark.parametrize("backend", DEAR)
def test_restarts_have_the_numbers_of_one_process(backend):
    problem = Problem(mixture, torch.tensor([-3.0, -2.5, -2.0, 2.0, 2.5, 4.0]).double())
    whole = cavi(problem, restarts=3)
    shared = beside(backend, lambda: cavi(problem, restarts=3))
    assert shared.restart_bounds == pytest.approx(whole.restart_bounds, rel=1e-10)
    assert shared.detail == whole.detail
    assert shared.seed == whole.seed
    for name in ("mu", "weights"):
        torch.testing.assert_close(shared.mean()[name], whole.mean()[name], rtol=1e-9, atol=1e-9)


@pytest.mark.slow
@pytest.mark.parametrize("backend", ["threading", "multiprocessing", "loky"])
def test_a_comparison_has_the_numbers_of_one_process(backend):
    fits = {
        "CAVI": cavi(PROBLEM),
        "Laplace": laplace(PROBLEM),
        "short": cavi(PROBLEM, max_sweeps=1),
    }
    one, two = compare(fits), beside(backend, lambda: compare(fits))
    assert list(one.judgements) == list(two.judgements)
    assert one.table.to_json() == two.table.to_json()


@pytest.mark.parametrize("backend", DEAR)
def test_an_error_of_one_is_raised_as_it_is(backend):
    def inverse(x):
        return 1 / x

    with pytest.raises(ZeroDivisionError):
        beside(backend, lambda: list(each(inverse, [1, 0, 2])))


def test_what_cannot_be_sent_is_said():
    lock = threading.Lock()

    def locked(x):
        with lock:
            return x

    with pytest.raises(NotSupportedError, match=r"cannot pickle '_thread.lock'.*Use jobs=1"):
        beside("multiprocessing", lambda: list(each(locked, range(3))))
    assert len(beside("threading", lambda: list(each(locked, range(3))))) == 3


@pytest.mark.slow
def test_a_process_that_ends_is_said():
    with pytest.raises(ProcessError, match="a process that computed has ended"):
        list(each(lambda _: os._exit(3), range(3), jobs=2))


def test_an_interrupt_keeps_what_is_done():

    def fitted(problem):
        fitted.calls += 1
        if fitted.calls == 3:
            raise KeyboardInterrupt
        return cavi(problem)

    fitted.calls = 0
    found = beside("threading", lambda: calibrate(PROBLEM, fitted, 6, num_samples=20))
    assert 0 < found.missing < 6
    assert len(found.levels["mean"]) == 6 - found.missing


SCRIPT = """
    import sys, time, pyro, torch, pyro.distributions as dist
    from vitools import Problem, cavi
    from vitools.diagnostics import calibrate

    def model(y):
        mean = pyro.sample("mean", dist.Normal(torch.zeros(()).double(), 3.0))
        with pyro.plate("rows", len(y)):
            pyro.sample("y", dist.Normal(mean, 1.0), obs=y)

    def slow(problem):
        time.sleep(0.5)
        return cavi(problem)

    problem = Problem(model, torch.zeros(3).double())
    say = lambda done: print("done", done, flush=True)
    found = calibrate(problem, slow, 40, num_samples=20, jobs=2, path=sys.argv[1], progress=say)
    print("missing", found.missing, flush=True)
"""


@pytest.mark.slow
def test_ctrl_c_of_a_terminal_ends_all_processes_and_a_second_run_goes_on(tmp_path):
    script, path = tmp_path / "run.py", tmp_path / "runs.jsonl"
    script.write_text(textwrap.dedent(SCRIPT))
    run = subprocess.Popen(
        [sys.executable, "-W", "ignore", script, path],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
    )
    while "done 3" not in run.stdout.readline():
        assert run.poll() is None
    os.killpg(run.pid, signal.SIGINT)  # as a terminal does: to all of them
    said, complaints = run.communicate(timeout=120)
    assert run.returncode == 0, complaints
    missing = int(said.split()[-1])
    assert 0 < missing <= 37
    assert complaints == ""
    rows = [json.loads(line)["index"] for line in path.read_text().splitlines()[1:]]
    assert len(set(rows)) == len(rows) == 40 - missing
    until = time.monotonic() + 30
    while any(_is_alive(pid) for pid in _group(run.pid)):
        assert time.monotonic() < until


def _group(leader):
    found = subprocess.run(["ps", "-o", "pid=", "-g", str(leader)], capture_output=True, text=True)
    return [int(pid) for pid in found.stdout.split()]


def _is_alive(pid):
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    return True


WRONG = {
    "none": (0, "expected how many fits to run side by side.* got 0"),
    "a part": (1.5, "got 1.5"),
    "a word": ("all", "got 'all'"),
    "a truth": (True, "got True"),
}


@pytest.mark.parametrize("case", WRONG)
def test_wrong_numbers_of_jobs_are_refused(case):
    jobs, words = WRONG[case]
    fit = cavi(PROBLEM)
    for call in (
        lambda: cavi(PROBLEM, jobs=jobs),
        lambda: calibrate(PROBLEM, cavi, jobs=jobs),
        lambda: compare({"CAVI": fit}, jobs=jobs),
    ):
        with pytest.raises(OptionError, match=words):
            call()


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"checkpoint": "run.ckpt"}, "jobs: not beside checkpoint"),
        ({"batch_rows": 2}, "jobs: not beside batch_rows"),
        ({"sharded": "rows"}, "jobs: not beside sharded"),
        ({"start": {"mean": 0.0}}, "would all be the same run"),
    ],
)
def test_starts_of_one_run_are_no_jobs(options, words):
    with pytest.raises(OptionError, match=words):
        cavi(PROBLEM, restarts=3, jobs=2, **options)
