"""cavi() under Ctrl-C: one press ends all restarts, and the bound kept is that of the factors kept."""

import pyro
import pyro.distributions as dist
import pytest
import torch

from vitools import Problem, Status, cavi
from vitools.calculus import ConjugateModel
from vitools.calculus.start.initialise import initialise
from vitools.calculus.streams.streamed import StreamedBlock
from vitools.engines.cavi import batch, moves, starting
from vitools.models import two_dice


@pytest.fixture
def problem():
    rolls = two_dice.simulate(30, 4, sides1=2, sides2=2, faces=3, seed=1).rolls
    return Problem(two_dice.model, rolls, 2, 2, 3)


@pytest.fixture
def topics():
    generator = torch.Generator().manual_seed(2)
    documents = torch.arange(6).repeat_interleave(20)
    words = (torch.randint(3, (120,), generator=generator) + 3 * (documents % 2)) % 6

    def model(words):
        with pyro.plate("topics", 2):
            phi = pyro.sample("phi", dist.Dirichlet(torch.full((6,), 0.1).double()))
        with pyro.plate("documents", 6):
            theta = pyro.sample("theta", dist.Dirichlet(torch.full((2,), 0.1).double()))
        with pyro.plate("words", len(words)):
            z = pyro.sample("z", dist.Categorical(theta[documents]))
            pyro.sample("word", dist.Categorical(phi[z]), obs=words)

    return Problem(model, words)


@pytest.fixture
def press_ctrl_c(monkeypatch):
    """Interrupt one call of what changes the factors, after it has changed them."""
    homes = {"initialise": (starting, "start_model"), "restart_inner": (moves, "restart_inner")}

    def install(at, change="sweep"):
        owner, name = homes.get(change, (ConjugateModel, change))
        plain, count = getattr(owner, name), [0]

        def interrupted(model, *args, **options):
            plain(model, *args, **options)
            count[0] += 1
            if count[0] == at:
                raise KeyboardInterrupt

        monkeypatch.setattr(owner, name, interrupted)
        return count

    return install


@pytest.fixture
def one_after_another(monkeypatch):
    monkeypatch.setattr(batch, "BATCH_BYTES", 1)


def assert_bound_is_that_of_the_factors(fit):
    assert fit.bound == fit.history.elbo[-1]
    problem = fit.problem
    model = ConjugateModel(problem.model, problem.args, problem.kwargs, collapse=False)
    initialise(model, 0)
    streamed = []
    for name, block in model.block_of.items():
        q = fit.marginal(name)
        if isinstance(block, StreamedBlock):
            streamed.append(block)
        else:
            block.restore(block.family.from_distribution(q))
    for block in streamed:
        model.update(block)
    if streamed:  # optimal for the rest now, so the bound can only have risen
        assert model.elbo() >= fit.bound - 1e-9 * abs(fit.bound)
    else:
        assert model.elbo() == pytest.approx(fit.bound, rel=1e-9)


def test_the_state_kept_is_that_of_the_last_recorded_sweep(problem, press_ctrl_c):
    whole = cavi(problem, max_sweeps=3, accelerate=False)
    press_ctrl_c(at=4)
    fit = cavi(problem, accelerate=False)
    assert fit.status is Status.INTERRUPTED
    assert fit.history.elbo == whole.history.elbo
    assert fit.bound == whole.bound
    for name in ("pi1", "pi2", "rho"):
        torch.testing.assert_close(fit.mean()[name], whole.mean()[name], rtol=0, atol=0)


@pytest.mark.parametrize("restarts", [1, 4])
@pytest.mark.parametrize("at", range(2, 9))
def test_an_extrapolated_point_is_not_kept_half_way(problem, press_ctrl_c, at, restarts):
    press_ctrl_c(at=at)
    fit = cavi(problem, max_sweeps=50, restarts=restarts)
    assert_bound_is_that_of_the_factors(fit)
    assert 0 < len(fit.history) < at


def test_one_press_ends_all_restarts(problem, press_ctrl_c):
    whole = cavi(problem, restarts=5, max_sweeps=2, accelerate=False)
    count = press_ctrl_c(at=3)
    fit = cavi(problem, restarts=5, accelerate=False)
    assert count == [3]
    assert fit.status is Status.INTERRUPTED
    assert "best of 5 starts" in fit.detail
    assert fit.restart_bounds == whole.restart_bounds


def test_runs_that_left_the_batch_are_kept(problem, press_ctrl_c):
    whole = cavi(problem, restarts=6, tol=1e-5)
    alone = [cavi(problem, seed=seed, tol=1e-5) for seed in range(6)]
    lengths = sorted(len(fit.history) for fit in alone)
    assert lengths[0] < lengths[-1]
    press_ctrl_c(at=lengths[-1])
    fit = cavi(problem, restarts=6, tol=1e-5)
    assert fit.status is Status.INTERRUPTED
    assert len(fit.restart_bounds) == 6
    finished = [i for i, other in enumerate(alone) if len(other.history) < lengths[-1] - 3]
    assert finished
    for i in finished:
        assert fit.restart_bounds[i] == whole.restart_bounds[i]


@pytest.mark.usefixtures("one_after_another")
def test_an_earlier_restart_is_kept_and_called_interrupted(problem, press_ctrl_c):
    first = cavi(problem, max_sweeps=5, accelerate=False)
    press_ctrl_c(at=6)
    fit = cavi(problem, restarts=3, max_sweeps=5, accelerate=False)
    assert fit.bound == first.bound
    assert fit.status is Status.INTERRUPTED


@pytest.mark.usefixtures("one_after_another")
def test_while_a_later_start_is_made_the_earlier_is_kept(problem, press_ctrl_c):
    first = cavi(problem)
    press_ctrl_c(at=2, change="initialise")
    fit = cavi(problem, restarts=3)
    assert fit.status is Status.INTERRUPTED
    assert fit.bound == first.bound
    assert "best of 1 starts" in fit.detail


@pytest.mark.parametrize(("change", "at"), [("restart_inner", 3), ("inner_sweep", 20)])
def test_during_the_warm_up(topics, press_ctrl_c, change, at):
    press_ctrl_c(at=at, change=change)
    fit = cavi(topics)
    assert fit.status is Status.INTERRUPTED
    assert_bound_is_that_of_the_factors(fit)


@pytest.mark.parametrize("restarts", [1, 3])
@pytest.mark.parametrize("change", ["sweep", "initialise"])
def test_before_the_first_sweep_there_is_nothing_to_keep(problem, press_ctrl_c, change, restarts):
    press_ctrl_c(at=1, change=change)
    with pytest.raises(KeyboardInterrupt):
        cavi(problem, restarts=restarts)
