"""The map in docs/architecture.md is that of the source: ``python docs/draw_architecture.py`` draws it anew."""

from pathlib import Path
from runpy import run_path

DOCS = Path(__file__).resolve().parents[1] / "docs"


def test_the_map_is_drawn_from_the_imports_as_they_are():
    namespace = run_path(str(DOCS / "draw_architecture.py"))
    assert namespace["svg"]() == namespace["PICTURE"].read_text("utf-8")


def test_every_page_is_listed():
    index = (DOCS / "index.md").read_text("utf-8")
    pages = {path.relative_to(DOCS).as_posix() for path in DOCS.rglob("*.md")} - {"index.md"}
    assert {page for page in pages if f"({page})" not in index} == set()
