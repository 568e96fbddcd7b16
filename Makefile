# .venv/.base: what serves. .venv/.complete: with torch, the benchmark and what the tests need (`make setup`).
# Either is installed again only when pyproject.toml, constraints.txt or hatch_build.py have changed.
# The first Python >= 3.11 on the path; choose another with `make PYTHON=/path/to/python setup`.
PYTHON ?= $(shell for p in python3.11 python3.12 python3.13 python3.14 python3; do \
	command -v $$p >/dev/null 2>&1 && $$p -c 'import sys; sys.exit(sys.version_info < (3, 11))' && echo $$p && break; done)
BIN := .venv/bin

.PHONY: setup native serve test test-all lint unit sanitize sanitize-all bench-engine wheel clean

setup: .venv/.complete

INSTALL = $(BIN)/python -m pip install --disable-pip-version-check -qq --progress-bar off -c constraints.txt
NO_NETWORK = { echo "error: setup could not install the packages (see above); it needs a network that reaches PyPI or a mirror" >&2; exit 1; }

.venv/.base: pyproject.toml constraints.txt hatch_build.py
	@test -n "$(PYTHON)" || { echo "error: no Python >= 3.11 on the path; install one, or: make PYTHON=/path/to/python" >&2; exit 1; }
	@echo "setting up .venv (half a minute the first time)"
	@test -x $(BIN)/python || $(PYTHON) -m venv .venv || { rm -rf .venv; \
		echo "error: $(PYTHON) cannot make a virtual environment; on Debian and Ubuntu: apt install python3-venv" >&2; exit 1; }
	@$(INSTALL) -e . || $(NO_NETWORK)
	@touch $@

.venv/.complete: .venv/.base
	@echo "adding torch, the benchmark and what the tests need (a few minutes the first time)"
	@$(INSTALL) -e '.[dev]' || $(NO_NETWORK)
	@touch $@

# The C++ kernels, built again where their sources have changed. Without a compiler: torch serves, if it is installed.
native: .venv/.base
	@$(BIN)/python -m octavo.kernels.native.build --optional

# make serve FLAGS='gemma3-270m --port 9000'
serve: native
	$(BIN)/octavo serve $(FLAGS)

lint: setup
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/mypy
	$(BIN)/lint-imports --no-logo

# Modules are compiled once, not in each of the hundreds of processes that tests start, whatever the caller's environment says.
unexport PYTHONDONTWRITEBYTECODE

# The tests of one run are spread over the cores; more processes than this would only compete for memory.
SPREAD := -n auto --maxprocesses 4 --dist worksteal

# The quick half of the tests: nothing but this machine's CPU, no coverage.
unit: setup native
	$(BIN)/pytest tests --ignore=tests/e2e --ignore=tests/gpu $(SPREAD)

# The tests of the native kernels on a debug build: bounds checks, address and undefined-behaviour sanitizers.
# Only if the C++ sources have changed since they passed (tests/support/verified.json); `sanitize-all` in any case.
sanitize: setup native
	$(BIN)/python tests/support/sanitize.py --if-changed $(SPREAD)

sanitize-all: setup native
	$(BIN)/python tests/support/sanitize.py $(SPREAD)

test: setup native lint sanitize
	$(BIN)/pytest tests $(SPREAD)

# With coverage, the slow checks of unchanged sources, the tests marked `exhaustive` and new random inputs; brings verified.json
# up to date.
test-all: setup native lint sanitize-all
	$(BIN)/pytest tests $(SPREAD) --cov --cov-report=term:skip-covered --exhaustive --seed random

bench-engine: setup
	$(BIN)/python benchmarks/engine.py --out docs/results/engine

# For whoever has no compiler: it carries the kernels, for every glibc from the one in its name on.
wheel: .venv/.base
	$(BIN)/python -m pip wheel --disable-pip-version-check -qq --no-deps --wheel-dir dist .

clean:
	rm -rf .venv .coverage .pytest_cache .mypy_cache .ruff_cache .import_linter_cache .hypothesis dist build
	rm -f src/octavo/kernels/native/*.so
