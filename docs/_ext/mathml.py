"""Formulas as MathML, converted when the site is built: no script, no fonts and no network to read them.

A formula that cannot be converted is a warning at its line, and so stops the build.
"""

from functools import cache
from typing import Any

from docutils import nodes
from math_core import LatexError, LatexToMathML
from sphinx.application import Sphinx
from sphinx.util import logging

log = logging.getLogger(__name__)


@cache
def converter() -> LatexToMathML:
    """One for all pages."""
    return LatexToMathML(fancy_error=False, annotation=True)


def to_mathml(latex: str, display: bool) -> str:
    r"""The MathML of a formula; a ``\tag`` stands at the right of its line, as in LaTeX's equation."""
    latex = latex.strip()
    if display and r"\tag" in latex:
        latex = rf"\begin{{equation}}{latex}\end{{equation}}"
    return converter().convert_with_local_state(latex, displaystyle=display)


def _write(translator: Any, node: nodes.Node, display: bool) -> None:
    try:
        formula = to_mathml(node.astext(), display)
    except LatexError as error:
        log.warning("formula %r: %s", node.astext(), error, location=node)
        formula = translator.encode(node.astext())
    if display:
        translator.body.append(f'<div class="math" tabindex="0">{formula}</div>')
    else:
        translator.body.append(f'<span class="math">{formula}</span>')
    raise nodes.SkipNode


def visit_inline(translator: Any, node: nodes.math) -> None:
    """``$…$``."""
    _write(translator, node, display=False)


def visit_block(translator: Any, node: nodes.math_block) -> None:
    """``$$…$$``."""
    _write(translator, node, display=True)


def setup(app: Sphinx) -> dict[str, bool]:
    """Sphinx's entry."""
    app.add_html_math_renderer(
        "mathml", inline_renderers=(visit_inline, None), block_renderers=(visit_block, None)
    )
    return {"parallel_read_safe": True, "parallel_write_safe": True}
