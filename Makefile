# `make` alone says what there is. Every target that needs the host or the environment runs .setup/host first.
SHELL := /bin/bash
IMAGE ?= tiny
PYTHON := .venv/bin/python
export PATH := $(CURDIR)/.venv/bin:$(PATH)

.DEFAULT_GOAL := help
.PHONY: help setup test-setup demo az test check static bench fix lock clean

help:       ## show the targets
	@sed -n 's/^\([a-z]*\): .*## /  make \1	/p' $(MAKEFILE_LIST)

setup:      ## install what is missing on this host, and the virtual environment
	@bash .setup/host

test-setup:
	@bash .setup/host tests

demo: setup ## a scale set of real VMs, an upgrade, a rollback (IMAGE=tiny or debian-12)
	$(PYTHON) tests/demo.py --image '$(IMAGE)'

az: setup   ## every line of `az` that the API promises, against a lab of real VMs; installs azure-cli
	$(PYTHON) tests/az.py

test: test-setup static ## everything: formatting, lint, types, imports, then all tests, those on real VMs too
	$(PYTHON) -m pytest -n 2 --dist loadfile

check: test-setup static ## the same without the tests that boot VMs
	$(PYTHON) -m pytest -n 2 --dist loadfile -m 'not e2e'

static: setup ## formatting, lint, types, import rules
	ruff format --check
	ruff check
	mypy
	lint-imports

bench: setup ## times and memory, as ratios to plain QEMU
	$(PYTHON) tests/bench/bench.py

fix: setup  ## format, and mend what lint can mend
	ruff format
	ruff check --fix

lock: setup ## write .setup/requirements.lock again from pyproject.toml, and .setup/az.lock
	uv pip compile -q --system-certs --universal --python-version 3.11 --generate-hashes --no-annotate --no-header \
		--group dev -o .setup/requirements.lock pyproject.toml
	echo azure-cli | uv pip compile -q --system-certs --universal --python-version 3.11 --generate-hashes --no-annotate \
		--no-header -o .setup/az.lock -

clean:      ## remove the environment and what tools have cached in the checkout
	rm -rf .venv .mypy_cache .ruff_cache .pytest_cache .hypothesis .import_linter_cache .coverage .demo .bench .az
	find labctl tests -name __pycache__ -prune -exec rm -rf {} +
