"""The map in docs/architecture.md is that of the source: ``python docs/draw_architecture.py`` draws it anew."""

import re
from pathlib import Path
from runpy import run_path

DOCS = Path(__file__).resolve().parents[1] / "docs"
FLAGS = re.DOTALL | re.MULTILINE


def test_the_map_is_drawn_from_the_imports_as_they_are():
    namespace = run_path(str(DOCS / "draw_architecture.py"))
    assert namespace["svg"]() == namespace["PICTURE"].read_text("utf-8")


def test_every_page_is_in_a_table_of_contents():
    """A ``toctree`` of some page names it, so that the site has it in its sidebar."""
    written = {
        page
        for page in DOCS.rglob("*.md")
        if not {"_build", "repository"} & set(page.relative_to(DOCS).parts)
    }
    listed = {
        found
        for page in written
        for tree in re.findall(r"^```\{toctree\}\n(.*?)^```", page.read_text("utf-8"), FLAGS)
        for entry in tree.split()
        if not entry.startswith(":")
        for found in page.parent.glob(f"{entry}.md")
    }
    assert {str(page.relative_to(DOCS)) for page in written - listed} == {"index.md"}
