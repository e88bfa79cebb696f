PYTHON ?= python3
ifeq ($(OS),Windows_NT)
BIN := .venv/Scripts
else
BIN := .venv/bin
endif

.PHONY: help demo test test-matrix lint format docs dist clean
.DELETE_ON_ERROR:

help: ## list the targets
	@awk -F ':.*## ' '/^[a-z-]+:.*## / { printf "make %-12s %s\n", $$1, $$2 }' $(firstword $(MAKEFILE_LIST))

# One environment for everything; made again only when the requirements change.
.venv/installed: pyproject.toml constraints.txt
	@$(PYTHON) -c 'import sys; ok = (3, 11) <= sys.version_info[:2] <= (3, 13); \
	  sys.exit(None if ok else "glimpsenet needs Python 3.11-3.13, found %d.%d: make PYTHON=python3.12 ..." % sys.version_info[:2])'
	$(PYTHON) -m venv .venv
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --constraint constraints.txt --editable '.[dev]'
	@touch $@

demo: .venv/installed ## train on digit scenes for minutes, show where the model looks
	$(BIN)/glimpsenet train digits --max-steps 700 --out runs/demo --resume
	$(BIN)/glimpsenet evaluate runs/demo --policy all --figure runs/demo/confusion.png
	test -d runs/demo/scenes || $(BIN)/glimpsenet data digits runs/demo/scenes --train-scenes 1 --val-scenes 1 --test-scenes 12
	$(BIN)/glimpsenet predict runs/demo runs/demo/scenes/test --figure runs/demo/scanpaths.png

docs: .venv/installed ## build the documentation to build/docs; a warning is an error
	$(BIN)/python -m sphinx --nitpicky --fail-on-warning --keep-going --quiet docs build/docs

test: .venv/installed ## run the tests (minutes)
	$(BIN)/python -m pytest -n 2

test-matrix: .venv/installed ## run the tests six times: three random orders, two threads, two instruction sets (an hour)
	$(BIN)/python tools/test_matrix.py

lint: .venv/installed ## check style, types, imports, and the numbers on the pages
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/pyright
	$(BIN)/lint-imports --no-logo
	$(BIN)/python tools/check_types.py
	$(BIN)/python benchmarks/page_figures.py --check
	$(BIN)/python tools/check_phrases.py

format: .venv/installed ## apply ruff's automatic fixes and formatting
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

dist: .venv/installed ## build sdist and wheel, use them with the newest and the oldest dependencies (slow, 12 GB)
	PATH="$(CURDIR)/$(BIN):$$PATH" $(BIN)/python tools/check_dist.py

clean: ## remove the environment
	rm -rf .venv
