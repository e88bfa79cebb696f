PYTHON ?= python3
BIN := .venv/bin

.PHONY: demo docs test test-matrix lint format dist clean
.DELETE_ON_ERROR:

# One environment for everything; made again only when the requirements change.
.venv/installed: pyproject.toml constraints.txt
	@$(PYTHON) -c 'import sys; ok = (3, 11) <= sys.version_info[:2] <= (3, 13); \
	  sys.exit(None if ok else "glimpsenet needs Python 3.11-3.13, found %d.%d: make PYTHON=python3.12 ..." % sys.version_info[:2])'
	$(PYTHON) -m venv .venv
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --constraint constraints.txt --editable '.[dev]'
	@touch $@

demo: .venv/installed
	$(BIN)/glimpsenet train digits --max-steps 700 --out runs/demo --resume
	$(BIN)/glimpsenet evaluate runs/demo --policy all --figure runs/demo/confusion.png
	test -d runs/demo/scenes || $(BIN)/glimpsenet data digits runs/demo/scenes --train-scenes 1 --val-scenes 1 --test-scenes 12
	$(BIN)/glimpsenet predict runs/demo runs/demo/scenes/test --figure runs/demo/scanpaths.png

docs: .venv/installed
	$(BIN)/python -m sphinx --nitpicky --fail-on-warning --keep-going --quiet docs build/docs

test: .venv/installed
	$(BIN)/python -m pytest -n 2

# Six times the tests: three random orders, two threads, two instruction sets.
test-matrix: .venv/installed
	$(BIN)/python tools/test_matrix.py

lint: .venv/installed
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/pyright
	$(BIN)/lint-imports --no-logo
	$(BIN)/python tools/check_types.py
	$(BIN)/python benchmarks/page_figures.py --check

format: .venv/installed
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

# Slow and large: two environments with the newest and the oldest dependencies allowed, 6 GB each.
dist: .venv/installed
	PATH="$(CURDIR)/$(BIN):$$PATH" $(BIN)/python tools/check_dist.py

clean:
	rm -rf .venv
