# `make demo` and `make test` do the whole set-up: a virtual environment in .venv, pinned by constraints.txt. PYTHON=python3.12 chooses another Python.
SHELL := /bin/bash
.SHELLFLAGS := -o pipefail -c  # a failure of pip is not hidden by what shows its progress
PYTHON ?= python3
VENV ?= .venv
BIN := $(VENV)/bin
# A worker that dies fails the run: one that replaced it would wait for ever where a single test is left.
WORKERS ?= -n 2 --dist loadfile --no-loadscope-reorder --max-worker-restart 0

.PHONY: demo test test-all check docs site clean

demo: $(VENV)/.installed
	$(BIN)/jaxsft demo

test: check
	$(BIN)/python -m pytest $(WORKERS) -m "heart and not slow"

# What some tests need beyond the set-up: the TPU compiler, which is large and needs no TPU, clients of stores and trackers. Where one cannot be had,
# its tests are skipped by name.
EXTRAS ?= aot,gcs,hub,submitit,wandb,mlflow,parquet,frames,numeric,quality,text,search,sentencepiece,oracles
INSTALL := $(BIN)/python -m pip install -q -c constraints.txt

test-all: check $(VENV)/.docs
	$(INSTALL) -e ".[$(EXTRAS)]" || for extra in $$(tr , ' ' <<< "$(EXTRAS)"); do $(INSTALL) -e ".[$$extra]" || echo "the extra $$extra cannot be installed here"; done
	$(BIN)/python -m pytest $(WORKERS)
	$(MAKE) site

# Writes the generated pages of docs/ again and builds all of them into site/. That they are current is a test too.
docs: $(VENV)/.docs
	$(BIN)/python -m tools.docs.generate
	$(MAKE) site

# Builds the pages as they are; a warning is an error.
site: $(VENV)/.docs
	NO_MKDOCS_2_WARNING=1 $(BIN)/mkdocs build --strict

check: $(VENV)/.installed
	$(BIN)/lint-imports
	$(BIN)/ruff check -q
	$(BIN)/ruff format -q --check
	$(BIN)/python -m tools.core

$(VENV)/.installed: pyproject.toml constraints.txt
	@echo "sets up $(VENV): about 100 packages (JAX is the largest), one to three minutes, once"
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --disable-pip-version-check --progress-bar off -c constraints.txt \
	  -e ".[dev]" | awk '/^(Collecting|Building|Installing)/ {n += 1; if (n % 20 == 1) print "  " $$1, $$2, "..."}'
	touch $@

$(VENV)/.docs: $(VENV)/.installed
	$(INSTALL) -e ".[docs]"
	touch $@

clean:
	rm -rf $(VENV) site
