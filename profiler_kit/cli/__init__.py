"""The command line: `profiler-kit COMMAND`; a KitError becomes one line on stderr and exit code 1.

Only the command that was called is imported.
"""

from __future__ import annotations

import importlib
import importlib.util
import os
import sys
from collections.abc import Mapping
from typing import Any, Final

import typer
import typer.core
import typer.main

from profiler_kit.cli.late_import import import_late
from profiler_kit.errors import KitError

# Subcommand -> what `--help` says of it, in that order: how the help of the command begins. Its module is in
# profiler_kit.cli and defines `command`, or in profiler_kit.tables and declares its tables.
COMMANDS: Final[Mapping[str, str]] = {
    "demo": "Record SAM on this machine, print where the time went",
    "capture": "Run Segment Anything and record the run into a folder",
    "layers": "Time every layer of Segment Anything at several batch sizes",
    "ladder": "Measure SAM as published and under named combinations of optimizations",
    "study": "Study what batching does to Segment Anything",
    "summary": "Say how busy the GPU was",
    "regions": "Say how much GPU time each region (record_function) launched",
    "kernels": "Say how long each kernel, memory copy and memory set took",
    "utilization": "Say for each region how busy it kept the GPU",
    "idle": "Say how long the GPU was idle, and why",
    "operators": "Say what each operator cost on the host, and what it launched on the GPU",
    "launches": "Say how long launches took",
    "sequences": "Say which kernels often follow one another under one operator",
    "copies": "Say how much memory was copied and set",
    "overlap": "Say for each device how much of its communication (NCCL, RCCL) ran while it computed",
    "ranks": "Compare the ranks of one job",
    "memory": "See what held the memory of a run",
    "diff": "Compare two recordings",
    "query": "Ask a trace or a snapshot with SQL",
    "doctor": "Say what a trace is, what was repaired or dropped and where",
    "export": "Write one window of a trace as a small trace that opens in Perfetto",
    "report": "Write what a run shows into one HTML file that needs no network",
    "serve": "Show the runs of a folder in the browser",
}
_PLAIN: Final[Mapping[str, Any]] = {
    "add_completion": False,
    "rich_markup_mode": None,
    "pretty_exceptions_enable": False,
}


class _Commands(typer.core.TyperGroup):
    """Knows its commands by name and help, and imports the one that is called."""

    def resolve_command(self, ctx: Any, args: list[str]) -> tuple[str | None, Any, list[str]]:
        name, known, rest = super().resolve_command(ctx, args)
        return name, known and load_command(str(name)), rest


def load_command(name: str) -> Any:
    """The command of that name as typer makes it, its module imported now."""
    if importlib.util.find_spec(f"profiler_kit.tables.{name}"):
        function = importlib.import_module("profiler_kit.cli.table_command").table_command(name)
    else:
        function = importlib.import_module(f"profiler_kit.cli.{name}").command
    alone = typer.Typer(**_PLAIN)
    alone.command(name)(function)
    return typer.main.get_command(alone)


def build_app() -> typer.Typer:
    """The typer application with every subcommand."""
    text = "See where the time and the memory of PyTorch inference go."
    app = typer.Typer(name="profiler-kit", cls=_Commands, help=text, no_args_is_help=True, **_PLAIN)
    for name, does in COMMANDS.items():
        app.command(name, short_help=does)(_not_loaded)
    return app


def _not_loaded() -> None:
    """Stands for a command until it is called."""


def main() -> None:
    """Run the command line; exit codes: 0 fine, 1 bad input or a failed threshold, 2 wrong usage."""
    os.environ.setdefault("KINETO_LOG_LEVEL", "99")  # libkineto writes stages and missing GPUs to stderr otherwise
    import_late("pandas", "pyarrow", "pyarrow.parquet")
    try:
        build_app()()
    except KitError as error:
        print(f"profiler-kit: {' '.join(str(error).split())}", file=sys.stderr)
        sys.exit(1)
    except BrokenPipeError:  # the reader of our output (head, less) went away
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        sys.exit(0)
