"""Twenty-one nodes on [-1, 1]: quadrature with an error estimate, and interpolation.

The Kronrod rule of 21 nodes contains the Gauss rule of 10; the difference of the two estimates the
error of the smaller one, so that of the larger is nearly always far below it (R. Piessens et al.
1983, *QUADPACK*). The nodes crowd towards ±1 as Chebyshev's do: the polynomial of degree 20 through
values at them is well conditioned, and is kept as a sum of Legendre polynomials.
"""

import torch
from torch import Tensor

_POSITIVE = (
    # node, Kronrod weight, Gauss weight
    (0.995657163025808080735527280689003, 0.011694638867371874278064396062192, 0.0),
    (
        0.973906528517171720077964012084452,
        0.032558162307964727478818972459390,
        0.066671344308688138,
    ),
    (0.930157491355708226001207180059508, 0.054755896574351996031381300244580, 0.0),
    (
        0.865063366688984510732096688423493,
        0.075039674810919952767043140916190,
        0.149451349150580593,
    ),
    (0.780817726586416897063717578345042, 0.093125454583697605535065465083366, 0.0),
    (
        0.679409568299024406234327365114874,
        0.109387158802297641899210590325805,
        0.219086362515982044,
    ),
    (0.562757134668604683339000099272694, 0.123491976262065851077958109831074, 0.0),
    (
        0.433395394129247190799265943165784,
        0.134709217311473325928054001771707,
        0.269266719309996355,
    ),
    (0.294392862701460198131126603103866, 0.142775938577060080797094273138717, 0.0),
    (
        0.148874338981631210884826001129720,
        0.147739104901338491374841515972068,
        0.295524224714752870,
    ),
)
_CENTRE = (0.0, 0.149445554002916905664936468389821, 0.0)
_ROWS = torch.tensor(
    [(-x, k, g) for x, k, g in _POSITIVE] + [_CENTRE] + list(reversed(_POSITIVE)),
    dtype=torch.float64,
)

NODES = _ROWS[:, 0].contiguous()
"""[21], ascending."""
KRONROD = _ROWS[:, 1].contiguous()
"""[21], exact for polynomials of degree 31."""
GAUSS = _ROWS[:, 2].contiguous()
"""[21], zero at the nodes of the Kronrod rule alone; exact for degree 19."""
SIZE = len(NODES)


def legendre(x: Tensor, count: int = SIZE) -> Tensor:
    """P_0(x), …, P_{count-1}(x), […, count]."""
    found = [torch.ones_like(x), x]
    for j in range(1, count - 1):
        found.append(((2 * j + 1) * x * found[-1] - j * found[-2]) / (j + 1))
    return torch.stack(found, -1)


def legendre_derivative(x: Tensor) -> Tensor:
    """P_0'(x), …, P_20'(x), […, 21]."""
    values = legendre(x)
    found = [torch.zeros_like(x), torch.ones_like(x)]
    for j in range(1, SIZE - 1):
        found.append(found[-2] + (2 * j + 1) * values[..., j])
    return torch.stack(found, -1)


def legendre_integral(x: Tensor) -> Tensor:
    """∫_{-1}^x P_j, j = 0, …, 20, […, 21]: (P_{j+1}(x) - P_{j-1}(x)) / (2j + 1)."""
    values = legendre(x, SIZE + 1)
    orders = 2 * torch.arange(1, SIZE, dtype=x.dtype) + 1
    return torch.cat([(1 + x).unsqueeze(-1), (values[..., 2:] - values[..., :-2]) / orders], -1)


_FROM_VALUES = torch.linalg.inv(legendre(NODES)).T.contiguous()


def coefficients(values: Tensor) -> Tensor:
    """The Legendre coefficients of the polynomial through values at the nodes, […, 21]."""
    return values @ _FROM_VALUES
