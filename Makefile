# Each target sets itself up: it makes .venv and installs the package, once, and again when its metadata changes.

PYTHON ?= python3
SUPPORTED := 3.10 to 3.13
VENV := .venv
RUN := $(VENV)/bin/python
READY := $(VENV)/.ready
PYTEST_ARGS ?=

.PHONY: help demo test unit integration lint format docs clean

help: ## show this help
	@awk -F ':.*## ' '/^[a-z]+:.*## / { printf "make %-12s %s\n", $$1, $$2 }' $(MAKEFILE_LIST)

demo: $(READY) ## the main job on three embedded brokers; BACKEND=docker or BOOTSTRAP=host:port: on real ones
	@BOOTSTRAP='$(BOOTSTRAP)' BACKEND='$(BACKEND)' $(RUN) examples/demo.py

test: $(READY) ## all tests; those on real brokers are skipped, with the reason, where there is no Docker
	$(RUN) -m pytest -n 4 tests $(PYTEST_ARGS)
	$(RUN) -m pytest contract integration $(PYTEST_ARGS)

unit: $(READY) ## the tests that need nothing but Python
	$(RUN) -m pytest -n 4 tests contract --kafka-backend=embedded $(PYTEST_ARGS)

integration: $(READY) ## the tests on real brokers
	$(RUN) -m pytest contract integration --kafka-backend=docker $(PYTEST_ARGS)

lint: $(READY) ## style and types
	$(RUN) -m ruff check .
	$(RUN) -m ruff format --check .
	$(RUN) -m mypy

format: $(READY) ## mend the style
	$(RUN) -m ruff check --fix .
	$(RUN) -m ruff format .

docs: $(READY) ## the documentation, as HTML in docs/_build
	$(RUN) -m sphinx -W --keep-going -b html docs docs/_build
	@echo 'open docs/_build/index.html'

clean: ## remove the virtual environment and what tools left behind
	rm -rf $(VENV) docs/_build *.egg-info .mypy_cache .pytest_cache .ruff_cache .hypothesis .coverage

$(READY): setup.cfg pyproject.toml
	@command -v $(PYTHON) >/dev/null || { echo "$(PYTHON) was not found; install Python $(SUPPORTED), or name one: make PYTHON=..." >&2; exit 1; }
	@$(PYTHON) -c 'import sys; sys.exit(not (3, 10) <= sys.version_info < (3, 14))' || { echo "$(PYTHON) is $$($(PYTHON) --version 2>&1), but pooledkafka needs Python $(SUPPORTED); name one: make PYTHON=..." >&2; exit 1; }
	@$(PYTHON) -c 'import venv, ensurepip' 2>/dev/null || { echo "$(PYTHON) cannot make virtual environments; install its venv module (Debian: apt-get install python3-venv)" >&2; exit 1; }
	@echo "setting up $(VENV) ..."
	@$(PYTHON) -m venv $(VENV)
	@$(RUN) -m pip install --quiet --disable-pip-version-check --editable '.[dev]'
	@touch $@
