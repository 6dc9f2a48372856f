"""The model's graph as markup of the page: the drawing of :func:`~vitools.draw` in the page's colours."""

import re
import tempfile
from html import escape
from pathlib import Path

from vitools.problem import Problem
from vitools.reporting.graph.draw import draw

INK = {
    "#000000": "currentColor",
    "#595959": "var(--muted)",
    "#d1d1d1": "var(--shade)",
    "#ffffff": "var(--surface)",
}
"""The drawing's greys, and what the page calls them in both themes."""


def graph_markup(problem: Problem) -> str:
    """An ``svg`` element with an alternative text; raises where the model cannot be drawn."""
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder, "graph.svg")
        draw(problem, path)
        text = path.read_text(encoding="utf-8")
    text = text[text.index("<svg") :]
    text = re.sub(r"<metadata>.*?</metadata>|<style.*?</style>", "", text, flags=re.DOTALL)
    text = re.sub("|".join(INK), lambda match: INK[match[0]], text)
    text = re.sub(r"\n\s*", " ", text)
    label = f'role="img" aria-label="{escape(_words(problem))}"'
    return text.replace("<svg", f"<svg {label}", 1)


def _words(problem: Problem) -> str:
    latents = ", ".join(problem.latents) or "none"
    observed = ", ".join(problem.observed) or "none"
    plates = ", ".join(f"{p.name} ({p.size})" for p in problem.plates.values()) or "none"
    return f"Graph of the model. Unknown: {latents}. Observed: {observed}. Plates: {plates}."
