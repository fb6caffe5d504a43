# Two commands: `make demo` and `make test`. Both install into .venv on the first call and not again.
PYTHON ?= python3
VENV   := .venv
BIN    := $(VENV)/bin
DONE   := $(VENV)/.installed
# of pytest: more than CI has cores, as tests with a browser or a process of their own often wait
WORKERS ?= 4

# what is imported is kept compiled, also where the environment says otherwise: tests start some hundred processes
export PYTHONDONTWRITEBYTECODE :=

.DEFAULT_GOAL := help
.PHONY: help demo test lint check install docs screenshots lock clean

help: ## what there is to make
	@awk -F ':.*## ' '/^[a-z]+:.*## / {printf "  make %-12s %s\n", $$1, $$2}' $(MAKEFILE_LIST)

demo: $(DONE) ## record Segment Anything here and open the dashboard beside H200 samples (ARGS="--model vit_tiny" is quick)
	$(BIN)/profiler-kit demo $(ARGS)

test: $(DONE) ## the tests (ARGS="tests/load -k cache" for some of them)
	$(BIN)/python -m pytest -n $(WORKERS) --dist loadfile --no-loadscope-reorder $(ARGS)

lint: $(DONE) ## ruff and mypy --strict
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy

check: lint test ## both, as CI runs them

install: $(DONE) ## install into .venv

NATIVE := $(addprefix profiler_kit/load/trace/native/,scan.c unpickle.c mend.h table.h json.h build.py)

$(DONE): requirements.lock pyproject.toml $(NATIVE)
	@$(PYTHON) -c 'import sys; v = sys.version_info; sys.exit(0 if v >= (3, 11) else "profiler_kit needs Python 3.11 or newer, $(PYTHON) is %d.%d. Try: make PYTHON=python3.12 ..." % v[:2])'
	@$(PYTHON) -c 'import venv, ensurepip' 2>/dev/null || { echo "$(PYTHON) has no venv module. On Debian and Ubuntu: apt-get install python3-venv" >&2; exit 1; }
	@echo "Installing into $(VENV): about 5 GB, several minutes, of which pip says nothing."
	test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --disable-pip-version-check --progress-bar off -q -r requirements.lock
	$(BIN)/python -m pip install --disable-pip-version-check -q --no-deps --no-build-isolation -e .
	@touch $(DONE)
	@echo "Installed. To use it without make: . $(BIN)/activate"

docs: $(DONE) ## the documentation as a site in site/: reference of Python, tables and commands
	$(BIN)/mkdocs build --quiet

screenshots: $(DONE) ## take the pictures in docs/ anew, in a real Chromium
	$(BIN)/python docs/screenshots.py $(ARGS)

lock: ## resolve requirements.in anew (needs uv); writes versions only, no addresses
	uv pip compile -q --universal --python-version 3.11 --no-header --no-annotate --no-emit-index-url requirements.in -o requirements.lock

clean: ## remove .venv
	rm -rf $(VENV)
