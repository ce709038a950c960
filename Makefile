# Everything runs in .venv, which the first target creates. Requires Python 3.11 or newer.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
# Number of trials of `make quickstart`.
TRIALS ?= 12

.DEFAULT_GOAL := help
.PHONY: help quickstart test test-long faults check format docs wheel clean

help:
	@echo "make quickstart   install, then search on generated images (TRIALS=$(TRIALS))"
	@echo "make test         install the test tools, then run the tests"
	@echo "make test-long    run all tests, including those that take minutes"
	@echo "make faults       kill a search at every step and simulate a failing cluster (30 minutes)"
	@echo "make check        check formatting, lint and types"
	@echo "make format       format the code"
	@echo "make docs         write docs/cli.md and docs/configuration.md from the code"
	@echo "make wheel        build a wheel into dist/"
	@echo "make clean        delete build files and the environment"

$(BIN)/python:
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' \
		|| { echo "spinenas needs Python 3.11 or newer; name one with: make PYTHON=python3.12 ..."; exit 1; }
	$(PYTHON) -m venv $(VENV) || { rm -rf $(VENV); echo "on Debian and Ubuntu: apt install python3-venv"; exit 1; }

$(VENV)/installed: $(BIN)/python pyproject.toml constraints.txt
	@echo "installing torch, Ray and the other packages, which takes some minutes"
	$(BIN)/python -m pip install --quiet --constraint constraints.txt --editable .
	@touch $@

$(VENV)/installed-dev: $(VENV)/installed
	$(BIN)/python -m pip install --quiet --constraint constraints.txt --editable '.[dev]'
	@touch $@

# mypy cannot follow an editable install of mapped folders, but it follows this link.
.typing/spinenas:
	@mkdir -p .typing && ln -sfn .. $@

quickstart: $(VENV)/installed
	@number=1; while [ -e runs/quickstart-$$number ]; do number=$$((number + 1)); done; \
	run=runs/quickstart-$$number; \
	$(BIN)/spinenas search quickstart --trials $(TRIALS) --out $$run \
	&& $(BIN)/spinenas export $$run best --format block-specs --out $$run/winner.json \
	&& echo "the run is in $$run, its winner as a SpineNet block spec in $$run/winner.json"

test: $(VENV)/installed-dev
	OMP_NUM_THREADS=1 $(BIN)/python -m pytest --quiet -n 2 --dist loadfile

test-long: $(VENV)/installed-dev
	$(BIN)/python -m pytest --quiet -m "slow or not slow"

faults: $(VENV)/installed-dev
	OMP_NUM_THREADS=1 $(BIN)/python tests/crash_matrix.py
	OMP_NUM_THREADS=1 $(BIN)/python tests/journal_damage.py
	OMP_NUM_THREADS=1 $(BIN)/python tests/fault_simulator.py

check: $(VENV)/installed-dev .typing/spinenas
	$(BIN)/ruff format --check
	$(BIN)/ruff check
	$(BIN)/mypy

format: $(VENV)/installed-dev
	$(BIN)/ruff format
	$(BIN)/ruff check --fix

docs: $(VENV)/installed-dev
	$(BIN)/python docs/generate.py

wheel: $(VENV)/installed-dev
	rm -rf build dist
	$(BIN)/python -m pip wheel --quiet --no-deps --wheel-dir dist .

clean:
	rm -rf build dist $(VENV) .typing .mypy_cache .ruff_cache .pytest_cache *.egg-info
