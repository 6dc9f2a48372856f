"""What a regression needs of its arguments, said before anything is computed."""

import math

import torch
from torch import Tensor

from vitools.errors import DataError, OptionError


def check_layout(features: Tensor, target: Tensor | None, target_name: str) -> None:
    """Shapes and types only, never values: the models run under tracing and vmap too."""
    if not isinstance(features, Tensor) or not features.is_floating_point():
        got = features.dtype if isinstance(features, Tensor) else type(features).__name__
        raise DataError(f"features: expected a tensor of float32 or float64, got {got}.")
    if features.dim() != 2 or 0 in features.shape:
        raise DataError(
            f"features: expected shape [rows, features], neither of them 0, got "
            f"{list(features.shape)}; a single feature is a column: features[:, None]."
        )
    if target is None:
        return
    if not isinstance(target, Tensor):
        raise DataError(f"{target_name}: expected a tensor, got {type(target).__name__}.")
    if target.dim() != 1:
        raise DataError(
            f"{target_name}: expected shape [{features.shape[0]}], one number for each row of "
            f"features, got {list(target.shape)}; a column becomes a vector by .squeeze(-1)."
        )
    if target.shape[0] != features.shape[0]:
        raise DataError(
            f"features has {features.shape[0]} rows and {target_name} has {target.shape[0]}: "
            "expected one number for each row."
        )


def check_values(features: Tensor, target: Tensor) -> None:
    """Layout, and that every number is finite."""
    check_layout(features, target, "target")
    if not bool(features.isfinite().all()):
        row, column = (~features.isfinite()).nonzero()[0].tolist()
        raise DataError(
            f"features: {features[row, column].item()} in row {row}, column {column} (counting "
            "from 0); remove the row or fill the value in."
        )
    if not bool(target.isfinite().all()):
        row = int((~target.isfinite()).nonzero()[0])
        raise DataError(
            f"target: {target[row].item()} in row {row} (counting from 0); remove the row."
        )


def check_positive(**options: float) -> None:
    """Scales, shapes and rates."""
    for name, value in options.items():
        if not (isinstance(value, int | float) and 0 < value < math.inf):
            raise OptionError(f"{name}: expected a positive finite number, got {value!r}.")


def check_count(**options: int) -> None:
    """Sizes and numbers of steps."""
    for name, value in options.items():
        if not isinstance(value, int) or isinstance(value, bool) or value < 1:
            raise OptionError(f"{name}: expected a positive integer, got {value!r}.")


def with_intercept(features: Tensor) -> Tensor:
    """X̃ = [X, 1] in float64, shape [N, D + 1]: the intercept is the last coefficient."""
    features = features.double()
    return torch.cat([features, features.new_ones(features.shape[0], 1)], dim=1)
