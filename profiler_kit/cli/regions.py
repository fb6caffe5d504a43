"""`profiler-kit regions TRACE`: GPU work by the region of code that launched it."""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from profiler_kit.cli.output import AsCsv, AsJson, TraceFile, check_formats, hanging, open_trace, print_json
from profiler_kit.cli.table_command import TOP, print_filled

if TYPE_CHECKING:
    from profiler_kit.joined import JoinedRun


def command(
    trace: TraceFile,
    memory: Annotated[
        Path | None,
        typer.Option("--memory", metavar="SNAPSHOT", help="Add the memory of a snapshot recorded at the same time."),
    ] = None,
    as_json: AsJson = False,
    as_csv: AsCsv = False,
    top: Annotated[int | None, typer.Option(TOP.flag, help=TOP.meaning)] = None,
) -> None:
    """Show how much GPU time each region (record_function) launched, nested regions included.

    With --memory (a snapshot, or the run folder of both) also how much memory each region allocated, on one clock.
    """
    check_formats(as_json, as_csv)
    TOP.check(top)
    joined = None if memory is None else _joined(trace, memory)
    loaded = open_trace(trace) if joined is None else joined.trace
    filled = loaded.table("regions") if joined is None else joined.table("region_memory")
    if as_csv:
        typer.echo(filled.csv(), nl=False)
    elif as_json:
        print_json(filled.records() if joined is None else {"clock": asdict(joined.clock), "regions": filled.records()})
    else:
        print_filled(filled, loaded.path, top)
        if joined is not None:
            from profiler_kit.findings.records import clock

            typer.echo(hanging("", clock(joined).sentence))
        elif not filled.frame["gpu_events"].sum():
            from profiler_kit.findings.time import missing_gpu

            typer.echo(hanging("", missing_gpu(loaded.presence).sentence))


def _joined(trace: Path, memory: Path) -> JoinedRun:
    """Both files on one clock; of a run folder, the trace of the batch its snapshot is of."""
    from profiler_kit.formats.run_record import MEMORY, MEMORY_TRACE
    from profiler_kit.joined import join_run
    from profiler_kit.load.discover.runs import part_file
    from profiler_kit.snapshot import load_snapshot

    of_batch, snapshot = part_file(trace, MEMORY_TRACE) or trace, part_file(memory, MEMORY) or memory
    return join_run(open_trace(of_batch), load_snapshot(snapshot))
