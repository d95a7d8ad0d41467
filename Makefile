# Everything a newcomer types. `make help` lists it.
SHELL := /bin/bash
.SHELLFLAGS := -eu -o pipefail -c
.DEFAULT_GOAL := help
MAKEFLAGS += --no-print-directory

# Debian's own Python 3.11; any other is named with PYTHON=…
PYTHON ?= $(firstword $(wildcard /usr/bin/python3.11) python3.11)
STATSD_EXPORTER_VERSION ?= v0.31.0
ALERTMANAGER_VERSION ?= v0.28.1

AIRFLOW := .venv/airflow/bin
SPARK := .venv/spark/bin
UV := .venv/boot/bin/uv
DONE := .venv/.done
# uv reads neither pip's settings nor pip's environment
ifdef PIP_INDEX_URL
export UV_DEFAULT_INDEX ?= $(PIP_INDEX_URL)
endif
export UV_PYTHON_DOWNLOADS := never
export UV_HTTP_TIMEOUT ?= 180
ifneq ($(wildcard /etc/ssl/certs/ca-certificates.crt),)
export SSL_CERT_FILE ?= /etc/ssl/certs/ca-certificates.crt
endif

.PHONY: help
help: ## Show this list
	@awk 'BEGIN { FS = ":.*## " } \
		/^## / { printf "\n%s\n", substr($$0, 4) } \
		/^[a-z-]+:.*## / { printf "  make %-14s %s\n", $$1, $$2 }' $(MAKEFILE_LIST)

## Run

.PHONY: demo
demo: setup ## Run everything with live trades; Ctrl-C stops it (ONCE=1: offload once and verify; FRESH=1: empty first)
	@exec $(AIRFLOW)/python -m local.demo

.PHONY: demo-crash
demo-crash: setup ## Kill one job after its commit and one before, and show that Airflow recovers
	@exec $(AIRFLOW)/python -m local.demo crash

.PHONY: up
up: setup ## Start all servers and leave them running
	@$(AIRFLOW)/python -m local start

.PHONY: status
status: ## Show the servers, their ports and their logs
	@$(AIRFLOW)/python -m local status

.PHONY: down
down: ## Stop all servers; the data stays
	@if [ -x $(AIRFLOW)/python ]; then $(AIRFLOW)/python -m local stop; fi

## Check

PYTEST := $(AIRFLOW)/python -m pytest

.PHONY: test
test: setup $(DONE)/chromium $(DONE)/docs ## Run the tests (ARGS='-k name' passes options on; WORKERS=0: one after the other)
	@$(PYTEST) -m "not long" -n $(or $(WORKERS),2) --dist loadscope --no-loadscope-reorder $(ARGS)

.PHONY: test-all
test-all: setup $(DONE)/chromium $(DONE)/docs ## All tests, the long ones too, with many more generated examples
	@HYPOTHESIS_PROFILE=search $(PYTEST) $(ARGS)

.PHONY: test-runbooks
test-runbooks: setup ## Try every scenario of the runbooks and write their report; goes on where it broke off (ARGS='-k name')
	@code=0; $(PYTEST) tests/runbooks --record $(ARGS) || code=$$?; $(AIRFLOW)/python docs/generate.py; exit $$code

.PHONY: torture
torture: setup ## Play random faults until N rounds are done (N=20 SEED=1; ROUND=7: that one again), then count rows
	@exec $(AIRFLOW)/python -m tests.torture --rounds $(or $(N),20) --seed $(or $(SEED),1) $(if $(ROUND),--round $(ROUND)) $(ARGS)

.PHONY: lint
lint: $(DONE)/airflow ## Check style, types, the walls between the rooms, and generated pages
	@$(AIRFLOW)/ruff check .
	@$(AIRFLOW)/ruff format --check .
	@$(AIRFLOW)/mypy include spark_jobs local monitoring
	@$(AIRFLOW)/lint-imports
	@$(AIRFLOW)/python -m monitoring.generate --check
	@$(AIRFLOW)/python docs/generate.py --check

.PHONY: bench
bench: setup $(DONE)/bench ## Measure a bulk load against seven other ways; writes bench/results.json (ARGS='--rounds 5')
	@exec $(AIRFLOW)/python -m bench.run $(ARGS)

.PHONY: bench-quick
bench-quick: setup $(DONE)/bench ## The fast ones with few rows; fails when a ratio fell by 30 % (ARGS=--record: write bench/quick.json)
	@exec $(AIRFLOW)/python -m bench.run --quick $(ARGS)

.PHONY: screenshots
screenshots: setup $(DONE)/chromium ## Take the pictures of the page in Airflow again, into docs/img/
	@OFFLOAD_SCREENSHOTS=1 $(PYTEST) tests/ui/test_pages.py tests/ui/test_access.py $(ARGS)

.PHONY: docs
docs: $(DONE)/airflow ## Write the generated pages, the rules of Prometheus and the schema of the table specs
	@$(AIRFLOW)/python -m include.offload.spec.schema
	@$(AIRFLOW)/python -m monitoring.generate
	@$(AIRFLOW)/python docs/generate.py

.PHONY: site
site: $(DONE)/docs ## Build the docs site into .site/; a dead link or anchor is an error
	@NO_MKDOCS_2_WARNING=1 .venv/docs/bin/python -m mkdocs build --strict
	@echo "built: .site/index.html (to search it: python3 -m http.server --bind 127.0.0.1 --directory .site)"

## Set up

.PHONY: setup
setup: ## Install all that is missing; does nothing the second time
	@$(MAKE) --silent .venv/.complete

.venv/.complete: $(DONE)/airflow $(DONE)/spark $(DONE)/java .venv/tools/bin/statsd_exporter .venv/tools/bin/prometheus .venv/tools/bin/amtool $(DONE)/archive $(DONE)/iceberg
	@touch $@

$(DONE)/boot: requirements-boot.txt bin/bootstrap | $(DONE)
	@bin/step "uv, from a hash-locked file" bin/bootstrap $(PYTHON)
	@touch $@

$(DONE)/airflow: requirements.txt requirements-dev.txt $(DONE)/boot
	@bin/step "Airflow's environment (1 to 3 minutes)" bin/venv .venv/airflow $(PYTHON) requirements.txt requirements-dev.txt
	@touch $@

$(DONE)/spark: requirements-spark.txt $(DONE)/boot
	@bin/step "Spark's environment (1 to 2 minutes)" bin/venv .venv/spark $(PYTHON) requirements-spark.txt
	@touch $@

# what the bench compares with
$(DONE)/bench: requirements-bench.txt $(DONE)/boot
	@bin/step "the bench's environment" bin/venv .venv/bench $(PYTHON) requirements-bench.txt
	@touch $@

# the docs site and its test
$(DONE)/docs: requirements-docs.txt $(DONE)/boot
	@bin/step "the docs site's environment" bin/venv .venv/docs $(PYTHON) requirements-docs.txt
	@touch $@

$(DONE)/java: $(DONE)/airflow
	@bin/step "Java 17 or 21" $(AIRFLOW)/python -m local.java
	@touch $@

# only tests need it
$(DONE)/chromium: $(DONE)/airflow local/chromium.py
	@bin/step "Chromium, for the tests of the page in Airflow" $(AIRFLOW)/python -m local.chromium
	@touch $@

.venv/tools/bin/statsd_exporter: $(DONE)/airflow
	@bin/step "statsd_exporter $(STATSD_EXPORTER_VERSION), built with Go" bin/go-install github.com/prometheus/statsd_exporter@$(STATSD_EXPORTER_VERSION)
	@touch $@

.venv/tools/bin/prometheus: bin/debian-tools
	@bin/step "Prometheus and promtool" bin/debian-tools
	@touch $@

# Debian's Alertmanager looks for its templates below /usr/share and so runs only where it is installed
.venv/tools/bin/amtool: $(DONE)/airflow
	@bin/step "Alertmanager $(ALERTMANAGER_VERSION), built with Go (1 to 2 minutes)" bin/go-install \
		github.com/prometheus/alertmanager/cmd/alertmanager@$(ALERTMANAGER_VERSION) \
		github.com/prometheus/alertmanager/cmd/amtool@$(ALERTMANAGER_VERSION)
	@touch $@

# without the archive every Spark job starts two seconds later: worth a warning, not a stop
$(DONE)/archive: $(DONE)/java $(DONE)/spark local/spark.py local/spark_warm_up.py
	@bin/step "class data archive for Spark" $(AIRFLOW)/python -m local.spark \
		|| echo "  Spark jobs will work, but start slower." >&2
	@touch $@

# only maintenance needs it: worth a warning, not a stop
$(DONE)/iceberg: $(DONE)/java $(DONE)/spark local/iceberg.py
	@bin/step "Iceberg's runtime for Spark" $(AIRFLOW)/python -m local.iceberg \
		|| echo "  Everything but maintenance will work." >&2
	@touch $@

$(DONE):
	@mkdir -p $@

.PHONY: lock
lock: $(DONE)/boot ## Resolve the requirements again and lock them with hashes
	@for name in requirements-boot requirements requirements-dev requirements-spark requirements-docs requirements-bench; do \
		bin/step "$$name.txt" $(UV) pip compile --generate-hashes --python-version 3.11 --no-header $(LOCK_ARGS) $$name.in -o $$name.txt; \
	done

## Clean

.PHONY: clean
clean: down ## Remove caches and both environments; the data stays
	@rm -rf .venv .pytest_cache .mypy_cache .ruff_cache .import_linter_cache .hypothesis
	@find . -name __pycache__ -type d -not -path './.git/*' -prune -exec rm -rf {} +

.PHONY: purge
purge: $(DONE)/airflow ## Remove all data, logs and passwords; asks first
	@$(AIRFLOW)/python -m local purge
