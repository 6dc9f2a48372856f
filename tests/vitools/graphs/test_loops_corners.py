"""Loops at the corners: one memory looked at in many ways, other layouts, integers, odd indices."""

import pytest
import torch
from test_loops import check, fresh_cache, graph_of, normal  # noqa: F401

from vitools.graphs.loops import NotInLoops, compile_loops, find_loop_compiler
from vitools.graphs.loops.program import loop_program

pytestmark = pytest.mark.skipif(find_loop_compiler() is None, reason="no C++ compiler")


def assert_same(got, expected):
    for one, other in zip(got, expected, strict=True):
        torch.testing.assert_close(one, other)


# ---- memory ----------------------------------------------------------------------------------


def test_two_matrices_in_one_memory_get_columns_of_their_own():
    """[N, K] and [2 N, K / 2] are the same numbers row by row, but not column by column."""

    def function(w, v, wide, narrow):
        return [wide @ w, narrow @ v, wide.T @ (wide @ w), narrow.T @ (narrow @ v)]

    wide = normal(1000, 10)
    inputs = [normal(10), normal(5), wide, wide.view(2000, 5)]
    module, _ = graph_of(function, [t.clone() for t in inputs])
    run = compile_loops(module, inputs, fixed=[2, 3])
    assert len(run.program.columns) == 2
    assert_same(run(*inputs), function(*inputs))


def test_a_transpose_shares_its_columns_with_the_matrix():
    x = normal(1000, 10)
    inputs = [normal(10), x, x.T]
    module, _ = graph_of(lambda w, x, turned: [turned @ (x @ w)], [t.clone() for t in inputs])
    run = compile_loops(module, inputs, fixed=[1, 2])
    assert run.program.columns == {1: 1, 2: 1}
    assert_same(run(*inputs), [x.T @ (x @ inputs[0])])


def test_what_is_laid_out_otherwise_is_read_right():
    def function(x, y):
        return [x * 2 + y, x.sum(0), x @ y.T]

    x, y = normal(6, 4), normal(4, seed=1).expand(6, 4)
    run = compile_loops(*graph_of(function, [x, y]))
    for one in (x, normal(4, 6).T, normal(6, 8)[:, ::2], x[:1].expand(6, 4)):
        for other in (y, normal(6, 4, seed=2), normal(4, 6, seed=3).T):
            assert_same(run(one, other), function(one, other))


def test_a_state_and_noise_may_lie_in_any_order():
    def step(x, noise):
        return [x.sin() + noise[0]]

    x, noise = normal(4, 3).T, normal(3, 4, 2, seed=1).permute(2, 0, 1)
    module, _ = graph_of(step, [x.clone(), noise[:1].clone()])
    (got,) = compile_loops(module, [x, noise[:1]], 1, 1)(x, noise)
    for i in range(2):
        (x,) = step(x, noise[i : i + 1])
    torch.testing.assert_close(got, x)


def test_tensors_unlike_the_example_are_refused():
    x, noise = normal(4), normal(3, 4)
    module, _ = graph_of(lambda x, n, m: [x + n[0] * m[0]], [x, noise[:1], noise[:1].clone()])
    run = compile_loops(module, [x, noise[:1], noise[:1]], 1, 2)
    for other in ([x.float(), noise, noise], [normal(5), noise, noise], [x, noise, noise[:2]]):
        with pytest.raises(ValueError, match="of a compiled graph: expected"):
            run(*other)


def test_results_that_cannot_follow_one_another_are_refused():
    """A state of another size or type, and results without a place for the step."""
    x, noise = normal(4), normal(1, 4, seed=1)
    for function in (lambda x, n: [x.sum()], lambda x, n: [x.float()]):
        with pytest.raises(ValueError, match="is to replace a state"):
            loop_program(*graph_of(function, [x, noise]), 1, 1)
    with pytest.raises(ValueError, match=r"expected \[1, …\]"):
        loop_program(*graph_of(lambda x, n: [x + n[0], x * 2], [x, noise]), 1, 1)


def test_an_earlier_state_may_be_any_input():
    """The memory of a state is used again only by a call that reads nothing of it."""

    def function(a, b, c):
        return [b.sin() + c.sum(), a + b.sum()]

    a, b, c = normal(5), normal(5, seed=1), normal(5, seed=2)
    run = compile_loops(*graph_of(function, [a, b, c]), 2)
    first = run(a, b, c)
    second = run(*first, c)
    for inputs in (
        (first[1], first[0], c),
        (first[0], second[1], c),
        (a, b, first[0]),
        (second[0], first[1], second[1]),
        (a, b, second[0]),
    ):
        expected = function(*(t.clone() for t in inputs))
        assert_same(run(*inputs), expected)
    run = compile_loops(*graph_of(lambda a, b: [a.sin(), b + a.sum()], [a, normal(6)]), 2)
    after = run(a, normal(6))
    expected = [after[1][1:].sin(), normal(6) + after[1][1:].sum()]
    assert_same(run(after[1][1:], normal(6)), expected)


def test_counting_in_torchs_memory_is_left_to_torch():
    """``x.T.exp()`` lies in the order of ``x`` in torch, and in its own here."""
    x = normal(6, 4)
    check(lambda x: [x.as_strided((2, 3), (1, 2), 1) * 2], x)
    for function in (
        lambda x: [x.T.exp().as_strided((2, 3), (1, 2), 1)],
        lambda x: [x.T.exp().as_strided_scatter(x[:2, :3], (2, 3), (1, 2), 1)],
    ):
        with pytest.raises(NotInLoops, match="lays out its memory"):
            loop_program(*graph_of(function, [x]))


def test_operations_in_place_are_left_to_torch():
    graph = torch.fx.Graph()
    x = graph.placeholder("x")
    made = graph.call_function(torch.ops.aten.exp.default, (x,))
    changed = graph.call_function(torch.ops.aten.add_.Tensor, (made, 1.0))
    graph.output([graph.call_function(torch.ops.aten.mul.Tensor, (made, changed))])
    with pytest.raises(NotInLoops):
        loop_program(torch.fx.GraphModule({}, graph), [normal(3)])


# ---- numbers ---------------------------------------------------------------------------------


@pytest.mark.parametrize("dtype", [torch.int64, torch.int32, torch.uint8])
def test_integers_wrap_around_as_in_torch(dtype):
    end = torch.iinfo(dtype)
    x = torch.tensor([end.max, end.max - 1, end.min, end.min + 1, 5, 1], dtype=dtype)
    check(lambda x: [x + x, x * x, x - 3, x.abs(), x**2, -x, (x + 1 > x), (x * x).double() / 7], x)
    check(lambda x: [x.clamp(1, 4), torch.maximum(x, x.flip(0)), torch.where(x > 3, x, 2)], x)
    check(lambda x: [-torch.full_like(x, 3) + x, torch.add(x, x, alpha=3), x == -1, x > 2.5], x)


def test_a_difference_of_equal_products_is_nothing():
    """Rounded once, x y - z is a rounding error where z is x y, whose root is not a number."""
    x, y = normal(5000).abs(), normal(5000, seed=1).abs()
    check(lambda x, y, z: [(x * y - z).sqrt()], x, y, x * y)


def test_reductions_over_all_dimensions_by_none():
    check(lambda x: [x.sum(None, keepdim=True), x.mean(None), x.sum(())], normal(3, 4))


# ---- indices and pieces ----------------------------------------------------------------------


def test_one_index_keeps_its_dimension():
    check(
        lambda x, i: [x.index_select(1, i), x.index_select(-1, i) * 2],
        normal(3, 4),
        torch.tensor(2),
    )


def test_one_index_keeps_its_dimension_in_gradients():
    def slopes(x, i):
        with torch.enable_grad():
            leaf = x.detach().requires_grad_()
            return torch.autograd.grad(leaf.index_select(1, i).exp().sum(), leaf)

    check(slopes, normal(3, 4), torch.tensor(2))


def test_nothing_of_nothing():
    check(
        lambda x: [torch.cat([x[:0], x[4:]]) + 1, torch.cat([x[:0, 0], x[0, :0]]).exp()],
        normal(3, 4),
    )
    check(lambda x: [x[:, :0] @ x[0, :0], x[:0] @ x[0], x[:0].sum(0), x[:0].mean(1)], normal(3, 4))


@pytest.mark.parametrize("name", ["gather", "index_select", "scatter_add"])
def test_indices_that_torch_does_not_count_from_the_end_are_errors(name):
    def function(x, i):
        arguments = (0, i, x[:1]) if name == "scatter_add" else (0, i)
        return [getattr(x, name)(*arguments)]

    x = normal(5)
    run = compile_loops(*graph_of(function, [x, torch.tensor([3])]))
    assert_same(run(x, torch.tensor([2])), function(x, torch.tensor([2])))
    with pytest.raises(IndexError, match="out of range"):
        run(x, torch.tensor([-1]))


def test_what_is_called_gets_every_number_of_its_own():
    """torch's median of an expanded tensor is wrong; in the graph its argument is a dense one."""
    x = torch.tensor([0.3]).double().expand(16)
    module, _ = graph_of(lambda x: [(x * 2).median(0).values + 1], [x.clone()])
    torch.testing.assert_close(compile_loops(module, [x], fixed=[0])(x)[0], x[0] * 2 + 1)
