# Each target sets up what it needs in .venv, at the versions of constraints.txt, and is quick the second time.
# A machine needs Python 3.11 or newer and make, nothing else.

VENV := .venv
BIN  := $(VENV)/bin
# 3.11 first: constraints.txt was tested with it.
PYTHON ?= $(shell for name in python3.11 python3 python3.12 python3.13; do \
	$$name -c 'import sys; sys.exit(sys.version_info < (3, 11))' 2>/dev/null && command -v $$name && break; done)

.DEFAULT_GOAL := help
.PHONY: help demo test check format coverage clean

help:  ## list the targets
	@sed -n 's/^\([a-z]*\):.*## /make \1\t/p' $(MAKEFILE_LIST) | expand -t 16

demo: $(VENV)/.demo  ## train a small network with a fault, diagnose it, cure it
	@$(BIN)/python -m lossdoctor demo

# The suite runs a process per core: more threads inside each would only get in each other's way.
test coverage: export OMP_NUM_THREADS = 1

test: $(VENV)/.dev  ## run every test
	$(BIN)/python -m pytest -n auto --dist worksteal

coverage: $(VENV)/.dev  ## run every test and say which branches none of them takes
	$(BIN)/python -m pytest -n auto --dist worksteal --cov --cov-report=term-missing

check: $(VENV)/.dev  ## lint, form, types, layers, and the tests inside the rules
	$(BIN)/python -m ruff check
	$(BIN)/python -m ruff format --check
	$(BIN)/python -m mypy
	$(BIN)/lint-imports --no-logo
	$(BIN)/python -m lossdoctor rules check

format: $(VENV)/.dev  ## put the code in its form
	$(BIN)/python -m ruff check --fix
	$(BIN)/python -m ruff format

clean:  ## remove the environment and every cache
	rm -rf $(VENV) .mypy_cache .pytest_cache .ruff_cache .hypothesis .import_linter_cache .coverage build dist

# $(call install,EXTRA). The constraints keep every package, torch above all, at the release it was tested with.
define install
	@test -n "$(PYTHON)" || { echo 'lossdoctor needs Python 3.11 or newer; name one: make PYTHON=/path/to/python3' >&2; exit 2; }
	@echo 'Setting up $(VENV), once: this takes some minutes'
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --disable-pip-version-check -c constraints.txt -e '.[$(1)]'
endef

$(VENV)/.demo: pyproject.toml constraints.txt
	$(call install,demo)
	@touch $@

# Whoever can develop can also demonstrate.
$(VENV)/.dev: pyproject.toml constraints.txt
	$(call install,dev)
	@touch $(VENV)/.demo $@
