# The two commands of the README, and what stands behind them. `make help` lists all.
SHELL := /bin/bash
.SHELLFLAGS := -euo pipefail -c
.DEFAULT_GOAL := help
.DELETE_ON_ERROR:
.PHONY: help demo test lint bench simulate fuzz chaos soak install services lock clean

BIN := .venv/bin
INSTALLED := .venv/.installed
KAFKA_VERSION := $(shell sed -n 's/^KAFKA_VERSION = "\(.*\)"$$/\1/p' tests/services.py)
KAFKA := .cache/kafka/$(KAFKA_VERSION)
SECONDS ?= 60
MINUTES ?= 10
SEEDS ?= 10000
START ?= 0
CLAUSES ?=
SEED ?=
TARGET ?=
ARGS ?=

help: ## list the targets
	@awk -F ':.*## ' '/^[a-z]+:.*## / {printf "  make %-9s %s\n", $$1, $$2}' $(MAKEFILE_LIST)

demo: $(INSTALLED) ## a simulated shop, decided live, no services needed (SECONDS=60)
	@$(BIN)/decisioning demo --seconds $(SECONDS)

test: lint services ## lint, then every test; sets up all it needs (ARGS="-k name" for pytest)
	$(BIN)/python -m pytest $(ARGS)

lint: $(INSTALLED) ## style, types and the direction of imports
	$(BIN)/ruff check
	$(BIN)/ruff format --check
	$(BIN)/mypy
	$(BIN)/lint-imports

bench: services ## the core by stage, the same job by others, a worker killed, bandits (ARGS=--quick: 5 minutes)
	@mkdir -p out/bench
	@$(BIN)/python -m benchmarks.core $(ARGS) | tee out/bench/core.txt
	@$(BIN)/python -m benchmarks.propensity | tee out/bench/propensity.txt
	@$(BIN)/python -m benchmarks.compare $(ARGS)
	@$(BIN)/python -m benchmarks.failover $(ARGS) | tee out/bench/failover.txt
	@$(BIN)/python -m benchmarks.regret $(ARGS)

simulate: $(INSTALLED) ## the real engine and owners under seeded faults, no services needed (SEEDS=10000 START=0; CLAUSES=1)
	$(BIN)/python -m $(if $(CLAUSES),tests.simulated_clauses 400,tests.simulate_many $(SEEDS) $(START))

fuzz: $(INSTALLED) ## hostile bytes, guided by coverage, into all that reads any (SECONDS=60 TARGET=engine)
	@$(BIN)/python -m pip install --quiet --disable-pip-version-check --require-hashes --only-binary :all: \
	  -r tests/fuzz/requirements.txt 2>/dev/null \
	  || { echo "atheris cannot be installed: no wheel for this Python ($$($(BIN)/python --version)), or no package index" >&2; exit 2; }
	@$(BIN)/python -m tests.fuzz.run $(SECONDS) $(TARGET)

chaos: services ## every fault on workers, Redis, broker and network, at random under load (MINUTES=10 SEED=7)
	@$(BIN)/python -m tests.chaos.run $(MINUTES) $(SEED)

soak: services ## run under load and watch memory and delays (MINUTES=10)
	MINUTES=$(MINUTES) $(BIN)/python -m pytest -s -m soak --timeout 0 $(ARGS)

install: $(INSTALLED) ## the virtual environment, exactly as locked

# A Python that is there by name only (a pyenv shim) or lacks venv does not count.
$(INSTALLED): requirements.lock pyproject.toml
	@if [ ! -x $(BIN)/python ]; then \
	  for python in $(PYTHON) python3 python3.13 python3.12 python3.11; do \
	    if $$python -c 'import ensurepip, sys; sys.exit(sys.version_info < (3, 11))' 2>/dev/null; then break; fi; \
	    python=; \
	  done; \
	  [ -n "$$python" ] || { echo "no Python >= 3.11 with venv found: apt-get install python3-venv, or make PYTHON=/path/to/python3" >&2; exit 2; }; \
	  echo "making .venv with $$($$python --version)"; \
	  $$python -m venv .venv; \
	fi
	@echo "installing the locked packages"
	@$(BIN)/python -m pip install --quiet --disable-pip-version-check --require-hashes -r requirements.lock
	@$(BIN)/python -m pip install --quiet --disable-pip-version-check --no-deps --no-build-isolation -e .
	@touch $@

# Without them the tests that need a real service skip and say so; in CI they fail.
services: $(INSTALLED)
	@if [ -n "$${CI:-}" ] || [ -n "$${INSTALL_SERVICES:-}" ]; then tests/install-services; fi
	@if command -v mvn >/dev/null; then $(MAKE) --silent --no-print-directory $(KAFKA)/.complete; \
	 else echo "no Maven: tests on a real Kafka use DECISIONING_TEST_KAFKA or Docker, else they skip (make INSTALL_SERVICES=1 test installs what is missing)"; fi

$(KAFKA)/.complete: tests/kafka/pom.xml
	@echo "copying the jars of Apache Kafka $(KAFKA_VERSION)"
	@rm -rf $(KAFKA) $(KAFKA)-formatted
	@mvn -q -B --strict-checksums -f $< dependency:copy-dependencies -Dkafka.version=$(KAFKA_VERSION) \
	  -DincludeScope=runtime -DoutputDirectory=$(CURDIR)/$(KAFKA) | sed 's/\x1b\[[0-9;]*m//g'
	@touch $@

# `requirements.lock` has everything, `deploy/requirements.lock` what the image needs, in the same versions.
LOCK = pip compile --quiet --universal --python-version 3.11 --generate-hashes --no-emit-index-url --custom-compile-command "make lock"
lock: ## resolve the lock files anew from pyproject.toml (needs uv; ARGS=--upgrade for newer versions)
	@uv=$$(command -v uv || echo $(BIN)/uv); [ -x "$$uv" ] || { echo "uv is not installed: pip install uv" >&2; exit 2; }; \
	 "$$uv" $(LOCK) --extra build --extra demo --extra test --extra bench -o requirements.lock $(ARGS) pyproject.toml; \
	 "$$uv" $(LOCK) --extra build --constraint requirements.lock -o deploy/requirements.lock pyproject.toml; \
	 "$$uv" $(LOCK) -o benchmarks/peers/requirements.txt benchmarks/peers/requirements.in

clean: ## remove the virtual environment and all caches
	rm -rf .venv .cache .mypy_cache .ruff_cache .pytest_cache .hypothesis .import_linter_cache ./*.egg-info
