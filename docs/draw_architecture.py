"""Draws which room of the package imports which: ``python docs/draw_architecture.py`` writes the svg.

The source files are read, nothing is imported. A room stands one floor above the highest room that it
imports, so an arrow that pointed upwards would be a circle of imports, of which there is none. Arrows
that follow from others (a → b → c makes a → c plain) are left out.
"""

import ast
from collections.abc import Iterator
from pathlib import Path
from xml.sax.saxutils import escape

ROOT = Path(__file__).resolve().parents[1]
FOLDERS = {"vitools": "vitools", "vitools.guides": "guides", "vitools.models": "models"}
PICTURE = ROOT / "docs" / "architecture.svg"

BOX_WIDTH, GAP, LINE, FLOOR_GAP, MARGIN = 214, 26, 15, 62, 24
WRAP = 34  # letters to a line of a box


def modules() -> Iterator[tuple[str, Path]]:
    """Name and file of every module."""
    for package, folder in FOLDERS.items():
        for path in sorted((ROOT / folder).rglob("*.py")):
            parts = [package, *path.relative_to(ROOT / folder).with_suffix("").parts]
            yield ".".join(p for p in parts if p != "__init__"), path


def room_of(module: str) -> str:
    """The member of ``vitools`` that a module belongs to; its root file is the front."""
    parts = module.split(".")
    return parts[1] if len(parts) > 1 else "vitools"


def imported(tree: ast.Module, known: set[str]) -> Iterator[str]:
    """Modules of the package that a file imports, anywhere in it."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names if alias.name in known)
        elif isinstance(node, ast.ImportFrom) and node.module in known:
            for alias in node.names:
                inner = f"{node.module}.{alias.name}"
                yield inner if inner in known else node.module


def read() -> tuple[dict[str, set[str]], dict[str, list[str]]]:
    """What each room imports, and the names of the rooms inside it."""
    paths = dict(modules())
    imports: dict[str, set[str]] = {}
    inside: dict[str, set[str]] = {}
    for module, path in paths.items():
        room = room_of(module)
        found = {room_of(m) for m in imported(ast.parse(path.read_text("utf-8")), set(paths))}
        imports.setdefault(room, set()).update(found - {room})
        parts = module.split(".")
        if path.name == "__init__.py" and len(parts) == 3:
            inside.setdefault(room, set()).add(parts[2])
    for room in ("vitools", "__main__", "_version"):  # names alone, loaded on first use
        imports.pop(room, None)
    wanted = {room: found & set(imports) for room, found in imports.items()}
    return wanted, {room: sorted(names) for room, names in inside.items()}


def floors(imports: dict[str, set[str]]) -> list[list[str]]:
    """The rooms from the ground up: each on the floor above the highest that it imports."""
    level: dict[str, int] = {}
    left = dict(imports)
    while left:
        ready = [room for room, below in left.items() if below <= set(level)]
        if not ready:
            raise SystemExit(f"imports run in a circle among {sorted(left)}")
        for room in ready:
            level[room] = 1 + max((level[b] for b in left[room]), default=-1)
        for room in ready:
            del left[room]
    return [sorted(r for r in level if level[r] == n) for n in range(max(level.values()) + 1)]


def arrows(imports: dict[str, set[str]]) -> list[tuple[str, str]]:
    """The imports that do not follow from others."""

    def reach(room: str) -> set[str]:
        return set().union(*({below} | reach(below) for below in imports[room]))

    return sorted(
        (room, below)
        for room, found in imports.items()
        for below in found
        if not any(below in reach(other) for other in found - {below})
    )


def wrapped(names: list[str]) -> list[str]:
    lines = [""]
    for i, name in enumerate(names):
        part = name + (" ·" if i < len(names) - 1 else "")
        if len(lines[-1]) + len(part) + 1 > WRAP:
            lines.append("")
        lines[-1] = f"{lines[-1]} {part}".strip()
    return [line for line in lines if line]


def ordered(rows: list[list[str]], drawn: list[tuple[str, str]]) -> list[list[str]]:
    """Rooms moved along their floors to stand above what they import (barycentres, from the ground)."""
    place = {room: i - (len(row) - 1) / 2 for row in rows for i, room in enumerate(row)}
    for _ in range(8):
        for row in rows:
            near = {
                room: [place[b] for a, b in drawn if a == room]
                + [place[a] for a, b in drawn if b == room]
                for room in row
            }
            row.sort(key=lambda r: (sum(near[r]) / len(near[r]) if near[r] else 0.0, r))
            place.update({room: i - (len(row) - 1) / 2 for i, room in enumerate(row)})
    return rows


def svg() -> str:
    imports, inside = read()
    drawn = arrows(imports)
    rows = ordered(floors(imports), drawn)
    text = {room: wrapped(inside.get(room, [])) for room in imports}
    heights = [max(34 + LINE * len(text[room]) for room in row) for row in rows]
    width = 2 * MARGIN + max(len(row) for row in rows) * (BOX_WIDTH + GAP) - GAP
    height = 2 * MARGIN + sum(heights) + FLOOR_GAP * (len(rows) - 1)
    left: dict[str, float] = {}
    top: dict[str, float] = {}
    tall: dict[str, int] = {}
    y = float(height - MARGIN)
    for row, floor in zip(rows, heights, strict=True):
        y -= floor
        x = (width - len(row) * (BOX_WIDTH + GAP) + GAP) / 2
        for room in row:
            left[room], top[room], tall[room] = x, y, floor
            x += BOX_WIDTH + GAP
        y -= FLOOR_GAP
    out = [
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {width} {height}" width="{width}" '
        f'height="{height}" font-family="Helvetica, Arial, sans-serif">',
        "<title>Which room of vitools imports which</title>",
        '<defs><marker id="tip" viewBox="0 0 8 8" refX="7" refY="4" markerWidth="7" markerHeight="7" '
        'orient="auto"><path d="M0,0 L8,4 L0,8 Z" fill="#5b6b7f"/></marker></defs>',
        f'<rect width="{width}" height="{height}" fill="#ffffff"/>',
    ]
    leaving = {room: sorted((left[b], b) for a, b in drawn if a == room) for room in imports}
    entering = {room: sorted((left[a], a) for a, b in drawn if b == room) for room in imports}
    for room, below in drawn:
        out_at = [b for _, b in leaving[room]].index(below) + 1
        in_at = [a for _, a in entering[below]].index(room) + 1
        x0 = left[room] + BOX_WIDTH * out_at / (len(leaving[room]) + 1)
        x1 = left[below] + BOX_WIDTH * in_at / (len(entering[below]) + 1)
        y0, y1 = top[room] + tall[room], top[below]
        bend = min(60.0, (y1 - y0) / 2)
        out.append(
            f'<path d="M{x0:.1f},{y0:.1f} C{x0:.1f},{y0 + bend:.1f} {x1:.1f},{y1 - bend:.1f} '
            f'{x1:.1f},{y1 - 1:.1f}" fill="none" stroke="#5b6b7f" stroke-width="1.2" '
            'marker-end="url(#tip)"/>'
        )
    for room in sorted(imports):
        x, y = left[room], top[room]
        out.append(
            f'<rect x="{x:.1f}" y="{y:.1f}" width="{BOX_WIDTH}" height="{tall[room]}" rx="7" '
            'fill="#eef3fa" stroke="#7f93ad"/>'
        )
        middle = x + BOX_WIDTH / 2
        out.append(
            f'<text x="{middle:.1f}" y="{y + 22:.1f}" text-anchor="middle" font-size="15" '
            f'font-weight="bold" fill="#1d2b3a">{escape(room)}</text>'
        )
        for i, line in enumerate(text[room]):
            out.append(
                f'<text x="{middle:.1f}" y="{y + 40 + LINE * i:.1f}" text-anchor="middle" '
                f'font-size="11" fill="#44546a">{escape(line)}</text>'
            )
    return "\n".join([*out, "</svg>"]) + "\n"


if __name__ == "__main__":
    PICTURE.write_text(svg(), "utf-8")
