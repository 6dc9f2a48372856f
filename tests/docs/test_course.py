"""The course's notebooks: one version for teachers, one in which students find empty cells."""

import re

import pytest

nbformat = pytest.importorskip("nbformat")
pytest.importorskip("myst_nb")
course = pytest.importorskip("course")


@pytest.fixture(scope="module")
def written(tmp_path_factory):
    folder = tmp_path_factory.mktemp("course")
    return {path.relative_to(folder).as_posix(): path for path in course.write(folder)}


def cells(path):
    return nbformat.read(path, as_version=4).cells


def test_both_versions_of_every_page_are_written(written):
    names = {path.stem for path in course.pages()}
    assert names == {"graph", "updates", "kumaraswamy", "softmax", "vae"}
    versions = ("with_solutions", "without_solutions")
    assert set(written) == {f"{version}/{name}.ipynb" for version in versions for name in names}


def test_students_find_every_exercise_and_no_solution(written):
    for name in ("graph", "updates", "kumaraswamy", "softmax", "vae"):
        full = cells(written[f"with_solutions/{name}.ipynb"])
        bare = cells(written[f"without_solutions/{name}.ipynb"])
        assert len(full) == len(bare)
        text = "\n".join(cell.source for cell in full)
        exercises = re.findall(r"^### Exercise [\d.]+$", text, re.MULTILINE)
        solved = [cell for cell in full if course.is_solution(cell)]
        assert len(exercises) >= 2
        assert len(solved) >= len(exercises)  # one at least for each
        for whole, empty in zip(full, bare, strict=True):
            assert (whole.source == empty.source) != course.is_solution(whole)
            if course.is_solution(whole):
                assert empty.source == course.TODO[empty.cell_type]


def test_no_markup_of_the_site_is_left_and_links_lead_to_notebooks(written):
    for path in written.values():
        text = "\n".join(cell.source for cell in cells(path) if cell.cell_type == "markdown")
        assert ":::" not in text
        assert ".md)" not in text
        for target in re.findall(r"\]\((\w+\.ipynb)\)", text):
            assert (path.parent / target).exists()


def test_a_folded_solution_becomes_plain_text():
    text = ":::{dropdown} Solution\nNo: [see](updates.md), [and](../trust.md#a).\n:::"
    assert course.plain(text, {"updates"}) == "**Solution.** No: [see](updates.ipynb), and.\n"
