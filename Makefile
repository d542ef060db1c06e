# Each line of a recipe is a command that you could type. Needs Python 3.11 or newer and make.
PYTHON ?= python3
# Address of a package index with CPU-only builds of torch; empty for the ordinary builds on PyPI.
TORCH_INDEX ?=
STATE ?= .deepfakestream
ARGS ?=
# Number of parallel test processes. Each needs about 2 GB of memory; more are faster only on more cores.
PROCESSES ?= 2
MINUTES ?= 5
COUNT ?= 2000
SEED ?= 0

BIN := .venv/bin
PIP := $(BIN)/python -m pip install --quiet --disable-pip-version-check -c configs/constraints.txt
# uv takes a third of pip's time, and does not read pip's settings: pip installs where they name an index, or uv fails.
UV := UV_HTTP_TIMEOUT=$${UV_HTTP_TIMEOUT:-180} $(BIN)/uv pip install --quiet --python $(BIN)/python \
	-c configs/constraints.txt
install = if $(BIN)/python -m pip config list | grep -qE '(index-url|no-index)='; then $(PIP) $(1); \
	else $(UV) $(subst --index-url,--default-index,$(1)) || \
		{ echo "uv could not install this; pip tries, which takes longer."; $(PIP) $(1); }; fi
INSTALL = $(call install,$(WANTED))
PYTEST := $(BIN)/python -m pytest
# Tests that share a server or a file's fixtures stay in one process (tests/rings.py); the longest groups start first.
SPREAD := -n $(PROCESSES) --no-loadscope-reorder
PACKAGES := client/setup.cfg client/pyproject.toml setup.cfg pyproject.toml configs/constraints.txt
# Only of the whole ring: a part of it stays below the floor in setup.cfg.
COVERAGE := $(if $(strip $(ARGS)),,--cov --cov-report=term:skip-covered)

.PHONY: help demo run test test-merge test-nightly test-all lint tools bench faults mutants nodes load clean

help:
	@echo "make demo   install, start everything, scan a real and a swapped video made on the spot, stop"
	@echo "make run    install, start everything, stay until Ctrl-C"
	@echo "make test   install what checks need and run lint and the tests that every push has to pass, within minutes"
	@echo "make test-merge, test-nightly, test-all   the tests for every merge, for every night, and all of them"
	@echo "            (ARGS=… is passed to pytest, PROCESSES=N run in parallel; see docs/testing.md)"
	@echo "make lint   style, types, contracts"
	@echo "make tools  build the programs that test-merge and test-nightly run, such as Helm (needs Go; they call it)"
	@echo "make bench  what a scan costs, compared with a straightforward pipeline (ARGS=--quick ends within five minutes)"
	@echo "make faults MINUTES=N   the whole service under load while its parts are killed; ends with one JSON line"
	@echo "make mutants COUNT=N SEED=S   fuzzing with damaged and hostile files, generated from the seed; ends with one JSON line"
	@echo "make nodes  run the service on several simulated machines that share only Postgres, Redis and S3, and measure what"
	@echo "            a second gpu worker adds (builds the S3 server: needs Go); ends with one JSON line"
	@echo "make load   the whole service at four times its capacity (ARGS=\"--seconds 60\"); ends with one JSON line"
	@echo "make clean  remove .venv, build and the state of the embedded stack"
	@echo "TORCH_INDEX=<address of a CPU-only torch index> chooses builds for CPU only, which are much smaller"

demo: .venv/.installed
	$(BIN)/deepfakestream --state $(STATE) demo $(ARGS)

run: .venv/.installed
	$(BIN)/deepfakestream --state $(STATE) up $(ARGS)

test: lint
	$(PYTEST) $(SPREAD) $(COVERAGE) -m push $(ARGS)

test-merge: .venv/.installed-dev tools
	$(BIN)/python -m tests.tools typescript || test -z "$$DEEPFAKESTREAM_NPM_REQUIRED"
	DEEPFAKESTREAM_TOOLS_REQUIRED=1 $(PYTEST) $(SPREAD) -m merge $(ARGS)

# In one process: each of these tests puts the whole service under load or trains on all cores.
test-nightly: .venv/.installed-dev tools
	DEEPFAKESTREAM_TOOLS_REQUIRED=1 $(PYTEST) -m nightly $(ARGS)

test-all: test test-merge test-nightly

lint: .venv/.installed-dev
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/mypy
	$(BIN)/lint-imports
	$(BIN)/zizmor --offline --quiet .github/workflows

tools:
	$(PYTHON) -m tests.tools

bench: .venv/.installed-dev
	$(BIN)/python -m worker.benchmark $(ARGS)

faults: .venv/.installed-dev
	$(BIN)/python -m tests.faults --minutes $(MINUTES) --seed $(SEED) $(ARGS)

mutants: .venv/.installed-dev
	$(BIN)/python -m tests.mutants --count $(COUNT) --seed $(SEED) $(ARGS)

nodes: .venv/.installed-dev
	$(PYTHON) -m tests.tools weed
	$(BIN)/python -m tests.nodes $(ARGS)

load: .venv/.installed-dev
	$(BIN)/python -m tests.load $(ARGS)

clean:
	rm -rf .venv $(STATE) build

.venv/bin/python:
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || \
		{ echo "Python 3.11 or newer is needed: make PYTHON=python3.11 …"; exit 1; }
	$(PYTHON) -m venv .venv

.venv/.torch: WANTED := --index-url $(TORCH_INDEX) torch torchvision
.venv/.torch: .venv/bin/python configs/constraints.txt
	@echo "Installing into .venv, once: several GB are downloaded and unpacked, which takes some minutes."
ifeq ($(strip $(TORCH_INDEX)),)
	@echo "torch's ordinary builds run on CPU and GPU and take about 6 GB unpacked;"
	@echo "for CPU only, stop here and use: make demo TORCH_INDEX=<address of PyTorch's CPU index>"
endif
	@$(PIP) uv || echo "uv cannot be installed here; pip installs everything."
ifneq ($(strip $(TORCH_INDEX)),)
	@$(INSTALL)
endif
	@touch $@

.venv/.installed: WANTED := -e ./client -e '.[api,worker,embedded,demo]'
.venv/.installed: .venv/.torch $(PACKAGES)
	@echo "Installing the service, the worker and the command line."
	@$(INSTALL)
	@touch $@

.venv/.installed-dev: WANTED := -e ./client -e '.[api,worker,embedded,demo,train,dev]'
.venv/.installed-dev: .venv/.installed
	@echo "Installing what tests and checks need."
	@$(INSTALL)
	@touch $@
