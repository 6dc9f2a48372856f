"""Markdown of the repository that stands outside of ``docs/`` as pages of the site, links among all of them.

Pages are written for readers of the repository: ``[table](../benchmarks/results/kills.md)``. The site has
a copy of such a page at ``docs/repository/benchmarks/results/kills.md``, and every relative link is rewritten
to where its target stands there. What is no page (a script, a picture) is linked to as it is, a target
that does not exist is left for Sphinx to warn of.
"""

import hashlib
import os
import re
from pathlib import Path

from sphinx.application import Sphinx
from sphinx.config import Config

ROOT = Path(__file__).resolve().parents[2]
DOCS = ROOT / "docs"
COPIES = DOCS / "repository"
PATTERNS = ("README.md", "CONTRIBUTING.md", "CHANGELOG.md", "benchmarks/results/*.md")
SINGLE = ("vitools/graphs/loops/README.md",)

FENCE = re.compile(r"^(?P<fence>`{3,}|:{3,}).*?^(?P=fence)\s*?$", re.DOTALL | re.MULTILINE)
LINK = re.compile(r"\]\((?P<target>[^)\s#:]+)(?P<anchor>#[^)\s]*)?\)")


def outside_pages() -> list[Path]:
    """The files that are copied."""
    return [path for pattern in (*PATTERNS, *SINGLE) for path in sorted(ROOT.glob(pattern))]


def address(target: Path) -> Path:
    """Where on the site a file of the repository stands."""
    if target in outside_pages():
        return COPIES / target.relative_to(ROOT)
    return target


def rebased(text: str, source: Path, place: Path) -> str:
    """A page with its relative links as they must be where the page is put.

    Args:
        text: Markdown.
        source: the file it was written as.
        place: the file that it becomes; the two are the same for pages in ``docs/``.
    """

    def moved(match: re.Match[str]) -> str:
        target = Path(os.path.normpath(source.parent / match["target"]))
        if not target.exists():
            return match[0]
        relative = os.path.relpath(address(target), place.parent)
        return f"]({relative}{match['anchor'] or ''})"

    pieces, end = [], 0
    for fence in FENCE.finditer(text):  # code is left alone
        if fence["fence"].startswith(":"):
            continue
        pieces += [LINK.sub(moved, text[end : fence.start()]), fence[0]]
        end = fence.end()
    return "".join([*pieces, LINK.sub(moved, text[end:])])


def titled(text: str, source: Path) -> str:
    """A page with a title; a table without one is named after its file."""
    if text.lstrip().startswith("# "):
        return text
    return f"# {source.stem.replace('_', ' ').capitalize()}\n\n{text}"


def write_if_new(path: Path, text: str) -> None:
    """A file whose time changes only with its content, so that an unchanged page is not read again."""
    if not path.exists() or path.read_text("utf-8") != text:
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text, "utf-8")


def digest_of_package() -> str:
    """Twelve hexadecimal digits that change with any source of the package: outputs are of one state of it."""
    digest = hashlib.sha256()
    for folder in ("vitools", "models", "guides"):
        for path in sorted((ROOT / folder).rglob("*.py")):
            digest.update(path.relative_to(ROOT).as_posix().encode() + path.read_bytes())
    return digest.hexdigest()[:12]


def copy_pages(app: Sphinx, config: Config) -> None:
    """Write the copies, and take away those whose source is gone."""
    wanted = {COPIES / path.relative_to(ROOT): path for path in outside_pages()}
    for old in set(COPIES.rglob("*.md")) - set(wanted):
        old.unlink()
    for place, source in wanted.items():
        text = titled(source.read_text("utf-8"), source)
        write_if_new(place, rebased(text, source, place))


def rewrite_links(app: Sphinx, name: str, source: list[str]) -> None:
    """The same for a page of ``docs/`` itself, as it is read."""
    path = Path(app.env.doc2path(name))
    if path.suffix == ".md" and COPIES not in path.parents:
        source[0] = rebased(source[0], path, path)


def setup(app: Sphinx) -> dict[str, bool]:
    """Sphinx's entry."""
    app.connect("config-inited", copy_pages)
    app.connect("source-read", rewrite_links)
    return {"parallel_read_safe": True, "parallel_write_safe": True}
