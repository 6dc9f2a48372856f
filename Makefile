# Every target works alone on a fresh clone: it makes .venv, installs what it needs, and runs.
PYTHON ?= python3
VENV   := .venv
BIN    := $(VENV)/bin
PLAIN  := .venv-plain
INSTALL := -m pip install --quiet --disable-pip-version-check -c constraints.txt
PIP    := $(BIN)/python $(INSTALL)
SITE   := $(BIN)/python -m sphinx --fail-on-warning --keep-going --quiet docs docs/_build/html
TEXTS  := vitools models guides benchmarks docs README.md CHANGELOG.md CONTRIBUTING.md Makefile pyproject.toml
SOURCES := pyproject.toml constraints.txt

unexport PYTHONDONTWRITEBYTECODE # suites start many processes: each module is compiled once

.PHONY: demo test test-slow test-wheel lint browser docs docs-check course pictures clean

demo: $(VENV)/.installed  ## the main job: compare methods on the two dice, write report/
	$(BIN)/vitools compare two-dice --report report

test: $(VENV)/.installed-dev  ## the default suite
	OMP_NUM_THREADS=1 $(BIN)/python -m pytest -n 2

test-slow: $(VENV)/.installed-dev  ## what takes minutes
	OMP_NUM_THREADS=1 $(BIN)/python -m pytest -n 2 -m slow

test-wheel: $(PLAIN)/.installed  ## the sdist, the wheel made of it, and what that does outside of this folder without any extra
	rm -rf build dist
	$(PLAIN)/bin/python -m build --outdir dist .
	$(PLAIN)/bin/python $(INSTALL) --no-deps --force-reinstall dist/*.whl
	cd tests/plain && OMP_NUM_THREADS=1 ../../$(PLAIN)/bin/pytest --confcutdir=. -m plain

lint: $(VENV)/.installed-dev  ## style, spelling, then types against an ordinary install (mypy reads no editable one)
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/codespell $(TEXTS)
	rm -rf .typecheck build
	$(PIP) --no-deps --target .typecheck .
	cd .typecheck && ../$(BIN)/python -m mypy --config-file ../pyproject.toml --python-executable ../$(BIN)/python vitools

browser:  ## install Debian's chromium and its driver for the tests of pages, where they are missing
	command -v chromedriver && (command -v chromium || command -v chromium-browser) || \
	  (SUDO=$$(command -v sudo || true); $$SUDO apt-get update && \
	   $$SUDO apt-get install --yes --no-install-recommends chromium chromium-driver)

docs: $(VENV)/.installed-docs  ## the site with its notebooks executed (kept in a cache): docs/_build/html/index.html
	OMP_NUM_THREADS=1 $(SITE)

docs-check: $(VENV)/.installed-docs  ## the same without executing anything: pages, links, reference
	SITE_EXECUTES=no OMP_NUM_THREADS=1 $(SITE)

course: $(VENV)/.installed-docs  ## the course as notebooks, with and without solutions: docs/_build/course/
	$(BIN)/python docs/_ext/course.py docs/_build/course

pictures: $(VENV)/.installed  ## redraw the map of the house and the graphs of the derivations
	$(BIN)/python docs/draw_architecture.py
	$(BIN)/vitools draw two-dice --out docs/derivations/two_dice_graph.svg --force
	$(BIN)/vitools draw regression --out docs/derivations/bayesian_regression_graph.svg --force
	$(BIN)/vitools draw vae --out docs/derivations/vae_graph.svg --force

clean:
	rm -rf $(VENV) $(PLAIN) docs/_build docs/repository .typecheck build dist *.egg-info report .pytest_cache .mypy_cache .ruff_cache

$(BIN)/python $(PLAIN)/bin/python:
	$(PYTHON) -c 'import sys; sys.exit(0 if sys.version_info >= (3, 11) else "vitools needs Python 3.11 or newer; try make PYTHON=python3.12")'
	$(PYTHON) -m venv $(@:/bin/python=)

$(VENV)/.installed: $(BIN)/python $(SOURCES)
	$(PIP) -e .
	touch $@

$(VENV)/.installed-dev: $(BIN)/python $(SOURCES)
	$(PIP) -e '.[dev]'
	touch $@ $(VENV)/.installed

$(VENV)/.installed-docs: $(BIN)/python $(SOURCES)
	$(PIP) -e '.[docs]'
	touch $@ $(VENV)/.installed

$(PLAIN)/.installed: $(PLAIN)/bin/python $(SOURCES)
	$(PLAIN)/bin/python $(INSTALL) . build mypy pytest
	touch $@
