"""The command line: `profiler-kit COMMAND`; a KitError becomes one line on stderr and exit code 1."""

from __future__ import annotations

import importlib
import importlib.util
import os
import sys
from typing import Final

import typer

from profiler_kit.cli.table_command import table_command, table_commands
from profiler_kit.errors import KitError

# In the order that `--help` lists them; the commands of tables stand behind "summary".
COMMANDS: Final = (
    *("demo", "capture", "layers", "ladder", "study", "summary", "regions"),
    *(name for name in table_commands() if name != "regions"),
    *("memory", "diff", "query", "doctor", "export", "report", "serve"),
)


def build_app() -> typer.Typer:
    """The typer application with every subcommand."""
    app = typer.Typer(
        name="profiler-kit",
        help="See where the time and the memory of PyTorch inference go.",
        no_args_is_help=True,
        add_completion=False,
        rich_markup_mode=None,
        pretty_exceptions_enable=False,
    )
    for name in COMMANDS:
        if importlib.util.find_spec(f"profiler_kit.cli.{name}"):
            app.command(name)(importlib.import_module(f"profiler_kit.cli.{name}").command)
        else:
            app.command(name)(table_command(name))
    return app


def main() -> None:
    """Run the command line; exit codes: 0 fine, 1 bad input or a failed threshold, 2 wrong usage."""
    os.environ.setdefault("KINETO_LOG_LEVEL", "99")  # libkineto writes stages and missing GPUs to stderr otherwise
    try:
        build_app()()
    except KitError as error:
        print(f"profiler-kit: {' '.join(str(error).split())}", file=sys.stderr)
        sys.exit(1)
    except BrokenPipeError:  # the reader of our output (head, less) went away
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        sys.exit(0)
