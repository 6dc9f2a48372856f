"""Small matrices in loops: every factor and solution is what torch's library gives."""

import pytest
import torch
import torch.distributions as dist

from vitools.graphs.functional import functional_graph
from vitools.graphs.loops import compile_loops, find_loop_compiler, native
from vitools.graphs.loops.program import loop_program

pytestmark = pytest.mark.skipif(find_loop_compiler() is None, reason="no C++ compiler")


@pytest.fixture(autouse=True)
def fresh_cache(tmp_path, monkeypatch):
    monkeypatch.setattr(native, "_folder", lambda: tmp_path)


def normal(*shape, seed=0, dtype=torch.float64):
    drawn = torch.randn(shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)
    return drawn.to(dtype)


def positive(*shape, seed=0):
    root = normal(*shape, seed=seed)
    return root @ root.mT + torch.eye(shape[-1]).double()


def check(function, *example, rtol=1e-10):
    """All of it in one program without a call of torch's, against torch itself."""
    graph = functional_graph(lambda *inputs: [*function(*inputs)], example)
    inputs = [*example, *graph.constants]
    assert loop_program(graph.module, inputs).calls == ()
    results = compile_loops(graph.module, inputs)(*inputs)
    for got, expected in zip(results, function(*example), strict=True):
        assert got.dtype is expected.dtype
        torch.testing.assert_close(got, expected, rtol=rtol, atol=rtol)


def test_factors_of_cholesky():
    check(
        lambda a: [
            torch.linalg.cholesky_ex(a).L,
            torch.linalg.cholesky_ex(a.mT, upper=True).L,
            torch.linalg.cholesky_ex(a).info,
            torch.linalg.cholesky_ex(a[0, 0]).L,
        ],
        positive(2, 3, 4, 4),
    )


@pytest.mark.parametrize("left", [True, False])
@pytest.mark.parametrize("upper", [True, False])
def test_triangles_are_solved(left, upper):
    def solutions(a, b, c):
        def solved(matrix, right, **options):
            triangle = matrix.triu() if upper else matrix.tril()
            return torch.linalg.solve_triangular(triangle, right, upper=upper, left=left, **options)

        wide = b if left else b.mT
        return [
            solved(a, wide),
            solved(a.mT, wide, unitriangular=True),
            solved(a[0], c if left else c.mT),  # one triangle, many sides
        ]

    shift = 3 * torch.eye(4).double()
    check(solutions, normal(3, 4, 4) + shift, normal(3, 4, 5, seed=1), normal(2, 3, 4, 2, seed=2))


@pytest.mark.parametrize("upper", [True, False])
def test_solutions_by_a_factor_of_cholesky(upper):
    check(
        lambda a, b: [torch.cholesky_solve(b, torch.linalg.cholesky(a, upper=upper), upper=upper)],
        positive(3, 4, 4),
        normal(3, 4, 2, seed=1),
    )


@pytest.mark.parametrize("adjoint", [True, False])
@pytest.mark.parametrize("left", [True, False])
def test_factors_of_gauss(left, adjoint):
    """Rows change places: the first pivot is the smallest of its column."""
    matrix = normal(3, 4, 4)
    matrix[:, 0, 0] = 1e-3

    def found(a, b):
        sign, size, lu, pivots = torch.ops.aten._linalg_slogdet(a)
        right = b if left else b.mT
        solved = torch.linalg.lu_solve(lu, pivots, right, left=left, adjoint=adjoint)
        return [sign, size, lu, pivots, solved]

    check(found, matrix, normal(3, 4, 2, seed=1))


def test_a_determinant_of_zero():
    check(lambda a: list(torch.linalg.slogdet(a)), torch.ones(2, 3, 3).double())


def test_a_diagonal_and_entries_are_put_in_place():
    rows, columns = torch.tensor([0, 2, 2]), torch.tensor([1, 0, -1])
    check(
        lambda a, d, x: [
            a.diagonal_scatter(d, 1, -2, -1),
            a.index_put((torch.tensor([1, 0, 1]), rows, columns), x),
            torch.ops.aten.index_put(a, [None, rows, columns], x, True),
        ],
        normal(2, 3, 4),
        normal(2, 3, seed=1),
        normal(3, seed=2),
    )


def test_what_is_not_positive_definite_has_no_factor():
    """The rows of other matrices are not touched; the factor of this one is NaN where it has none."""
    given = torch.stack([torch.tensor([[4.0, 0.0], [0.0, -1.0]]), torch.eye(2)]).double()
    graph = functional_graph(lambda a: [*torch.linalg.cholesky_ex(a)], [given[1:].repeat(2, 1, 1)])
    factor, info = compile_loops(graph.module, [given, *graph.constants])(given, *graph.constants)
    assert info.tolist() == [2, 0]
    assert float(factor[0, 0, 0]) == 2.0
    assert bool(factor[0, 1, 1].isnan())
    torch.testing.assert_close(factor[1], given[1])


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_a_normal_by_its_precision_and_its_gradient(dtype):
    """Wishart and normal, as a mixture of normals has them."""

    def density(root, x):
        precision = root @ root.mT + torch.eye(2, dtype=dtype)
        normals = dist.MultivariateNormal(
            x.new_zeros(2), precision_matrix=precision, validate_args=False
        )
        wishart = dist.Wishart(
            x.new_tensor(4.0), precision_matrix=torch.eye(2, dtype=dtype), validate_args=False
        )
        return normals.log_prob(x[:, None]).sum() + wishart.log_prob(precision).sum()

    def both(root, x):
        with torch.enable_grad():
            leaf = root.detach().requires_grad_()
            value = density(leaf, x)
            (slope,) = torch.autograd.grad(value, leaf)
        return value.detach(), slope

    rtol = 1e-10 if dtype is torch.float64 else 1e-4
    check(both, normal(3, 2, 2, dtype=dtype), normal(50, 2, seed=1, dtype=dtype), rtol=rtol)
