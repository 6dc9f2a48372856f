"""The page of a comparison on held-out data in a browser: it fits its window, and a reader's keys."""

import base64
import struct

import pytest
import torch
from headless_browser import headless_browser, needs_browser
from matplotlib.figure import Figure
from page_cases import HOSTILE

from vitools.models import coin
from vitools.posterior import Estimate, FactorisedPosterior, Status
from vitools.problem import Problem
from vitools.reporting.held_out.held_out import HeldOutComparison, HeldOutFit
from vitools.reporting.held_out.report import write_held_out_report
from vitools.reporting.page.page import Origin

pytestmark = needs_browser

LAYERS = {"VAE": ("z",), "hierarchical": ("z1", "z2"), "factor analysis": ("z",)}


def fit(status, layers, shift):
    """Figures as wide as those of a long run on images of many pixels."""
    problem = Problem(coin.model, torch.tensor([1.0, 0.0]).double())
    q = torch.distributions.Beta(torch.tensor(2.0).double(), torch.tensor(2.0).double())
    posterior = FactorisedPosterior(problem, {"p": q}, 0.0, engine="svi", status=status)
    posterior.seconds = 1234.5
    return HeldOutFit(
        posterior,
        shift + torch.linspace(-190.0, -160.0, 1000, dtype=torch.float64),
        elbo=Estimate(-188.42, 0.61),
        reconstruction=Estimate(-160.03, 0.55),
        kls={layer: Estimate(14.21, 0.1) for layer in layers},
        active=dict.fromkeys(layers, (32, 50)),
        information=Estimate(6.77, 0.02),
        khat_above=0.985,
        num_parameters=1_234_567,
    )


def write(folder, names):
    statuses = (Status.CONVERGED, Status.STOPPED_AT_LIMIT, Status.CONVERGED)
    fits = {
        name: fit(status, layers, shift)
        for shift, (name, status, layers) in enumerate(
            zip(names, statuses, LAYERS.values(), strict=True)
        )
    }
    comparison = HeldOutComparison(fits, "images", 1000, 2 / 3)
    figures = {stem: Figure(figsize=(16, 7)) for stem in ("prior_samples", "latent_plane")}
    origin = Origin(names[0], names[0], f"vitools compare {names[0]}", {names[0]: names[0]})
    return write_held_out_report(comparison, folder, figures, origin, {"latent_plane": names[0]})[0]


@pytest.fixture(scope="module")
def browser(tmp_path_factory):
    folder = tmp_path_factory.mktemp("held_out")
    with headless_browser() as found:
        found.path = write(folder / "usual", list(LAYERS))
        found.hostile = write(folder / "hostile", [HOSTILE, *list(LAYERS)[1:]])
        yield found


@pytest.fixture(autouse=True)
def page(browser):
    browser.media()
    browser.width(1100)
    browser.open(browser.path)
    yield
    assert browser.log() == []  # no error, no refused request, nothing printed


WIDTHS = "const box = find('.scroll'); return [box.scrollWidth, box.clientWidth];".replace(
    "find", "document.querySelector"
)


def test_a_usual_table_is_seen_whole_at_1100_pixels(browser):
    table, room = browser.script(WIDTHS)
    assert table <= room
    cells = browser.script(
        "return [...document.querySelectorAll('tbody tr')].map((row) =>"
        " [...row.children].map((cell) => cell.innerText.split('\\n')));"
    )
    assert cells[1][0] == ["hierarchical", "1,234,567 weights"]
    assert cells[1][1] == ["−174.00", "± 0.27"]
    assert cells[1][2] == ["1.00", "exact"]
    assert cells[2][2] == ["best"]
    assert cells[1][5] == ["14.21 + 14.21"]
    assert cells[1][-1] == ["stopped at limit", "1234 s"]


@pytest.mark.parametrize("pixels", [320, 400, 800, 1100])
@pytest.mark.parametrize("page_of", ["path", "hostile"])
def test_no_page_is_wider_than_its_window(browser, pixels, page_of):
    browser.width(pixels)
    browser.open(getattr(browser, page_of))
    assert browser.script("return document.documentElement.scrollWidth;") <= pixels


def test_a_narrow_window_scrolls_the_table_by_keyboard_and_keeps_the_names(browser):
    browser.width(400)
    browser.open(browser.path)
    table, room = browser.script(WIDTHS)
    assert table > room
    name = "return document.querySelector('tbody th').getBoundingClientRect().left;"
    before = browser.script(name)
    browser.script("document.querySelector('.scroll').focus();")
    browser.press("\ue014", "\ue014", "\ue014")  # arrow right
    moved = (
        "const done = arguments[arguments.length - 1]; return new Promise((resolve) =>"
        " setTimeout(() => resolve(document.querySelector('.scroll').scrollLeft), 500));"
    )
    assert browser.script(moved) > 20
    assert browser.script(name) == before


def test_pictures_are_shown_whole_with_the_fit_they_are_of(browser):
    titles = "return [...document.querySelectorAll('#pictures h3')].map((t) => t.textContent);"
    assert browser.script(titles) == ["Prior samples", "Latent plane of VAE"]
    for pixels in (400, 1100):
        browser.width(pixels)
        sizes = browser.script(
            "return [...document.querySelectorAll('#pictures img')].map((i) =>"
            " [i.clientWidth, i.clientHeight, i.naturalWidth, i.naturalHeight, i.src, i.alt]);"
        )
        for width, height, own_width, own_height, source, alt in sizes:
            png = base64.b64decode(source.partition(",")[2])
            assert struct.unpack(">II", png[16:24]) == (own_width, own_height)
            assert 200 < width < pixels
            assert height > 80
            assert alt.startswith(("Prior samples", "Latent plane"))


def test_nothing_a_user_named_is_read_as_markup(browser):
    browser.open(browser.hostile)
    assert browser.script("return document.querySelectorAll('main b b, main img').length;") == 2
    assert browser.script("return document.querySelector('h1').textContent;") == HOSTILE
    first = "return document.querySelector('tbody th').firstChild.textContent;"
    assert browser.script(first) == HOSTILE
