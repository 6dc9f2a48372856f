"""Borrowed global state comes back unchanged."""

import pyro
import pyro.distributions as dist
import pytest
import torch
from pyro.poutine.runtime import _PYRO_STACK
from pyro.poutine.subsample_messenger import SubsampleMessenger

from vitools.isolation import full_plates, isolated, seeded, snapshot


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
