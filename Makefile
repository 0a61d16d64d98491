# Every target sets up what it needs in .venv; Python 3.10 or newer is all that is asked for.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
DATA ?= ../shared/microalbum
STEPS ?=
# Processes with one thread each: two threads of two processes would wait for each other.
# One that dies ends the run, which would else wait for it.
PARALLEL ?= -n auto --maxprocesses 4 --dist loadfile --max-worker-restart 0

.PHONY: help install demo test test-all lint docs bench-micro bench-peers bench-memory bench-costs bench-speed bench-paper bench-digits bench-compress bench-basis bench-granularity bench-int8 bench-one-image pretrain-synth50 transfer-synth50 clean

help:
	@echo "make demo         the main job on real digits (two minutes, and two to install)"
	@echo "make test         lint and fast tests"
	@echo "make test-all     the slow tests, too"
	@echo "make docs         the documentation as HTML, with its examples (five minutes)"
	@echo "make bench-micro  accuracy and speed on a folder of data sets, DATA=$(DATA)"
	@echo "make bench-peers  beside fastai, skorch and frozen features, on the same sets, DATA=$(DATA)"
	@echo "make bench-costs  size and latency of the networks"
	@echo "make bench-speed  fit and predict beside bare passes in plain torch (10 minutes)"
	@echo "make bench-memory time and memory of fit and predict on 400 to 40,000 files"
	@echo "make bench-paper  the paper's models and figures on a folder of data sets, DATA=$(DATA)"
	@echo "make bench-digits ensemble strategies and their uncertainty (20 minutes)"
	@echo "make bench-compress ways to a smaller network on a folder of data sets, DATA=$(DATA)"
	@echo "make bench-basis  how far basis scaling goes on digits and CHR_MNIST, DATA=$(DATA)"
	@echo "make bench-granularity latency against sparsity of elements, channels and blocks"
	@echo "make bench-int8   accuracy and latency of int8 ONNX files, on the same sets, DATA=$(DATA)"
	@echo "make bench-one-image latency of one JPEG file in every engine, beside ResNet152"
	@echo "make pretrain-synth50  the bundled weights anew (70 minutes; STEPS=50 to try it)"
	@echo "make transfer-synth50  the trials before its recipe, judged by transfer, DATA=$(DATA)"

install: $(VENV)/installed

$(VENV)/installed: setup.cfg pyproject.toml
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --upgrade pip
	$(BIN)/python -m pip install --quiet --editable ".[test,docs,benchmark,pretraining]"
	touch $@

demo: install
	$(BIN)/python examples/quickstart.py

lint: install
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .

test: lint
	OMP_NUM_THREADS=1 $(BIN)/python -m pytest -q $(PARALLEL) -m "not slow and not gpu"

test-all: lint
	OMP_NUM_THREADS=1 $(BIN)/python -m pytest -q $(PARALLEL)

docs: install
	OMP_NUM_THREADS=1 $(BIN)/python -m sphinx -W -q -b html docs docs/_build

bench-micro: install
	$(BIN)/python -m benchmarks.micro --data $(DATA)

bench-peers: install
	$(BIN)/python -m pip install --quiet --editable ".[peers]"
	$(BIN)/python -m benchmarks.peers --data $(DATA)

bench-costs: install
	$(BIN)/python -m benchmarks.costs

bench-speed: install
	$(BIN)/python -m benchmarks.speed

bench-memory: install
	$(BIN)/python -m benchmarks.memory

bench-paper: install
	$(BIN)/python -m benchmarks.paper --data $(DATA) --jobs 2

bench-digits: install
	$(BIN)/python -m benchmarks.digits

bench-compress: install
	$(BIN)/python -m benchmarks.compress --data $(DATA) --jobs 2

bench-basis: install
	$(BIN)/python -m benchmarks.basis --data $(DATA) --jobs 2

bench-granularity: install
	$(BIN)/python -m benchmarks.granularity

bench-int8: install
	$(BIN)/python -m benchmarks.int8 --data $(DATA)

bench-one-image: install
	$(BIN)/python -m benchmarks.one_image

pretrain-synth50: install
	$(BIN)/python -m pretraining $(if $(STEPS),--steps $(STEPS) --folder build/synth50-$(STEPS))

transfer-synth50: install
	$(BIN)/python -m pretraining.trials --data $(DATA)

clean:
	rm -rf $(VENV) build *.egg-info docs/_build docs/generated docs/auto_examples
