"""The direction of data: a module imports only from its own layer or earlier ones, and heavy packages stay put."""

from __future__ import annotations

import ast
import functools
import graphlib
import importlib
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from profiler_kit.later import LATER

ROOT = Path(__file__).parents[1]
PACKAGE = ROOT / "profiler_kit"

# Earlier stages first. A module of one stage may import from the same or an earlier one.
LAYERS = (
    {
        "errors",
        "units",
        "text",
        "files",
        "kernel_name",
        "names",
        "schema",
        "table",
        "finding",
        "progress",
        "version",
        "kept",
        "later",
        "late_import",
    },
    {"settings"},
    {"formats"},
    {"capture"},
    {"workload"},
    {"models"},
    {"load"},
    {"attribute"},
    {"analyses"},
    {"trace", "ranks", "ingest", "snapshot", "hta", "timeline"},
    {"joined", "run", "trend", "comparing"},
    {"tables", "sql", "sql_arrow"},
    {"findings"},
    {"render"},
    {"cli"},
)
# package -> the folders whose modules may import it
HOMES = {
    "torch": {"capture", "workload", "models"},
    "plotly": {"render"},
    "jinja2": {"render"},
    "markupsafe": {"render"},
    "streamlit": {"app"},
    "starlette": {"models", "app"},
    "uvicorn": {"models"},
    "segment_anything": {"models"},
    "hta": {"hta"},
}


def modules() -> list[Path]:
    return sorted(p for p in [*PACKAGE.rglob("*.py"), *(ROOT / "app").rglob("*.py")] if p != PACKAGE / "__init__.py")


def layer(part: str) -> int:
    return next(number for number, names in enumerate(LAYERS) if part in names)


@functools.cache
def imports(path: Path) -> tuple[tuple[str, bool], ...]:
    return tuple(imports_of(path))


def imports_of(path: Path) -> Iterator[tuple[str, bool]]:
    """(module, whether it is imported when the module is) of each import; those for type checking only are not."""
    tree = ast.parse(path.read_text(encoding="utf-8"))
    late: set[ast.AST] = set()
    for node in ast.walk(tree):
        is_checking = isinstance(node, ast.If) and "TYPE_CHECKING" in ast.unparse(node.test)
        if is_checking or isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
            late.update(ast.walk(node))
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            yield from ((alias.name, node not in late) for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path}: relative import"
            for alias in node.names:
                inner = PACKAGE.parent.joinpath(*(node.module or "").split("."), alias.name)
                is_module = inner.is_dir() or inner.with_suffix(".py").is_file()
                yield (f"{node.module}.{alias.name}" if is_module else node.module or ""), node not in late


@pytest.mark.parametrize("path", modules(), ids=lambda path: str(path.relative_to(ROOT)))
def test_data_moves_one_way(path: Path) -> None:
    parts = path.relative_to(ROOT).with_suffix("").parts
    home = parts[1] if parts[0] == "profiler_kit" else "app"
    for module, at_import in imports(path):
        names = module.split(".")
        if names[0] in HOMES and home not in HOMES[names[0]]:
            assert not at_import and home == "cli", f"{path} imports {module}"
        if names[0] == "profiler_kit" and len(names) > 1 and home != "app":
            assert layer(names[1]) <= layer(home), f"{path} imports {module} of a later layer"
        assert names[0] != "app" or home == "app", f"{path} imports {module}"


def test_no_import_leads_back() -> None:
    """Imports inside functions and for type checking count too."""
    name = {path: ".".join(path.relative_to(ROOT).with_suffix("").parts) for path in PACKAGE.rglob("*.py")}
    name = {path: dotted.removesuffix(".__init__") for path, dotted in name.items()}
    known = set(name.values())
    graph = {dotted: {module for module, _ in imports(path)} & known - {dotted} for path, dotted in name.items()}
    graphlib.TopologicalSorter(graph).prepare()  # raises CycleError, which names the modules in the circle


def test_what_is_named_for_later_is_there() -> None:
    assert [name for name, module in LATER.items() if not hasattr(importlib.import_module(module), name)] == []


@pytest.mark.parametrize("module", ["profiler_kit", "profiler_kit.trace", "profiler_kit.snapshot", "profiler_kit.cli"])
def test_importing_does_not_pull_in_the_heavy_packages(module: str) -> None:
    heavy = ("torch", "streamlit", "plotly", "hta", "matplotlib", "jinja2")
    code = f"import sys, {module}; print([m for m in {heavy} if m in sys.modules])"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"
