# `make demo` and `make test` do the whole set-up: a virtual environment in .venv, pinned by constraints.txt. PYTHON=python3.12 chooses another Python.
PYTHON ?= python3
VENV ?= .venv
BIN := $(VENV)/bin
WORKERS ?= -n 2 --dist loadfile

.PHONY: demo test test-all check docs clean

demo: $(VENV)/.installed
	$(BIN)/jaxsft demo

test: check
	$(BIN)/python -m pytest $(WORKERS) -m "not slow"

# The TPU compiler is large, and runs without a TPU; where it cannot be had, its tests are skipped by name.
test-all: check $(VENV)/.docs
	$(BIN)/python -m pip install -q -c constraints.txt -e ".[aot]" || echo "libtpu cannot be installed here: tests/sharding/test_tpu.py is skipped"
	$(BIN)/python -m pytest $(WORKERS)
	$(MAKE) docs

# Writes the generated pages of docs/ again and builds all of them into site/; a warning is an error.
docs: $(VENV)/.docs
	$(BIN)/python -m tools.docs.generate
	NO_MKDOCS_2_WARNING=1 $(BIN)/mkdocs build --strict --quiet

check: $(VENV)/.installed
	$(BIN)/lint-imports
	$(BIN)/ruff check -q
	$(BIN)/ruff format -q --check

$(VENV)/.installed: pyproject.toml constraints.txt
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install -q -c constraints.txt -e ".[dev]"
	touch $@

$(VENV)/.docs: $(VENV)/.installed
	$(BIN)/python -m pip install -q -c constraints.txt -e ".[docs]"
	touch $@

clean:
	rm -rf $(VENV) site
