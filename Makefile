PYTHON ?= python3
BIN := .venv/bin
LATEST := .venv-latest/bin
SHORT := tests/program/test_program.py tests/program/analysis/test_groups.py tests/program/analysis/test_relations.py \
	tests/program/analysis/test_perturbation.py tests/learn/test_learner.py tests/graph/test_layers.py tests/compat/test_seeds.py

.PHONY: demo test test-all fuzz test-latest test-latest-short check lint format docs bench clean

demo: .venv/ready
	$(BIN)/ranvier demo

# What a newcomer runs; make check runs the slow tests as well, and properties on more examples.
test: .venv/ready
	$(BIN)/pytest -m "not slow"

test-all: .venv/ready
	$(BIN)/pytest

# The newest releases of JAX and its companions, which need Python 3.12 or newer.
test-latest: .venv-latest/ready
	$(LATEST)/pytest

test-latest-short: .venv-latest/ready
	$(LATEST)/pytest $(SHORT)

# Damaged files of every format; make fuzz SECONDS=3600 takes an hour for each.
SECONDS ?= 120
fuzz: .venv/ready
	$(BIN)/python -m tests.fuzz.run --seconds $(SECONDS)

check: lint test-all

lint: .venv/ready
	$(BIN)/ruff check
	$(BIN)/ruff format --check
	$(BIN)/pyright
	$(BIN)/lint-imports

format: .venv/ready
	$(BIN)/ruff check --fix
	$(BIN)/ruff format

docs: .venv/ready
	NO_MKDOCS_2_WARNING=1 $(BIN)/mkdocs build --strict

# braintrace 0.2.8 needs Python 3.12 or newer; without one, 0.2.6 is measured.
BENCH := $(if $(shell .ci/newest_python),.venv-latest,.venv)

bench: $(BENCH)/ready
	$(BENCH)/bin/pip install --quiet --editable ".[bench]"
	# Both ask for torchvision, of which inference uses nothing.
	$(BENCH)/bin/pip install --quiet --no-deps norse==1.1.0 spikingjelly==2.0.0
	$(BENCH)/bin/python -m benchmarks.analysis_time --write
	$(BENCH)/bin/python -m benchmarks.learning_time --write
	$(BENCH)/bin/python -m benchmarks.streaming_memory --write
	$(BENCH)/bin/python -m benchmarks.learning_tasks --write
	$(BENCH)/bin/python -m benchmarks.graph_passes --write
	$(BENCH)/bin/python -m benchmarks.graph_scale --write
	$(BENCH)/bin/python -m benchmarks.graph_trained --write
	$(BENCH)/bin/python -m benchmarks.inference_time --write
	$(BENCH)/bin/python -m benchmarks.sparse_learning --write
	$(BENCH)/bin/python -m benchmarks.pruned_inference --write
	$(BENCH)/bin/python -m benchmarks.budgets --write
	$(BENCH)/bin/python -m benchmarks.whole_brain --write

.venv/ready: pyproject.toml
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' \
		|| (echo "Ranvier needs Python 3.11 or newer; run make with PYTHON=python3.11, say." && false)
	$(PYTHON) -m venv .venv
	$(BIN)/python -m pip install --quiet --upgrade pip
	$(BIN)/python -m pip install --quiet --editable ".[dev]"
	@touch $@

.venv-latest/ready: pyproject.toml
	python=$$(.ci/newest_python) && $$python -m venv .venv-latest \
		|| (echo "The newest releases need Python 3.12 or 3.13, on the path or among pyenv's versions." && false)
	$(LATEST)/python -m pip install --quiet --upgrade pip
	$(LATEST)/python -m pip install --quiet --upgrade --upgrade-strategy eager --editable ".[dev]"
	@touch $@

clean:
	rm -rf .venv .venv-latest build dist site
