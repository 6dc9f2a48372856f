"""How a function of discrete latents was written: ``z1 + z2``, ``where(z == 0, 1, 2)``.

The calculus keeps a table of its values; explanations give the reader the words back.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from vitools.calculus.algebra.discrete import Discrete

SYMBOLS = {
    "add": "+", "sub": "-", "subtract": "-", "mul": "*", "multiply": "*", "div": "/",
    "truediv": "/", "floor_divide": "//", "floordiv": "//", "remainder": "%", "mod": "%",
    "eq": "==", "ne": "!=", "lt": "<", "le": "<=", "gt": ">", "ge": ">=", "and": "&", "or": "|",
    "logical_and": "&", "logical_or": "|", "bitwise_and": "&", "bitwise_or": "|", "pow": "**",
}  # fmt: skip
BINDING = (
    {"==", "!=", "<", "<=", ">", ">="},
    {"|"},
    {"&"},
    {"+", "-"},
    {"*", "/", "//", "%"},
    {"**"},
)
"""Python's symbols, those that bind least first."""
REVERSED = {"radd": "+", "rsub": "-", "rmul": "*", "rtruediv": "/", "rdiv": "/"}
SAME = {
    "unsqueeze", "squeeze", "expand", "expand_as", "broadcast_to", "reshape", "view", "flatten",
    "ravel", "permute", "transpose", "t", "T", "mT", "movedim", "to", "type", "type_as", "double",
    "float", "long", "int", "bool", "clone", "detach", "contiguous", "pos", "positive",
}  # fmt: skip
"""Operations that change the shape or the type of a number, and nothing that a reader would say."""


def spelled(name: str, arguments: Sequence[Any], options: Mapping[str, Any]) -> str:
    """The words of ``name(*arguments, **options)``; empty where an argument has none (data)."""
    if name in SAME or (name == "getitem" and _is_whole(arguments[1])):
        return _words(arguments[0])
    words = [_words(argument) for argument in arguments]
    if name == "getitem" or options or not all(words):
        return ""
    if name in REVERSED:
        return _infix(words[1], REVERSED[name], words[0])
    if name in SYMBOLS and len(words) == 2:
        return _infix(words[0], SYMBOLS[name], words[1])
    return f"{name}({', '.join(words)})"


def _words(argument: Any) -> str:
    if isinstance(argument, Discrete):
        return argument.words
    return str(argument) if isinstance(argument, bool | int | float) else ""


def _infix(left: str, symbol: str, right: str) -> str:
    """Both sides, each in brackets where it binds less than the symbol."""
    strength = _strength(symbol)
    left = left if _weakest(left) >= strength else f"({left})"
    right = right if _weakest(right) > strength else f"({right})"
    return f"{left} {symbol} {right}"


def _weakest(words: str) -> int:
    """How much the outermost operation binds."""
    return min((_strength(symbol) for symbol in _outermost(words)), default=len(BINDING))


def _outermost(words: str) -> list[str]:
    """The symbols outside all brackets."""
    depth, found = 0, []
    for part in words.split():
        if not depth and any(part in symbols for symbols in BINDING):
            found.append(part)
        depth += part.count("(") - part.count(")")
    return found


def _strength(symbol: str) -> int:
    return next(i for i, symbols in enumerate(BINDING) if symbol in symbols)


def _is_whole(key: Any) -> bool:
    """Whether indexing takes everything: slices, ``None``, the ellipsis."""
    keys = key if isinstance(key, tuple) else (key,)
    return all(k is None or k is Ellipsis or k == slice(None) for k in keys)
