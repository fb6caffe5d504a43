"""What commands share: JSON on stdout, tables with aligned numbers, the loading of a trace behind a bar."""

from __future__ import annotations

import json
import os
import shutil
import sys
import textwrap
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Final

import typer

from profiler_kit.errors import InputError, OptionError
from profiler_kit.files import PLAIN_OR_PACKED
from profiler_kit.names import printable
from profiler_kit.progress import progress_bar
from profiler_kit.table import records as records

if TYPE_CHECKING:
    from profiler_kit.analyses.serving.batches import Served
    from profiler_kit.load.flight.reader import Dumps
    from profiler_kit.ranks import Ranks
    from profiler_kit.trace import Trace
    from profiler_kit.trend import Trend

TraceFile = Annotated[
    Path,
    typer.Argument(metavar="TRACE", help=f"A chrome trace (.json; {PLAIN_OR_PACKED}) or a run folder that holds one."),
]
AsJson = Annotated[bool, typer.Option("--json", help="Print JSON instead of a table.")]
AsCsv = Annotated[bool, typer.Option("--csv", help="Print CSV instead of a table.")]
RankTraces = Annotated[
    list[str],
    typer.Argument(metavar="TRACE...", help="A folder with one trace per rank, its address, or the traces themselves."),
]
JobFolder = Annotated[
    str,
    typer.Argument(metavar="FOLDER", help="A folder that holds one folder per run of the job, or its address."),
]
FlightDumps = Annotated[
    list[Path],
    typer.Argument(
        metavar="DUMP...", help="A folder with one dump per rank (nccl_trace_rank_0, …), or the dumps themselves."
    ),
]
Workers = Annotated[
    int | None,
    typer.Option(min=1, help="Processes that read traces. [default: as many as are worth it on this machine]"),
]
Cluster = Annotated[
    str | None, typer.Option(metavar="ADDRESS", help="Read on the workers of this Dask scheduler (tcp://host:8786).")
]
Store = Annotated[
    str | None,
    typer.Option(
        metavar="PATH",
        help="Folder or address to keep what was read in. [default: JOB.ranks beside the folder of the job]",
    ),
]
LinkedOnly = Annotated[
    bool,
    typer.Option("--linked-only", help="Count only GPU events whose launch and its flow arrow are both in the trace."),
]


MOST_LOSSES: Final = 20  # of a job, of which every file may have lost the same


def check_top(top: int, usual: int = 30) -> None:
    """Raises OptionError when a table would have no row."""
    if top < 1:
        raise OptionError(f"--top {top}: expected at least 1 row. Try: --top {usual}")


def check_formats(as_json: bool, other: bool, name: str = "--csv") -> None:
    """Raises OptionError when both were asked for."""
    if as_json and other:
        raise OptionError(f"--json {name}: these exclude each other, expected one of them. Leave one out.")


def open_trace(path: Path, *, arguments: Sequence[str] = ()) -> Trace:
    """Load a trace, or the trace of a run folder, behind a progress bar; what was lost is reported on stderr.

    arguments: further `args` of the events to load (see load_trace).
    """
    from profiler_kit.formats.run_record import TRACE
    from profiler_kit.load.discover.runs import part_file
    from profiler_kit.trace import load_trace

    file = part_file(path, TRACE) or path
    if os.path.isdir(file):  # noqa: PTH112 - unlike Path.is_dir, says no to a name that is too long
        from profiler_kit.load.discover.jobs import folder_traces

        if found := folder_traces(file):
            raise InputError(
                f"{file}: this folder holds {len(found)} traces, expected one. Name one of them ({found[0]}), or set "
                f"them side by side: profiler-kit ranks {file}"
            )
    with progress_bar(f"Loading {file.name}") as report:
        trace = load_trace(file, arguments=arguments, report=report)
    _say_losses(trace)
    return trace


def open_ranks(
    paths: Sequence[str],
    *,
    arguments: Sequence[str] = (),
    workers: int | None = None,
    cluster: str | None = None,
    store: str | None = None,
) -> Ranks:
    """Read the traces of a job's ranks likewise; of several files, or of the folder that holds them. See load_ranks."""
    from profiler_kit.ranks import load_ranks

    with progress_bar("Reading the ranks") as report:
        named = paths[0] if len(paths) == 1 else paths
        ranks = load_ranks(named, workers=workers, cluster=cluster, store=store, report=report)
    say(notes_on(ranks))
    return ranks


def notes_on(ranks: Ranks) -> list[tuple[str, Any]]:
    """What was lost or left out of a job, a line each."""
    lost = ranks.losses
    more = len(lost) - MOST_LOSSES
    lines = [*lost[:MOST_LOSSES], *([f"and {more} more such lines"] if more > 0 else []), *ranks.problems]
    return [("note", line) for line in lines]


def open_trend(
    folder: str,
    *,
    arguments: Sequence[str] = (),
    workers: int | None = None,
    cluster: str | None = None,
    store: str | None = None,
) -> Trend:
    """Read the runs of a job likewise; see load_trend."""
    from profiler_kit.trend import load_trend

    with progress_bar("Reading the runs") as report:
        found = load_trend(folder, workers=workers, cluster=cluster, store=store, report=report)
    for problem in found.problems:
        typer.echo(f"profiler-kit: {printable(problem)}", err=True)
    return found


def open_flight(paths: Sequence[Path], *, arguments: Sequence[str] = ()) -> Dumps:
    """The dumps of the flight recorder in a folder, or those that were named; what is none is said on stderr."""
    from profiler_kit.load.flight.reader import read_dumps

    dumps = read_dumps(paths)
    for problem in dumps.problems:
        typer.echo(f"profiler-kit: {printable(problem)}", err=True)
    return dumps


def open_requests(path: Path, *, arguments: Sequence[str] = ()) -> Served:
    """The requests of a run folder and their batches, on the clock of its trace, which is loaded likewise."""
    from profiler_kit.formats.request_file import RECORD_THEM
    from profiler_kit.run import open_run
    from profiler_kit.trace import load_trace

    with progress_bar(f"Loading {path.name}") as report:
        run = open_run(
            path,
            trace=lambda file: load_trace(file, arguments=arguments, report=report),
        )
        run.parts.requests.required()
        found = run.served
    if found is None:
        raise InputError(f"{path}: no requests.parquet in it, expected a run of a server. {RECORD_THEM}")
    return found


def _say_losses(trace: Trace) -> None:
    """Print what was lost while loading a trace, a line each on stderr."""
    from profiler_kit.findings.quality import losses

    for one in losses(trace):
        if one.id != "unlinked":  # nothing of the file is lost; the tables count them as (unlinked)
            typer.echo(f"profiler-kit: {printable(trace.path)}: {' '.join((one.sentence, *one.details))}", err=True)


def says_no_gpu(trace: Trace) -> bool:
    """Whether the trace holds no GPU events; then that is printed, with what to do, in place of an empty table."""
    if len(trace.gpu_events()):
        return False
    if trace.presence.ran != "host":
        from profiler_kit.findings.time import missing_gpu

        typer.echo(hanging("", f"{printable(trace.path)}: {missing_gpu(trace.presence).sentence}"))
        return True
    said = (
        f"{printable(trace.path)}: no GPU events. Record on a machine with a GPU, with CUDA among the activities; "
        "where the host's time went: profiler-kit summary"
    )
    typer.echo(hanging("", said))
    return True


def print_json(value: object) -> None:
    """Print JSON, non-ASCII kept readable where the terminal's encoding has it.

    A file name that is no UTF-8 keeps its bytes as escapes (\\udcff), so that what is printed stays JSON.
    """
    say([("json", json_text(value))])


def json_text(value: object) -> str:
    """JSON as it is printed."""
    return json.dumps(value, indent=2, ensure_ascii=False)


def say(pieces: Iterable[tuple[str, Any]]) -> None:
    """Print the pieces of what a command says: notes, JSON, tables (what print_table takes), sentences, other text."""
    for kind, what in pieces:
        if kind == "note":
            typer.echo(f"profiler-kit: {printable(what)}", err=True)
        elif kind == "table":
            print_table(**what)
        elif kind == "sentence":
            typer.echo(hanging("", what))
        elif kind == "json":
            try:
                what.encode(sys.stdout.encoding or "utf-8", "strict")
            except UnicodeEncodeError:
                what = json.dumps(json.loads(what), indent=2)
            typer.echo(what)
        else:
            typer.echo(what, nl=False)


def terminal_width() -> int | None:
    """The columns of the terminal; None where standard output is none."""
    return shutil.get_terminal_size().columns if sys.stdout.isatty() else None


def hanging(start: str, text: str) -> str:
    """`start` and the text behind it, which on a terminal is broken between words and goes on below its beginning."""
    width = terminal_width()
    if width is None:
        return start + text
    whole = textwrap.TextWrapper(width, start, " " * len(start), break_long_words=False, break_on_hyphens=False)
    return whole.fill(text) or start


def print_lines(title: str, lines: Callable[[int | None], Sequence[str]]) -> None:
    """Print lines that fit the terminal under a title; without lines one line says so.

    Without a terminal they are as wide as they need to be (`lines` is given None).
    """
    width = terminal_width()
    made = lines(width)
    if not made:
        typer.echo(f"{title}: none\n")
        return
    typer.echo(typer.style(hanging("", title), bold=True) if width else title)
    typer.echo()
    for line in made:
        typer.echo(line)
    typer.echo()


def print_table(
    title: str,
    columns: Sequence[str] = (),
    rows: Sequence[Sequence[str]] = (),
    *,
    left: int = 1,
    optional: Sequence[str] = (),
) -> None:
    """Print a table of texts: the first `left` columns are names, the others numbers aligned to the right."""
    from profiler_kit.render.text_table import table_lines

    def lines(width: int | None) -> list[str]:
        return table_lines(columns, rows, left=left, optional=optional, width=width) if rows else []

    print_lines(title, lines)
