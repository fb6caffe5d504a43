# Two commands: `make demo` and `make test`. Both install into .venv on the first call and not again.
PYTHON ?= python3
VENV   := .venv
BIN    := $(VENV)/bin
DONE   := $(VENV)/.installed
WORKERS ?= 2

.PHONY: demo test install screenshots lock clean

demo: $(DONE)
	$(BIN)/profiler-kit demo $(ARGS)

test: $(DONE)
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/python -m pytest -n $(WORKERS) --dist loadfile $(ARGS)

install: $(DONE)

$(DONE): requirements.lock pyproject.toml
	@$(PYTHON) -c 'import sys; v = sys.version_info; sys.exit(0 if v >= (3, 11) else "profiler_kit needs Python 3.11 or newer, $(PYTHON) is %d.%d. Try: make PYTHON=python3.12 ..." % v[:2])'
	@$(PYTHON) -c 'import venv, ensurepip' 2>/dev/null || { echo "$(PYTHON) has no venv module. On Debian and Ubuntu: apt-get install python3-venv" >&2; exit 1; }
	test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --disable-pip-version-check --progress-bar off -q -r requirements.lock
	$(BIN)/python -m pip install --disable-pip-version-check -q --no-deps --no-build-isolation -e .
	@touch $(DONE)

# Takes the pictures in docs/ anew, in a real Chromium.
screenshots: $(DONE)
	$(BIN)/python docs/screenshots.py $(ARGS)

# Resolves requirements.in anew; needs uv. Writes versions only, no addresses.
lock:
	uv pip compile -q --universal --python-version 3.11 --no-header --no-annotate --no-emit-index-url requirements.in -o requirements.lock

clean:
	rm -rf $(VENV)
