"""Graphs of aten operations as C loops, compiled in a second or two and called.

``native`` compiles and calls a ``program``; that is the ``lowering`` of each operation to
``nests`` of loops over strided ``values``, put together by ``groups`` and written by ``source``.
"""

from vitools.graphs.loops.native import compile_loops, find_loop_compiler
from vitools.graphs.loops.values import NotInLoops

__all__ = ["NotInLoops", "compile_loops", "find_loop_compiler"]
