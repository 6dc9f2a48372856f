"""Graphs as C loops: every operation gives what torch gives, many steps are the steps in a row."""

import math
import subprocess

import pytest
import torch

from vitools.engines import native
from vitools.engines.functional import functional_graph
from vitools.engines.loop_operations import ELEMENTWISE
from vitools.engines.loops import LARGEST, NotInLoops, loop_program
from vitools.engines.native import compile_loops, find_loop_compiler

pytestmark = pytest.mark.skipif(find_loop_compiler() is None, reason="no C++ compiler")


@pytest.fixture(autouse=True)
def fresh_cache(tmp_path, monkeypatch):
    monkeypatch.setattr(native, "_folder", lambda: tmp_path)


def graph_of(function, example):
    """The graph, and its inputs: the example's and what follows from constants."""
    graph = functional_graph(lambda *inputs: [*function(*inputs)], example)
    return graph.module, [*example, *graph.constants]


def check(function, *example, rtol=1e-12):
    """The loops against torch itself."""
    module, inputs = graph_of(function, example)
    results = compile_loops(module, inputs)(*inputs)
    for got, expected in zip(results, function(*example), strict=True):
        assert got.dtype is expected.dtype
        torch.testing.assert_close(got, expected, rtol=rtol, atol=rtol, equal_nan=True)


def normal(*shape, seed=0):
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


UNARY = {
    "abs": torch.abs,
    "atan": torch.atan,
    "clone": torch.clone,
    "cos": torch.cos,
    "digamma": torch.digamma,
    "erf": torch.erf,
    "exp": torch.exp,
    "expm1": torch.expm1,
    "isnan": torch.isnan,
    "lgamma": torch.lgamma,
    "log": torch.log,
    "log1p": torch.log1p,
    "logical_not": torch.logical_not,
    "neg": torch.neg,
    "reciprocal": torch.reciprocal,
    "relu": torch.relu,
    "rsqrt": torch.rsqrt,
    "sigmoid": torch.sigmoid,
    "sign": torch.sign,
    "sin": torch.sin,
    "sqrt": torch.sqrt,
    "tanh": torch.tanh,
    "_to_copy": lambda x: (x * 10).to(torch.int64),
    "bitwise_not": lambda x: ~(x > 0),
}
BINARY = {
    "add": lambda x, y: torch.add(x, y, alpha=3),
    "sub": torch.sub,
    "mul": torch.mul,
    "div": torch.div,
    "pow": lambda x, y: x.abs() ** y,
    "maximum": torch.maximum,
    "minimum": torch.minimum,
    "where": lambda x, y: torch.where(x > y, x, y * 2),
    "eq": lambda x, y: x == y,
    "ne": lambda x, y: x != y,
    "lt": lambda x, y: x < y,
    "le": lambda x, y: x <= y,
    "gt": lambda x, y: x > y,
    "ge": lambda x, y: x >= y,
    "logical_and": lambda x, y: torch.logical_and(x > 0, y),
    "logical_or": lambda x, y: torch.logical_or(x > 0, y > 0),
    "bitwise_and": lambda x, y: (x > 0) & (y > 0),
    "bitwise_or": lambda x, y: (x > 0) | (y > 0),
}
SPECIAL_NUMBERS = [
    -math.inf,
    -1e3,
    -2.5,
    -0.999999,
    -1e-20,
    -0.0,
    0.0,
    1e-20,
    0.3,
    4.0,
    700.0,
    math.inf,
    math.nan,
]


def test_booleans_and_bytes_overflow_as_in_torch_inside_longer_expressions():
    x = normal(20)
    check(lambda x: [((x > 0) + (x > 0.5)).double() * x], x)
    check(lambda x: [((x > 0).to(torch.uint8) * 200 + 100).double() * x], x)


def test_reductions_of_a_single_number_are_written():
    check(lambda x: [x.sum(-1), x.mean(0), x.amax(0), x.logsumexp(0), x.softmax(0)], normal())


def test_every_elementwise_operation_has_a_test():
    assert set(ELEMENTWISE) <= {*UNARY, *BINARY, "lift_fresh_copy"}


def test_operations_of_one_argument_follow_torch_to_infinity_and_nan():
    x = torch.tensor(SPECIAL_NUMBERS, dtype=torch.float64)
    finite = x.clamp(-1e3, 700.0)
    for name, function in UNARY.items():
        if name in ("sin", "cos", "_to_copy", "digamma"):  # no number at infinity, or no integer
            continue
        check(lambda x, f=function: [f(x)], x, rtol=1e-11)
    check(lambda x: [torch.sin(x), torch.cos(x), torch.digamma(x)], finite[:-1] + 0.1, rtol=1e-11)
    check(lambda x: [(x * 10).to(torch.int64), (x > 0).double()], finite[:-1])


def test_operations_of_two_arguments_broadcast_and_follow_torch():
    x = torch.tensor(SPECIAL_NUMBERS, dtype=torch.float64)
    y = x.flip(0)[:, None]
    for function in BINARY.values():
        check(lambda x, y, f=function: [f(x, y)], x, y, rtol=1e-11)


def test_single_precision_is_as_good_as_torch():
    x = normal(40).float()
    check(lambda x: [x.exp(), x.tanh() + 1, torch.lgamma(x.abs() + 0.1)], x, rtol=2e-6)


@pytest.mark.parametrize("exponent", [2, 3, 1, 0.5, -1, -0.5, -2, -3, 2.7])
def test_powers(exponent):
    check(lambda x: [x**exponent], normal(7).abs() + 0.1)


def test_numbers_and_tensors_of_other_types_are_promoted():
    count = torch.tensor([1, 2, 5])
    check(lambda x: [x * count, (count > x).double() + 1, 3 / count + x, 2.0**x], normal(3))


SHAPES = {
    "sums": lambda x: [
        x.sum(),
        x.sum(0),
        x.sum((1, 2)),
        x.sum(-1, keepdim=True),
        x.amax(1),
        x.amin(2),
    ],
    "transposed sums": lambda x: [x.transpose(0, 2).sum(2), x.permute(2, 0, 1).exp().sum((0, 2))],
    "softmax": lambda x: [x.softmax(1), x.log_softmax(-1), x.logsumexp((0, 2))],
    "running sums": lambda x: [x.cumsum(1), x.cumsum(-1).flip(0)],
    "views": lambda x: [
        x[1:, ::2] * 2,
        x.reshape(-1)[3:9].view(2, 3) + 1,
        x.transpose(0, 1).reshape(4, -1) * 1.0,
        x.diagonal(dim1=0, dim2=2) * 1.0,
        x.unsqueeze(1).expand(3, 2, 4, 5).sum(1),
        torch.stack(x.unbind(1)) + 1,
    ],
    "pieces": lambda x: [
        torch.cat([x[:1], x * 2, x[2:]], 0),
        torch.stack([x[0], x[1]], -1),
        torch.nn.functional.pad(x, (1, 2, 0, 1), value=3.0),
        torch.nn.functional.pad(x, (-1, 1)),
    ],
    "products": lambda x: [
        x[0] @ x[1].T,
        x[0].T @ x[1][:, 0],
        x @ x.transpose(1, 2),
        x[0, 0] @ x[1, 1],
        torch.addmm(x[0, :, :4], x[1], x[2].T),
        torch.einsum("aij,bij->ab", x, x),
    ],
    "chosen elements": lambda x: [
        x[:, torch.tensor([3, 0, -1])],
        x[torch.tensor([[0, 2], [1, 1]])],
        x.gather(1, torch.tensor([[[0, 1], [3, 2]]])),
        torch.zeros(3, dtype=x.dtype).scatter_add(0, torch.tensor([0, 2, 2, 1]), x[0, :, 0]),
        torch.zeros_like(x).index_put((torch.tensor([1, 1]),), x[:2], accumulate=True),
    ],
}


@pytest.mark.parametrize("name", SHAPES)
def test_shapes(name):
    check(SHAPES[name], normal(3, 4, 5))


def test_gradients_of_what_a_view_took():
    def slopes(x):
        with torch.enable_grad():
            leaf = x.detach().requires_grad_()
            loss = (
                leaf[1:].exp().sum()
                + leaf[:, 2].square().mean()
                + torch.nn.functional.softplus(leaf).sum()
            )
            return torch.autograd.grad(loss, leaf)

    check(slopes, normal(3, 4))


def test_many_steps_are_the_steps_in_a_row():
    """x' = 0.9 x + noise, with the same memory for both states at the start."""

    def step(x, y, shift, noise):
        return [0.9 * x + noise[0] + shift, y + x, (x - y).sum().reshape(1)]

    start, shift, noise = torch.zeros(3, dtype=torch.float64), normal(3), normal(5, 3, seed=1)
    example = [start, start, shift, noise[:1]]
    module, _ = graph_of(step, [t.clone() for t in example])
    run = compile_loops(module, example, 2, 1)
    x, y, totals = run(start, start, shift, noise)
    ours, other, expected = start, start, []
    for i in range(5):
        expected.append((ours - other).sum())
        ours, other = 0.9 * ours + noise[i] + shift, other + ours
    torch.testing.assert_close(x, ours)
    torch.testing.assert_close(y, other)
    torch.testing.assert_close(totals, torch.stack(expected))
    assert start.tolist() == [0.0, 0.0, 0.0]


def test_what_was_compiled_is_found_on_disk(tmp_path, monkeypatch):
    module, example = graph_of(lambda x: [x.exp()], [normal(3)])
    compile_loops(module, example)
    assert [file.suffix for file in tmp_path.iterdir()] == [".so"]

    def refuse(*args, **kwargs):
        raise AssertionError("compiled again")

    monkeypatch.setattr(subprocess, "run", refuse)
    assert compile_loops(module, example)(normal(3))[0].shape == (3,)


def test_old_libraries_make_room(tmp_path, monkeypatch):
    monkeypatch.setattr(native, "MOST_FILES", 2)
    for power in range(2, 6):
        compile_loops(*graph_of(lambda x, p=power: [x**p], [normal(3)]))
    assert len(list(tmp_path.glob("*.so"))) == 3


def test_an_index_outside_is_an_error():
    x = normal(4)
    run = compile_loops(*graph_of(lambda x, i: [x[i]], [x, torch.tensor([3])]))
    assert run(x, torch.tensor([-4]))[0].item() == x[0].item()
    for index in (4, -5):
        with pytest.raises(IndexError, match="out of range"):
            run(x, torch.tensor([index]))


@pytest.mark.parametrize(
    ("function", "reason"),
    [
        (lambda x: [torch.linalg.cholesky(x @ x.T + torch.eye(3, dtype=x.dtype))], "cholesky"),
        (lambda x: [x.sort().values], "sort"),
        (lambda x: [x.half()], "float16"),
    ],
)
def test_what_is_not_known_is_refused(function, reason):
    x = normal(3, 3).abs()
    with pytest.raises(NotInLoops, match=reason):
        loop_program(*graph_of(function, [x]))


def test_large_graphs_are_left_to_torch():
    x = torch.zeros(LARGEST // 2, 1)
    with pytest.raises(NotInLoops, match="numbers a step"):
        loop_program(*graph_of(lambda x: [x.exp().cumsum(0) * 2 + x], [x]))
