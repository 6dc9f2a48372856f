"""How the site is built; ``make docs`` does it. Pages are Markdown (MyST), formulas become MathML."""

import os
import sys
import tomllib
import warnings
from pathlib import Path

from pygments.lexers.special import TextLexer
from sphinx.application import Sphinx

import vitools

DOCS = Path(__file__).resolve().parent
sys.path.insert(0, str(DOCS / "_ext"))

from repository import digest_of_package, write_if_new  # noqa: E402

_project = tomllib.loads((DOCS.parent / "pyproject.toml").read_text("utf-8"))["project"]
project = _project["name"]
author = copyright = "the authors of vitools"
release = version = vitools.__version__
html_title = f"{project} {release}"

extensions = [
    "myst_nb",
    "sphinx.ext.autodoc",
    "sphinx.ext.autosummary",
    "sphinx_design",
    "sphinx_copybutton",
    "mathml",
    "repository",
    "api_reference",
    "docstrings",
    "gallery",
]
exclude_patterns = ["_build", "_ext", "_static", "**.ipynb_checkpoints"]
root_doc = "index"
language = "en"

myst_enable_extensions = ["dollarmath", "colon_fence", "deflist", "attrs_inline"]
myst_heading_anchors = 4
myst_dmath_double_inline = True
html_math_renderer = "mathml"

nitpicky = True
suppress_warnings = ["ref.python"]  # an attribute's name in a docstring that several classes have

autodoc_member_order = "bysource"
autodoc_typehints_format = "short"
autodoc_preserve_defaults = True
autosummary_generate = False
python_maximum_signature_line_length = 90
python_use_unqualified_type_names = True

html_theme = "furo"
html_static_path = ["_static"]
html_css_files = ["site.css"]
html_show_sourcelink = False
html_copy_source = False
pygments_style = "a11y-high-contrast-light"  # comments too have a contrast that can be read
pygments_dark_style = "a11y-high-contrast-dark"
copybutton_exclude = ".linenos, .gp, .go"
templates_path: list[str] = []

# Notebooks run when they or the package have changed, and are kept; make docs-check runs none.
nb_execution_mode = "off" if os.environ.get("SITE_EXECUTES") == "no" else "cache"
if nb_execution_mode == "off":
    suppress_warnings.append("myst-nb.lexer")  # a kernel would say which language its cells are in
nb_execution_cache_path = str(DOCS / "_build" / f"notebooks-{digest_of_package()}")
nb_execution_timeout = 1800  # by the clock, which a busy machine stretches
nb_execution_show_tb = True
nb_merge_streams = True
if nb_execution_mode == "cache":
    # vitools' figures show themselves, others need this
    profile = DOCS / "_build" / "ipython" / "profile_default"
    write_if_new(profile / "ipython_kernel_config.py", "c.IPKernelApp.matplotlib = 'inline'\n")
    os.environ["IPYTHONDIR"] = str(profile.parent)
    # what tqdm says of missing widgets, when Pyro is imported, would stand in a notebook, too
    os.environ["PYTHONWARNINGS"] = "ignore:IProgress not found"
    with warnings.catch_warnings():  # what ArviZ says once a day would stand in a notebook
        warnings.simplefilter("ignore")
        import arviz  # noqa: F401


def setup(app: Sphinx) -> None:
    """A table in a file of commas is shown as it is; Pygments has no lexer of that name."""
    app.add_lexer("csv", TextLexer)
