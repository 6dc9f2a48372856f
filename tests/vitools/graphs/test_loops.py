"""Graphs as C loops: every operation gives what torch gives, many steps are the steps in a row."""

import math
import subprocess
from concurrent.futures import ThreadPoolExecutor

import pytest
import torch

from vitools.graphs.functional import functional_graph
from vitools.graphs.loops import NotInLoops, compile_loops, find_loop_compiler, native
from vitools.graphs.loops.operations import ELEMENTWISE
from vitools.graphs.loops.program import loop_program
from vitools.isolation import seeded

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


def test_other_number_types_are_left_to_torchs_compiler():
    with pytest.raises(NotInLoops, match="float16"):
        loop_program(*graph_of(lambda x: [x.half()], [normal(3)]))


# ---- operations left to torch ----------------------------------------------------------------


CALLED = {
    "cholesky": lambda x: [torch.linalg.cholesky(x @ x.T + torch.eye(40, dtype=x.dtype)) * 2],
    "sort": lambda x: [part + 1 for part in x.sort(0)],
    "rounded quotient": lambda x: [torch.div(x, 0.3, rounding_mode="floor")],
    "index by two": lambda x: [x[torch.tensor([3, 1]), torch.tensor([0, 2])]],
    "triangle": lambda x: [
        torch.linalg.solve_triangular(x.tril() + 9 * torch.eye(40, dtype=x.dtype), x, upper=False)
    ],
    "large product": lambda x: [x.exp() @ x.T, (x @ x)[3:].sum(), x.T.view(2, 20, 40) @ x],
    "convolution": lambda x: [
        torch.conv2d(x.view(1, 1, 40, 40), x.view(1, 1, 40, 40)[..., :3, :3])
    ],
}


@pytest.mark.parametrize("name", CALLED)
def test_what_has_no_loops_is_called(name):
    x = normal(40, 40)
    assert loop_program(*graph_of(CALLED[name], [x])).calls
    check(CALLED[name], x, rtol=1e-11)


def test_gradients_that_nobody_asked_for_are_left_out():
    def slopes(x, w):
        with torch.enable_grad():
            leaf = w.detach().requires_grad_()
            return torch.autograd.grad(torch.conv2d(x, leaf).exp().sum(), leaf)

    check(slopes, normal(2, 1, 9, 9), normal(3, 1, 3, 3, seed=1), rtol=1e-11)


def test_calls_see_each_steps_noise_and_state():
    """x' = (x + noise) x / 40, by a product that is left to torch."""

    def step(x, noise):
        return [(x + noise[0]) @ x / 40, (x @ noise[0]).sum().reshape(1)]

    x, noise = normal(40, 40), normal(3, 40, 40, seed=1)
    module, _ = graph_of(step, [x.clone(), noise[:1].clone()])
    got, sums = compile_loops(module, [x, noise[:1]], 1, 1)(x, noise)
    for i in range(3):
        x, total = step(x, noise[i : i + 1])
        assert float(sums[i]) == pytest.approx(float(total), rel=1e-11)
    torch.testing.assert_close(got, x)


def test_what_a_call_raises_is_raised():
    x, where = normal(4, 4), torch.tensor([3, 0])
    run = compile_loops(*graph_of(lambda x, i: [x[i, i]], [x, where]))
    assert torch.equal(run(x, where)[0], x[where, where])
    with pytest.raises(IndexError, match="out of bounds"):
        run(x, where + 1)


DRAWS = {
    "gamma": lambda x: [torch._standard_gamma(x).sum() + x, torch._standard_gamma(x * 2)],
    "bernoulli": lambda x: [torch.bernoulli(x / 9), torch.bernoulli(x / 8) + x],
    "poisson": lambda x: [torch.poisson(x), x.exp()],
    "binomial": lambda x: [torch.binomial(x.floor(), x / 9) * x],
    "multinomial": lambda x: [torch.multinomial(x, 4, replacement=True)],
    "dirichlet": lambda x: [torch._sample_dirichlet(x)],
}


@pytest.mark.parametrize("function", DRAWS.values(), ids=DRAWS)
def test_draws_inside_are_torch_s_own_in_the_order_of_the_graph(function):
    with seeded(0):
        module, inputs = graph_of(function, [torch.linspace(1, 7, 5, dtype=torch.float64)])
        run = compile_loops(module, inputs)
    with seeded(3):
        expected = module(*inputs)
    with seeded(3):
        torch.testing.assert_close(run(*inputs), [*expected])


# ---- loops over the same rows ----------------------------------------------------------------


def glm(x, y, w):
    """A regression's loss and gradient, as autograd records them."""
    slope = (x @ w).sigmoid() - y
    return [(torch.nn.functional.softplus(x @ w) - y * (x @ w)).sum(), x.T @ slope, slope.sum()]


GROUPS = {
    "regression": (glm, (normal(3000, 7), (normal(3000) > 0).double(), normal(7, seed=1))),
    "rows and columns": (
        lambda x: [x.exp().sum(0), x.exp().sum(1), (x - x.mean(0)).square().mean(1), x.amax(0)],
        (normal(900, 50),),
    ),
    "more columns than rows": (
        lambda x: [x.softmax(1), (x.exp() + x[0]).sum(0), x.amin(1) + x[:, 3]],
        (normal(9, 5000),),
    ),
    "columns of columns": (
        lambda x: [x.T.exp().contiguous(), x.T.exp().sum(0), x.T.sin() + x.T[1]],
        (normal(600, 20),),
    ),
    "a row that needs the one before": (
        lambda x: [x[1:] * x[:-1].exp(), x.cumsum(0).sin(), x.flip(0) + x, x[::2] * x[1::2]],
        (normal(6000),),
    ),
    "a sum that the rows need": (
        lambda x: [x / x.sum(), (x - x.mean()).square().sum(), (x / x.exp().sum()).sum(0)],
        (normal(2000, 6),),
    ),
    "chosen rows": (
        lambda x, i: [x[i].exp(), x[i].sum(0), x[i] * 2 + x[-1], x[:, i[:3] % 30].sum(0)],
        (normal(500, 40), torch.arange(300).flip(0)),
    ),
    "pieces": (
        lambda x: [torch.cat([x.sum(0), x.exp().flatten(), x.amax(0)]) * 2, x.exp().sum(0)],
        (normal(700, 20),),
    ),
}


@pytest.mark.parametrize("threads", [1, 2])
@pytest.mark.parametrize("name", GROUPS)
def test_nests_run_together(name, threads):
    function, example = GROUPS[name]
    before = torch.get_num_threads()
    torch.set_num_threads(threads)
    try:
        check(function, *example, rtol=1e-10)
    finally:
        torch.set_num_threads(before)


def test_rows_go_through_memory_once():
    """All of a regression's step over the rows is one pass, which keeps nothing of full length."""
    module, inputs = graph_of(glm, (normal(60_000, 7), normal(60_000).sign(), normal(7)))
    program = loop_program(module, inputs, fixed=[0])
    assert program.columns == {0: 0}
    assert program.source.count("begin +=") == 1
    assert program.work < 60_000 * 8
    results = compile_loops(module, inputs, fixed=[0])(*inputs)
    for got, expected in zip(results, glm(*inputs), strict=True):
        torch.testing.assert_close(got, expected)


def test_data_written_to_between_calls_are_seen():
    x, w = normal(3000, 7), normal(7)
    module, inputs = graph_of(lambda x, w: [(x @ w).exp().sum()], (x, w))
    run = compile_loops(module, inputs, fixed=[0])
    assert run.program.columns
    run(*inputs)
    x.mul_(0.5)
    torch.testing.assert_close(run(*inputs)[0], (x @ w).exp().sum())


def test_threads_add_up_to_the_same_numbers_every_time(monkeypatch):
    monkeypatch.setattr(torch, "get_num_threads", lambda: 2)
    module, inputs = graph_of(glm, (normal(50_000, 7), normal(50_000).sign(), normal(7)))
    run = compile_loops(module, inputs)
    assert "omp parallel" in run.program.source
    first = run(*inputs)
    assert all(
        torch.equal(a, b) for _ in range(20) for a, b in zip(first, run(*inputs), strict=True)
    )


def test_the_state_is_left_as_it_was():
    """A block may be taken back: what it began with is still there after it."""
    module, _ = graph_of(lambda x: [x.sin() + 1], [normal(5000)])
    run = compile_loops(module, [normal(5000)], 1)
    first = normal(5000)
    (second,) = run(first)
    (third,) = run(second)
    (again,) = run(second)
    torch.testing.assert_close(second, normal(5000).sin() + 1)
    assert torch.equal(third, again)
    torch.testing.assert_close(third, second.sin() + 1)
    assert torch.equal(first, normal(5000))


def test_threads_take_turns_in_one_program():
    """A call from inside lets another thread go on, which must not find the memory in use."""
    x = [normal(200, 200, seed=i) for i in range(8)]
    run = compile_loops(*graph_of(lambda x: [(x @ x.exp()).sin().sum(1)], [x[0]]))
    expected = [run(one)[0] for one in x]
    with ThreadPoolExecutor(4) as pool:
        for _ in range(20):
            found = pool.map(lambda one: run(one)[0], x)
            assert all(torch.equal(a, b) for a, b in zip(found, expected, strict=True))
