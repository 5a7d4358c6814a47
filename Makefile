# Every verb of the repository; `make` alone lists them. .venv is made at need and only when requirements.txt or pyproject.toml changed.
.DEFAULT_GOAL := help
.PHONY: help install test quick torture reproduce notebooks records parity bench pins clean

PYTHON ?= $(shell for p in python3 python3.13 python3.12 python3.11; do $$p -c '$(new_enough)' 2>/dev/null && echo $$p && break; done)
JOBS ?= 2

new_enough := import sys; sys.exit(sys.version_info < (3, 11))
bin := .venv/bin
stamp := .venv/.installed

# One BLAS thread keeps the bits of an SVD and avoids a slowdown of 20 times and more on a busy machine.
export OPENBLAS_NUM_THREADS := 1
export OMP_NUM_THREADS := 1
export TRANSFORMERS_VERBOSITY := error
export PIP_DISABLE_PIP_VERSION_CHECK := 1
# Compiled once, then read back by every test, notebook and verb; without the two limits nearly nothing would be kept.
export JAX_COMPILATION_CACHE_DIR := $(CURDIR)/build/jax-cache
export JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS := 0
export JAX_PERSISTENT_CACHE_MIN_ENTRY_SIZE_BYTES := -1
# Either one, inherited from a shell, would change what the notebooks print or draw.
unexport MPLBACKEND JAX_ENABLE_X64

ifneq ($(PRUNEJAX_SHARED),)
shared := $(shell cd '$(PRUNEJAX_SHARED)' 2>/dev/null && pwd)
ifeq ($(shared),)
$(error PRUNEJAX_SHARED names no folder: $(PRUNEJAX_SHARED))
endif
override PRUNEJAX_SHARED := $(shared)
export PRUNEJAX_SHARED
endif

test quick parity torture: export HF_HUB_OFFLINE := 1
test quick parity torture: export TQDM_DISABLE := 1

help: ## list the verbs
	@awk -F ':.*## ' '/^[a-z]+:.*## / {printf "make %-10s %s\n", $$1, $$2}' $(firstword $(MAKEFILE_LIST))

install: $(stamp) ## make .venv with the pinned dependencies (PYTHON=... names another interpreter)

$(stamp): requirements.txt pyproject.toml
	@test -n '$(PYTHON)' && '$(PYTHON)' -c '$(new_enough)' 2>/dev/null || \
	  { echo "prunejax needs Python >= 3.11, and $(or $(PYTHON),python3) is not: name one with make install PYTHON=..." >&2; exit 1; }
	@test -x $(bin)/pip || '$(PYTHON)' -m venv --clear .venv
	@echo 'installing the pinned dependencies into .venv (about 300 MB, once)'
	@$(bin)/python -m pip install --quiet --require-hashes -r requirements.txt
	@$(bin)/python -m pip install --quiet --no-deps --no-build-isolation -e .
	@touch $@

# One pytest run over tests and notebooks, so that its last lines count everything. A file is never split: nbval's cells depend on each other.
test: $(stamp) ## lint, unit tests, every notebook against its committed outputs
	$(bin)/ruff check .
	$(bin)/ruff format --check .
	$(bin)/python -m pytest -n $(JOBS) --dist loadfile --nbval --nbval-current-env --nbval-cell-timeout=300 tests notebooks

quick: $(stamp) ## unit tests alone
	$(bin)/python -m pytest -n $(JOBS) --dist loadfile tests

torture: $(stamp) ## kill edits, moments, evaluations 30 times and take them up each time, then 2,000 hostile files of each kind
	PRUNEJAX_KILLS=30 $(bin)/python -m pytest tests/test_killed.py
	PRUNEJAX_EXAMPLES=2000 $(bin)/python -m pytest tests/test_hostile.py

reproduce: $(stamp) ## run every notebook into build/notebooks and compare with the committed ones
	$(bin)/prunejax reproduce

notebooks: $(stamp) ## rewrite the committed notebook outputs and figures/
	$(bin)/prunejax reproduce --write

records: $(stamp) ## rewrite data/records: the full grid, about two hours on two cores, resumable
	$(bin)/prunejax records --jobs $(JOBS)

# PyTorch in .venv, for the verbs that compare with it. One that is there, a CUDA build among them, stays.
define with_torch
@$(bin)/python -c 'import sys; sys.exit(sys.version_info >= (3, 12))' || \
  { echo "make $@ needs a .venv of Python 3.11: remove .venv, then make $@ PYTHON=python3.11" >&2; exit 1; }
@$(bin)/python -c 'import tomllib; print(*tomllib.load(open("pyproject.toml", "rb"))["dependency-groups"]["parity"], sep="\n")' > .venv/parity.txt
@$(bin)/python -m pip install --quiet -r .venv/parity.txt
endef

parity: $(stamp) ## compare with PyTorch, which is installed into .venv (Python 3.11)
	$(with_torch)
	$(bin)/python -m pytest tests/test_parity_torch.py tests/benchmarks

bench: $(stamp) ## time prunejax beside PyTorch and write benchmarks/records (ONLY=CASE, FULL=1, DEVICE=gpu)
	$(with_torch)
	$(bin)/python -m benchmarks $(if $(DEVICE),--device $(DEVICE)) $(if $(ONLY),--only $(ONLY)) $(if $(FULL),--full)

pins: ## resolve requirements.txt again (uv, in build/); versions already pinned stay, unless the file is removed first
	@test -x build/uv/bin/uv || { '$(PYTHON)' -m venv --clear build/uv && build/uv/bin/pip install --quiet uv; }
	build/uv/bin/uv pip compile pyproject.toml --universal --generate-hashes --no-header --no-annotate --quiet \
	  --python-version 3.11 --extra notebooks --group test --group build --output-file requirements.txt

clean: ## remove build/ and what Python left behind; .venv stays
	rm -rf build prunejax.egg-info .hypothesis
	find prunejax tests notebooks benchmarks -name __pycache__ -o -name .ipynb_checkpoints | xargs rm -rf
