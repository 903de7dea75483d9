# Every target sets up what it needs in .venv by itself; `make` alone lists them.
SHELL := bash
.SHELLFLAGS := -eu -o pipefail -c
.DEFAULT_GOAL := help
.DELETE_ON_ERROR:

PYTHON ?= python3
VENV := .venv
INSTALLED := $(VENV)/.installed
DOCS_INSTALLED := $(VENV)/.installed-docs
# The recipes' Makefiles find the environment's programs here.
export BIN := $(CURDIR)/$(VENV)/bin
PIP := "$(BIN)/python" -m pip --disable-pip-version-check

.PHONY: help install demo test test-slow lint types smoke bench docs format clean

help: ## List the targets
	@awk -F ':.*## ' '/^[a-z-]+:.*## / {printf "  make %-10s %s\n", $$1, $$2}' $(firstword $(MAKEFILE_LIST))

install: $(INSTALLED) ## Install the package and all it needs into .venv

# encodec asks for a torchaudio that breaks beside a CPU torch, so it goes in without its requirements (tools/requirements.py).
$(INSTALLED): setup.cfg pyproject.toml constraints.txt tools/requirements.py
	@"$(PYTHON)" -c 'import sys; sys.exit(sys.version_info < (3, 10))' \
	  || { echo "$(PYTHON) is $$("$(PYTHON)" --version): audiolm_kit needs Python 3.10 or newer; name one with make PYTHON=..."; exit 2; }
	test -x "$(BIN)/python" || "$(PYTHON)" -m venv $(VENV)
	"$(BIN)/python" tools/requirements.py dev demo > $(VENV)/requirements.txt
	$(PIP) install -r $(VENV)/requirements.txt -c constraints.txt
	$(PIP) install --no-build-isolation --no-deps -c constraints.txt encodec
	$(PIP) install --no-build-isolation --no-deps -e .
	@touch $@

demo: $(INSTALLED) ## Let the models that come with the package be heard, on a page to listen at
	"$(BIN)/python" tools/demo.py -o build/demo

test: $(INSTALLED) ## Run the quick tests
	"$(BIN)/python" -m pytest -n auto --dist loadfile

test-slow: $(INSTALLED) ## Run the slow tests
	"$(BIN)/python" -m pytest -m slow

lint: $(INSTALLED) ## Check style and formatting
	"$(BIN)/ruff" check .
	"$(BIN)/ruff" format --check .

types: $(INSTALLED) ## Check types
	"$(BIN)/mypy"

smoke: $(INSTALLED) ## Run recipes/hello from end to end, small, and check what came out
	@$(MAKE) --no-print-directory -C recipes/hello smoke

bench: $(INSTALLED) ## Time decoding, codec, training and start-up here, beside others (about 10 minutes)
	"$(BIN)/python" tools/benchmark.py

docs: $(DOCS_INSTALLED) ## Build the documentation's site in build/site; a warning is an error
	NO_MKDOCS_2_WARNING=1 "$(BIN)/python" -m mkdocs build -f tools/mkdocs.yml --strict --quiet
	@echo "Read: $(CURDIR)/build/site/index.html"

# Only who builds the site needs these (tools/mkdocs.yml says why these, and what comes after them).
$(DOCS_INSTALLED): $(INSTALLED)
	"$(BIN)/python" tools/requirements.py docs > $(VENV)/requirements-docs.txt
	$(PIP) install -r $(VENV)/requirements-docs.txt -c constraints.txt
	@touch $@

format: $(INSTALLED) ## Rewrite the code in the project's format
	"$(BIN)/ruff" check --fix .
	"$(BIN)/ruff" format .

clean: ## Remove what builds and runs have left (not .venv)
	rm -rf build dist *.egg-info .mypy_cache .pytest_cache .ruff_cache
	find recipes -mindepth 2 -maxdepth 2 -name build -type d -exec rm -rf {} +
	find audiolm_kit tests tools recipes -name __pycache__ -type d -prune -exec rm -rf {} +
