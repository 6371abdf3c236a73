# `make help` is the contract: what is not listed there is not supported.
SHELL := /bin/bash
PYTHON ?= python3
VENV := .venv
STAMP := $(VENV)/.installed
ASSETS := .corten/assets

.PHONY: help hello test test-vm unit lint system conformance record bench setup clean

help:
	@echo "make hello        set everything up and run a first container"
	@echo "make test         set everything up and run every check and test (root, about ten minutes)"
	@echo "make unit         only what needs no root: linters, types, unit and architecture tests"
	@echo "make system       only the tests on the real kernel and with real clients (root)"
	@echo "make test-vm      the system tests on Debian's kernel with systemd and cgroup v2 in qemu (root, up to an hour)"
	@echo "make record       record the real Docker Engine's answers anew (downloads it, root)"
	@echo "make bench        measure beside the real Docker Engine (downloads it, root)"
	@echo "make clean        remove what the above have made"

$(STAMP): pyproject.toml scripts/setup.sh
	@scripts/setup.sh "$(PYTHON)" "$(VENV)"
	@touch $@

setup: $(STAMP)

hello: setup
	@$(VENV)/bin/corten --data-root .corten/hello hello

lint: setup
	@echo "== ruff, mypy --strict"
	@$(VENV)/bin/ruff check src tests bench
	@$(VENV)/bin/mypy

unit: lint
	@echo "== unit and architecture tests"
	@$(VENV)/bin/pytest tests/unit tests/architecture

system: setup
	@scripts/assets.sh "$(ASSETS)"
	@echo "== system and conformance tests"
	@CORTEN_ASSETS="$(CURDIR)/$(ASSETS)" $(VENV)/bin/pytest tests/system tests/conformance

test: unit system
	@echo "== all tests passed"

test-vm: setup
	@scripts/assets.sh "$(ASSETS)"
	@scripts/vm.sh "$(VENV)" "$(ASSETS)" .corten/vm $(TESTS)

record: setup
	@scripts/assets.sh "$(ASSETS)" docker
	@CORTEN_ASSETS="$(CURDIR)/$(ASSETS)" $(VENV)/bin/python -m tests.conformance.record
	@CORTEN_ASSETS="$(CURDIR)/$(ASSETS)" $(VENV)/bin/python -m tests.conformance.record_corpus
	@CORTEN_ASSETS="$(CURDIR)/$(ASSETS)" $(VENV)/bin/python -m tests.conformance.record_build_views

bench: setup
	@scripts/assets.sh "$(ASSETS)" docker
	@CORTEN_ASSETS="$(CURDIR)/$(ASSETS)" bench/run.sh

clean:
	@rm -rf $(VENV) .corten .mypy_cache .ruff_cache .pytest_cache
