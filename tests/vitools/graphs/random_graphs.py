"""Random programs of tensors: what :mod:`vitools.graphs.loops` compiles, drawn from a seed.

A program is drawn by running it: an operation that torch refuses, or whose result is not finite
or too large to compare, is drawn again. Every tensor made so far may be an argument again, so that
graphs have shared parts, several layouts of one buffer, and values used inside and outside of a
group of loops.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from random import Random

import torch
from torch import Tensor
from torch.nn import functional

LARGEST = 1e3
MOST = 6000  # numbers in one tensor

Operation = Callable[..., Tensor]

UNARY: list[Operation] = [
    torch.sin,
    torch.cos,
    torch.tanh,
    torch.sigmoid,
    torch.atan,
    torch.erf,
    torch.abs,
    torch.neg,
    torch.relu,
    torch.square,
    torch.clone,
    functional.softplus,
    lambda x: x.tanh().exp(),
    lambda x: x.tanh() ** 3,
    lambda x: torch.log1p(x.square()),
    lambda x: torch.expm1(-x.abs()),
    lambda x: (x.square() + 0.1).sqrt(),
    lambda x: (x.square() + 0.1).rsqrt(),
    lambda x: 1 / (1 + x.square()),
    lambda x: (x.abs() + 0.2) ** -1.7,
    lambda x: torch.lgamma(x.abs() + 0.5),
    lambda x: torch.digamma(x.abs() + 0.5),
    lambda x: x.clamp(-0.71, 0.83),
    lambda x: x.clamp(min=-0.41),
    lambda x: torch.where(x > 0.1234, x, 0.5 * x),
    lambda x: ((x > 0.1234).to(torch.uint8) * 200 + 100).double(),
    lambda x: ((x > 0.1234) + (x > -0.567)).double() * x,
    lambda x: (~(x < 0.321) & (x > -1.234)).to(torch.int64) * 3 + x,
    lambda x: (x.tanh() * 5).round().to(torch.int32).double() + 0.5,
    lambda x: ((x.tanh() * 5.1234).round().float() * 0.5 + 1).double(),
    lambda x: torch.div(x, 0.37, rounding_mode="floor"),
]
BINARY: list[Operation] = [
    torch.add,
    torch.sub,
    torch.mul,
    torch.maximum,
    torch.minimum,
    torch.logaddexp,
    lambda x, y: x / (1 + y.square()),
    lambda x, y: torch.add(x, y, alpha=-0.7),
    lambda x, y: (0.2 + x.abs()) ** y.tanh(),
    lambda x, y: torch.where(x > y + 0.0123, x, 2 * y),
    lambda x, y: torch.logical_or(x > 0.123, y > 0.234).double() - y,
    lambda x, y: x.clamp(max=y),
    lambda x, y: x * y.sum(),
]


def _dim(draw: Random, x: Tensor) -> int:
    return draw.randrange(-x.ndim, x.ndim)


def _unary(draw: Random, x: Tensor) -> Operation:
    return draw.choice(UNARY)


def _slice(draw: Random, x: Tensor) -> Operation:
    dim = _dim(draw, x)
    n = x.shape[dim]
    begin, end = sorted((draw.randint(0, n), draw.randint(0, n)))
    step = draw.choice([1, 1, 2, 3])
    where = [slice(None)] * x.ndim
    where[dim] = slice(begin, end if draw.random() < 0.8 else None, step)
    return lambda x: x[tuple(where)]


def _turn(draw: Random, x: Tensor) -> Operation:
    order = draw.sample(range(x.ndim), x.ndim)
    return lambda x: x.permute(order)


def _reshape(draw: Random, x: Tensor) -> Operation:
    ways = [(-1,), (1, -1), (-1, 1), (-1, x.shape[-1]), (x.shape[0], -1), (*x.shape[::-1],)]
    ways += [(n, -1) for n in (2, 3, 4, 5) if x.numel() % n == 0]
    shape = draw.choice(ways)
    return lambda x: x.reshape(shape)


def _expand(draw: Random, x: Tensor) -> Operation:
    dim, n = draw.randint(0, x.ndim), draw.choice([1, 2, 3, 7])
    shape = (*x.shape[:dim], n, *x.shape[dim:])
    return lambda x: x.unsqueeze(dim).expand(shape)


def _look(draw: Random, x: Tensor) -> Operation:
    d, n = _dim(draw, x), max(x.shape[-1] // 2, 1)
    i, e = draw.randrange(-x.shape[d], x.shape[d]), _dim(draw, x)
    width = draw.randint(1, x.shape[d])
    ways: list[Operation] = [
        lambda x: x.select(d, i),
        lambda x: x.flip(d),
        lambda x: x.flip((0, -1)[: min(2, x.ndim)]),
        lambda x: x.squeeze(),
        lambda x: x.unsqueeze(d),
        lambda x: x.transpose(d, e),
        lambda x: x.diagonal(offset=min(1, x.shape[-1] - 1), dim1=0, dim2=-1),
        lambda x: x.unfold(d, width, 1 + width // 2),
        lambda x: x.unbind(d)[i],
        lambda x: torch.stack(x.unbind(d)[:5], -1),
        lambda x: x.split(n, -1)[-1],
        lambda x: x.roll(1, d),
        lambda x: torch.tril(x),
        lambda x: x.contiguous() * 1.5,
    ]
    return draw.choice(ways)


def _reduce(draw: Random, x: Tensor) -> Operation:
    dims = draw.sample(range(x.ndim), draw.randint(1, x.ndim))
    dims = [d - x.ndim if draw.random() < 0.5 else d for d in dims]
    keep = draw.random() < 0.3
    ways: list[Operation] = [
        lambda x: x.sum(dims, keep),
        lambda x: x.sum(dims, keep),
        lambda x: x.sum(),
        lambda x: x.sum(None, keepdim=True) / x.numel(),
        lambda x: x.mean(dims, keep),
        lambda x: x.amax(dims, keep),
        lambda x: x.amin(dims, keep),
        lambda x: x.tanh().prod(dims[0], keep),
        lambda x: (x > 0.1234).sum(dims).double(),
        lambda x: x.logsumexp(dims, keep),
        lambda x: x.var(dims, correction=0, keepdim=keep),
        lambda x: x.softmax(dims[0]),
        lambda x: x.log_softmax(dims[0]),
        lambda x: x.cumsum(dims[0]),
        lambda x: x - x.mean(dims, keepdim=True),
        lambda x: x.square().sum(dims[0], keepdim=True).sqrt().mean(dims, keep),
    ]
    return draw.choice(ways)


def _pad(draw: Random, x: Tensor) -> Operation:
    pads = [draw.randint(-1, 2) for _ in range(2 * draw.randint(1, x.ndim))]
    filling = draw.choice([0.0, 1.5])
    shift = draw.randint(0, 2)

    def stencil(x: Tensor) -> Tensor:
        wide = functional.pad(x.sin(), (*(0, 0) * (x.ndim - 1), 1, 1))
        return wide[shift : shift + x.shape[0]] * 0.5 + wide[: x.shape[0]] - wide[2:].cos()

    ways: list[Operation] = [lambda x: functional.pad(x, pads, value=filling), stencil]
    return draw.choice(ways)


def _index(draw: Random, x: Tensor) -> Operation:
    dim = draw.randrange(x.ndim)
    n, several = x.shape[dim], draw.randint(1, 9)
    count = draw.choice([(several,), (several,), (2, 3), ()])
    where = torch.tensor([draw.randrange(n) for _ in range(torch.Size(count).numel())]).view(count)
    ahead: list[slice] = [slice(None)] * dim
    key = (*ahead, where - n if draw.random() < 0.3 else where)
    flat = where.reshape(-1)
    size = list(x.shape)
    size[dim] = flat.numel()
    wide = flat.view(-1, *(1,) * (x.ndim - dim - 1)).expand(size)
    once, put = torch.arange(n).flip(0)[: n // 2], torch.ops.aten.index_put
    into = [*x.shape[:dim], 4, *x.shape[dim + 1 :]]
    sign = draw.random() < 0.5
    ways: list[Operation] = [
        lambda x: x[key],
        lambda x: x[key].square().sum(0),
        lambda x: x.index_select(dim, where if where.ndim < 2 else flat),
        lambda x: x.gather(dim, wide),
        lambda x: x.new_zeros(into).scatter_add(dim, wide % 4, x),
        lambda x: put(x, [*[None] * dim, where], 2 * x[key].sin(), True),
        lambda x: put(x, [*[None] * dim, once], x.narrow(dim, 0, once.numel()).cos()),
        lambda x: x.index_add(dim, flat, x.cos().index_select(dim, flat), alpha=0.5),
        lambda x: x.select_scatter(x.select(dim, 0).sin(), dim, -1),
        lambda x: x.slice_scatter(x.narrow(dim, 0, n // 2).cos(), dim, n - n // 2),
        lambda x: x.index_select(dim, (x.reshape(-1)[:3] > 0.123 if sign else flat).long() % n),
        lambda x: torch.where((x > 0.123).any(dim, keepdim=True), x, -x),
    ]
    return draw.choice(ways)


def _called(draw: Random, x: Tensor) -> Operation:
    d = _dim(draw, x)
    ways: list[Operation] = [
        lambda x: x.sort(d).values,
        lambda x: x.clone(memory_format=torch.contiguous_format).median(d).values,
        lambda x: x.cumprod(d),
        lambda x: x.tanh().cummax(d).values,
    ]
    return draw.choice(ways)


def _product(draw: Random, x: Tensor) -> Operation:
    ways: list[Operation] = [
        lambda x: x @ x.transpose(-1, -2) / x.shape[-1],
        lambda x: x.transpose(-1, -2) @ x / x.shape[-2],
        lambda x: x @ x.reshape(-1)[: x.shape[-1]] / x.shape[-1],
        lambda x: x.reshape(-1) @ x.reshape(-1) / x.numel(),
        lambda x: (x.reshape(-1, x.shape[-1]) @ x.reshape(-1, x.shape[-1])[0].sin()).tanh(),
        lambda x: torch.linalg.cholesky(
            torch.eye(x.shape[-2], dtype=x.dtype) + x @ x.transpose(-1, -2) / x.shape[-1]
        ),
    ]
    return draw.choice(ways)


def _cat(draw: Random, x: Tensor, y: Tensor) -> Operation:
    dim = _dim(draw, x)
    first = draw.random() < 0.5
    ways: list[Operation] = [
        lambda x, y: torch.cat([x.reshape(-1), y.reshape(-1), x.sin().reshape(-1)]),
        lambda x, y: torch.cat([x.cos(), y.sum() * x, x], dim),
        lambda x, y: torch.cat([x.sum(dim).reshape(-1), y.sum(0).reshape(-1), y.mean().view(1)]),
        lambda x, y: torch.cat([x.amax().view(1), y.sum(-1).reshape(-1), x.mean(0).reshape(-1)]),
        lambda x, y: torch.stack([x.square(), x, x.exp().tanh()], 0 if first else -1),
        lambda x, y: torch.cat([torch.cat([x.exp().tanh(), x]), x.sin()]),
        lambda x, y: torch.cat([x, y], dim),
        lambda x, y: torch.cat([z := x.sin(), 2 * z, z, z[1:], z[-1:]]),
        lambda x, y: torch.cat([x, torch.zeros(0, dtype=x.dtype), y]) if x.ndim == 1 else x,
    ]
    return draw.choice(ways)


def _mixed(draw: Random, x: Tensor, y: Tensor) -> Operation:
    ways: list[Operation] = [
        lambda x, y: x @ y / x.shape[-1],
        lambda x, y: torch.tensordot(x, y, 1) / x.shape[-1],
        lambda x, y: x.unsqueeze(-1) * y.reshape(-1)[:7],
        lambda x, y: torch.outer(x.reshape(-1)[:70], y.reshape(-1)[:9]),
        lambda x, y: torch.addmm(y, x, x.transpose(0, 1)),
    ]
    return draw.choice(ways)


DRAWN = [_unary] * 6 + [_slice, _turn, _reshape, _expand, _look, _look] + [_reduce] * 5
DRAWN += [_pad, _index, _index, _called, _product]


@dataclass
class RandomGraph:
    """A program of ``inputs``; called with tensors like them, it returns ``outputs`` tensors.

    Attributes:
        state: how many inputs the first outputs are to replace.
        noise: how many of the last inputs have a leading dimension of steps.
    """

    seed: int
    length: int
    state: int = 0
    noise: int = 0
    inputs: list[Tensor] = field(default_factory=list)
    steps: list[tuple[Operation, tuple[int, ...], str]] = field(default_factory=list)
    outputs: list[int] = field(default_factory=list)
    leaves: list[int] = field(default_factory=list)

    def __post_init__(self) -> None:
        draw = Random(self.seed)
        numbers = torch.Generator().manual_seed(self.seed)
        self._draw_inputs(draw, numbers)
        pool = [t[0] if self._is_noise(i) else t for i, t in enumerate(self.inputs)]
        while len(self.steps) < self.length:
            self._grow(draw, pool)
        made = range(len(self.inputs), len(pool))
        self.outputs = draw.sample(made, draw.randint(1, min(5, len(made))))
        self.outputs += draw.sample(range(len(pool)), 2)
        draw.shuffle(self.outputs)
        if draw.random() < 0.5 and not self.state:
            count = len(self.inputs)
            self.leaves = draw.sample(range(count), min(3, count))
        self.next = [self._next_state(draw, pool, i) for i in range(self.state)]
        try:
            self(*self.inputs)
        except RuntimeError:  # an operation whose gradient torch refuses
            self.leaves = []

    def _is_noise(self, i: int) -> bool:
        return i >= len(self.inputs) - self.noise

    def _draw_inputs(self, draw: Random, numbers: torch.Generator) -> None:
        n, k = draw.choice([7, 16, 33, 64, 130]), draw.choice([1, 2, 3, 5, 8])
        shapes = [(n, k), (n,), (k,), (n, 1), (1, k), (k, n), (2, n, k), (k, k), (n, k), ()]
        count = draw.randint(1, 4) + self.noise + self.state
        for i in range(count):
            shape = draw.choice(shapes)
            if 0 < i < self.state and draw.random() < 0.5:
                shape = tuple(self.inputs[i - 1].shape)
            if i >= count - self.noise:
                shape = (1, *shape)
            tensor = torch.randn(shape, generator=numbers, dtype=torch.float64)
            if self.state <= i < count - self.noise:
                layout = draw.random()
                if layout < 0.2 and tensor.ndim > 1:
                    tensor = tensor.mT.contiguous().mT
                elif layout < 0.3 and tensor.ndim > 0:
                    tensor = tensor.repeat_interleave(2, -1)[..., ::2]
                elif layout < 0.4 and tensor.ndim > 1:
                    tensor = tensor[:1].expand(tensor.shape)
            self.inputs.append(tensor)

    def _grow(self, draw: Random, pool: list[Tensor]) -> None:
        recent = [len(pool) - 1 - min(int(draw.expovariate(0.15)), len(pool) - 1) for _ in "ab"]
        i, j = (r if draw.random() < 0.7 else draw.randrange(len(pool)) for r in recent)
        x = pool[i]
        try:
            chance = draw.random()
            if chance < 0.25:
                operation, where, kind = draw.choice(BINARY), (i, self._partner(draw, pool, x)), "b"
            elif chance < 0.33:
                operation, where, kind = _cat(draw, x, pool[j]), (i, j), "cat"
            elif chance < 0.37:
                operation, where, kind = _mixed(draw, x, pool[j]), (i, j), "mixed"
            else:
                drawn = draw.choice(DRAWN)
                operation, where, kind = drawn(draw, x), (i,), drawn.__name__
            made = operation(*(pool[w] for w in where))
        except (RuntimeError, IndexError, ValueError, ZeroDivisionError):
            return
        if made.numel() > MOST or made.dtype is not torch.float64 or not made.isfinite().all():
            return
        if made.numel() and made.abs().max() > LARGEST:
            return
        if made.numel() == 0 and draw.random() < 0.9:
            return
        self.steps.append((operation, where, kind))
        pool.append(made)

    @staticmethod
    def _partner(draw: Random, pool: list[Tensor], x: Tensor) -> int:
        """A tensor that ``x`` can be broadcast with."""

        def fits(y: Tensor) -> bool:
            pairs = zip(x.shape[::-1], y.shape[::-1], strict=False)
            return all(n == m or 1 in (n, m) for n, m in pairs)

        return draw.choice([i for i, y in enumerate(pool) if fits(y)])

    def _next_state(self, draw: Random, pool: list[Tensor], i: int) -> int:
        """What replaces the state: most often something of its shape that was computed."""
        alike = [j for j, t in enumerate(pool) if t.shape == self.inputs[i].shape]
        late = [j for j in alike if j >= len(self.inputs)]
        return draw.choice(late if late and draw.random() < 0.8 else alike)

    def __call__(self, *inputs: Tensor) -> list[Tensor]:
        with torch.enable_grad():
            leaves = [inputs[i].detach().requires_grad_() for i in self.leaves]
            pool = list(inputs)
            for i, leaf in zip(self.leaves, leaves, strict=True):
                pool[i] = leaf
            pool = [t[0] if self._is_noise(i) else t for i, t in enumerate(pool)]
            for operation, where, _ in self.steps:
                pool.append(operation(*(pool[w] for w in where)))
            made = [pool[i] for i in self.outputs]
            slopes: Sequence[Tensor] = []
            if leaves:
                loss = sum((t.sin().mean() for t in made if t.numel()), leaves[0].sum() * 0)
                slopes = torch.autograd.grad(loss, leaves, allow_unused=True)
        state = [pool[i].tanh() if i >= len(inputs) else pool[i] for i in self.next]
        made = [*made, *(s for s in slopes if s is not None)]
        if self.noise:
            made = [t.unsqueeze(0) for t in made]
        return [*state, *(t.detach() for t in made)]
