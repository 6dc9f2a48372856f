"""The page in a browser: no errors, and what a reader does with it works."""

import itertools
import json

import pytest
from headless_browser import headless_browser, needs_browser
from page_cases import HOSTILE, hostile_comparison

from vitools.reporting.page.calibration import RankHistogram
from vitools.reporting.page.page import Origin, write_page

pytestmark = needs_browser

TABLE_COLUMN = """
const rows = [...document.querySelector(".sortable").tBodies[0].rows];
return rows.map((row) => row.children[arguments[0]].dataset.value ?? row.children[0].textContent);
"""
CONTRAST = """
const probe = document.createElement("i");
document.body.append(probe);
const rgb = (name) => {
  probe.style.color = `var(${name})`;
  return getComputedStyle(probe).color.match(/[0-9.]+/g).slice(0, 3).map(Number);
};
const light = (name) => rgb(name).map((v) => v / 255)
  .map((v) => (v <= 0.04045 ? v / 12.92 : ((v + 0.055) / 1.055) ** 2.4))
  .reduce((sum, v, i) => sum + v * [0.2126, 0.7152, 0.0722][i], 0);
const found = arguments[0].map(([one, other]) => {
  const [a, b] = [light(one), light(other)];
  return (Math.max(a, b) + 0.05) / (Math.min(a, b) + 0.05);
});
probe.remove();
return found;
"""
TEXT = [
    ("--text", "--bg"),
    ("--text", "--surface"),
    ("--muted", "--bg"),
    ("--muted", "--surface"),
    ("--accent", "--bg"),
    *((f"--{kind}", f"--{kind}-bg") for kind in ("trust", "care", "reject", "sound")),
    ("--trust", "--surface"),
    ("--care", "--surface"),
    ("--reject", "--surface"),
    ("--text", "--shade"),
]
GRAPHICS = [(f"--fit{i}", "--surface") for i in range(8)]
GRAPHICS += [
    (f"--fit{i}", f"--{kind}-bg") for i in range(8) for kind in ("trust", "care", "reject")
]
GRAPHICS += [("--reference", "--surface")]


@pytest.fixture(scope="module")
def browser(tmp_path_factory):
    with headless_browser() as found:
        path = tmp_path_factory.mktemp("page") / "index.html"
        ranks = RankHistogram(HOSTILE, HOSTILE, (30, 8, 4, 8, 30), 1e-8)
        origin = Origin(HOSTILE, HOSTILE, HOSTILE, {HOSTILE: HOSTILE}, [ranks])
        write_page(hostile_comparison(), path, origin)
        found.path = path
        yield found


@pytest.fixture(autouse=True)
def page(browser):
    browser.media()
    browser.width(1200)
    browser.open(browser.path)
    yield
    assert browser.log() == []  # no error, no refused request, nothing printed


def test_all_charts_are_drawn_and_have_words(browser):
    charts = browser.script(
        "return [...document.querySelectorAll('#charts svg[role=img]')]"
        ".map((chart) => [chart.getAttribute('aria-label'), chart.childElementCount]);"
    )
    assert len(charts) > 5
    assert all(len(label) > 20 and parts > 3 for label, parts in charts)
    assert "NaN" not in browser.script("return document.querySelector('main').innerHTML;")


def test_nothing_a_user_named_is_read_as_markup(browser):
    assert browser.script("return window.injected;") is None
    assert browser.script("return document.querySelectorAll('main img, main b b').length;") == 0
    assert browser.script("return document.querySelector('h1').textContent;") == HOSTILE
    assert HOSTILE in browser.script("return document.querySelector('#site').textContent;")


@pytest.mark.parametrize("column", range(7))
def test_the_table_sorts_both_ways_by_keyboard_and_says_so(browser, column):
    before = browser.script(TABLE_COLUMN, column)
    is_number = column not in (0,)
    blank = [value for value in before if value == ""]
    known = [value for value in before if value != ""]
    key = float if is_number else str.casefold
    focus = "document.querySelectorAll('.sortable thead button')[arguments[0]].focus();"
    sort = "return document.querySelectorAll('.sortable thead th')[arguments[0]].ariaSort;"
    browser.script(focus, column)
    for press, direction in (("\ue007", "ascending"), (" ", "descending")):  # Enter, space
        browser.press(press)
        assert browser.script(sort, column) == direction
        expected = sorted(known, key=key, reverse=direction == "descending") + blank
        found = browser.script(TABLE_COLUMN, column)
        assert [v and key(v) for v in found] == [v and key(v) for v in expected]
    others = "return document.querySelectorAll('[aria-sort]:not([aria-sort=none])').length;"
    assert browser.script(others) == 1


def test_the_site_chooser_changes_the_panels_by_keyboard(browser):
    titles = (
        "return [...document.querySelectorAll('#marginals h4, #numbers tbody th')]"
        ".map((e) => e.textContent);"
    )
    names = browser.script(
        "return [...document.querySelectorAll('#site option')].map(o => o.text);"
    )
    assert names == ["many [30]", HOSTILE]
    seen = []
    for key in ("\ue011", "\ue010"):  # Home, End
        browser.script("document.querySelector('#site').focus();")
        browser.press(key)
        seen.append(browser.script(titles))
    assert seen[0][:2] == ["many[0]", "many[1]"]
    assert seen[1] == [HOSTILE, HOSTILE]


def test_a_site_of_many_entries_has_pages(browser):
    state = (
        "return [find('page').textContent, find('previous').disabled, find('next').disabled,"
        " document.querySelectorAll('#marginals .panel').length];"
    )
    choose = "const s = find('site'); s.value = '0'; s.dispatchEvent(new Event('change'));"
    browser.script(choose)
    assert browser.script(state) == ["1–12 of 30", True, False, 12]
    browser.script("find('next').click(); find('next').click();")
    assert browser.script(state) == ["25–30 of 30", False, True, 6]
    browser.script("find('previous').click();")
    assert browser.script(state) == ["13–24 of 30", False, False, 12]


def test_the_numbers_in_the_page_are_those_of_the_fits(browser):
    comparison = hostile_comparison()
    browser.script("const s = find('site'); s.value = '1'; s.dispatchEvent(new Event('change'));")
    cells = browser.script(
        "return [...document.querySelectorAll('#numbers td')].map(c => c.textContent);"
    )
    for cell, judgement in zip(cells, comparison.judgements.values(), strict=True):
        mean, sd = (float(word.replace("−", "-")) for word in cell.split(" ± "))
        found = judgement.moments[HOSTILE]
        assert mean == pytest.approx(float(found.mean), rel=1e-3, abs=1e-6)
        assert sd == pytest.approx(float(found.sd), rel=1e-2)


def test_a_fit_can_be_taken_out_of_the_charts(browser):
    label = "return document.querySelector('#marginals svg').getAttribute('aria-label');"
    assert "narrow " in browser.script(label)
    browser.script("document.querySelectorAll('#fits input')[1].focus();")
    browser.press(" ")
    assert "narrow " not in browser.script(label)
    browser.script(
        "document.querySelectorAll('#fits input').forEach((b) => b.checked && b.click());"
    )
    empty = browser.script("return document.querySelectorAll('#charts .empty').length;")
    assert empty >= 3  # words in place of charts


def test_pairs_show_where_a_fit_misses_a_correlation(browser):
    words = browser.script("return find('pair').options[0].text;")
    assert "many[" in words
    panels = browser.script(
        "return [...document.querySelectorAll('#pair-panels svg[role=img]')]"
        ".map((s) => s.getAttribute('aria-label'));"
    )
    assert len(panels) == 2
    assert all("correlation" in words for words in panels)


def test_ranks_outside_their_band_are_counted_in_words(browser):
    label = browser.script(
        "return document.querySelector('#calibration-panels svg').getAttribute('aria-label');"
    )
    assert "3 of 5 bars outside the band of 7 to 26" in label


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_contrast_is_that_of_wcag_aa(browser, scheme):
    browser.media(prefers_color_scheme=scheme)
    for pairs, least in ((TEXT, 4.5), (GRAPHICS, 3.0)):
        ratios = browser.script(CONTRAST, pairs)
        low = [f"{pair} {r:.2f}" for pair, r in zip(pairs, ratios, strict=True) if r < least]
        assert low == []


def test_print_is_light_in_a_dark_theme_and_hides_what_cannot_be_pressed(browser):
    background = "return getComputedStyle(document.body).backgroundColor;"
    browser.media(prefers_color_scheme="dark")
    assert browser.script(background) == "rgb(20, 23, 27)"
    browser.media(prefers_color_scheme="dark", media="print")
    assert browser.script(background) == "rgb(255, 255, 255)"
    shown = "return getComputedStyle(document.querySelector(arguments[0])).display;"
    assert browser.script(shown, "nav") == browser.script(shown, ".pager") == "none"


@pytest.mark.parametrize("pixels", [320, 800])
def test_no_page_is_wider_than_its_window(browser, pixels):
    browser.width(pixels)
    browser.open(browser.path)
    assert browser.script("return document.documentElement.scrollWidth;") <= pixels


def test_headings_are_in_order_and_controls_have_names(browser):
    levels = browser.script(
        "return [...document.querySelectorAll('h1,h2,h3,h4')].map((h) => Number(h.tagName[1]));"
    )
    assert levels[0] == 1
    assert levels.count(1) == 1
    assert all(after - before <= 1 for before, after in itertools.pairwise(levels))
    nameless = browser.script(
        "return [...document.querySelectorAll('button, select, input')]"
        ".filter((e) => !e.textContent.trim() && !(e.labels && e.labels.length)).length;"
    )
    assert nameless == 0
    ids = browser.script("return [...document.querySelectorAll('[id]')].map((e) => e.id);")
    assert json.dumps(sorted(ids)) == json.dumps(sorted(set(ids)))
