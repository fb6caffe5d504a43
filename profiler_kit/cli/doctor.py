"""`profiler-kit doctor TRACE`: what a trace file is, what was lost, and how to record what is missing."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import typer

from profiler_kit.cli.output import AsJson, TraceFile, hanging, print_json, print_table
from profiler_kit.errors import InputError
from profiler_kit.names import printable

if TYPE_CHECKING:
    from profiler_kit.finding import Finding
    from profiler_kit.formats.run_record import RunRecord


def command(trace: TraceFile, as_json: AsJson = False) -> None:
    """Show what a trace is, what was repaired or dropped and where, and what to record next time."""
    from profiler_kit.findings import doctor, quality
    from profiler_kit.load.trace.file_facts import load_file_facts
    from profiler_kit.progress import progress_bar
    from profiler_kit.trace import load_trace

    file, record = _find(trace)
    with progress_bar(f"Loading {file.name}") as report:
        loaded = load_trace(file, cache=False, report=report)
    with progress_bar(f"Looking at {file.name}") as report:
        facts = load_file_facts(file, report=report)
    found = doctor.examine(file, record, loaded, facts)
    if as_json:
        print_json(found)
        return
    flaws = doctor.flaws(file, record, loaded, facts)
    verdict = quality.file_verdict(flaws, found["contents"]["events"])
    _print_report(file, found, verdict, [quality.of_flaw(flaw) for flaw in flaws])
    print_categories(found["categories"])


def _find(path: Path) -> tuple[Path, RunRecord | None]:
    """The trace that `path` is or holds, and the run it belongs to."""
    from profiler_kit.errors import KitError
    from profiler_kit.formats.run_record import MEMORY, RECORD, TRACE, read_record
    from profiler_kit.load.discover.runs import part_file

    if not path.is_dir():
        return path, None
    trace, memory = part_file(path, TRACE), part_file(path, MEMORY)
    if trace is None:
        found = f"{memory.name}, a memory snapshot" if memory else "no trace"
        hint = f"Try: profiler-kit memory {path}" if memory else "Name the trace file itself."
        raise InputError(f"{path}: this folder holds {found}, expected a run folder with {TRACE}. {hint}")
    try:
        return trace, read_record(path) if (path / RECORD).is_file() else None
    except KitError as error:
        typer.echo(f"profiler-kit: {error}", err=True)
        return trace, None


def _print_report(file: Path, found: dict[str, Any], verdict: Finding, findings: list[Finding]) -> None:
    from profiler_kit.findings.doctor import about
    from profiler_kit.tables.file import DONE

    rows = about(found)
    width = max(len(name) for name, _ in rows)
    typer.echo(printable(file))
    for name, text in rows:
        typer.echo(hanging(f"  {name:<{width}}  ", text))
    incidents = found["quality"]["incidents"]
    if incidents:
        typer.echo("\nwhere (bytes of the uncompressed text)")
        offsets = [f"{incident['offset']:,}" for incident in incidents]
        for offset, incident in zip(offsets, incidents, strict=True):
            said = f"{DONE[incident['kind']]}: {incident['text']}".rstrip(": ")
            typer.echo(hanging(f"  {offset:>{max(map(len, offsets))}}  ", said))
    typer.echo(f"\n{hanging('', verdict.sentence)}")
    for one in findings:
        typer.echo(hanging(f"  {one.kind:<7}  ", one.sentence))
        typer.echo(hanging(f"  {'':<7}    ", f"affects: {one.affects}"))
        if one.attempt:
            typer.echo(hanging(f"  {'':<7}    ", f"next time: {one.attempt}"))
    typer.echo("")


def print_categories(rows: list[dict[str, Any]]) -> None:
    """The table of categories."""
    from profiler_kit.text import fmt_count

    cells = [
        (
            str(row["category"]) or "(none)",
            str(row["phase"]),
            f"ignored: {row['why']}" if row["role"] == "ignored" else str(row["role"]),
            fmt_count(int(row["events"])),
        )
        for row in rows
    ]
    print_table("categories", ("category", "phase", "used as", "events"), cells, left=3)
