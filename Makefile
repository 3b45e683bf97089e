# make reproduce   trains what is missing, renders every table and figure, builds the book
# make book        builds the book from the committed notebooks, strictly
# make pdf         the same as one PDF (needs Chromium)
# make test        every test
# make mutants     one-line mistakes put in one at a time: do the tests notice? (long; can be stopped)
# make notebooks   reruns the committed notebooks and writes them and the README's results back
# make dist        wheel, sdist and the published Records, in dist/
# make clean       removes what the above built (not .venv, not your records)
#
# Each of them first sets up .venv by itself; Python 3.11 or newer and make are all it takes.

PYTHON ?= python3
PRESET ?= quick
ARGS   ?=
TESTS  ?= tests
VENV   := .venv
BIN    := $(VENV)/bin
STAMP  := $(VENV)/.installed
# One test worker more than there are cores: some tests wait.
WORKERS = $(shell $(BIN)/python -c 'import os; print(min(8, 1 + (os.cpu_count() or 1)))')
NOTEBOOKS ?= $(sort $(wildcard book/*.ipynb figures/*.ipynb))

# One thread a process: reproducible sums, and the test workers do not fight over the cores. The many
# processes that the tests start find what the first of them has compiled.
test notebooks: export OMP_NUM_THREADS := 1
test notebooks: export PYTHONDONTWRITEBYTECODE :=

.PHONY: reproduce book pdf test mutants notebooks dist clean
.DEFAULT_GOAL := book

reproduce: $(STAMP)
	$(BIN)/icstn reproduce --preset $(PRESET) --from-index $(ARGS)

book: $(STAMP)
	$(BIN)/python tools/book.py --strict

pdf: book
	$(BIN)/python tools/pdf.py

test: $(STAMP)
	$(BIN)/python -m pytest -n $(WORKERS) --dist loadgroup --no-loadscope-reorder $(TESTS) $(ARGS)

mutants: $(STAMP)
	$(BIN)/python -m pip install --disable-pip-version-check -q -r requirements-mutants.txt
	$(BIN)/python tools/mutants.py $(ARGS)

notebooks: $(STAMP)
	$(BIN)/python tools/notebooks.py $(NOTEBOOKS)
	$(BIN)/python tools/readme.py

dist: $(STAMP)
	rm -rf dist
	$(BIN)/python -c "from setuptools import build_meta as b; b.build_sdist('dist'); b.build_wheel('dist')"
	git archive --format=tar.gz --prefix=icstn-records/ --output=dist/icstn-records.tar.gz HEAD:figures/records

clean:
	rm -rf _build build dist *.egg-info .pytest_cache .ruff_cache .hypothesis .import_linter_cache

$(STAMP): requirements.txt pyproject.toml
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || \
	  { echo "icstn needs Python 3.11 or newer, and $(PYTHON) is older or missing: try  make PYTHON=python3.12 $(MAKECMDGOALS)"; exit 1; }
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --disable-pip-version-check -q -r requirements.txt
	$(BIN)/python -m pip install --disable-pip-version-check -q --no-deps --no-build-isolation -e .
	@touch $@
