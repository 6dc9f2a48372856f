"""The least and the largest value that a distribution draws, through the transforms around it.

torch calls the support of a shifted LogNormal the whole line: it looks at the last transform alone.
"""

import math
from typing import Any

import torch
from torch import Tensor
from torch.distributions import constraints
from torch.distributions.transforms import IndependentTransform, Transform

from vitools.distributions.layers import base_distribution
from vitools.supports import base_support, bounds

Ends = tuple[Tensor, Tensor]


def ends_of(fn: Any) -> Ends | None:
    """The least and largest value a distribution draws; ``None`` where it has no such thing."""
    ends = mapped_ends_of(fn)
    return None if ends is None or any(bool(end.isnan().any()) for end in ends) else ends


def mapped_ends_of(fn: Any) -> Ends | None:
    """The same without a look at the numbers, which vmap and recordings refuse: an end may be NaN."""
    base = base_distribution(fn)
    named = type(base).__name__ != "TransformedDistribution"  # these know their support
    transforms = [] if named else [_elementwise(t) for t in base.transforms]
    if transforms and all(t is not None for t in transforms):
        ends = mapped_ends_of(base.base_dist)
        for transform in transforms:
            if ends is None or transform is None:
                return None
            first, second = (transform(end) for end in ends)
            ends = torch.minimum(first, second), torch.maximum(first, second)
        return ends
    return ends_of_support(base.support)


def _elementwise(transform: Transform) -> Transform | None:
    """A transform that is monotone entry by entry, without the ``to_event`` around it."""
    while isinstance(transform, IndependentTransform):
        transform = transform.base_transform
    is_scalar = transform.domain.event_dim == 0 and transform.codomain.event_dim == 0
    return transform if is_scalar and transform.bijective else None


def ends_of_support(support: Any) -> Ends | None:
    base = base_support(support)
    least, most = bounds(support)
    if base is constraints.boolean:
        least, most = 0.0, 1.0
    elif (least, most) == (None, None) and base is not constraints.real:
        return None
    least = torch.as_tensor(-math.inf if least is None else least)
    most = torch.as_tensor(math.inf if most is None else most)
    dtype = torch.promote_types(torch.get_default_dtype(), torch.result_type(least, most))
    return least.to(dtype), most.to(dtype)


def image_of(fn: Any) -> Any:
    """The part of the line that transforms draw from; ``None`` where it is the whole line, or unknown."""
    ends = ends_of(fn)
    if ends is None:
        return None
    least, most = ends
    above, below = bool(least.isfinite().all()), bool(most.isfinite().all())
    if above and below:
        return constraints.interval(least, most)
    if above and not bool(most.isfinite().any()):
        return constraints.greater_than(least)
    if below and not bool(least.isfinite().any()):
        return constraints.less_than(most)
    return None
