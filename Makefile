# failsight: `make demo` shows the whole idea, `make test` proves the code, `make check` is what CI runs.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
STAMP := $(VENV)/.installed
WORKERS ?= 2

.PHONY: demo test fuzz wild check lint clean help

help:
	@echo "make demo    policy, failures, monitor, interventions, report (about 7 minutes on 2 cores)"
	@echo "make test    the whole test suite (about 15 minutes on 2 cores)"
	@echo "make fuzz    every fuzz case (make test runs a tenth of them)"
	@echo "make wild    foreign environments and simulators, each installed on the way (up to 3 hours)"
	@echo "make lint    ruff, mypy, import-linter"
	@echo "make check   lint and test: what CI runs"

$(STAMP): pyproject.toml constraints.txt
	@echo "Creating $(VENV) and installing failsight (one to three minutes) ..."
	@$(PYTHON) -m venv $(VENV)
	@$(BIN)/python -m pip install --quiet --disable-pip-version-check -c constraints.txt -e ".[dev]"
	@touch $@

demo: $(STAMP)
	@echo "Running the demo: about 7 minutes on 2 cores. Interrupt it at will; the same command goes on."
	@$(BIN)/failsight run demo --workers $(WORKERS)
	@echo "Open runs/demo/report.html in a browser."

test: $(STAMP)
	@echo "Running the tests: about 15 minutes on 2 cores."
	@$(BIN)/python -m pytest -n 2 --dist loadgroup
	@echo "All tests passed."

fuzz: $(STAMP)
	@FAILSIGHT_FUZZ=full $(BIN)/python -m pytest tests/fuzz -n 2

wild: $(STAMP)
	@.ci/wild

lint: $(STAMP)
	@$(BIN)/ruff check src tests benchmarks tools examples
	@$(BIN)/ruff format --check src tests benchmarks tools examples
	@$(BIN)/mypy
	@$(BIN)/lint-imports

check: lint test

clean:
	rm -rf $(VENV) build dist *.egg-info
