"""One posterior out of many: the ladder of engines, and the mixture of several fits."""

from vitools.inference.climb import infer
from vitools.inference.mixture import mix

__all__ = ["infer", "mix"]
