# Thin wrappers. On a fresh machine with Python 3.11 or newer and pip, `make demo` and `make test`
# do all the set-up: environments come to lie in .venv and .reference, tools in build/tools.

SHELL := bash
.SHELLFLAGS := -euo pipefail -c
.DEFAULT_GOAL := help

PYTHONS := 3.11 3.13 3.12 3.14
PYTHON = $(shell scripts/find-python $(PYTHONS))
FEDBRIDGE := .venv/bin/fedbridge
export FEDBRIDGE_REFERENCE := $(CURDIR)/.reference
# `fedbridge reference create` uses the uv that it finds.
export PATH := $(CURDIR)/build/tools/bin:$(PATH)

.PHONY: help env reference fedjax tensorflow keras demo test test-core test-newer test-compat lint types bench docs parity traces clean

help:
	@sed -n 's/^\([a-z-]*\):.*## /\1\t/p' Makefile | expand -t 14

build/tools/bin/uv:
	$(PYTHON) -m pip install --quiet --disable-pip-version-check --target build/tools uv

.venv/made: pyproject.toml | build/tools/bin/uv
	uv venv --quiet --allow-existing --python $(PYTHON) .venv
	uv pip install --quiet --python .venv/bin/python --editable '.[tests,docs,dev]'
	touch $@

.venv-newer/made: pyproject.toml | build/tools/bin/uv
	uv venv --quiet --allow-existing --python $$(scripts/find-python 3.13 3.14 3.12) .venv-newer
	uv pip install --quiet --python .venv-newer/bin/python --editable '.[tests]'
	touch $@

.reference/tests-made: fedbridge/bridge/reference.txt requirements/reference-tests.txt .venv/made
	$(FEDBRIDGE) reference create
	uv pip install --quiet --no-deps --python .reference/bin/python -r requirements/reference-tests.txt
	touch $@

.fedjax/made .tensorflow/made .keras/made: .%/made: requirements/%.txt | build/tools/bin/uv
	uv venv --quiet --allow-existing --python 3.11 .$*
	uv pip install --quiet --no-deps --python .$*/bin/python -r requirements/$*.txt
	touch $@

env: .venv/made ## the core environment: .venv

reference: .reference/tests-made ## the environment in which the real TFF runs: .reference

fedjax: .fedjax/made ## the environment in which FedJAX runs, for benchmarks/: .fedjax

tensorflow: .tensorflow/made ## fedbridge's packages with TensorFlow, for the corpus and benchmarks/: .tensorflow

keras: .keras/made ## fedbridge's packages with Keras alone, for benchmarks/: .keras

demo: env reference ## an ordinary TFF script under TFF and on JAX, side by side; ROUNDS=3: fewer
	$(FEDBRIDGE) check examples/emnist_fedavg.py $(ROUNDS:%=--rounds %) --report build/report

test: ## all that CI runs: lint, types, docs, tests in every environment
	scripts/test

# Two processes, a file in each.
PYTEST := -m pytest -n 2 --dist loadfile
# test-core has run all of it once already: one test in four, and not the slowest.
NEWER := --every 4 -m "not slow"

test-core: env ## tests/ and the examples in docstrings
	.venv/bin/python $(PYTEST) --junitxml=build/tests/core.xml

# Without the check of shapes at every call: what it finds, test-core finds, and it takes its time.
test-newer: .venv-newer/made ## tests/ on the newest Python that is here; NEWER=: every test
	.venv-newer/bin/python $(PYTEST) --jaxtyping-packages= $(NEWER) --junitxml=build/tests/newer.xml

test-compat: env reference tensorflow ## compat_tests/: against the real TFF
	.venv/bin/python scripts/compat.py --junitxml=$(CURDIR)/build/tests/compat.xml

lint: env ## ruff: rules and format
	.venv/bin/ruff check .
	.venv/bin/ruff format --check .

types: env ## pyright's checks
	.venv/bin/basedpyright

bench: env reference fedjax tensorflow keras ## rounds beside those of TFF and FedJAX, small ones: build/bench.json
	.venv/bin/python -m benchmarks.rounds --quick --json build/bench.json

parity: env ## the whole parity matrix: TFF's recorded rounds, repeated
	.venv/bin/python scripts/parity_docs.py --check

traces: env reference ## records the parity matrix anew from the real TFF
	PYTHONPATH=$(CURDIR) .reference/bin/python compat_tests/parity_cells.py fedbridge/bridge/parity_traces </dev/null
	.venv/bin/python scripts/parity_docs.py

docs: env ## the documentation: build/site
	.venv/bin/mkdocs build --quiet --strict

clean: ## removes what was built, the environments too
	rm -rf .venv .venv-newer .reference .fedjax .tensorflow .keras build
