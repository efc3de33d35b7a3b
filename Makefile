# `make` alone says what there is.
PYTHON ?= $(or $(shell command -v python3.11),python3)
VENV   := .venv
BIN    := $(VENV)/bin
PIP    := $(BIN)/pip --quiet --disable-pip-version-check

.DEFAULT_GOAL := help
.PHONY: help up test check lint format types architecture browser promtool screenshots docs proto requirements secrets compose-check histories clean

help:            ## what each target does
	@grep -hE '^[a-z-]+: .*##|^[a-z-]+:  .*##' $(MAKEFILE_LIST) | sed -E 's/:[^#]*## /\t/' | expand -t 16

up: $(VENV)/run  ## run the mall on embedded servers (Ctrl-C stops it); ARGS="--data-dir DIR" passes options
	@$(BIN)/mallbots up $(ARGS)

test: $(VENV)/dev check browser promtool  ## formatting, types, architecture, then every test, in two processes
	@$(BIN)/python -m pytest --numprocesses 2 $(ARGS)

check: lint types architecture  ## all that is checked without running anything

lint: $(VENV)/dev  ## ruff: style and formatting
	@$(BIN)/ruff check . && $(BIN)/ruff format --check .

format: $(VENV)/dev  ## ruff: rewrite to the style
	@$(BIN)/ruff check --fix . ; $(BIN)/ruff format .

types: $(VENV)/dev  ## mypy, strict
	@$(BIN)/mypy .

architecture: $(VENV)/dev  ## import-linter: imports point one way
	@$(BIN)/lint-imports

browser: $(VENV)/dev  ## get a Chromium for the browser tests, if this machine has none
	@$(BIN)/python -m tests.chromium

promtool: $(VENV)/dev  ## get what tries the alerts, if this machine has none and is a Debian
	@$(BIN)/python -m tests.promtool

screenshots: $(VENV)/dev browser  ## open a mall, and take docs/img/*.png of every page
	@$(BIN)/python -m tests.screenshots docs/img

docs: $(VENV)/dev  ## write what docs/ has of the contracts: events, AsyncAPI, OpenAPI, gRPC
	@$(BIN)/python -m mallbots.event_docs docs
	@$(BIN)/python -m mallbots.api_docs docs
	@$(BIN)/python proto/reference.py docs

proto: $(VENV)/dev  ## write api/generated from the gRPC contracts in proto/
	@$(BIN)/python proto/generate.py api/generated

requirements:    ## compile the pinned requirements from pyproject.toml (needs uv)
	uv pip compile -q --universal --python-version 3.11 --generate-hashes --no-annotate --no-header \
	  --extra build pyproject.toml -o requirements.txt
	uv pip compile -q --universal --python-version 3.11 --generate-hashes --no-annotate --no-header \
	  --extra build --extra dev -c requirements.txt pyproject.toml -o requirements-dev.txt

secrets:         ## make what docker-compose.yml mounts from secrets/; what is there stays
	@$(PYTHON) deploy/make_secrets.py

compose-check: $(VENV)/dev  ## run docker-compose.yml without containers, and 100 baskets through its proxy
	@$(BIN)/python -m deploy.natively $(ARGS)

histories: $(VENV)/dev  ## record the saga's histories, to be replayed for ever: NAME=0002
	@$(BIN)/python -m pytest tests/workflows -m recorded --record-histories tests/workflows/histories/$(NAME)

clean:           ## remove the virtual environment and caches (never the mall's data)
	rm -rf $(VENV) .mypy_cache .ruff_cache .pytest_cache .import_linter_cache *.egg-info

$(VENV)/bin/python:
	@$(PYTHON) -m venv $(VENV)

# The stamps hold what is installed: the program alone, or with what develops it.
$(VENV)/run: requirements.txt pyproject.toml | $(VENV)/bin/python
	@echo "Installing the pinned packages into $(VENV) …"
	@$(PIP) install --require-hashes --requirement requirements.txt
	@$(PIP) install --no-deps --no-build-isolation --editable .
	@touch $@

$(VENV)/dev: requirements-dev.txt $(VENV)/run
	@$(PIP) install --require-hashes --requirement requirements-dev.txt
	@touch $@
