"""Borrowed global state comes back unchanged."""

import sys
from concurrent.futures import ThreadPoolExecutor

import pyro
import pyro.distributions as dist
import pytest
import torch
from pyro.poutine.runtime import _PYRO_STACK
from pyro.poutine.subsample_messenger import SubsampleMessenger
from torch.distributions import Distribution

from vitools.isolation import full_plates, isolated, seeded, snapshot, validating


class Doubler(pyro.nn.PyroModule):
    def __init__(self):
        super().__init__()
        self.weight = torch.nn.Parameter(torch.tensor(2.0))

    def forward(self, x):
        return self.weight * x


def test_seeded_repeats_and_restores():
    with torch.random.fork_rng(devices=[]):
        before = torch.get_rng_state()
        with seeded(3):
            first = torch.rand(4)
        with seeded(3):
            again = torch.rand(4)
        with seeded(4):
            other = torch.rand(4)
        assert torch.equal(first, again)
        assert not torch.equal(first, other)
        assert torch.equal(torch.get_rng_state(), before)


def _fails_inside():
    with isolated():
        assert list(pyro.get_param_store().keys()) == []
        assert not pyro.distributions.is_validation_enabled()
        pyro.sample("hidden", dist.Delta(torch.tensor(0.0)))
        pyro.param("inner", torch.tensor(2.0))
        raise KeyError


def test_isolated_hides_and_restores_after_an_error():
    with pyro.get_param_store().scope():
        outer = pyro.param("outer", torch.tensor(1.0))
        with pyro.poutine.trace() as seen:
            depth = len(_PYRO_STACK)
            with pytest.raises(KeyError):
                _fails_inside()
            assert len(_PYRO_STACK) == depth
        assert list(pyro.get_param_store().keys()) == ["outer"]
        assert torch.equal(pyro.param("outer"), outer)
        assert "hidden" not in seen.trace.nodes


def test_isolated_yields_the_state_it_made():
    with isolated() as state:
        pyro.param("a", torch.tensor(2.0), constraint=dist.constraints.positive)
    assert list(state["params"]) == ["a"]
    torch.testing.assert_close(state["params"]["a"].detach(), torch.tensor(2.0).log())
    with isolated(state):
        torch.testing.assert_close(pyro.param("a").detach(), torch.tensor(2.0))


def test_snapshots_do_not_move():
    with isolated() as state:
        pyro.param("a", torch.tensor(2.0))
    copy = snapshot(state)
    with torch.no_grad():
        state["params"]["a"].add_(1.0)
    assert copy["params"]["a"].item() == 2.0


def test_modules_follow_the_store_and_get_their_own_parameters_back():
    module = Doubler()
    own = module.weight
    with isolated(None, module) as state:
        module(torch.tensor(1.0))
    other = snapshot(state)
    with torch.no_grad():
        next(iter(other["params"].values())).fill_(5.0)
    with isolated(other, module):
        assert module(torch.tensor(1.0)).item() == 5.0
    assert module.weight is own
    assert own.item() == 2.0


@pytest.mark.parametrize("wrap", [lambda m: m.forward, lambda m: pyro.poutine.scale(m, scale=2.0)])
def test_modules_behind_methods_and_handlers_are_found(wrap):
    module = Doubler()
    with isolated(None, module) as state:
        module(torch.tensor(1.0))
    own = module.weight
    with isolated(snapshot(state), wrap(module)):
        module(torch.tensor(1.0))
        assert module.weight is not own
    assert module.weight is own


def test_pyro_module_uses_stored_values():
    with torch.random.fork_rng(devices=[]):
        network = torch.nn.Sequential(torch.nn.Linear(1, 1), torch.nn.Linear(1, 1))
    own = dict(network.named_parameters())
    x = torch.ones(1)
    with isolated() as state:
        pyro.module("network", network)
    zeros = snapshot(state)
    with torch.no_grad():
        for parameter in zeros["params"].values():
            parameter.zero_()
    statement = pyro.module
    with isolated(zeros):
        pyro.module("network", network)
        assert network(x).item() == 0.0
    assert pyro.module is statement
    assert all(p is own[name] for name, p in network.named_parameters())


def test_full_plates_span_all_indices_inside_only():
    original = SubsampleMessenger._subsample

    def indices(**options):
        with pyro.plate("rows", 6, **options) as rows:
            return rows

    with full_plates():
        assert indices(subsample_size=2).tolist() == list(range(6))
        assert indices().tolist() == list(range(6))
        assert indices(subsample=torch.tensor([4, 1])).tolist() == [4, 1]
        seen = [i for i in pyro.plate("sequential", 5, subsample_size=2)]  # noqa: C416
        assert sorted(int(i) for i in seen) == list(range(5))
    assert SubsampleMessenger._subsample is original
    with seeded(0):
        assert len(indices(subsample_size=2)) == 2


def flags():
    own = Distribution.__dict__
    torch_flags = own["_validate_args"], own["_validate_sample"]
    modules = pyro.infer.util, pyro.poutine.util, pyro.distributions.util
    return *torch_flags, *(module._VALIDATION_ENABLED for module in modules)


def refuses(make):
    try:
        make()
    except ValueError:
        return True
    return False


@pytest.mark.parametrize(
    "make",
    [
        lambda: torch.distributions.Normal(0.0, -1.0),
        lambda: torch.distributions.Exponential(1.0).log_prob(torch.tensor(-1.0)),
        lambda: BUILT_BEFORE.expand([2]).log_prob(torch.tensor(-1.0)),
    ],
)
def test_other_threads_validate_while_one_does_not(make):
    assert refuses(make)
    with ThreadPoolExecutor(1) as pool:
        with isolated():
            assert not refuses(make)
            assert pool.submit(refuses, make).result()
            with validating(True):
                assert refuses(make)
                assert pool.submit(refuses, make).result()
            assert not refuses(make)
        assert refuses(make)


BUILT_BEFORE = torch.distributions.Exponential(torch.tensor(1.0))


def test_a_thread_that_does_not_validate_keeps_so_beside_a_run():
    before = Distribution._validate_args
    Distribution.set_default_validate_args(False)
    try:
        with ThreadPoolExecutor(1) as pool, validating(True):
            assert not pool.submit(refuses, lambda: torch.distributions.Normal(0.0, -1.0)).result()
            assert refuses(lambda: torch.distributions.Normal(0.0, -1.0))
    finally:
        Distribution.set_default_validate_args(before)


def test_an_interrupt_at_any_line_leaves_the_flags_as_they_were():
    """One is raised at each line in turn, on the way in and out."""
    before, press_at, was_pressed = flags(), 0, True

    def count_lines(frame, event, _):
        nonlocal seen, was_pressed
        if frame.f_code.co_name not in ("validating", "restore"):
            return None
        if event == "line":
            seen += 1
            if seen == press_at:
                was_pressed = True
                raise KeyboardInterrupt
        return count_lines

    tracer = sys.gettrace()
    while was_pressed:
        press_at, seen, was_pressed = press_at + 1, 0, False
        sys.settrace(count_lines)
        try:
            with validating(False):
                pass
        except KeyboardInterrupt:
            pass
        finally:
            sys.settrace(tracer)
        assert flags() == before, press_at
    assert press_at > 20
