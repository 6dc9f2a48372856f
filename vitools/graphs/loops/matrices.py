"""Linear algebra of small matrices in loops: factors of Cholesky and of Gauss, and what they solve.

A call of torch's from inside a program costs as much as some thousand multiplications, so matrices
for which that is more than the arithmetic are factorised here. Strides of rows and columns are given
apart: a transposed matrix, or a solution from the right, is the same loops with the two exchanged.

What is no positive definite matrix has a factor of NaN from its first bad column on (torch's own
operation in a graph leaves what its library has left there, unchecked).

Reference: Golub, Van Loan, *Matrix Computations*, 2013, algorithms 3.1.1, 3.1.2, 3.4.1, 4.2.1.
"""

from collections.abc import Callable, Sequence
from math import prod
from typing import Any

from torch import Tensor

from vitools.graphs.loops.nests import Text
from vitools.graphs.loops.products import LARGE
from vitools.graphs.loops.values import NotInLoops, Value

FUNCTIONS = """
template <class T>
static inline int cholesky(const T* a, long ra, long ca, T* l, long rl, long cl, long n) {
  int bad = 0;
  for (long j = 0; j < n; ++j) {
    for (long i = 0; i < j; ++i) l[i * rl + j * cl] = 0;
    for (long i = j; i < n; ++i) {
      T s = a[i * ra + j * ca];
      for (long k = 0; k < j; ++k) s -= l[i * rl + k * cl] * l[j * rl + k * cl];
      if (i > j) { l[i * rl + j * cl] = s / l[j * rl + j * cl]; continue; }
      if (!(s > 0) && !bad) bad = j + 1;
      l[i * rl + j * cl] = bad ? (T)__builtin_nan("") : (T)__builtin_sqrt(s);
    }
  }
  return bad;
}
template <class T>
static inline void solve_triangular(const T* a, long ra, long ca, T* x, long rx, long cx, long n,
                                    long m, bool upper, bool unit) {
  for (long s = 0; s < n; ++s) {
    const long i = upper ? n - 1 - s : s;
    for (long t = 0; t < s; ++t) {
      const long k = upper ? n - 1 - t : t;
      const T f = a[i * ra + k * ca];
      for (long j = 0; j < m; ++j) x[i * rx + j * cx] -= f * x[k * rx + j * cx];
    }
    if (unit) continue;
    const T d = a[i * ra + i * ca];
    for (long j = 0; j < m; ++j) x[i * rx + j * cx] /= d;
  }
}
template <class T>
static inline void exchange(T* x, long step, long m, long i, long k, long rx) {
  if (i == k) return;
  for (long j = 0; j < m; ++j) {
    const T kept = x[i * rx + j * step];
    x[i * rx + j * step] = x[k * rx + j * step];
    x[k * rx + j * step] = kept;
  }
}
template <class T>
static inline void gauss(T* a, long r, long c, int* pivots, long n) {
  for (long k = 0; k < n; ++k) {
    long best = k;
    for (long i = k + 1; i < n; ++i)
      if (__builtin_fabs(a[i * r + k * c]) > __builtin_fabs(a[best * r + k * c])) best = i;
    pivots[k] = best + 1;
    exchange(a, c, n, k, best, r);
    const T d = a[k * r + k * c];
    if (d == 0) continue;
    for (long i = k + 1; i < n; ++i) {
      const T f = a[i * r + k * c] /= d;
      for (long j = k + 1; j < n; ++j) a[i * r + j * c] -= f * a[k * r + j * c];
    }
  }
}
template <class T>
static inline void log_determinant(const T* a, long r, long c, const int* pivots, long n, T* sign,
                                   T* size) {
  T s = 1, total = 0;
  for (long k = 0; k < n; ++k) {
    const T d = a[k * r + k * c];
    if (pivots[k] != k + 1) s = -s;
    s = d < 0 ? -s : d > 0 ? s : d;
    total += log_((T)__builtin_fabs(d));
  }
  *sign = s;
  *size = total;
}
template <class T>
static inline void solve_gauss(const T* a, long r, long c, const int* pivots, T* x, long rx, long cx,
                               long n, long m, bool adjoint) {
  if (adjoint) {
    solve_triangular(a, c, r, x, rx, cx, n, m, false, false);
    solve_triangular(a, c, r, x, rx, cx, n, m, true, true);
    for (long k = n - 1; k >= 0; --k) exchange(x, cx, m, k, pivots[k] - 1, rx);
    return;
  }
  for (long k = 0; k < n; ++k) exchange(x, cx, m, k, pivots[k] - 1, rx);
  solve_triangular(a, r, c, x, rx, cx, n, m, false, true);
  solve_triangular(a, r, c, x, rx, cx, n, m, true, false);
}
"""
"""Of one matrix: ``a`` with strides of rows and columns, order ``n``; ``x`` is what it solves for, of
``m`` columns, and holds the right-hand side before. ``pivots`` count from one, as LAPACK's do."""


def _cholesky(lowering: Any, node: Any, made: Any) -> list[Value]:
    (given,) = node.args[:1]
    is_upper = _option(node, 1, "upper", False)
    source = _matrix(lowering.value(given))
    order = source.shape[-1]
    _refuse_large(order**3)
    factor, info = (lowering.emitter.fresh(part.dtype, part.shape) for part in made)
    batch = source.shape[:-2]
    at = _indices(batch)
    parts = [_given(source, at, turned=is_upper), _given(factor, at, turned=is_upper)]
    body = f"{info.at(at)} = cholesky({', '.join(parts)}, {order});"
    _say(lowering, batch, body, [source], [factor, info])
    return [factor, info]


def _solve_triangular(lowering: Any, node: Any, made: Tensor) -> Value:
    matrix, right = node.args[:2]
    from_left, is_unit = _option(node, 3, "left", True), _option(node, 4, "unitriangular", False)
    is_upper = bool(node.kwargs["upper"])
    into, triangle, size = _solution(lowering, matrix, right, made, from_left)
    at = _indices(made.shape[:-2])
    parts = [_given(triangle, at, turned=not from_left), _given(into, at, turned=not from_left)]
    flags = f"{_flag(is_upper == from_left)}, {_flag(is_unit)}"
    body = f"solve_triangular({', '.join(parts)}, {size}, {flags});"
    _say(lowering, made.shape[:-2], body, [triangle, into], [into])
    return into


def _cholesky_solve(lowering: Any, node: Any, made: Tensor) -> Value:
    right, factor = node.args[:2]
    is_upper = _option(node, 2, "upper", False)
    into, triangle, size = _solution(lowering, factor, right, made, True)
    at = _indices(made.shape[:-2])
    solved = _given(into, at)
    lower, upper = (_given(triangle, at, turned=turned) for turned in (is_upper, not is_upper))
    body = (
        f"solve_triangular({lower}, {solved}, {size}, false, false); "
        f"solve_triangular({upper}, {solved}, {size}, true, false);"
    )
    _say(lowering, made.shape[:-2], body, [triangle, into], [into])
    return into


def _slogdet(lowering: Any, node: Any, made: Any) -> list[Value]:
    (source,) = node.args
    order = made[2].shape[-1]
    _refuse_large(order**3)
    fresh = lowering.emitter.fresh
    sign, size, _, pivots = (fresh(part.dtype, part.shape) for part in made)
    factor = _matrix(fresh(made[2].dtype, made[2].shape))
    given = lowering.value(source)
    if source.meta["val"].is_contiguous():  # torch factorises the transpose, columns in a row
        given = given.seen_as(given.meta().mT)
    lowering.emitter.assign(factor, given.expression())
    batch = tuple(made[2].shape[:-2])
    at = _indices(batch)
    first = _given(factor, at)
    to_pivots = f"&{pivots.at([*at, '0'])}"
    body = (
        f"gauss({first}, {to_pivots}, {order}); log_determinant({first}, {to_pivots}, {order}, "
        f"&{sign.at(at)}, &{size.at(at)});"
    )
    _say(lowering, batch, body, [factor], [sign, size, factor, pivots])
    return [sign, size, factor, pivots]


def _lu_solve(lowering: Any, node: Any, made: Tensor) -> Value:
    matrix, pivots, right = node.args[:3]
    from_left, adjoint = _option(node, 3, "left", True), _option(node, 4, "adjoint", False)
    into, factor, size = _solution(lowering, matrix, right, made, from_left)
    order = lowering.value(pivots).shape[-1]
    steps = lowering.value(pivots).broadcast((*made.shape[:-2], order))
    if order > 1 and steps.strides[-1] != 1:
        raise NotInLoops("pivots that do not lie side by side")
    at = _indices(made.shape[:-2])
    to_steps = f"&{steps.at([*at, '0'])}"
    solved = _given(into, at, turned=not from_left)
    body = (
        f"solve_gauss({_given(factor, at)}, {to_steps}, {solved}, {size}, "
        f"{_flag(adjoint == from_left)});"
    )
    _say(lowering, made.shape[:-2], body, [factor, steps, into], [into])
    return into


# ---- what they share ------------------------------------------------------------------------


def _solution(
    lowering: Any, matrix: Any, right: Any, made: Tensor, from_left: bool
) -> tuple[Value, Value, str]:
    """The right-hand side where its solution will lie, the matrix, and both sizes in C."""
    shape = tuple(made.shape)
    known = _matrix(lowering.value(matrix))
    order, columns = known.shape[-1], shape[-1 if from_left else -2]
    _refuse_large(order**2 * columns)
    into = lowering.emitter.fresh(made.dtype, shape)
    lowering.emitter.assign(into, lowering.expression(right, shape, made.dtype))
    return into, known.broadcast((*shape[:-2], order, order)), f"{order}, {columns}"


def _matrix(value: Value) -> Value:
    if not value.dtype.is_floating_point or 0 in value.shape:
        raise NotInLoops("linear algebra of nothing, or of integers")
    return value


def _refuse_large(multiplications: int) -> None:
    if multiplications > LARGE:
        raise NotInLoops("matrices for which a library's call repays")


def _option(node: Any, place: int, name: str, default: bool) -> bool:
    """An argument given in its place, by name, or not at all."""
    given = node.args[place] if len(node.args) > place else node.kwargs.get(name, default)
    return bool(given)


def _given(value: Value, at: Sequence[str], *, turned: bool = False) -> str:
    """A pointer to one matrix and its strides, in C."""
    rows, columns = value.strides[-2:]
    if turned:
        rows, columns = columns, rows
    return f"&{value.at([*at, '0', '0'])}, {rows}, {columns}"


def _flag(value: bool) -> str:
    return "true" if value else "false"


def _indices(batch: Sequence[int]) -> list[str]:
    return [f"i{d}" for d in range(len(batch))]


def _say(
    lowering: Any, batch: Sequence[int], body: str, reads: Sequence[Value], writes: Sequence[Value]
) -> None:
    for d in reversed(range(len(batch))):
        body = f"for (long i{d} = 0; i{d} < {batch[d]}; ++i{d}) {{ {body} }}"
    read, written = (tuple(value.buffer for value in values) for values in (reads, writes))
    volume = sum(prod(value.shape) for value in writes)
    lowering.emitter.statements.append(Text(read, written, volume, f"{{ {body} }}"))


MATRICES: dict[str, Callable[[Any, Any, Any], Any]] = {
    "_linalg_slogdet": _slogdet,
    "cholesky_solve": _cholesky_solve,
    "linalg_cholesky_ex": _cholesky,
    "linalg_lu_solve": _lu_solve,
    "linalg_solve_triangular": _solve_triangular,
}
"""Each takes the lowering, the node and what torch makes of it, and returns values in memory."""
