# Everything a developer or CI runs. `make setup` is implied by every target, so a fresh clone needs Python and make only.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
INSTALL := $(BIN)/python -m pip install --quiet --disable-pip-version-check -c constraints.txt

.DEFAULT_GOAL := help
.PHONY: help setup demo test test-all lint type format notebooks docs benchmark tensorboard clean

help: ## list the targets
	@awk -F ':.*## ' '/^[a-z-]+:.*## / {printf "  %-12s %s\n", $$1, $$2}' $(MAKEFILE_LIST)

setup: $(VENV)/.installed ## create .venv with the tested versions, if missing or outdated

$(VENV)/.installed: pyproject.toml constraints.txt
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' \
	  || { echo "retrace_pl needs Python 3.11 or newer; $(PYTHON) is older: run make PYTHON=/path/to/python3.11" >&2; exit 1; }
	@echo "Installing into $(VENV) (a few minutes the first time)"
	@test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	@$(INSTALL) -e '.[dev]'
	@touch $@

$(VENV)/.installed-%: $(VENV)/.installed
	@$(INSTALL) -e '.[$*]'
	@touch $@

demo: setup ## run a whole audit on scikit-learn's digits; the report lands in runs/digits
	$(BIN)/retrace audit --config digits

# Tests on larger real data run where the data lies beside the repository, or where RETRACE_SHARED_DATA says.
test test-all benchmark: export RETRACE_SHARED_DATA := $(or $(RETRACE_SHARED_DATA),$(realpath ../shared/data))

test: setup ## run the tests that take minutes at most, on all cores
	$(BIN)/python -m pytest -n auto --dist loadfile

test-all: setup ## run every test, the slow ones and those for accelerators too
	$(BIN)/python -m pytest -n auto --dist loadfile -m ''

lint: setup ## check style, formatting, the layers of the architecture, risky calls and the installed versions
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/lint-imports
	$(BIN)/bandit --quiet --configfile pyproject.toml --recursive src
	$(BIN)/python -m pip check

type: setup ## check the types
	$(BIN)/mypy

format: setup ## format the code and fix what ruff can fix
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

# Each runs on a copy in a folder of its own, so that neither the tracked file nor the working tree changes.
notebooks: $(VENV)/.installed-notebooks ## execute every notebook; an error in a cell fails
	@set -e; work=$$(mktemp -d); trap 'rm -rf "$$work"' EXIT; \
	for notebook in $(sort $(wildcard notebooks/*.ipynb)); do \
	  echo "$$notebook"; mkdir "$$work/run"; cp "$$notebook" "$$work/run"; \
	  OMP_NUM_THREADS=1 $(BIN)/jupyter execute --timeout=600 "$$work/run/$$(basename "$$notebook")"; \
	  rm -rf "$$work/run"; done

docs: $(VENV)/.installed-docs ## build the documentation into site/
	NO_MKDOCS_2_WARNING=1 $(BIN)/mkdocs build --strict

benchmark: setup ## run every benchmark in its quick form
	@set -e; for script in $(shell grep -l __main__ benchmarks/*.py); do \
	  echo "$$script"; $(BIN)/python "$$script" --quick; done

tensorboard: setup ## show the curves of all runs in a browser
	$(BIN)/tensorboard --logdir runs

clean: ## remove build products and caches; runs/ and .venv stay
	rm -rf build dist site .pytest_cache .mypy_cache .ruff_cache .import_linter_cache
	find src tests benchmarks -name __pycache__ -type d -prune -exec rm -rf {} + 2>/dev/null || true
