"""A command starts fast: it imports itself and what it needs, and nothing that takes long before it is needed."""

from __future__ import annotations

import importlib
import json
import subprocess
import sys
from pathlib import Path

import pytest

from profiler_kit import cli
from profiler_kit.cli import READS_NO_TRACE, commands, load_command
from profiler_kit.late_import import import_late
from tests.cli.run import profiler_kit

GOLDEN = Path(__file__).parents[1] / "golden" / "streams_graph.json.gz"
SLOW = ("pandas._libs", "pyarrow.lib", "numpy.ma", "duckdb", "rich", "plotly", "torch")


def imported_by(*arguments: str) -> list[str]:
    """The modules that a process holds when the command has run in it."""
    code = (
        "import atexit, json, sys\n"
        "sys.argv[0] = 'profiler-kit'\n"
        "atexit.register(lambda: print('\\n' + json.dumps(sorted(sys.modules))))\n"
        "from profiler_kit.cli import main\n"
        "main()\n"
    )
    done = subprocess.run([sys.executable, "-c", code, *arguments], capture_output=True, text=True, check=True)
    modules: list[str] = json.loads(done.stdout.splitlines()[-1])
    return modules


def commands_in(modules: list[str]) -> list[str]:
    return [
        name for name in commands() if f"profiler_kit.cli.{name}" in modules or f"profiler_kit.tables.{name}" in modules
    ]


@pytest.mark.parametrize("how", [(), ("--json",), ("--json", "--linked-only")], ids=" ".join)
def test_a_summary_makes_no_frame_and_reads_no_cache(how: tuple[str, ...]) -> None:
    modules = imported_by("summary", str(GOLDEN), *how)
    assert [name for name in SLOW if name in modules] == []
    assert commands_in(modules) == ["summary"]


def test_help_imports_no_command() -> None:
    modules = imported_by("--help")
    assert commands_in(modules) == [] and "numpy" not in modules


@pytest.mark.parametrize("name", commands())
def test_every_command_has_help(name: str) -> None:
    assert load_command(name).help


def test_a_late_import_happens_when_something_is_used(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    package = tmp_path / "slow_package"
    package.mkdir()
    (package / "__init__.py").write_text("import slow_package.core as _core\nONE = 1\n")
    (package / "inner.py").write_text("import slow_package.core\nTWO = 2\n")
    (package / "core.py").write_text("ZERO = 0\n")
    monkeypatch.syspath_prepend(tmp_path)
    import_late("slow_package", "slow_package.inner", "slow_package_that_is_not_there")
    try:
        outer, inner = importlib.import_module("slow_package"), importlib.import_module("slow_package.inner")
        again = importlib.import_module("slow_package")
        assert again is outer and outer.inner is inner
        assert "ONE" not in vars(outer) and "TWO" not in vars(inner)
        assert inner.TWO == 2 and outer.ONE == 1
        assert sys.modules["slow_package"] is not outer and sys.modules["slow_package"].ONE == 1
        assert sys.modules["slow_package"].core.ZERO == 0  # as pyarrow.lib, which pyarrow.parquet imports too
        with pytest.raises(AttributeError, match="THREE"):
            outer.THREE  # noqa: B018
        with pytest.raises(ModuleNotFoundError):
            importlib.import_module("slow_package_that_is_not_there")
    finally:
        for name in ("slow_package", "slow_package.inner", "slow_package.core"):
            sys.modules.pop(name, None)


def test_every_command_that_reads_traces_takes_the_users_names_of_communication() -> None:
    takes = {
        name
        for name in commands()
        if any(one.name == "communication" for one in getattr(load_command(name), "params", ()))
    }
    assert set(commands()) - takes == {*READS_NO_TRACE, "sam"}


def test_names_given_to_a_command_count_in_what_it_finds() -> None:
    trace = GOLDEN.parents[1] / "cases" / "traces" / "two_gpus_in_turn.json"
    assert "collectives" not in profiler_kit("advice", trace).out
    assert "4 collectives take 800.00 µs" in profiler_kit("advice", trace, "--communication", "gemm").out


def test_too_little_memory_is_one_line(monkeypatch: pytest.MonkeyPatch) -> None:
    def build_app() -> None:
        raise MemoryError

    monkeypatch.setattr(cli, "build_app", build_app)
    code, said = cli._run()
    assert code == 1 and said is not None and said.startswith("memory: the command needs more than this process may")
