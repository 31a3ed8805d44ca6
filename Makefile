# Nothing but Python (3.10 or newer) and make is needed: every target sets up .venv by itself.
PYTHON ?= python3
VENV   := .venv
BIN    := $(VENV)/bin
READY  := $(VENV)/.ready
DOCS   := $(VENV)/.docs
EPOCHS ?= 12
FILES  ?=

# One process for each core; a worker that is done takes tests from another one.
PYTEST := $(BIN)/python -m pytest -n auto --dist worksteal

.DEFAULT_GOAL := help
.PHONY: help demo quick test lint format docs clean

help:
	@echo "make demo    quantize a LeNet-5 on real digits, under a bound, and show the result"
	@echo "make quick   the tests that are not marked slow: about a minute"
	@echo "make test    all checks: format, lint, types, all tests with coverage"
	@echo "             FILES=tests/learn runs all tests of a folder or file, and nothing else"
	@echo "make lint    format, lint and types only"
	@echo "make format  let ruff format and fix the code"
	@echo "make docs    build the site of the docs in site/; a warning is an error"
	@echo "make clean   remove the virtual environment, caches and runs"

# Removed first, so that an interrupted installation is never taken for a whole one.
$(READY): pyproject.toml constraints.txt
	rm -f $@
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet torch==2.13.0 -c constraints.txt
	$(BIN)/python -m pip install --quiet -c constraints.txt -e '.[dev]'
	touch $@

$(DOCS): $(READY)
	rm -f $@
	$(BIN)/python -m pip install --quiet -c constraints.txt -e '.[docs]'
	touch $@

demo: $(READY)
	mkdir -p runs/demo
	$(BIN)/onnx-cgmq quantize examples/mnist/lenet5.onnx --data examples/mnist/train.npz \
	    --bound 0.9% --epochs $(EPOCHS) -o runs/demo/lenet5.int.onnx
	$(BIN)/onnx-cgmq inspect runs/demo/lenet5.int.onnx
	$(BIN)/onnx-cgmq verify examples/mnist/lenet5.onnx runs/demo/lenet5.int.onnx \
	    --data examples/mnist/test.npz

lint: $(READY)
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/mypy

quick: $(READY)
	$(PYTEST) -q -m 'not slow' $(FILES)

test: $(if $(FILES),$(READY),lint)
	$(PYTEST) --durations=10 $(or $(FILES),--cov --cov-report=term)

format: $(READY)
	$(BIN)/ruff format .
	$(BIN)/ruff check --fix .

docs: $(DOCS)
	$(BIN)/mkdocs build --strict

clean:
	rm -rf $(VENV) .mypy_cache .pytest_cache .ruff_cache .hypothesis .coverage .coverage.* build runs site *.egg-info
