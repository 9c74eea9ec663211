# Everything a developer calls. `make` alone says what there is.

# The first Python that is new enough, or what the caller says: make PYTHON=/usr/bin/python3.12
PYTHON ?= $(shell for python in python3 python3.14 python3.13 python3.12 python3.11 /usr/bin/python3; do \
	$$python -c 'import ensurepip, sys; sys.exit(sys.version_info < (3, 11))' 2>/dev/null && echo $$python && break; done)
VENV := .venv
BIN := $(VENV)/bin
JOBS ?= 2
TESTS ?= tests

.DEFAULT_GOAL := help
.PHONY: help setup check format lint types imports test fuzz torture fresh bench demo build clean

help: ## Show this help
	@awk -F ':.*## ' '/^[a-z]+:.*## / {printf "  make %-9s %s\n", $$1, $$2}' $(MAKEFILE_LIST)

setup: $(VENV)/ready ## Make the virtual environment in .venv, with everything in it

define make_venv
@test -n "$(PYTHON)" || { echo "Python 3.11 or newer with its venv module is needed (on Debian: apt install python3-venv)" >&2; exit 1; }
$(PYTHON) -m venv $(VENV)
endef
INSTALL := $(BIN)/python -m pip install --quiet --disable-pip-version-check --editable

# Last of all, so that an interrupted setup is begun again; with each change of pyproject.toml too.
$(VENV)/ready: pyproject.toml
	$(make_venv)
	$(INSTALL) '.[dev]'
	@touch $(VENV)/usable $@

# What it takes to run it: a quarter of the time, for those who only want to see it.
$(VENV)/usable: pyproject.toml
	$(make_venv)
	$(INSTALL) .
	@touch $@

check: lint types imports test ## All checks and tests, as CI runs them

lint: setup
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .

types: setup
	$(BIN)/mypy

imports: setup
	$(BIN)/lint-imports

test: setup ## The tests alone (some of them: make test TESTS=tests/unit; one at a time: JOBS=0)
	$(BIN)/python -m pytest -q -n $(JOBS) --dist loadfile -o tmp_path_retention_policy=failed $(TESTS)

fuzz: setup ## Mutated requests against a daemon (for how long: SECONDS=60; repeat a run: SEED=n, from batch FIRST=n)
	@$(BIN)/python -m tests.crash.fuzz $(if $(SECONDS),$(SECONDS),60) "$(SEED)" "$(FIRST)"

torture: setup ## A long kill storm: at least 500 SIGKILLs (repeat one: SEED=n; fewer: KILLS=n)
	@$(BIN)/python -m tests.crash.storm $(if $(SEED),--seed $(SEED)) $(if $(KILLS),--kills $(KILLS))

fresh: setup ## Walk README.md and docs/ on a bare Debian that is booted for it, as root: SUITE=bookworm, trixie or testing
	@$(BIN)/python -m tests.fresh $(SUITE)

bench: setup ## Measure us against our peers, write docs/benchmarks.md (QUICK=1: under 3 minutes; BENCH_PEERS="parallel huey")
	$(INSTALL) '.[bench]'
	@$(if $(QUICK),QUICK=$(QUICK)) $(if $(BENCH_PEERS),BENCH_PEERS="$(BENCH_PEERS)") $(BIN)/python -m tests.benchmarks

format: setup ## Format the code, and fix what ruff can fix by itself
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

demo: $(VENV)/usable ## A tour: a private daemon in a temporary directory does real work (FAST=1: in under a minute)
	@$(BIN)/python -m tests.demo

build: setup ## Build the wheel into dist/
	$(BIN)/python -m pip wheel --quiet --disable-pip-version-check --no-deps --wheel-dir dist .

clean: ## Remove the virtual environment, caches and everything built
	rm -rf $(VENV) build dist htmlcov .mypy_cache .ruff_cache .pytest_cache .hypothesis .import_linter_cache .coverage*
	find . -name __pycache__ -type d -prune -exec rm -rf {} +
