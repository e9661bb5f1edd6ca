PYTHON ?= python3
BIN := .venv/bin

.PHONY: demo test check lint format docs bench clean

demo: .venv/ready
	$(BIN)/ranvier demo

test: .venv/ready
	$(BIN)/pytest

check: lint test

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

bench: .venv/ready
	$(BIN)/pip install --quiet --editable ".[bench]"
	# Both ask for torchvision, of which inference uses nothing.
	$(BIN)/pip install --quiet --no-deps norse==1.1.0 spikingjelly==2.0.0
	$(BIN)/python -m benchmarks.analysis_time --write
	$(BIN)/python -m benchmarks.learning_time --write
	$(BIN)/python -m benchmarks.streaming_memory --write
	$(BIN)/python -m benchmarks.learning_tasks --write
	$(BIN)/python -m benchmarks.graph_passes --write
	$(BIN)/python -m benchmarks.graph_scale --write
	$(BIN)/python -m benchmarks.graph_trained --write
	$(BIN)/python -m benchmarks.inference_time --write
	$(BIN)/python -m benchmarks.sparse_learning --write
	$(BIN)/python -m benchmarks.whole_brain --write

.venv/ready: pyproject.toml
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' \
		|| (echo "Ranvier needs Python 3.11 or newer; run make with PYTHON=python3.11, say." && false)
	$(PYTHON) -m venv .venv
	$(BIN)/python -m pip install --quiet --upgrade pip
	$(BIN)/python -m pip install --quiet --editable ".[dev]"
	@touch $@

clean:
	rm -rf .venv build dist site
