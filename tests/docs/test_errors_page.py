"""The page of errors: every case as it is printed, and the way from a message to its case."""

import pickle
import re
import traceback
import warnings
from pathlib import Path

import pytest
import torch

from vitools import errors

PAGE = Path(__file__).resolve().parents[2] / errors.PAGE
BLOCK = re.compile(r"^```python\n(.*?)^```", re.DOTALL | re.MULTILINE)
CASE = re.compile(
    r"^### (?P<title>.*?)\n(?:(?!^#).)*?^```python\n(?P<code>.*?)^```\n\n```text\n(?P<said>.*?)^```",
    re.DOTALL | re.MULTILINE,
)
NUMBER = re.compile(r"\d+\.\d+")


def anchor(title: str) -> str:
    """GitHub's and MyST's."""
    return re.sub(r"[^\w\- ]", "", title.lower()).replace(" ", "-")


def headings(level: str) -> list[str]:
    found = re.findall(rf"^{level} (.*)$", PAGE.read_text("utf-8"), re.MULTILINE)
    return [anchor(title) for title in found]


def cases() -> list[tuple[str, str, str]]:
    """Anchor, code and message (on one line) of each."""
    found = CASE.finditer(PAGE.read_text("utf-8"))
    return [(anchor(c["title"]), c["code"], " ".join(c["said"].split())) for c in found]


def test_every_class_has_its_section_and_every_case_a_row():
    assert list(errors.SECTIONS.values()) == headings("##")
    assert sorted(errors.CASES.values()) == sorted(headings("###"))
    assert [case[0] for case in cases()] == headings("###")
    classes = {kind.__name__ for kind in errors.VitoolsError.__subclasses__()}
    assert {kind for kind in classes if getattr(errors, kind, None)} == set(errors.SECTIONS)


@pytest.mark.parametrize(("place", "said"), [(place, said) for place, _, said in cases()])
def test_the_message_of_a_case_leads_to_it(place, said):
    kind, _, message = said.partition(": ")
    assert errors.section(getattr(errors, kind), message) == place


def test_below_a_message_stands_where_it_is_explained():
    class HaloError(errors.DataError):
        pass

    place = "see docs/errors.md#data-that-do-not-fit-dataerror"
    halo = HaloError("site 'x': too round")
    assert str(halo) == "site 'x': too round."
    assert traceback.format_exception_only(halo)[-1] == f"{place}\n"
    assert errors.with_notes(halo) == f"site 'x': too round.\n{place}"
    assert pickle.loads(pickle.dumps(errors.DataError("x", row=3))).__notes__ == [place]
    assert errors.with_notes(errors.VitoolsError("Odd.")) == "Odd."
    assert errors.with_notes(ValueError("odd")) == "odd"


@pytest.mark.slow
@pytest.mark.usefixtures("float32_by_default")
def test_errors_say_what_their_page_says(monkeypatch, tmp_path):
    monkeypatch.chdir(tmp_path)
    namespace: dict[str, object] = {"__name__": "__main__"}
    exec(BLOCK.search(PAGE.read_text("utf-8"))[1], namespace)
    for place, code, said in cases():
        with warnings.catch_warnings(), torch.random.fork_rng(devices=[]):
            warnings.simplefilter("ignore")
            with pytest.raises(errors.VitoolsError) as caught:
                exec(compile(code, "page", "exec"), namespace)
        found = f"{type(caught.value).__name__}: {caught.value}"
        assert NUMBER.sub("#", " ".join(found.split())) == NUMBER.sub("#", said)
        assert caught.value.__notes__ == [f"see docs/errors.md#{place}"]
