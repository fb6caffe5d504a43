"""The direction of data: a module imports only from its own layer or earlier ones, and heavy packages stay put."""

from __future__ import annotations

import ast
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
PACKAGE = ROOT / "profiler_kit"

# Earlier stages first. A module of one stage may import from the same or an earlier one.
LAYERS = (
    {"errors", "units", "text", "files", "names", "schema", "table", "progress", "formats"},
    {"capture"},
    {"models", "workload"},
    {"load"},
    {"attribute"},
    {"analyses", "findings"},
    {
        "tables",
        "sql",
        "sql_tables",
        "trace",
        "trace_analyses",
        "ranks",
        "snapshot_analyses",
        "snapshot",
        "hta",
        "timeline",
    },
    {"joined", "run"},
    {"render"},
    {"cli"},
)
# package -> the folders whose modules may import it
HOMES = {
    "torch": {"capture", "workload", "models"},
    "plotly": {"render"},
    "streamlit": {"app"},
    "segment_anything": {"models", "workload"},
    "hta": {"hta"},
}
# The facades show themselves in a notebook, and a command may ask torch for a device: inside functions only.
LATE = {(home, "render") for home in ("snapshot", "trace", "run", "formats", "load")}


def modules() -> list[Path]:
    return sorted(p for p in [*PACKAGE.rglob("*.py"), *(ROOT / "app").rglob("*.py")] if p != PACKAGE / "__init__.py")


def layer(part: str) -> int:
    return next(number for number, names in enumerate(LAYERS) if part in names)


def imports(path: Path) -> Iterator[tuple[str, bool]]:
    """(module, whether it is imported when the module is) of each import that is not for type checking only."""
    tree = ast.parse(path.read_text(encoding="utf-8"))
    hidden: set[ast.AST] = set()
    inner: set[ast.AST] = set()
    for node in ast.walk(tree):
        if isinstance(node, ast.If) and "TYPE_CHECKING" in ast.unparse(node.test):
            hidden.update(ast.walk(node))
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
            inner.update(ast.walk(node))
    for node in ast.walk(tree):
        if node in hidden:
            continue
        if isinstance(node, ast.Import):
            yield from ((alias.name, node not in inner) for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path}: relative import"
            yield node.module or "", node not in inner


@pytest.mark.parametrize("path", modules(), ids=lambda path: str(path.relative_to(ROOT)))
def test_data_moves_one_way(path: Path) -> None:
    parts = path.relative_to(ROOT).with_suffix("").parts
    home = parts[1] if parts[0] == "profiler_kit" else "app"
    for module, at_import in imports(path):
        names = module.split(".")
        if names[0] in HOMES and home not in HOMES[names[0]]:
            assert not at_import and home == "cli", f"{path} imports {module}"
        if names[0] == "profiler_kit" and len(names) > 1 and home != "app":
            late = not at_import and (home, names[1]) in LATE
            assert late or layer(names[1]) <= layer(home), f"{path} imports {module} of a later layer"
        assert names[0] != "app" or home == "app", f"{path} imports {module}"


@pytest.mark.parametrize("module", ["profiler_kit", "profiler_kit.trace", "profiler_kit.snapshot", "profiler_kit.cli"])
def test_importing_does_not_pull_in_the_heavy_packages(module: str) -> None:
    heavy = ("torch", "streamlit", "plotly", "hta", "matplotlib")
    code = f"import sys, {module}; print([m for m in {heavy} if m in sys.modules])"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"
