# SPDX-License-Identifier: MIT
# Needs python3 (>= 3.11) with its venv module, and make; everything else is put into .venv.

PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin

SHELL := /bin/bash
.SHELLFLAGS := -eu -o pipefail -c
.DELETE_ON_ERROR:
.DEFAULT_GOAL := help

.PHONY: help
help: ## show these targets
	@sed -n 's/^\([a-z-]*\):.*## \(.*\)/\1\t\2/p' $(MAKEFILE_LIST) | while IFS=$$'\t' read -r target text; do \
		printf '  make %-12s %s\n' "$$target" "$$text"; done

.PHONY: setup
setup: $(VENV)/.dev ## make .venv with mlockwipe, its lab and what the tests need

.PHONY: demo
demo: $(VENV)/.runtime ## show on this machine what is left behind, and what mlockwipe wipes
	@$(BIN)/mlockwipe verify

.PHONY: test
test: setup ## run the whole test suite
	@$(BIN)/python -m pytest

.PHONY: lint
lint: setup ## format, lint and types
	@$(BIN)/ruff format --check .
	@$(BIN)/ruff check .
	@$(BIN)/mypy

.PHONY: check
check: lint test ## format, lint, types and tests

.PHONY: soak
soak: setup ## run every way to die by the thousand (takes long)
	@$(BIN)/python -m tests.soak

.PHONY: ltp
ltp: setup ## LTP's system call tests, bare and supervised: make ltp LTP=its-built-source-tree
	@$(BIN)/python -m mlockwipe_lab.ltp "$(LTP)"

.PHONY: bench
bench: setup ## measure the costs as ratios
	@$(BIN)/python -m mlockwipe_lab.bench.host

.PHONY: lab-setup
lab-setup: $(VENV)/.lab ## install what the virtual machines need (QEMU and others by apt, as root)

.PHONY: lab
lab: $(VENV)/.lab ## the cases in virtual machines, on Debian's 6.1 and 6.12 (takes long)
	@mkdir -p build
	@$(BIN)/mlockwipe lab verify --kernel debian-6.1 --kernel debian-6.12 --json build/lab.json --html build/lab

.PHONY: kernel
kernel: $(VENV)/.lab ## build Linux 6.12 with the boot option, and run the cases on it (takes long)
	@$(BIN)/mlockwipe lab verify --kernel patched-6.12 --carrier none --carrier boot-option

.PHONY: kernel-check
kernel-check: setup $(VENV)/.lab ## what a kernel developer asks of the patches: style, builds, mm's own tests, stress (takes long)
	@$(BIN)/python -m mlockwipe_lab.kernel_checks.quality
	@$(BIN)/python -m mlockwipe_lab.kernel_checks.selftests
	@$(BIN)/mlockwipe kernel build --config debug --output build/debug
	@$(BIN)/python -m mlockwipe_lab.kernel_checks.stress --kernel build/debug/bzImage

.PHONY: module
module: $(VENV)/.lab ## build the module for Debian's 6.1 and 6.12, and run the cases with it (takes long)
	@$(BIN)/mlockwipe lab verify --kernel debian-6.1 --kernel debian-6.12 --carrier none --carrier module

.PHONY: deb
deb: $(VENV)/.runtime ## make dist/mlockwipe-dkms_*.deb, the module's sources for DKMS
	@$(BIN)/python kernel/make_deb.py dist

.PHONY: man
man: setup ## write the manual pages to build/man
	@$(BIN)/python tools/man.py build/man

.PHONY: lab-keys
lab-keys: $(VENV)/.lab ## real key managers killed in virtual machines (takes long)
	@mkdir -p build
	@$(BIN)/mlockwipe lab keys --kernel debian-6.1 --kernel debian-6.12 --json build/keys.json

.PHONY: lab-bench
lab-bench: $(VENV)/.lab ## count the instructions that the boot option and the module cost (builds four kernels at first)
	@mkdir -p build
	@$(BIN)/mlockwipe lab bench --carrier boot-option --carrier module --series 6.1 --series 6.12 --json build/costs.json --markdown build/costs.md

.PHONY: clean
clean: ## remove .venv and everything that was made
	rm -rf $(VENV) build dist .mypy_cache .ruff_cache .pytest_cache .hypothesis
	find src lab tests tools -name __pycache__ -type d -prune -exec rm -rf {} + 2>/dev/null || true

# Stamps: what a user needs, and on top of it the lab and what the tests need. A .venv that can't run pip (its
# interpreter went with an upgrade of the distribution) is made anew.
$(VENV)/.runtime: pyproject.toml
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || { \
		echo "mlockwipe needs Python 3.11 or newer as $(PYTHON): install one and name it," \
			"for example 'make PYTHON=python3.12 $(MAKECMDGOALS)'" >&2; exit 1; }
	@$(PYTHON) -c 'import ensurepip, venv' 2>/dev/null || { \
		echo "$(PYTHON) has no venv module: apt-get install python3-venv" >&2; exit 1; }
	@$(BIN)/python -m pip --version >/dev/null 2>&1 || $(PYTHON) -m venv --clear $(VENV)
	@$(BIN)/python -m pip install --quiet --disable-pip-version-check --editable .
	@$(BIN)/python -m compileall -q src  # or every start compiles, where the user may not write here
	@touch $@

LAB_PACKAGES := qemu-system-x86 kmod busybox-static e2fsprogs iproute2

$(VENV)/.lab: $(VENV)/.runtime lab/pyproject.toml
	@if [ -n "$$(dpkg-query -W -f '$${db:Status-Abbrev}\n' $(LAB_PACKAGES) 2>&1 | grep -v '^ii')" ]; then \
		if [ "$$(id -u)" = 0 ]; then \
			apt-get update -q && apt-get install -q -y --no-install-recommends $(LAB_PACKAGES); \
		else \
			echo "as root: apt-get install --no-install-recommends $(LAB_PACKAGES)" >&2; exit 1; \
		fi; \
	fi
	@$(BIN)/python -m pip install --quiet --disable-pip-version-check --editable . --editable ./lab
	@$(BIN)/python -m compileall -q lab  # or every guest compiles, which may not write here
	@touch $@

# The pip of Debian 12 knows no --group, so the group is read from pyproject.toml.
$(VENV)/.dev: $(VENV)/.runtime lab/pyproject.toml
	@$(BIN)/python -m pip install --quiet --disable-pip-version-check --editable . --editable ./lab
	@$(BIN)/python -m compileall -q lab  # or every guest compiles, which may not write here
	@$(BIN)/python -c 'import tomllib; groups = tomllib.load(open("pyproject.toml", "rb"))["dependency-groups"]; \
		print(*groups["dev"], sep="\n")' \
		| $(BIN)/python -m pip install --quiet --disable-pip-version-check --requirement /dev/stdin
	@touch $@
