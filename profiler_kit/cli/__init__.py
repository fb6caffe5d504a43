"""The command line: `profiler-kit COMMAND`; a KitError becomes one line on stderr and exit code 1.

Only the command that was called is imported.
"""

from __future__ import annotations

import importlib
import os
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from types import ModuleType
from typing import Annotated, Any, Final

import typer
import typer.core
import typer.main

from profiler_kit.cli import streams
from profiler_kit.errors import KitError
from profiler_kit.files import require_file
from profiler_kit.late_import import import_late
from profiler_kit.settings import CAPTURES, GIVEN

# The order that `--help` lists them in; a command that is not named here comes last.
ORDER: Final = (
    *("demo", "capture", "layers", "ladder", "study", "advice", "summary", "regions", "kernels", "utilization", "idle"),
    *(
        "operators",
        "launches",
        "sequences",
        "copies",
        "overlap",
        "requests",
        "ranks",
        "flight",
        "memory",
        "diff",
        "query",
    ),
    *("doctor", "export", "report", "serve", "sam"),
)
KEPT: Final = ("ranks",)  # what these say is kept, so that they say it again without importing what computes it
READS_NO_TRACE: Final = ("demo", "capture", "layers", "ladder", "study", "memory", "flight")
_PACKAGE: Final = Path(__file__).parents[1]
_PLAIN: Final[Mapping[str, Any]] = {
    "add_completion": False,
    "rich_markup_mode": None,
    "pretty_exceptions_enable": False,
}


def commands() -> dict[str, str]:
    """Each subcommand and what it does: the modules of `cli/` and `tables/` whose docstring begins with its name.

    Nothing is imported for it. A module of `cli/` defines `command`, one of `tables/` declares its tables.
    """
    docs = {
        file.stem.replace("_", "-"): file.read_text(encoding="utf-8").split('"""')[1]
        for folder in ("tables", "cli")
        for file in sorted((_PACKAGE / folder).glob("*.py"))
    }
    found = {
        name: help_text(doc)
        for name, doc in docs.items()
        if doc.startswith((f"`profiler-kit {name} ", f"`profiler-kit {name}`"))
    }
    return {
        name: found[name] for name in sorted(found, key=lambda one: ORDER.index(one) if one in ORDER else len(ORDER))
    }


def help_text(doc: str) -> str:
    """What a command does: its module's docstring without the command's own name in front."""
    said = doc.partition("`: ")[2] or doc
    return said[:1].upper() + said[1:]


class _Commands(typer.core.TyperGroup):
    """Knows its commands by name and help, and imports the one that is called."""

    def resolve_command(self, ctx: Any, args: list[str]) -> tuple[str | None, Any, list[str]]:
        name, known, rest = super().resolve_command(ctx, args)
        if name in KEPT and _said_again(rest):
            raise typer.Exit
        return name, known and load_command(str(name), tuple(rest)), rest


def _said_again(words: Sequence[str]) -> bool:
    """Say what was kept of a command with these words; whether there was something."""
    from profiler_kit.load.job_folder import kept

    said = kept(words)
    if said is not None:
        from profiler_kit.cli.output import say

        say(said)
    return said is not None


def load_command(name: str, words: Sequence[str] = ()) -> Any:
    """The command of that name as typer makes it, its module imported now; COMMANDS: those below it.

    words: those behind its name, by which some keep what they said.
    """
    stem = name.replace("-", "_")
    if (_PACKAGE / "cli" / f"{stem}.py").is_file():
        module = importlib.import_module(f"profiler_kit.cli.{stem}")
        if hasattr(module, "COMMANDS"):
            return typer.main.get_command(_group(name, module))
        function = module.command
    else:
        function = importlib.import_module("profiler_kit.cli.table_command").table_command(name, words)
    alone = typer.Typer(**_PLAIN)
    alone.command(name)(function)
    made = typer.main.get_command(alone)
    if name not in READS_NO_TRACE:
        shared = typer.Typer(**_PLAIN)
        shared.command(name)(_reading)
        made.params += typer.main.get_command(shared).params
    return made


def _take_names(names: list[str] | None) -> None:
    os.environ[GIVEN] = "\n".join(names or ())


def _take_captures(files: list[Path] | None) -> None:
    for file in files or ():
        if not file.is_dir():
            require_file(file, "a trace with captures of CUDA graphs, or a folder of them", "Look at --captures.")
    os.environ[CAPTURES] = "\n".join(map(str, files or ()))


def _reading(
    communication: Annotated[
        list[str] | None,
        typer.Option(
            "--communication",
            metavar="PATTERN",
            callback=_take_names,
            expose_value=False,
            help="Count kernels and operators of such a name (a regular expression) as communication; repeatable.",
        ),
    ] = None,
    captures: Annotated[
        list[Path] | None,
        typer.Option(
            "--captures",
            metavar="PATH",
            callback=_take_captures,
            expose_value=False,
            help="Trace or folder with the capture of replayed CUDA graphs, which names their operators; repeatable.",
        ),
    ] = None,
) -> None:
    """The options of every command that reads traces."""


def _group(name: str, module: ModuleType) -> typer.Typer:
    """The commands of a module; a module among them is a group of its own."""
    group = typer.Typer(name=name, help=help_text(module.__doc__ or ""), no_args_is_help=True, **_PLAIN)
    for called, one in module.COMMANDS.items():
        if isinstance(one, ModuleType):
            group.add_typer(_group(called, one))
        else:
            group.command(called)(one)
    return group


def build_app() -> typer.Typer:
    """The typer application with every subcommand."""
    text = "See where PyTorch spends time and memory."
    app = typer.Typer(name="profiler-kit", cls=_Commands, help=text, no_args_is_help=True, **_PLAIN)
    app.callback()(_options)
    for name, does in commands().items():
        app.command(name, short_help=" ".join(does.partition("\n\n")[0].split()))(_not_loaded)
    return app


def _version(wanted: bool) -> None:
    if wanted:
        from profiler_kit.load.trace import native
        from profiler_kit.version import __version__

        typer.echo(f"profiler-kit {__version__} (reader of traces and snapshots: {native.found()})")
        raise typer.Exit


def _options(
    version: Annotated[
        bool, typer.Option("--version", callback=_version, is_eager=True, help="Print the version and exit.")
    ] = False,
) -> None:
    """See where PyTorch spends time and memory."""


def _not_loaded() -> None:
    """A placeholder for a command until it is called."""


def main() -> None:
    """Run the command line; exit codes: 0 fine, 1 bad input, no room for the output or a failed threshold, 2 usage."""
    os.environ.setdefault("KINETO_LOG_LEVEL", "99")  # libkineto writes stages and missing GPUs to stderr otherwise
    import_late("pandas", "pyarrow", "pyarrow.parquet")
    out = streams.open_streams()
    code, problem = _run()
    unwritten = streams.flush(out)
    for line in filter(None, (problem, unwritten)):
        print(f"profiler-kit: {' '.join(line.split())}", file=sys.stderr)
    sys.exit(code or (1 if unwritten else 0))


def _run() -> tuple[int, str | None]:
    """The exit code of the command, and what stopped it."""
    try:
        build_app()()
    except SystemExit as ended:
        return (ended.code if isinstance(ended.code, int) else int(ended.code is not None)), None
    except KitError as error:
        return 1, str(error)
    except OSError as error:  # a disk that is full, a file that is gone: what is written in one place says more
        where = f"{error.filename}: " if error.filename else ""
        return 1, f"{where}cannot be read or written ({error.strerror or error}). Free some space, or try another path."
    except MemoryError:
        return 1, (
            "memory: the command needs more than this process may have. Raise the limit (ulimit -v), or look at a part "
            "of the trace: profiler-kit export TRACE --time FROM:TO -o PART"
        )
    return 0, None
