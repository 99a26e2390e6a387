# make train   makes .venv, installs, trains on data that comes along, says where the export is
# make test    the fast tests           make test-all   the slow ones too
# make check   format, lint and types   make bench      side by side with the alternatives
# make clean   removes what these made, runs/ excepted
#
# Nothing but a Python 3.10 to 3.13 and a package index is needed. Another
# Python: make PYTHON=/path/to/python3.12 train

SHELL := /bin/bash
VENV := .venv
BIN := $(VENV)/bin
RUN := runs/digits

# The first that runs, is of a supported version and can make environments.
USABLE := import ensurepip, sys, venv; sys.exit(not (3, 10) <= sys.version_info[:2] <= (3, 13))
PYTHON ?= $(shell for name in python3 python3.12 python3.13 python3.11 python3.10; do \
	if $$name -c '$(USABLE)' 2>/dev/null; then echo $$name; break; fi; done)

# Most of a test's time is the start of a process, on one core. Files stay together: tests of
# one share what they train. In their order: by their numbers the slowest, end to end, come last,
# and one core waits for the other.
TWO_AT_A_TIME := -n 2 --dist loadfile --no-loadscope-reorder

.PHONY: train test test-all check bench clean

train: $(VENV)/installed
	$(BIN)/kerastrain train --recipe=digits --workdir=$(RUN)
	@echo "(kerastrain and tensorboard are in $(BIN)/: source $(BIN)/activate)"

test: $(VENV)/installed-test
	$(BIN)/python -m pytest $(TWO_AT_A_TIME) -m "not slow"

test-all: $(VENV)/installed-test
	$(BIN)/python -m pytest $(TWO_AT_A_TIME)

check: $(VENV)/installed-test
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/mypy kerastrain/

bench: $(VENV)/installed-bench
	$(BIN)/python benchmarks/run.py

clean:
	rm -rf $(VENV) build dist *.egg-info .pytest_cache .mypy_cache .ruff_cache .hypothesis
	find . -name __pycache__ -type d -prune -exec rm -rf {} +

# setuptools warns at length of what editable installs may do; it is known.
INSTALL := PYTHONWARNINGS=ignore $(BIN)/python -m pip install --quiet --editable

# The stamps hold until setup.py changes, so a second make installs nothing.
$(VENV)/installed: setup.py $(VENV)/bin/python
	$(INSTALL) .
	@touch $@

$(VENV)/installed-%: setup.py $(VENV)/bin/python
	$(INSTALL) '.[$*]'
	@touch $@ $(VENV)/installed

# An editable install of models/ as kerastrain.models needs pip 21.3 or later;
# Python 3.10 may bring an older one.
$(VENV)/bin/python:
	@test -n "$(PYTHON)" || { \
	  echo "No Python 3.10 to 3.13 with venv was found; say make PYTHON=/path/to/python ..." >&2; \
	  exit 1; }
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --upgrade pip
