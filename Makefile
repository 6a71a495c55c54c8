# Set-up, demo, tests and wheel of radiogen. Each target brings what it needs.

SHELL := /bin/bash
VENV := .venv
BIN := $(VENV)/bin
STAMP := $(VENV)/.installed
# The first Python on the path that is new enough and can make environments.
PYTHON ?= $(shell for p in python3.11 python3 python3.12 python3.13; do \
	$$p -c 'import sys, ensurepip; sys.exit(sys.version_info < (3, 11))' >/dev/null 2>&1 && echo $$p && break; done)

.PHONY: help venv demo test test-quick nightly check format wheel docs docs-serve starter-check starter-model clean

SHARED ?= ../shared/data

help:
	@echo "make venv    install radiogen and its tools into $(VENV)"
	@echo "make demo    run the whole road on phantoms, into demo/"
	@echo "make check   format, lint and types"
	@echo "make test-quick  the edit loop, under 90 s: the house, the face, the help, the measures, the network"
	@echo "make test    all tests"
	@echo "make nightly the tests of damaged input with 10,000 examples each (hours), and starter-check"
	@echo "make wheel   build dist/*.whl"
	@echo "make docs    build the site of docs/ into build/site, without a network; any warning is an error"
	@echo "make docs-serve  the same on a local address, anew at every change"
	@echo "make starter-check  what models/raseg-starter is worth on true lesions and on unseen phantoms (minutes)"
	@echo "make starter-model  train the next starter model into build/starter/model (some hours; goes on where it was)"
	@echo "make clean   remove what was built (not $(VENV))"

venv: $(STAMP)

$(STAMP): pyproject.toml constraints.txt
	@test -n "$(PYTHON)" || { echo "radiogen needs Python 3.11 or newer with venv: install it, or make PYTHON=/path/to/python" >&2; exit 1; }
	test -x $(BIN)/pip || $(PYTHON) -m venv $(VENV)
	PIP_CONSTRAINT=$(CURDIR)/constraints.txt $(BIN)/python -m pip install --quiet --disable-pip-version-check -e '.[dev]'
	touch $@

demo: venv
	$(BIN)/radiogen demo -o demo --existing overwrite

test: venv
	OMP_NUM_THREADS=1 $(BIN)/python -m pytest -n 2

# What breaks most often when a line is moved or renamed; a room of its own: pytest tests/ROOM -m "not slow".
QUICK := tests/test_house.py tests/test_face.py tests/test_config.py tests/test_errors.py tests/test_provenance.py \
	tests/test_volume.py tests/test_optional.py tests/cli/test_help.py tests/measures tests/networks/test_raseg.py

test-quick: venv
	OMP_NUM_THREADS=1 $(BIN)/python -m pytest -n 2 -m "not slow and not fuzz" $(wildcard $(QUICK))

nightly: venv
	OMP_NUM_THREADS=1 HYPOTHESIS_PROFILE=nightly $(BIN)/python -m pytest -n 2 -m fuzz
	$(MAKE) starter-check

check: venv
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/mypy

format: venv
	$(BIN)/ruff format .
	$(BIN)/ruff check --fix .

starter-check: venv
	PATH="$(CURDIR)/$(BIN):$$PATH" models/starter_check.sh build/starter-check "$(SHARED)" models/raseg-starter

starter-model: venv
	mkdir -p build/starter
	set -o pipefail; PATH="$(CURDIR)/$(BIN):$$PATH" OMP_NUM_THREADS=$${OMP_NUM_THREADS:-1} \
		models/starter.sh build/starter "$(SHARED)" build/starter/model 2>&1 | tee -a build/starter/log.txt

# build/ is removed first: setuptools would pack what an earlier build left there.
wheel: venv
	rm -rf build dist
	$(BIN)/python -m build --wheel

docs: venv
	NO_MKDOCS_2_WARNING=1 $(BIN)/python -m mkdocs build --strict -f docs/site/mkdocs.yml

docs-serve: venv
	NO_MKDOCS_2_WARNING=1 $(BIN)/python -m mkdocs serve -f docs/site/mkdocs.yml

clean:
	rm -rf build dist demo *.egg-info .mypy_cache .ruff_cache .pytest_cache .hypothesis
	find radiogen cli tests -name __pycache__ -prune -exec rm -rf {} +
