"""What :mod:`vitools.graphs.loops` can write in C: the elementwise operations and their helpers.

An elementwise operation is one line: its aten name and a C expression of its arguments, ``{0}``,
``{1}``, …. Arguments are first cast to the type of the result or, where ``OF_ARGUMENTS`` says so,
to the type the arguments promote to. An argument stands once in an expression (it may itself be a
long one), so what needs it twice is a function of :data:`PRELUDE`.
"""

import platform
import re
from typing import Any

import torch

aten = torch.ops.aten

TYPES = {
    torch.float32: "float",
    torch.float64: "double",
    torch.int64: "long long",
    torch.int32: "int",
    torch.uint8: "unsigned char",
    torch.bool: "bool",
}

ELEMENTWISE: dict[str, str] = {
    "add": "({0} + {1})",
    "sub": "({0} - {1})",
    "mul": "({0} * {1})",
    "div": "({0} / {1})",
    "neg": "(-{0})",
    "abs": "fabs_({0})",
    "exp": "exp_({0})",
    "log": "log_({0})",
    "log1p": "log1p_({0})",
    "expm1": "expm1_({0})",
    "sqrt": "sqrt_({0})",
    "rsqrt": "(1 / sqrt_({0}))",
    "reciprocal": "(1 / {0})",
    "sin": "sin_({0})",
    "cos": "cos_({0})",
    "atan": "atan_({0})",
    "tanh": "tanh_({0})",
    "erf": "erf_({0})",
    "lgamma": "lgamma_({0})",
    "digamma": "digamma_({0})",
    "sigmoid": "(1 / (1 + exp_(-{0})))",
    "relu": "relu_({0})",
    "sign": "sign_({0})",
    "pow": "pow_({0}, {1})",
    "maximum": "larger({0}, {1})",
    "minimum": "smaller({0}, {1})",
    "where": "({0} ? {1} : {2})",
    "eq": "({0} == {1})",
    "ne": "({0} != {1})",
    "lt": "({0} < {1})",
    "le": "({0} <= {1})",
    "gt": "({0} > {1})",
    "ge": "({0} >= {1})",
    "isnan": "is_nan({0})",
    "logical_and": "({0} && {1})",
    "logical_or": "({0} || {1})",
    "logical_not": "(!{0})",
    "bitwise_and": "({0} & {1})",
    "bitwise_or": "({0} | {1})",
    "bitwise_not": "(!{0})",
    "clone": "{0}",
    "_to_copy": "{0}",
    "lift_fresh_copy": "{0}",
}
OF_ARGUMENTS = {"eq", "ne", "lt", "le", "gt", "ge", "isnan"}
TO_BOOLEAN = {"logical_and", "logical_or", "logical_not"}
WRAPPING = {"add", "sub", "mul", "neg"}
"""What C leaves undefined where signed integers overflow."""
BOOLEAN_ONLY = {"bitwise_and", "bitwise_or", "bitwise_not"}

POWERS = {2: "sq({0})", 1: "{0}", 0.5: "sqrt_({0})", -1: "(1 / {0})", -0.5: "(1 / sqrt_({0}))"}
POWERS |= {3: "cube({0})", -2: "(1 / sq({0}))", -3: "(1 / cube({0}))"}

VIEWS = {
    "alias",
    "as_strided",
    "diagonal",
    "expand",
    "permute",
    "select",
    "slice",
    "split",
    "split_with_sizes",
    "squeeze",
    "t",
    "transpose",
    "unbind",
    "unfold",
    "unsqueeze",
    "view",
    "_unsafe_view",
}

FUNCTIONS = ("exp", "log", "sin", "cos", "log1p", "expm1", "tanh", "erf", "atan", "lgamma", "pow")

PRELUDE = """
template <class T> static inline T sq(T x) { return x * x; }
template <class T> static inline T cube(T x) { return x * x * x; }
static int outside;
static inline long long inside(long long i, long long n, long long below) {
  i += i < 0 ? below : 0;
  if (i >= 0 && i < n) return i;
  outside = 1;
  return 0;
}
template <class T> static inline bool is_nan(T x) { return x != x; }
template <class T> static inline T larger(T x, T y) { return x > y || x != x ? x : y; }
template <class T> static inline T smaller(T x, T y) { return x < y || x != x ? x : y; }
template <class T> static inline T relu_(T x) { return larger(x, T(0)); }
template <class T> static inline T sign_(T x) { return T((x > 0) - (x < 0)); }
static inline float fabs_(float x) { return __builtin_fabsf(x); }
static inline double fabs_(double x) { return __builtin_fabs(x); }
template <class T> static inline T fabs_(T x) { return x < 0 ? -x : x; }
static inline float sqrt_(float x) { return __builtin_sqrtf(x); }
static inline double sqrt_(double x) { return __builtin_sqrt(x); }
// psi(x): recurrence to x >= 10, then the asymptotic series; reflection for x <= 0
static inline double digamma_(double x) {
  double r = 0;
  if (x == 0) return -1 / x;
  if (x < 0) {
    const double pi = 3.14159265358979323846;
    double whole = __builtin_ceil(x);  // towards 0: just below it x - floor(x) would round to 1
    if (whole == x) return __builtin_nan("");
    r = -pi * cos_(pi * (x - whole)) / sin_(pi * (x - whole));
    x = 1 - x;
  }
  for (; x < 10; x += 1) r -= 1 / x;
  double y = 1 / (x * x);
  double s = y * (1. / 12 - y * (1. / 120 - y * (1. / 252 - y * (1. / 240 - y * (1. / 132
             - y * (691. / 32760 - y / 12))))));
  return r + log_(x) - 0.5 / x - s;
}
static inline float digamma_(float x) { return float(digamma_(double(x))); }
"""


def name_of(target: Any) -> str:
    """``add`` for ``aten.add.Tensor``."""
    schema = getattr(target, "_schema", None)
    return "" if schema is None else str(schema.name).removeprefix("aten::")


def vector_functions() -> tuple[str, ...]:
    """Functions that the mathematical library computes several at a time."""
    library, version = platform.libc_ver()
    if library != "glibc" or platform.machine() != "x86_64":
        return ()
    number = tuple(map(int, version.split(".")[:2]))
    if number < (2, 22):
        return ()
    later = ("log1p", "expm1", "tanh", "erf", "atan") if number >= (2, 35) else ()
    return ("exp", "log", "sin", "cos", "pow", *later)


def runs_in_vectors(text: str) -> bool:
    """Whether a compiler can compute several of an expression of C at a time."""
    alone = {*FUNCTIONS, "digamma", "inside"} - {*vector_functions()}
    return not any(re.search(rf"\b{name}_?\(", text) for name in alone)


def declarations() -> str:
    """The functions of the mathematical library, those with vector variants marked so."""
    vector = vector_functions()
    lines = []
    for name in FUNCTIONS:
        marks = '__attribute__((simd("notinbranch"), const))' if name in vector else ""
        for kind, suffix in (("float", "f"), ("double", "")):
            given = f"{kind} x, {kind} y" if name == "pow" else f"{kind} x"
            passed = "x, y" if name == "pow" else "x"
            lines.append(f'extern "C" {marks} {kind} {name}{suffix}({given}) noexcept;')
            lines.append(
                f"static inline {kind} {name}_({given}) {{ return {name}{suffix}({passed}); }}"
            )
    return "\n".join(lines) + PRELUDE


def literal(value: float | int | bool, dtype: torch.dtype) -> str:
    """A number as C writes it in the type of ``dtype``."""
    if dtype is torch.bool:
        return "true" if value else "false"
    if not dtype.is_floating_point:
        return f"(({TYPES[dtype]}){int(value)}LL)"
    suffix = "f" if dtype is torch.float32 else ""
    number = float(value)
    if number != number:
        return f'__builtin_nan{suffix}("")'
    if number in (float("inf"), float("-inf")):
        return f"({'-' if number < 0 else ''}__builtin_inf{suffix}())"
    return f"({number!r}{suffix})"
