# Each target does all of its own set-up: what it needs is Python >= 3.11, make, and a package index.
PYTHON ?= python3
# The one torch that laptop, CI and the figures in the documents share. Empty: whatever pip takes.
TORCH ?= torch==2.13.0
# Where torch's builds come from besides PyPI, whose Linux build brings several GB of CUDA along:
#   make demo TORCH_INDEX=https://download.pytorch.org/whl/cpu
TORCH_INDEX ?=
# Test processes, each with one thread: the tests' tensors are too small for torch's own threads to pay.
WORKERS ?= 2

BIN := .venv/bin
export TORCH TORCH_INDEX

.DEFAULT_GOAL := help
.PHONY: help demo test test-slow pytest lint types format kernels sanitize gpu wheel clean venv-lab venv-dev

help: ## this page
	@printf 'make TARGET [PYTHON=%s] [TORCH=%s] [TORCH_INDEX=%s]\n\n' '$(PYTHON)' '$(TORCH)' '$(TORCH_INDEX)'
	@sed -n 's/^\([a-z-]*\):[^#]*## \(.*\)/  \1\t\2/p' Makefile | expand -t 14

demo: venv-lab ## train with and without a transformer, minutes; then look at runs/demo/report.html
	@$(BIN)/stn demo

test: lint types pytest ## lint, types, tests and doctests: before every commit

test-slow: venv-dev ## the tests marked slow, one process with all cores
	@$(BIN)/python -m pytest -m "slow and not gpu" -o faulthandler_timeout=3600 tests $(ARGS)

pytest: venv-dev ## the tests and doctests alone; some of them: make pytest ARGS="-k affine"
	@$(BIN)/python -m pytest -m "not slow and not gpu" -n $(WORKERS) $(ARGS)

lint: venv-dev ## ruff: rules and format
	@$(BIN)/ruff check
	@$(BIN)/ruff format --check

types: venv-dev ## mypy
	@$(BIN)/mypy

format: venv-dev ## let ruff mend what it can
	@$(BIN)/ruff check --fix
	@$(BIN)/ruff format

kernels: ## build the C++ kernels where they lie, for PYTHONPATH=. and after a change of csrc/
	@$(PYTHON) setup.py -q build_ext --inplace --force

sanitize: venv-dev ## the kernels' tests with AddressSanitizer and UBSan
	@$(BIN)/python scripts/sanitize.py $(ARGS)

gpu: ## measure the goals on a GPU, with the torch and Triton of PYTHON (no .venv); ARGS="--json gpu.json --only 1,3"
	@PYTHONPATH=. $(PYTHON) scripts/gpu.py $(ARGS)

wheel: venv-dev ## dist/: one wheel for every Python, tried in a clean environment that finds no compiler
	@$(BIN)/python scripts/wheel.py

clean: ## remove the environment, caches and builds; runs/ stays
	rm -rf .venv .mypy_cache .pytest_cache .ruff_cache .hypothesis build dist *.egg-info
	rm -f torch_stn/sampling/backends/_kernels_*.so
	find torch_stn tests scripts -name __pycache__ -type d -prune -exec rm -rf {} +

venv-lab: EXTRAS := lab
venv-dev: EXTRAS := lab,bench,dev
venv-lab venv-dev:
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' 2>/dev/null || { \
	    echo "make: '$(PYTHON)' is missing or older than Python 3.11; name a newer one: make $(MAKECMDGOALS) PYTHON=python3.12" >&2; exit 1; }
	@$(PYTHON) scripts/environment.py $(EXTRAS)
