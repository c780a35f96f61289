# Two commands: `make run` runs the main job, `make test` the checks and tests.
# Both make the environment first; it lives in .venv and is made once.
PYTHON ?= python3
RUNTIME ?= cpu
VENV := .venv
BIN := $(VENV)/bin
READY := $(VENV)/.ready
# A file's tests go to one worker: what a module's fixtures make is made once.
WORKERS := -n 2 --dist loadfile --no-loadscope-reorder

.PHONY: run test test-fast clean

run: $(READY)
	$(BIN)/fusion-nas run --study pareto --seed-paper

test: $(READY)
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/lint-imports
	$(BIN)/pytest $(WORKERS)

# Without simulations, interrupted runs, several workers, whole lists and costly exports.
test-fast: $(READY)
	$(BIN)/ruff check .
	$(BIN)/mypy
	$(BIN)/pytest $(WORKERS) -m "not slow"

$(READY): pyproject.toml constraints.txt
	$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11) and "fusion-nas needs Python 3.11 or newer: make PYTHON=python3.11")'
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --constraint constraints.txt --editable '.[$(RUNTIME),dev]'
	touch $(READY)

clean:
	rm -rf $(VENV)
