# `make` alone prints this help.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
# Processes that run tests side by side, each with a Postgres and an S3 server of its own; 0: one, which a debugger can enter.
WORKERS ?= 4
FILES := mediarepo tests migrations bench tools

# Tests start the commands a thousand times: each compiles every module anew when nobody may keep the bytecode.
unexport PYTHONDONTWRITEBYTECODE

.DEFAULT_GOAL := help
.PHONY: help run test test-unit check heavy storm bench format docs reference lock clean

help:  ## print this help
	@awk -F ':.*## ' '/^[a-z-]+:.*## / {printf "  make %-10s %s\n", $$1, $$2}' $(MAKEFILE_LIST)

run: $(VENV)/.ready  ## serve on 127.0.0.1:8000 with a Postgres and an S3 server of our own
	@exec $(BIN)/mediarepo dev $(ARGS)

test: $(VENV)/.ready-dev  ## run the whole test suite
	$(BIN)/pytest -n $(WORKERS) --dist worksteal $(ARGS)

test-unit: $(VENV)/.ready-dev  ## run the tests that need neither Postgres nor S3
	$(BIN)/pytest -q -n $(WORKERS) --dist worksteal tests/unit $(ARGS)

check: $(VENV)/.ready-dev  ## all that CI runs: format, lint, types, imports, tests with coverage
	$(BIN)/ruff format --check $(FILES)
	$(BIN)/ruff check $(FILES)
	$(BIN)/mypy
	$(BIN)/lint-imports
	$(BIN)/coverage erase
	$(MAKE) --no-print-directory test ARGS="--cov --cov-report=term $(ARGS)"

heavy: $(VENV)/.ready-dev  ## run the tests that take minutes and gigabytes
	$(BIN)/pytest -m heavy $(ARGS)

storm: $(VENV)/.ready-dev  ## kill and break everything for hours: ARGS="--seed 1 --seconds 600 --storms 6"
	$(BIN)/python -m tests.storm $(ARGS)

bench: $(VENV)/.ready-dev  ## measure against nginx and the bare S3 server
	$(BIN)/python -m bench $(ARGS)

format: $(VENV)/.ready-dev  ## put the code into shape
	$(BIN)/ruff format $(FILES)
	$(BIN)/ruff check --fix $(FILES)

docs: $(VENV)/.ready-docs build/mermaid.min.js  ## build the documentation site into site/
	NO_MKDOCS_2_WARNING=1 $(BIN)/mkdocs build --strict -d site $(ARGS)

reference: $(VENV)/.ready  ## write docs/metrics.md, which is made of the code
	$(BIN)/python -m tools.reference_pages

lock: $(VENV)/.ready-dev  ## pin the dependencies anew
	$(LOCK) --group pyproject.toml:build -o requirements-build.lock
	$(LOCK) pyproject.toml --extra embedded --extra httptools --extra uvloop -o requirements.lock
	$(LOCK) pyproject.toml --extra dev -c requirements-build.lock -o requirements-dev.lock
	$(LOCK) pyproject.toml --extra formats -c requirements-dev.lock -o requirements-formats.lock
	$(LOCK) pyproject.toml --extra docs -c requirements-dev.lock -o requirements-docs.lock

LOCK := $(BIN)/uv pip compile --universal --python-version 3.11 --generate-hashes --no-emit-index-url --no-annotate --no-header --upgrade -q

MERMAID := mermaid-11.9.0.tgz
MERMAID_SHA256 := 457d14c241bf63fdca6fd6ef0463d3a15f2061496429769c01b28c9203442320

# The drawings' program, served from the site itself; npm hands on the registry that it is configured for.
build/mermaid.min.js:
	mkdir -p build
	cd build && npm pack --silent mermaid@11.9.0 && echo "$(MERMAID_SHA256)  $(MERMAID)" | sha256sum -c -
	tar -xzf build/$(MERMAID) -C build --strip-components=2 package/dist/mermaid.min.js

clean:  ## remove what make made, the quick start's data aside
	rm -rf $(VENV) .mypy_cache .ruff_cache .pytest_cache .hypothesis .import_linter_cache .coverage* build dist site

$(VENV)/.made:
	@$(PYTHON) -c 'import sys; sys.exit(0 if sys.version_info >= (3, 11) else "mediarepo needs Python 3.11 or later; set PYTHON=python3.12, for example")'
	@$(PYTHON) -c 'import ensurepip, venv' 2>/dev/null || { echo "Python's venv module is missing: apt install python3-venv" >&2; exit 1; }
	$(PYTHON) -m venv $(VENV)
	@touch $@

$(VENV)/.ready: $(VENV)/.made requirements.lock requirements-build.lock pyproject.toml tools/install_locked.py
	@echo "installing the locked dependencies ..."
	@$(BIN)/python tools/install_locked.py requirements.lock
	@touch $@

$(VENV)/.ready-dev: $(VENV)/.made requirements-dev.lock requirements-build.lock pyproject.toml tools/install_locked.py
	@echo "installing the locked dependencies of the tests ..."
	@$(BIN)/python tools/install_locked.py requirements-dev.lock
	@touch $@ $(VENV)/.ready

$(VENV)/.ready-docs: $(VENV)/.ready requirements-docs.lock
	@echo "installing the locked dependencies of the documentation ..."
	@$(BIN)/python tools/install_locked.py requirements-docs.lock
	@touch $@
