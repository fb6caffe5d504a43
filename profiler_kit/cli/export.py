"""`profiler-kit export TRACE -o OUT.json.gz`: one window of a trace as a trace of its own, for Perfetto."""

from __future__ import annotations

import re
from decimal import Decimal
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Final

import typer

from profiler_kit.cli.output import AsJson, TraceFile, print_json
from profiler_kit.errors import KitError, OptionError
from profiler_kit.names import printable
from profiler_kit.progress import progress_bar
from profiler_kit.units import NS_PER_MS, NS_PER_S, NS_PER_US

if TYPE_CHECKING:
    from profiler_kit.snapshot import Snapshot

_UNITS: Final = {"": NS_PER_MS, "ns": 1, "us": NS_PER_US, "ms": NS_PER_MS, "s": NS_PER_S}
_TIME: Final = re.compile(r"\s*(\d+(?:\.\d*)?|\.\d+)\s*(ns|us|ms|s|)\s*")
_MOST_NS: Final = 1 << 62


def command(
    trace: TraceFile,
    output: Annotated[Path, typer.Option("--output", "-o", help="The file to write: .json.gz or .json.")],
    region: Annotated[
        str | None,
        typer.Option(help="The time of one instance of this region: a name, 'outer > inner', or 'ProfilerStep#3'."),
    ] = None,
    instance: Annotated[int | None, typer.Option(help="Which instance of the region, counted from 0.")] = None,
    time: Annotated[
        str | None,
        typer.Option(
            metavar="START:END",
            help="A stretch of time after the trace's first event: 10:25 (ms), 900us:1.5ms, 2s: (to the end).",
        ),
    ] = None,
    stream: Annotated[int | None, typer.Option(help="Of the work on GPUs, keep only this stream.")] = None,
    with_memory: Annotated[
        Path | None,
        typer.Option(metavar="SNAPSHOT", help="Add allocated and reserved bytes from this snapshot of the same time."),
    ] = None,
    with_counters: Annotated[
        bool, typer.Option("--with-counters", help="Add queue length, GPU events running, and memory of the run.")
    ] = False,
    with_critical_path: Annotated[
        bool, typer.Option("--with-critical-path", help="Add a track with the critical path.")
    ] = False,
    ranks: Annotated[
        str | None,
        typer.Option(
            metavar="0,5,…",
            help="With the folder of a job as TRACE: write these ranks, one below the other, on one clock.",
        ),
    ] = None,
    step: Annotated[int | None, typer.Option(help="With --ranks: only this step (3 for ProfilerStep#3).")] = None,
    as_json: AsJson = False,
) -> None:
    """Write one window of a trace as a small trace for Perfetto, with regions as GPUs ran them and requests added.

    Kept are all events that overlap the window, the GPU work launched in it and the launches of that work, with their
    arguments and their times in the source.
    """
    from dataclasses import asdict

    from profiler_kit.formats.request_file import read_requests
    from profiler_kit.formats.run_record import MEMORY_TRACE, REQUESTS, TRACE
    from profiler_kit.load.discover.runs import part_file
    from profiler_kit.render.perfetto.export import export_window
    from profiler_kit.text import fmt_bytes, fmt_count, fmt_ns

    if ranks is not None:
        _export_ranks(trace, output, ranks, step, as_json)
        return
    if step is not None:
        raise OptionError(
            f"--step {step}: of which ranks? Name them with --ranks; of one trace: --region ProfilerStep#{step}"
        )
    if instance is not None and region is None:
        raise OptionError(f"--instance {instance}: of which region? Name one with --region.")
    window = None if time is None else parse_time(time)
    file = part_file(trace, TRACE) or trace
    requests = part_file(file.parent, REQUESTS) if file.name == TRACE else None
    snapshot = _memory_beside(file) if with_counters and with_memory is None else None
    if with_memory is not None:
        from profiler_kit.snapshot import load_snapshot

        snapshot = load_snapshot(with_memory)
    critical = None
    if with_critical_path:
        from profiler_kit.trace import load_trace

        critical = load_trace(file).critical_path()
    with progress_bar(f"Exporting from {file.name}") as report:
        done = export_window(
            file,
            output,
            region=region,
            instance=instance or 0,
            time_ns=window,
            stream=stream,
            counters=with_counters,
            snapshot=snapshot,
            served=None if requests is None else read_requests(requests),
            critical=critical,
            must_overlap=with_memory is not None,
            report=report,
        )
    if snapshot is not None and not done.memory_samples:
        beside = file.with_name(MEMORY_TRACE)
        hint = f"; export {beside}, which has both" if beside.is_file() and beside != file else ""
        typer.echo(
            f"profiler-kit: no memory counters: {snapshot.path} was recorded at another time than this window{hint}",
            err=True,
        )
    if as_json:
        said = {name: value for name, value in asdict(done).items() if name != "earlier_ns"}
        print_json({**said, "path": str(done.path)})
        return
    typer.echo(
        f"{printable(done.path)}: {done.label}, {fmt_ns(done.end_ns - done.start_ns, 'ms')}, "
        f"{fmt_count(done.events)} events ({fmt_count(done.gpu_events)} on GPUs), "
        f"{fmt_count(done.added_events)} added, {fmt_bytes(done.size_bytes)}"
    )


def _export_ranks(folder: Path, output: Path, ranks: str, step: int | None, as_json: bool) -> None:
    from profiler_kit.cli.output import open_ranks
    from profiler_kit.render.perfetto.ranks import export_ranks
    from profiler_kit.text import fmt_count

    try:
        chosen = [int(one) for one in ranks.split(",")]
    except ValueError:
        raise OptionError(f"--ranks {ranks!r}: expected numbers with commas between. Try: --ranks 0,1") from None
    events = export_ranks(open_ranks([str(folder)]), output, chosen, step)
    if as_json:
        print_json({"path": str(output), "ranks": chosen, "step": step, "events": events})
        return
    typer.echo(f"{printable(output)}: {fmt_count(events)} events of {len(chosen)} ranks on one clock")


def parse_time(text: str) -> tuple[int, int | None]:
    """START:END as nanoseconds; END may be left out. Numbers without a unit are milliseconds.

    Raises OptionError for anything else, and for an end that is not after the start.
    """
    expected = "expected START:END after the trace's first event, in ms or with a unit: 10:25, 900us:1.5ms, 2s:"
    first, colon, last = text.partition(":")
    start, end = _nanoseconds(first or "0"), _nanoseconds(last) if last.strip() else None
    if not colon or start is None or (last.strip() and end is None):
        raise OptionError(f"--time {text!r}: not a stretch of time, {expected}.")
    if end is not None and end <= start:
        raise OptionError(f"--time {text!r}: the end is not after the start, {expected}.")
    return start, end


def _nanoseconds(text: str) -> int | None:
    found = _TIME.fullmatch(text)
    if found is None or not found[1].isascii():
        return None
    ns = round(Decimal(found[1]) * _UNITS[found[2]])
    return ns if ns < _MOST_NS else None


def _memory_beside(file: Path) -> Snapshot | None:
    """The memory snapshot of the run folder the trace lies in; says so on stderr if it exists but cannot be read."""
    from profiler_kit.formats.run_record import MEMORY
    from profiler_kit.load.discover.runs import part_file
    from profiler_kit.snapshot import load_snapshot

    path = part_file(file.parent, MEMORY)
    if path is None:
        return None
    try:
        return load_snapshot(path)
    except KitError as error:
        typer.echo(f"profiler-kit: no memory counters: {error}", err=True)
        return None
