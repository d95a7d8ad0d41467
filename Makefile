# Everything a person or CI does with this repository. `make help` lists it.
SHELL := /bin/bash
.SHELLFLAGS := -eu -o pipefail -c
.DEFAULT_GOAL := help
.DELETE_ON_ERROR:

PYTHON ?= python3.11
BOOT := .venv/boot
UV := $(BOOT)/bin/uv
AIRFLOW := .venv/airflow/bin
SPARK := .venv/spark/bin
STATSD_EXPORTER := v0.29.0
export UV_CACHE_DIR ?= $(if $(wildcard $(HOME)),$(HOME)/.cache/uv,$(CURDIR)/.venv/cache)
export PYTHONDONTWRITEBYTECODE ?=

# say,what: one line of progress with the seconds since make began
START := $(shell date +%s)
say = printf '  %4ss  %s\n' "$$(( $$(date +%s) - $(START) ))" "$(1)"

.PHONY: help
help: ## List the targets
	@awk -F':.*## ' '/^[a-z][a-z-]*:.*## /{printf "  \033[1m%-14s\033[0m %s\n", $$1, $$2}' $(MAKEFILE_LIST)

## Set-up -------------------------------------------------------------------------------------------------------------

.PHONY: setup
setup: .venv/.ready ## Install everything the project needs (repeats in no time)

.venv/.ready: .venv/airflow/.done .venv/spark/.done .venv/tools/.statsd-$(STATSD_EXPORTER)
	@$(call say,Java 17 or 21)
	@$(AIRFLOW)/python -m local.java
	@$(call say,Spark class data archive)
	@$(AIRFLOW)/python -m local.spark || true
	@$(call say,ready)
	@touch $@

$(UV): requirements-boot.txt
	@$(call say,installer)
	@command -v $(PYTHON) >/dev/null || { echo "Python 3.11 is missing: install it, or say make PYTHON=/path/to/python3.11" >&2; exit 1; }
	@$(PYTHON) -m venv $(BOOT)
	@$(BOOT)/bin/python -m pip install -q --disable-pip-version-check --require-hashes -r requirements-boot.txt
	@touch $@

.venv/airflow/.done: requirements.txt requirements-dev.txt | $(UV)
	@$(call say,virtual environment of Airflow)
	@test -x $(AIRFLOW)/python || $(UV) venv -q --python $(PYTHON) .venv/airflow
	@$(UV) pip sync -q --python $(AIRFLOW)/python --require-hashes requirements.txt requirements-dev.txt
	@touch $@

.venv/spark/.done: requirements-spark.txt | $(UV)
	@$(call say,virtual environment of Spark)
	@test -x $(SPARK)/python || $(UV) venv -q --python $(PYTHON) .venv/spark
	@$(UV) pip sync -q --python $(SPARK)/python --require-hashes requirements-spark.txt
	@touch $@

# The exporter is a Go program; Go comes with the locked development requirements when the machine has none.
.venv/tools/.statsd-$(STATSD_EXPORTER): | .venv/airflow/.done
	@$(call say,statsd_exporter $(STATSD_EXPORTER))
	@mkdir -p .venv/tools/bin
	@GO=$$(command -v go || echo "$(CURDIR)/$(AIRFLOW)/go"); GOBIN="$(CURDIR)/.venv/tools/bin" GOFLAGS=-mod=mod "$$GO" install github.com/prometheus/statsd_exporter@$(STATSD_EXPORTER) 2>&1 | grep -v '^go: downloading' || true
	@test -x .venv/tools/bin/statsd_exporter || { echo "statsd_exporter was not built" >&2; exit 1; }
	@touch $@

.PHONY: lock
lock: | $(UV) ## Write the locked requirements anew from the .in files
	@for name in requirements-boot requirements requirements-spark requirements-dev; do \
		$(UV) pip compile -q --python-version 3.11 --generate-hashes --no-header --no-emit-index-url --no-emit-find-links \
			--custom-compile-command "make lock" $$name.in -o $$name.txt; done

## Use ----------------------------------------------------------------------------------------------------------------

.PHONY: demo
demo: setup ## Run it all on this machine and watch (ONCE=1: one verified pass, FRESH=1: empty data first)
	@$(AIRFLOW)/python -m local.demo

.PHONY: demo-crash
demo-crash: setup ## Kill a job before its commit and one after, and see Airflow recover
	@$(AIRFLOW)/python -m local.demo crash

.PHONY: down
down: ## Stop every server of this checkout
	@test ! -x $(AIRFLOW)/python || $(AIRFLOW)/python -m local stop

.PHONY: clean
clean: ## Remove caches; virtual environments and data stay
	@rm -rf .pytest_cache .mypy_cache .ruff_cache .hypothesis
	@find . -name __pycache__ -type d -not -path './.venv/*' -prune -exec rm -rf {} +

.PHONY: purge
purge: ## Remove data, secrets and virtual environments; asks first
	@read -r -p "Delete .run/ (all data and secrets) and .venv/? Type yes: " answer && test "$$answer" = yes
	@$(MAKE) --no-print-directory down
	@rm -rf .run .venv

## Check --------------------------------------------------------------------------------------------------------------

.PHONY: lint
lint: setup ## ruff, mypy --strict, import rules
	@$(AIRFLOW)/ruff check .
	@$(AIRFLOW)/ruff format --check .
	@$(AIRFLOW)/mypy

.PHONY: test
test: setup ## All tests of a change, on real servers (what CI runs)
	@$(AIRFLOW)/ruff check .
	@$(AIRFLOW)/mypy
	@$(AIRFLOW)/python -m pytest

.PHONY: test-all
test-all: test ## The tests, the demo once, and the quick benchmark
	@ONCE=1 $(AIRFLOW)/python -m local.demo
	@$(MAKE) --no-print-directory bench-quick

.PHONY: bench
bench: setup ## Every contender on 4 million rows, ratios, docs/performance.md
	@$(AIRFLOW)/python -m bench

.PHONY: bench-quick
bench-quick: setup ## The same on few rows, in minutes
	@$(AIRFLOW)/python -m bench --quick
