# Every target begins with `setup`, which leaves a complete environment in .venv/.
PYTHON ?= python3
BIN := .venv/bin

.PHONY: setup serve test lint unit e2e bench-engine clean

setup: .venv/.complete

.venv/.complete: pyproject.toml constraints.txt
	$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11) and "octavo needs Python >= 3.11, this is %d.%d" % sys.version_info[:2])'
	test -x $(BIN)/python || $(PYTHON) -m venv .venv
	$(BIN)/python -m pip install --disable-pip-version-check --quiet -c constraints.txt -e '.[dev]'
	touch $@

serve: setup
	$(BIN)/octavo serve

lint: setup
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/mypy
	$(BIN)/lint-imports

test: setup lint
	$(BIN)/pytest tests

bench-engine: setup
	$(BIN)/python benchmarks/engine.py

clean:
	rm -rf .venv .pytest_cache .mypy_cache .ruff_cache .hypothesis dist build
