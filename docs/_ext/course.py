"""The course as Jupyter notebooks, twice: with solutions, and with an empty cell in the place of each.

``python docs/_ext/course.py FOLDER`` (``make course``) writes ``FOLDER/with_solutions/*.ipynb`` and
``FOLDER/without_solutions/*.ipynb``. A solution is a cell tagged ``solution``: code, or text within
``:::{dropdown} Solution``, which becomes plain Markdown for readers without MyST.
"""

import re
import sys
from pathlib import Path

import nbformat
from myst_nb.core.read import read_myst_markdown_notebook
from nbformat import NotebookNode

COURSE = Path(__file__).resolve().parents[1] / "course"
DROPDOWN = re.compile(r"^:::\{dropdown\} (.*?)\n(.*?)^:::$", re.DOTALL | re.MULTILINE)
PAGE = re.compile(r"\[(?P<words>[^\]]+)\]\((?!https?:)(?P<page>[\w./]+?)\.md(?:#[\w-]+)?\)")
TODO = {"code": "# your solution", "markdown": "*Your solution.*"}


def pages() -> list[Path]:
    """The notebooks among the course's pages."""
    return [path for path in sorted(COURSE.glob("*.md")) if path.name != "index.md"]


def is_solution(cell: NotebookNode) -> bool:
    """Whether a cell is one that students find empty."""
    return "solution" in cell.metadata.get("tags", ())


def plain(text: str, names: set[str]) -> str:
    """Markdown without MyST's own: folded solutions open, links to pages that do not travel with it as text.

    Args:
        text: of a Markdown cell.
        names: the pages that become notebooks beside this one.
    """

    def link(match: re.Match[str]) -> str:
        here = match["page"] in names
        return f"[{match['words']}]({match['page']}.ipynb)" if here else match["words"]

    return PAGE.sub(link, DROPDOWN.sub(r"**\1.** \2", text))


def notebook(page: Path, solutions: bool) -> NotebookNode:
    """A page as a notebook, its kernel Python 3."""
    book = read_myst_markdown_notebook(page.read_text("utf-8"), path=page)
    names = {path.stem for path in pages()}
    book.metadata = nbformat.from_dict(
        {"kernelspec": {"name": "python3", "display_name": "Python 3", "language": "python"}}
    )
    for i, cell in enumerate(book.cells):
        cell.id = f"{page.stem}-{i}"  # the same in every run
        if is_solution(cell) and not solutions:
            cell.source = TODO[cell.cell_type]
        elif cell.cell_type == "markdown":
            cell.source = plain(cell.source, names)
        tags = [tag for tag in cell.metadata.get("tags", ()) if tag == "solution"]
        cell.metadata = nbformat.from_dict({"tags": tags} if tags else {})
    nbformat.validate(book)
    return book


def write(folder: Path) -> list[Path]:
    """Both versions of every page; the files written."""
    written = []
    for name, solutions in (("with_solutions", True), ("without_solutions", False)):
        (folder / name).mkdir(parents=True, exist_ok=True)
        for page in pages():
            path = folder / name / f"{page.stem}.ipynb"
            nbformat.write(notebook(page, solutions), path)
            written.append(path)
    return written


if __name__ == "__main__":
    for path in write(Path(sys.argv[1])):
        print(path)
