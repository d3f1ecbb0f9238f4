# Every target sets up what it needs in .venv; PYTHON chooses the interpreter (3.11 or newer).
PYTHON ?= python3
BIN := .venv/bin
SOURCES := $(shell find src -not -name '*.pyc' -not -name __pycache__) pyproject.toml README.md
PIP := $(BIN)/python -m pip --disable-pip-version-check
RUNS_QUIETLY := PIP_PROGRESS_BAR=off

# Two installations into one environment must not run side by side.
.NOTPARALLEL:
.PHONY: demo test test-slow test-browser check bench corpus docs clean

demo: .venv/.resque
	$(BIN)/resque demo

test: .venv/.developing .venv/.resque
	$(BIN)/python -m pytest -n 2 --dist loadfile

test-slow: .venv/.developing .venv/.resque
	$(BIN)/python -m pytest -n 2 --dist loadfile -m slow

# Needs chromium (apt-get install chromium); with RESQUE_AXE=axe.min.js (npm install axe-core) the
# page is checked for accessibility as well.
test-browser: .venv/.developing .venv/.resque
	$(PIP) install --quiet --constraint constraints.txt --group browser
	$(BIN)/python -m pytest tests/test_report_browser.py

check: .venv/.developing .venv/.resque
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/lint-imports
	$(BIN)/python docs/cli_reference.py --check
	$(BIN)/mkdocs build --strict --quiet

bench: .venv/.developing .venv/.resque
	$(BIN)/python benchmarks/run.py

# Hours; what the package has already is not run again.
corpus: .venv/.developing .venv/.resque
	$(BIN)/python benchmarks/corpus.py

docs: .venv/.developing .venv/.resque
	$(BIN)/python docs/cli_reference.py
	$(BIN)/mkdocs build --strict

clean:
	rm -rf .venv site dist build

.venv/.python:
	$(PYTHON) -c "import sys; sys.exit(0 if sys.version_info >= (3, 11) else 'Python 3.11 or newer is needed, e.g. make PYTHON=python3.12')"
	$(PYTHON) -m venv .venv
	$(RUNS_QUIETLY) $(PIP) install --quiet --upgrade pip
	touch $@

# The dependencies, in the tested versions; torch alone takes a few minutes and gigabytes.
.venv/.dependencies: .venv/.python pyproject.toml constraints.txt
	$(RUNS_QUIETLY) $(PIP) install --quiet --constraint constraints.txt ".[report]"
	touch $@

# The package itself is built and installed anew when a source changed, never linked: the tests
# and the demonstration run what a user would install.
.venv/.resque: .venv/.dependencies $(SOURCES)
	$(RUNS_QUIETLY) $(PIP) install --quiet --no-deps --force-reinstall .
	touch $@

.venv/.developing: .venv/.dependencies
	$(RUNS_QUIETLY) $(PIP) install --quiet --constraint constraints.txt --group dev ".[all]"
	touch $@
