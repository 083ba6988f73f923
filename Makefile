# Each target sets up what it needs; a second call installs nothing again.
#   make train    train TRPO on brax/inverted_pendulum, then evaluate what it trained
#   make test     run the tests: some 25 minutes on two cores
#   make test-fast   run those that take seconds
#   make test-nightly   run all of them, those too that others cover mostly
#   make lint     ruff and mypy
#   make docs     build the documentation site into build/site; every warning is an error
#   make docs-serve   show it at http://127.0.0.1:8000, built again when a page changes
# They use python3 and keep its packages in .venv; `PYTHON=python3.12 make test` uses that Python
# and an environment of its own, .venv-3.12.

PYTHON ?= python3
ifeq ($(origin PYTHON),file)
VENV := .venv
else
VENV := .venv-$(shell $(PYTHON) -c 'import sys; print("%d.%d" % sys.version_info[:2])')
endif
BIN := $(VENV)/bin
# The page of the command line is made from jtrust itself, which needs no accelerator for it.
MKDOCS := JAX_PLATFORMS=cpu NO_MKDOCS_2_WARNING=1 $(BIN)/python -m mkdocs

.PHONY: train test test-fast test-nightly lint docs docs-serve clean

train: $(VENV)/installed
	@run=checkpoints/first-run; n=2; \
	while [ -e $$run ]; do run=checkpoints/first-run-$$n; n=$$((n + 1)); done; \
	$(BIN)/jtrust train brax/inverted_pendulum --steps 500000 --run-dir $$run && \
	$(BIN)/jtrust evaluate $$run

test-fast: $(VENV)/installed-dev
	$(BIN)/python -m pytest -n 2 --dist loadfile -m "not slow" -q

test: $(VENV)/installed-dev
	$(BIN)/python -m pytest -n 2 --dist loadfile --durations=25 -m "not nightly"

test-nightly: $(VENV)/installed-dev
	$(BIN)/python -m pytest -n 2 --dist loadfile --durations=25

lint: $(VENV)/installed-dev
	$(BIN)/ruff check .
	$(BIN)/mypy

docs: $(VENV)/installed-docs
	$(MKDOCS) build --strict --quiet

docs-serve: $(VENV)/installed-docs
	$(MKDOCS) serve --dev-addr 127.0.0.1:8000

$(VENV)/installed: pyproject.toml
	@$(PYTHON) -c 'import sys; v = sys.version_info[:2]; sys.exit(None if (3, 11) <= v else \
	"jtrust needs Python 3.11 or newer, not %d.%d; try: PYTHON=python3.12 make ..." % v)'
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --editable .
	@touch $@

$(VENV)/installed-dev: $(VENV)/installed
	$(BIN)/python -m pip install --quiet --editable '.[dev]'
	@touch $@

$(VENV)/installed-docs: $(VENV)/installed
	$(BIN)/python -m pip install --quiet --editable '.[docs]'
	@touch $@

clean:
	rm -rf .venv .venv-*
