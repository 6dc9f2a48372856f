"""One posterior out of many: the mixture of several fits, and the ladder of engines."""

from vitools.inference.mix import mix

__all__ = ["mix"]
