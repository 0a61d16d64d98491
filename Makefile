# Every target sets up what it needs in .venv; Python 3.10 or newer is all that is asked for.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
DATA ?= ../shared/microalbum

.PHONY: help install demo test test-all lint docs bench-micro bench-memory bench-costs clean

help:
	@echo "make demo         the main job on real digits (3 minutes)"
	@echo "make test         lint and fast tests"
	@echo "make test-all     the slow tests, too"
	@echo "make docs         the documentation as HTML"
	@echo "make bench-micro  accuracy and speed on a folder of data sets, DATA=$(DATA)"
	@echo "make bench-costs  size and latency of the networks"
	@echo "make bench-memory memory of fit and predict on 50,000 files"

install: $(VENV)/installed

$(VENV)/installed: setup.cfg pyproject.toml
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --upgrade pip
	$(BIN)/python -m pip install --quiet --editable ".[test,docs,benchmark]"
	touch $@

demo: install
	$(BIN)/python examples/quickstart.py

lint: install
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .

test: lint
	$(BIN)/python -m pytest -q -m "not slow and not gpu"

test-all: lint
	$(BIN)/python -m pytest -q

docs: install
	$(BIN)/python -m sphinx -W -q -b html docs docs/_build

bench-micro: install
	$(BIN)/python -m benchmarks.micro --data $(DATA)

bench-costs: install
	$(BIN)/python -m benchmarks.costs

bench-memory: install
	$(BIN)/python -m benchmarks.memory

clean:
	rm -rf $(VENV) build *.egg-info docs/_build
