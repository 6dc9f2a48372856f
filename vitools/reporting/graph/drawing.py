"""A model graph on paper: circles, shaded circles, plates and arrows, through matplotlib alone.

Follows the conventions of Bishop (2006, section 8.1): circles are unknown, shaded circles are
observed, small dots are fixed numbers, rounded rectangles are repetitions. No system program, no
pyplot state; the figure's unit is the inch, and an SVG or PDF keeps its text as text.
"""

import io
import itertools
import re
from dataclasses import dataclass
from os import PathLike
from typing import Any, Literal

import numpy as np
from matplotlib import rc_context
from matplotlib.figure import Figure
from matplotlib.font_manager import FontProperties
from matplotlib.patches import Ellipse, FancyBboxPatch, PathPatch, Polygon
from matplotlib.path import Path
from matplotlib.textpath import text_to_path
from numpy.typing import NDArray

from vitools._version import __version__
from vitools.errors import NotSupportedError, OptionError
from vitools.files.atomic import as_path, atomic_path
from vitools.files.ownership import PICTURE_KEYS
from vitools.notebook.picture import Picture
from vitools.reporting.graph.curves import Box, leaving, part_of, points_on
from vitools.reporting.graph.geometry import Drawing, Frame, draw_up
from vitools.reporting.graph.layout import arrange
from vitools.reporting.graph.names import math_name
from vitools.reporting.graph.record import GraphNode, ModelGraph
from vitools.reporting.graph.sequences import abridged

__all__ = ["PagePlan", "plan", "render", "save"]

RADIUS, DOT = 0.25, 0.045
NAME_SIZE, PARAMETER_SIZE, CAPTION_SIZE, LABEL_SIZE = 14.0, 11.0, 7.5, 8.5
SHADE = "0.82"
HEAD_LENGTH, HEAD_HALF_WIDTH = 0.1, 0.038
TOUCH = 0.015  # between an arrow's end and the border it points at
MARGIN = 0.1
MOST = 120  # nodes on one page
_UNDATED: dict[str, dict] = {".svg": {"Date": None}, ".pdf": {"CreationDate": None}, ".png": {}}
_METADATA = {
    suffix: {**undated, PICTURE_KEYS[suffix]: f"vitools {__version__}"}
    for suffix, undated in _UNDATED.items()
}


Style = Literal["normal", "italic"]


@dataclass(frozen=True)
class PagePlan:
    """Everything that stands on the page: boxes by node, frames and their plates, coordinates."""

    graph: ModelGraph
    boxes: list[Box]
    edges: list[tuple[int, int]]
    frames: list[Frame]
    labels: list[tuple[str, str]]
    drawing: Drawing


def plan(graph: ModelGraph) -> PagePlan:
    """Lay the graph out on the page."""
    graph, runs = abridged(graph)
    if len(graph.nodes) > MOST:
        raise NotSupportedError(
            f"the model has {len(graph.nodes)} nodes to draw; a picture is readable up to {MOST}. "
            "Put repeated sites in a pyro.plate, or number them (z_1, z_2, ...) to have them shortened."
        )
    number = {node.name: i for i, node in enumerate(graph.nodes)}
    edges = [(number[u], number[v]) for u, v in graph.edges]
    plates = [[number[name] for name in plate.nodes] for plate in graph.plates]
    kin = [(number[u], number[v]) for run in runs for u, v in itertools.pairwise(run)]
    grid, groups = arrange(len(number), edges, plates, kin)
    frames, labels = [], []
    for plate, parts in zip(graph.plates, groups, strict=True):
        short = len(plate.name) == 1  # a plate called N is its own symbol
        label = (
            ("", f"${plate.name} = {plate.size}$") if short else (plate.name, f"$N = {plate.size}$")
        )
        for part in parts:
            frames.append(Frame(tuple(part), sum(_label_widths(label))))
            labels.append(label)
    boxes = [_box(node) for node in graph.nodes]
    return PagePlan(graph, boxes, edges, frames, labels, draw_up(boxes, edges, frames, grid))


def render(graph: ModelGraph) -> Figure:
    """The graph as a figure just large enough for it."""
    page = plan(graph)
    graph = page.graph
    centres, rectangles = page.drawing.centres, page.drawing.rectangles
    curves = [points_on(curve, 200) for curve in page.drawing.routes]
    above = np.array([[box.half_width, box.ry] for box in page.boxes])
    below = np.array([[box.half_width, box.below] for box in page.boxes])
    ink = [centres - above, centres + below, rectangles[:, :2], rectangles[:, 2:], *curves]
    left, top = np.concatenate(ink).min(0) - MARGIN
    right, bottom = np.concatenate(ink).max(0) + MARGIN
    figure = Picture(figsize=(right - left, bottom - top), facecolor="white")
    axes = figure.add_axes((0, 0, 1, 1))
    axes.set(xlim=(left, right), ylim=(bottom, top))
    axes.set_axis_off()
    for x0, y0, x1, y1 in rectangles:
        rounded = "round,pad=0,rounding_size=0.08"
        axes.add_patch(
            FancyBboxPatch((x0, y0), x1 - x0, y1 - y0, rounded, fill=False, lw=0.8, ec="0.35")
        )
    lines = np.concatenate([np.empty((0, 2)), *curves])
    for index, label in enumerate(page.labels):
        _label(axes, index, label, rectangles, lines)
    for (u, v), curve in zip(page.edges, page.drawing.routes, strict=True):
        _arrow(axes, curve, (centres[u], page.boxes[u]), (centres[v], page.boxes[v]))
    for node, centre, box in zip(graph.nodes, centres, page.boxes, strict=True):
        _node(axes, node, centre, box)
    return figure


def _font(size: float, style: Style = "normal") -> FontProperties:
    return FontProperties(family="STIXGeneral", size=size, style=style, math_fontfamily="stix")


def _extent(text: str, size: float) -> tuple[float, float]:
    """Width and height of a text, inches."""
    is_math = text.startswith("$")
    width, height, _ = text_to_path.get_text_width_height_descent(text, _font(size), is_math)
    return width / 72, height / 72


def _box(node: GraphNode) -> Box:
    caption = _extent(node.distribution, CAPTION_SIZE)[0] if node.distribution else 0.0
    if node.role == "parameter":
        return Box(DOT, DOT, _extent(math_name(node.name), PARAMETER_SIZE)[0], 0.25)
    strip = 0.17 if node.distribution else 0.0
    if node.role == "constant":
        return Box(DOT, DOT, caption, strip)
    if node.role == "elided":
        return Box(RADIUS, RADIUS)
    name = _extent(math_name(node.name), NAME_SIZE)[0]
    return Box(max(RADIUS, name / 2 + 0.09), RADIUS, caption, strip)


def _node(axes: Any, node: GraphNode, centre: NDArray, box: Box) -> None:
    x, y = centre
    if node.role == "elided":
        axes.text(x, y, r"$\cdots$", ha="center", va="center", fontproperties=_font(NAME_SIZE))
        return
    dot = node.role in ("constant", "parameter")
    face = "black" if dot else SHADE if node.role == "observed" else "white"
    dashes = (0, (3, 2)) if node.role == "deterministic" else "-"
    size = (2 * box.rx, 2 * box.ry)
    axes.add_patch(Ellipse((x, y), *size, fc=face, ec="black", lw=1.0, ls=dashes))
    name = math_name(node.name)
    style: Style = "normal"
    if word := re.fullmatch(r"\$\\mathit\{([A-Za-z]+)\}\$", name):
        name, style = word[1], "italic"  # plain text can be searched in an SVG, a formula cannot
    beneath = y + box.ry + 0.035
    if node.role == "parameter":
        font = _font(PARAMETER_SIZE, style)
        axes.text(x, beneath, name, ha="center", va="top", fontproperties=font)
        return
    if not dot:
        font = _font(NAME_SIZE, style)
        axes.text(x, y, name, ha="center", va="center", fontproperties=font)
    font = _font(CAPTION_SIZE)
    axes.text(x, beneath, node.distribution, ha="center", va="top", fontproperties=font)


def _arrow(
    axes: Any, curve: NDArray, source: tuple[NDArray, Box], target: tuple[NDArray, Box]
) -> None:
    """From the border of one node, or from under its caption, to the border of another."""
    whole = part_of(curve, leaving(curve, *source, TOUCH), 1 - leaving(curve[::-1], *target, TOUCH))
    points = points_on(whole, 400)
    beyond = np.flatnonzero(np.hypot(*(points - points[-1]).T) > HEAD_LENGTH)
    shaft = part_of(whole, 0.0, max(beyond, default=0) / 399)
    kind = {2: Path.LINETO, 3: Path.CURVE3, 4: Path.CURVE4}[len(shaft)]
    path = Path(shaft, [Path.MOVETO] + [kind] * (len(shaft) - 1))
    axes.add_patch(PathPatch(path, fill=False, lw=0.9, ec="black", capstyle="butt"))
    tip = whole[-1]
    forward = (tip - shaft[-1]) / np.hypot(*(tip - shaft[-1]))
    sideways = np.array([-forward[1], forward[0]]) * HEAD_HALF_WIDTH
    foot = tip - forward * HEAD_LENGTH
    axes.add_patch(Polygon([tip, foot + sideways, foot - sideways], fc="black", ec="none"))


def _label_widths(label: tuple[str, str]) -> tuple[float, float, float]:
    """Widths of a plate's name, of the space after it, and of its size."""
    return _extent(label[0], LABEL_SIZE)[0], 0.07, _extent(label[1], LABEL_SIZE)[0]


def _label(
    axes: Any, index: int, label: tuple[str, str], rectangles: NDArray, lines: NDArray
) -> None:
    """At the plate's bottom right, or as far left of it as arrows and other plates push it.

    ``lines`` are points along all arrows, shape [points, 2].
    """
    name, space, size = _label_widths(label)
    width, height = name + space + size, 0.11
    left, _, right, bottom = rectangles[index]
    x, y = right - 0.07, bottom - 0.06
    others = np.delete(rectangles, index, axis=0)
    cutting = others[(others[:, 1] < y) & (others[:, 3] > y - height)]
    level = np.abs(lines[:, 1] - (y - height / 2)) < height / 2 + 0.03
    busy = np.concatenate([lines[level, 0], cutting[:, 0], cutting[:, 2]])
    for place in np.arange(x, left + width + 0.07, -0.02):
        if not ((busy > place - width - 0.03) & (busy < place + 0.03)).any():
            x = place
            break
    for text, end in ((label[1], x), (label[0], x - size - space)):
        axes.text(end, y, text, ha="right", va="baseline", fontproperties=_font(LABEL_SIZE))


def save(figure: Figure, path: str | PathLike[str]) -> None:
    """Write the figure whole or not at all; the same figure gives the same bytes."""
    target = as_path(path)
    suffix = target.suffix.lower()
    if suffix not in _METADATA:
        raise OptionError(
            f"path {str(target)!r} ends in {suffix!r}; expected .svg, .png or .pdf. "
            "Rename the file to the format you want."
        )
    content = io.BytesIO()
    with rc_context({"svg.fonttype": "none", "svg.hashsalt": "vitools", "pdf.fonttype": 42}):
        figure.savefig(content, format=suffix[1:], dpi=200, metadata=_METADATA[suffix])
    data = content.getvalue()
    if suffix == ".svg":  # readers without the STIX fonts get the closest they have
        families = b"STIXGeneral, 'STIX Two Text', 'Times New Roman', Times, serif"
        data = data.replace(b"'STIXGeneral'", families)
    with atomic_path(target) as temporary:
        temporary.write_bytes(data)
