# Netzpuls: every habit is one target. `make` alone lists them.
# All that is fetched or built stays in .venv/ and .tools/; a second run needs no network.

PYTHON ?= python3
UV ?= uv
VENV := .venv
BIN := $(VENV)/bin
STAMP := $(VENV)/.stamp
STUBS := .tools/stubs
PIP := $(BIN)/python -m pip --quiet --disable-pip-version-check
PIP_LOCKED := $(PIP) install --require-hashes --no-build-isolation
# pip and scapy would keep theirs in the home directory.
export XDG_CACHE_HOME := $(CURDIR)/.tools/cache

.DELETE_ON_ERROR:
.DEFAULT_GOAL := help
.PHONY: help setup scale demo test lab matrix soak check format bench lock clean

help:  ## list what can be done
	@echo "Netzpuls, for users:      make demo"
	@echo "          for developers: make test"
	@echo
	@sed -n 's/^\([a-z]*\):.*##/  make \1\t/p' Makefile | expand -t 16

setup: $(STAMP)/project $(STAMP)/tools  ## fetch and install everything into .venv/ and .tools/
	@:

scale: $(STAMP)/scale  ## fetch what a Spark cluster and ClickHouse need, about 2 minutes and 1.5 GB
	@:

demo: setup  ## six virtual boards, a cut line, a table: the whole way in about a minute
	@$(BIN)/netzpuls demo

# Tests wait more than they compute, so three at a time suit two cores. A file stays together:
# its fixtures are made once. What failed beside others is tried once more, alone: it may have
# waited for a processor, and both outcomes are shown.
test: check scale  ## set up, check and run all tests
	@$(BIN)/pytest -n 3 --dist loadfile || { \
	  test $$? -eq 1 && echo "what failed, once more and alone:" >&2 && \
	  $(BIN)/pytest --last-failed --last-failed-no-failures none; }

check: setup $(STAMP)/stubs  ## linter, format and types, host and board
	@$(BIN)/ruff check
	@$(BIN)/ruff format --check
	@$(BIN)/mypy
	@$(BIN)/mypy --config-file firmware/mypy.ini

format: $(STAMP)/packages  ## let ruff fix and format the code
	@$(BIN)/ruff check --fix
	@$(BIN)/ruff format

lab: matrix soak  ## make every fault in the network lab, then run a board for a simulated week

matrix: setup  ## every fault in the network lab, and what the boards say
	@$(BIN)/netzpuls lab matrix --second-try

soak: setup  ## a simulated week of one board with faults and power cuts
	@$(BIN)/python -m tests.board.soak

bench: setup scale  ## measure this machine, as JSON; ONLY="ledger point" for some
	@$(BIN)/python -m benchmarks $(ONLY)

lock:  ## renew requirements/*.lock from pyproject.toml (needs uv)
	@./requirements/lock.sh $(UV)

clean:  ## remove .venv/, .tools/, .demo/, .lab/ and caches
	rm -rf .venv .tools .demo .lab .ruff_cache .hypothesis build dist *.egg-info
	find . -name __pycache__ -type d -prune -exec rm -rf {} +

# Each stamp stands for one finished step and depends on what the step was made from.

$(BIN)/python:
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' 2>/dev/null || { \
	  echo "error: Netzpuls needs Python 3.11 or newer; '$(PYTHON)' is missing or older" >&2; \
	  echo "hint: name another one: make PYTHON=python3.12 $(MAKECMDGOALS)" >&2; exit 2; }
	@echo "making the virtual environment in $(VENV)/" >&2
	@if $(PYTHON) -c 'from ensurepip import version' 2>/dev/null; \
	  then $(PYTHON) -m venv --clear $(VENV); \
	  else $(PYTHON) -m venv --clear --without-pip $(VENV) && $(PYTHON) -m hil.pip $(VENV); \
	fi || { rm -rf $(VENV); exit 2; }

$(STAMP)/packages: requirements/build.lock requirements/dev.lock | $(BIN)/python
	@echo "installing the packages of requirements/dev.lock (about half a minute)" >&2
	@{ $(PIP_LOCKED) -r requirements/build.lock && $(PIP_LOCKED) -r requirements/dev.lock; } || { \
	  echo "error: pip could not install the packages; its own words stand above" >&2; \
	  echo "hint: check the network and the space on the disk, then run make again" >&2; exit 1; }
	@mkdir -p $(@D) && touch $@

# DIST_EXTRA_CONFIG keeps setuptools' notes out of the source tree.
$(STAMP)/project: pyproject.toml $(STAMP)/packages
	@printf '[egg_info]\negg_base = $(VENV)\n' > $(VENV)/build.cfg
	@DIST_EXTRA_CONFIG=$(VENV)/build.cfg $(PIP) install --no-index --no-deps --no-build-isolation --editable .
	@touch $@

$(STAMP)/tools: hil/tool.py fleet/tool.py $(STAMP)/project
	@$(BIN)/python -m hil.tool
	@touch $@

# Large, and no part of what most need, so only the tests and the benchmarks ask for it.
$(STAMP)/scale: requirements/scale.lock $(STAMP)/tools
	@echo "installing the packages of requirements/scale.lock (1.5 GB)" >&2
	@$(PIP_LOCKED) -r requirements/scale.lock || { \
	  echo "error: pip could not install the packages; its own words stand above" >&2; \
	  echo "hint: check the network and the space on the disk (2 GB), then run make again" >&2; exit 1; }
	@$(BIN)/python -m hil.tool java
	@touch $@

# MicroPython's stubs shadow the standard library, so they stay out of the virtual environment.
$(STAMP)/stubs: requirements/stubs.lock $(STAMP)/packages
	@rm -rf $(STUBS)
	@$(PIP) install --no-deps --require-hashes --target $(STUBS) -r requirements/stubs.lock
	@touch $@
