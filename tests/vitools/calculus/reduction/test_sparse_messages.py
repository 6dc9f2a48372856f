"""Messages through selections on several sides against dense einsums with the 0/1 tensors written out."""

import pyro
import pyro.distributions as dist
import pytest
import torch

import vitools.calculus.reduction.contraction as contraction
from vitools.calculus.densities.closed_terms import Selection
from vitools.calculus.model import ConjugateModel
from vitools.calculus.reduction.contraction import Contractor, Operand
from vitools.calculus.reduction.sparse import RowByRow, SparseProduct
from vitools.calculus.start.initialise import initialise

ROW, USER, ITEM, TIME, D, E = range(6)
SIZES = {ROW: 9001, USER: 7, ITEM: 5, TIME: 3, D: 2, E: 2}


class Given:
    """A source of statistics."""

    def __init__(self, **moments):
        self.moments, self.version = moments, 1


def read(target, seed):
    g = torch.Generator().manual_seed(seed)
    index = torch.randint(0, SIZES[target], (SIZES[ROW],), generator=g)
    return Selection(index, (ROW,), target, SIZES[target])


def contracted(labels, selected, output, symmetric=False):
    """The message by the contractor, and by one einsum; and the contractor."""
    g = torch.Generator().manual_seed(3)
    source, contractor, parts, dense = Given(), Contractor(), [], []
    for i, own in enumerate(labels):
        tensor = torch.randn([SIZES[x] for x in own], generator=g).double()
        tensor = tensor + tensor.mT if symmetric and len(own) == 3 else tensor
        source.moments[i] = tensor
        parts.append(Operand(contractor.statistic(source, i), own))
        dense += [tensor, list(own)]
    selections = [read(t, seed) for seed, t in enumerate(selected)]
    for s in selections:
        dense += [s.dense().tensor, [ROW, s.target]]
    found = contractor.message(parts, selections, output, SIZES)
    missing = [x for x in output if x not in found.labels]
    assert not missing
    expected = torch.einsum(*dense, list(output))
    value = found.node.value().permute([found.labels.index(x) for x in output])
    return value, expected, contractor


@pytest.mark.parametrize("symmetric", [False, True])
@pytest.mark.parametrize(
    ("labels", "selected", "output", "kind"),
    [
        ([(ITEM, D, E)], (USER, ITEM), (USER, D, E), SparseProduct),
        ([(ITEM, D, E), (ROW,)], (USER, ITEM), (USER, D, E), SparseProduct),
        ([(ITEM, D, E), (ROW,), (D,)], (USER, ITEM), (USER, E), SparseProduct),
        ([(USER, D, E), (ITEM, D, E)], (USER, ITEM), (), SparseProduct),
        ([(USER, D, E), (ITEM, D), (ROW,), (ROW,)], (USER, ITEM), (E,), SparseProduct),
        ([(USER, D, E), (ITEM, D, E)], (USER, ITEM), (ROW,), RowByRow),
        ([(USER, D), (ITEM, D), (ROW, E)], (USER, ITEM), (E,), RowByRow),
        ([(USER, D), (ITEM, D), (TIME, D)], (USER, ITEM, TIME), (D,), RowByRow),
        ([(ITEM, D), (TIME, D, E), (ROW,)], (USER, ITEM, TIME), (USER, D, E), RowByRow),
    ],
)
def test_message(labels, selected, output, kind, symmetric):
    value, expected, contractor = contracted(labels, selected, output, symmetric)
    torch.testing.assert_close(value, expected, rtol=1e-11, atol=1e-9)
    assert any(isinstance(step, kind) for step in contractor._steps.values())


def test_many_runs_at_once():
    """Under vmap, with weights that are those of all runs and weights of each."""
    g = torch.Generator().manual_seed(0)
    source, contractor = Given(), Contractor()
    parts = [
        Operand(contractor.statistic(source, k), x) for k, x in (("x", (ITEM, D)), ("w", (ROW,)))
    ]
    found = contractor.message(parts, [read(USER, 0), read(ITEM, 1)], (USER, D), SIZES)
    x = torch.randn(4, SIZES[ITEM], 2, generator=g).double()
    w = torch.rand(4, SIZES[ROW], generator=g).double()

    def message(x, w):
        source.moments = {"x": x, "w": w}
        source.version += 1
        return found.node.value()

    for dims in ((0, 0), (0, None), (None, 0)):
        given = [v if d == 0 else v[0] for v, d in zip((x, w), dims, strict=True)]
        mapped = torch.vmap(message, in_dims=dims)(*given)
        for i in range(4):
            alone = message(*[v[i] if d == 0 else v for v, d in zip(given, dims, strict=True)])
            torch.testing.assert_close(mapped[i], alone, rtol=1e-12, atol=1e-12)


def test_gradient_of_the_product():
    g = torch.Generator().manual_seed(0)
    source, contractor = Given(), Contractor()
    parts = [
        Operand(contractor.statistic(source, k), x) for k, x in (("x", (ITEM, D)), ("w", (ROW,)))
    ]
    sizes = SIZES | {ROW: 12}
    selections = [
        Selection(torch.randint(0, SIZES[t], (12,), generator=g), (ROW,), t, SIZES[t])
        for t in (USER, ITEM)
    ]
    found = contractor.message(parts, selections, (USER, D), sizes)

    def message(x, w):
        source.moments = {"x": x, "w": w}
        source.version += 1
        return found.node.value()

    x = torch.randn(SIZES[ITEM], 2, generator=g).double().requires_grad_()
    w = torch.rand(12, generator=g).double().requires_grad_()
    direction = torch.randn(SIZES[USER], 2, generator=g).double()
    hot = [s.dense().tensor for s in selections]
    dense = torch.einsum("id,n,nu,ni->ud", x, w, *hot)
    found, expected = (
        torch.autograd.grad((y * direction).sum(), (x, w)) for y in (message(x, w), dense)
    )
    torch.testing.assert_close(found, expected, rtol=1e-12, atol=1e-12)


def ratings(user, item, y, heavy):
    scale = pyro.sample("tau", dist.Gamma(2.0, 1.0)).rsqrt()
    with pyro.plate("users", 6):
        u = pyro.sample("u", dist.MultivariateNormal(torch.zeros(2), torch.eye(2)))
    with pyro.plate("items", 5):
        v = pyro.sample("v", dist.MultivariateNormal(torch.zeros(2), torch.eye(2)))
    with pyro.plate("ratings", len(y)):
        if heavy:
            scale = scale * pyro.sample("w", dist.Gamma(2.0, 2.0)).rsqrt()
        pyro.sample("y", dist.Normal((u[user] * v[item]).sum(-1), scale), obs=y)


@pytest.mark.parametrize("heavy", [False, True])
def test_factorisation_by_either_path(heavy, monkeypatch):
    g = torch.Generator().manual_seed(1)
    user, item = torch.randint(0, 6, (40,), generator=g), torch.randint(0, 5, (40,), generator=g)
    args = (user, item, torch.randn(40, generator=g).double(), heavy)

    def bounds():
        model = ConjugateModel(ratings, args)
        initialise(model, 0)
        found = []
        for _ in range(4):
            model.sweep()
            found.append(model.elbo())
        return torch.tensor(found)

    sparse = bounds()
    monkeypatch.setattr(contraction, "read_together", lambda *_: False)
    torch.testing.assert_close(sparse, bounds(), rtol=1e-11, atol=1e-9)
    assert bool((sparse.diff() > 0).all())
