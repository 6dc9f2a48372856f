"""Points at which a matrix of the model is singular: they have no density, and spare the others."""

from collections.abc import Callable

import torch
from torch import Tensor
from torch.linalg import LinAlgError

from vitools.errors import ModelError

Results = tuple[Tensor, ...]


def where_defined(
    function: Callable[[Tensor], Results], nothing: Callable[[Tensor], Results], points: Tensor
) -> Results:
    """``function`` of points ``[n, P]``, and ``nothing`` of those at which a matrix is singular.

    An error is of all points together: they are halved until those that cause it are alone, which
    takes 2 log₂ n calls for each of them.

    Example:
        >>> def log_determinant(x):
        ...     return (torch.linalg.cholesky(torch.diag_embed(x)).diagonal(0, -2, -1).log().sum(-1),)
        >>> points = torch.tensor([[1.0, 1.0], [1.0, -1.0], [1.0, 1.0]])
        >>> where_defined(log_determinant, lambda x: (torch.full((len(x),), -torch.inf),), points)
        (tensor([0., -inf, 0.]),)
    """
    try:
        return function(points)
    except (ModelError, LinAlgError) as error:
        if not isinstance(error, LinAlgError) and not isinstance(error.__cause__, LinAlgError):
            raise
    if len(points) == 1:
        return nothing(points)
    halves = [where_defined(function, nothing, part) for part in points.tensor_split(2)]
    return tuple(torch.cat(column) for column in zip(*halves, strict=True))
