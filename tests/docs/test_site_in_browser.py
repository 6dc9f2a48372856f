"""The site as a reader sees it: on a phone and on a desk, in the light, in the dark and on paper."""

import os
import subprocess
import sys
from pathlib import Path

import pytest
from headless_browser import headless_browser, needs_browser

pytest.importorskip("sphinx")
pytest.importorskip("myst_nb")
pytest.importorskip("furo")

ROOT = Path(__file__).resolve().parents[2]
PAGES = (
    "index",
    "how_to/decide",
    "how_to_choose",
    "trust",
    "errors",
    "gallery/index",
    "gallery/two_dice",
    "course/updates",
    "derivations/two_dice",
    "reference/engines",
    "coming_from/stan",
    "repository/README",
)
LEAST_CONTRAST = 4.5  # WCAG 2.2, AA, for text of ordinary size

CONTRAST = """
const luminance = c => {
  const [r, g, b] = c.map(v => (v /= 255) <= 0.04045 ? v / 12.92 : ((v + 0.055) / 1.055) ** 2.4);
  return 0.2126 * r + 0.7152 * g + 0.0722 * b;
};
const numbers = text => text.match(/[\\d.]+/g).map(Number);
const behind = e => {
  for (; e; e = e.parentElement) {
    const c = numbers(getComputedStyle(e).backgroundColor);
    if (c.length === 3 || c[3] === 1) return c.slice(0, 3);
  }
  return [255, 255, 255];
};
const poor = new Set();
for (const e of document.querySelectorAll('article p, article li, article td, article th, article a, article h1, article h2, article pre, article pre span, article code')) {
  if (!e.textContent.trim() || !e.getClientRects().length) continue;
  const [a, b] = [numbers(getComputedStyle(e).color).slice(0, 3), behind(e)].map(luminance);
  const ratio = (Math.max(a, b) + 0.05) / (Math.min(a, b) + 0.05);
  if (ratio < arguments[0]) poor.add(`${e.tagName} ${e.className} ${e.textContent.trim().slice(0, 40)}: ${ratio.toFixed(2)}`);
}
return [...poor].slice(0, 8);
"""
FOCUS = """
const seen = [];
for (const e of document.querySelectorAll('article a[href], .sidebar-tree a[href]')) {
  if (!e.getClientRects().length || getComputedStyle(e).visibility === 'hidden') continue;
  e.focus();
  if (document.activeElement !== e) seen.push(e.outerHTML.slice(0, 80));
  if (seen.length > 3) break;
}
return seen;
"""


@pytest.fixture(scope="module")
def site(tmp_path_factory):
    """The site without executed outputs, built with warnings as errors."""
    folder = tmp_path_factory.mktemp("site")
    command = [sys.executable, "-m", "sphinx", "-W", "--keep-going", "-q"]
    command += ["-d", str(folder / "doctrees"), "docs", str(folder / "html")]
    environment = {**os.environ, "SITE_EXECUTES": "no", "OMP_NUM_THREADS": "1"}
    built = subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True)
    assert built.returncode == 0, built.stderr
    return folder / "html"


@pytest.mark.slow
def test_the_site_builds_and_every_public_name_has_its_place(site):
    from sphinx.util.inventory import InventoryFile

    import vitools

    loaded = InventoryFile.loads((site / "objects.inv").read_bytes(), uri="")
    names = {
        name for kind, found in loaded.data.items() if kind.startswith("py:") for name in found
    }
    assert {f"vitools.{name}" for name in vitools.__all__ if name != "__version__"} <= names
    for page in PAGES:
        assert (site / f"{page}.html").exists()


@pytest.mark.slow
def test_pages_ask_nothing_of_the_network(site):
    for page in PAGES:
        text = (site / f"{page}.html").read_text("utf-8")
        assert 'src="http' not in text
        assert '<link rel="stylesheet" type="text/css" href="http' not in text


@pytest.mark.slow
@needs_browser
def test_pages_fit_the_screen_and_can_be_read(site):
    with headless_browser() as browser:
        for page in PAGES:
            for width in (390, 1280):
                for scheme in ("light", "dark"):
                    where = f"{page} at {width}, {scheme}"
                    browser.width(width)
                    browser.media(prefers_color_scheme=scheme)
                    browser.open(site / f"{page}.html")
                    across = "return document.documentElement.scrollWidth"
                    assert browser.script(across) <= width, where
                    assert browser.script(CONTRAST, LEAST_CONTRAST) == [], where
                    errors = [line for line in browser.log() if "favicon" not in line]
                    assert errors == [], where
            assert browser.script(FOCUS) == [], page
            browser.media(media="print")
            hidden = "return getComputedStyle(document.querySelector('.sidebar-drawer')).display"
            assert browser.script(hidden) == "none", page
