"""`profiler-kit memory SNAPSHOT`: where the memory of a run went (memory.pickle -> tables, JSON, one HTML page)."""

from __future__ import annotations

import os
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from profiler_kit.commands.output import print_json, print_table, printable
from profiler_kit.errors import InputError, OptionError
from profiler_kit.files import whole_file
from profiler_kit.progress import progress_bar
from profiler_kit.record import MEMORY
from profiler_kit.units import BYTES_PER_MIB, NS_PER_US

if TYPE_CHECKING:
    from rich.console import Console

    from profiler_kit.snapshot import DeviceRow, Snapshot
    from profiler_kit.views.text import ByteUnit

LIVE_ROWS = 10
CONTRACT = (  # the keys of DESIGN.md, in its order
    "device",
    "events",
    "peak_allocated_bytes",
    "peak_time_us",
    "end_allocated_bytes",
    "reserved_bytes",
    "fragmentation",
    "history_truncated",
    "oom",
    "regions",
)
LARGEST_LIMIT_GIB = 1 << 20
PAGE_SUFFIXES = (".html", ".htm")


def command(
    snapshot: Annotated[
        Path, typer.Argument(help="memory.pickle of memory_runner or torch.cuda.memory._dump_snapshot, or a run folder")
    ],
    as_json: Annotated[bool, typer.Option("--json", help="print JSON instead of tables")] = False,
    html: Annotated[Path | None, typer.Option(help="also write a page that shows the memory, one offline file")] = None,
    device: Annotated[int | None, typer.Option(help="only this device")] = None,
    memory_limit: Annotated[
        float | None, typer.Option(help="GiB of memory the reading process may use (3 at most by itself)")
    ] = None,
) -> None:
    """See what held the memory of a run: peak, regions, out-of-memory, what was live at the peak."""
    from profiler_kit.snapshot import load_snapshot

    snapshot = snapshot / MEMORY if (snapshot / MEMORY).is_file() else snapshot
    if html is not None:
        _check_page(html, snapshot)
    with progress_bar("Reading the snapshot") as report:
        loaded = load_snapshot(snapshot, memory_limit_bytes=_limit(memory_limit), report=report)
    summary = loaded.summary(device)
    if html is not None:
        _write_page(loaded, html, device)
    if as_json:
        print_json({"devices": [{key: row[key] for key in CONTRACT} for row in summary["devices"]]})  # type: ignore[literal-required]
        return
    _print(loaded, summary["devices"])


def _limit(gib: float | None) -> int | None:
    if gib is None:
        return None
    if not 0 < gib <= LARGEST_LIMIT_GIB:  # NaN fails both
        raise OptionError(
            f"--memory-limit: {gib:g} GiB cannot be used, want a positive number up to {LARGEST_LIMIT_GIB}. "
            "Try --memory-limit 6."
        )
    return int(gib * (1 << 30))


def _check_page(html: Path, snapshot: Path) -> None:
    """Refuse, before anything is read, to write the page over what is no page: the snapshot above all."""
    if os.path.isdir(html):  # noqa: PTH112 - unlike Path.is_dir, says no to a name that is too long
        raise OptionError(f"--html: {html} is a folder, want a file. Try --html {html / 'memory.html'}.")
    if html.suffix.lower() not in PAGE_SUFFIXES:
        raise OptionError(
            f"--html: {html} does not end in .html, want a page. Try --html "
            f"{html.with_suffix('.html') if html.name else 'memory.html'}."
        )
    if os.path.exists(html) and os.path.exists(snapshot) and html.samefile(snapshot):  # noqa: PTH110 - likewise
        raise OptionError(f"--html: {html} is the snapshot itself, want another file.")


def _write_page(loaded: Snapshot, html: Path, device: int | None) -> None:
    from profiler_kit.views.memory_html import memory_page

    title = os.fsencode(Path(loaded.path).name).decode("utf-8", "replace")
    page = memory_page(loaded, title, device=device)
    try:
        with whole_file(html) as temporary:
            temporary.write_text(page, encoding="utf-8")
    except OSError as error:
        raise InputError(f"{html}: cannot be written ({error.strerror}). Choose another path for --html.") from error
    print(f"wrote {html}", file=sys.stderr)


def _print(loaded: Snapshot, devices: list[DeviceRow]) -> None:
    from rich.console import Console

    console = Console()
    used = [row for row in devices if row["events"] or row["reserved_bytes"] or row["end_allocated_bytes"]]
    for row in used:
        _print_device(console, loaded, row)
    idle = [str(row["device"]) for row in devices if row not in used]
    if idle:
        _line(console, f"device {', '.join(idle)}: nothing allocated, no events")
    if loaded.recording.error:
        _line(console, f"The recorded function raised: {loaded.recording.error}", style="yellow")


def _print_device(console: Console, loaded: Snapshot, row: DeviceRow) -> None:
    from profiler_kit.views.text import fmt_bytes, fmt_count, fmt_ns, fmt_path, fmt_percent

    device = row["device"]
    one = loaded.replay(device)
    name = "CPU" if row["device_type"] == "cpu" else f"device {device}"
    span_ns = int(one.times_us[-1] - one.times_us[0]) * NS_PER_US if len(one.times_us) else 0
    _line(
        console,
        f"{name}: {fmt_count(row['events'])} event{'s' * (row['events'] != 1)} in {fmt_ns(span_ns)}",
        style="bold",
    )
    region = loaded.peak_region(device)
    where = f", in {fmt_path(region)}" if region else ""
    when = f" at {_since(loaded.origin_us(device), row['peak_time_us'])}" if row["peak_time_us"] is not None else ""
    _line(console, f"  peak        {fmt_bytes(row['peak_allocated_bytes']):>12} allocated{when}{where}")
    _line(console, f"  at the end  {fmt_bytes(row['end_allocated_bytes']):>12} allocated")
    if row["device_type"] != "cpu":  # a CPU allocates from the system, without a cache between
        _line(
            console,
            f"  reserved    {fmt_bytes(row['reserved_bytes']):>12} at the end, "
            f"{fmt_percent(row['fragmentation'])} of it in no active block",
        )
    _print_warnings(console, loaded, row)
    console.print()
    _print_regions(row)
    _print_live(loaded, device)


def _print_warnings(console: Console, loaded: Snapshot, row: DeviceRow) -> None:
    from profiler_kit.analyses.memory import explain_oom
    from profiler_kit.views.text import fmt_bytes, fmt_count

    origin_us = loaded.origin_us(row["device"])
    for failed in loaded.failures(row["device"]):
        cached = failed.reserved_bytes - failed.allocated_bytes
        free = "an unknown amount" if failed.device_free_bytes is None else fmt_bytes(failed.device_free_bytes)
        _line(
            console,
            f"  out of memory at {_since(origin_us, failed.time_us)}: asked for {fmt_bytes(failed.requested_bytes)}; "
            f"{free} free on the device, {fmt_bytes(failed.allocated_bytes)} allocated, "
            f"{fmt_bytes(cached)} reserved but not allocated. "
            f"{explain_oom(failed.requested_bytes, failed.device_free_bytes, cached)}",
            style="red",
        )
    if row["history_truncated"]:
        missing = loaded.missing(row["device"])
        lost = missing.unmatched_frees + missing.recorded_before
        _line(
            console,
            f"  The history lost its beginning: at least {fmt_count(lost)} recorded allocations are missing, so that "
            "an earlier peak may be too. Record with a larger max_entries.",
            style="yellow",
        )
    if not row["events"]:
        _line(
            console,
            "  No history: only the state at the end is known. Record with profiler_kit.memory_runner, or call "
            "torch.cuda.memory._record_memory_history() before the run.",
            style="yellow",
        )


def _since(origin_us: int, time_us: int | None) -> str:
    from profiler_kit.views.text import fmt_ns

    return fmt_ns(None if time_us is None else (time_us - origin_us) * NS_PER_US)


def _print_regions(row: DeviceRow) -> None:
    from profiler_kit.views.text import fmt_bytes, fmt_count

    rows = row["regions"]
    columns = [
        [r["peak_bytes"] for r in rows],
        [r["allocated_bytes"] for r in rows],
        [r["freed_bytes"] for r in rows],
        [r["net_bytes"] for r in rows],
    ]
    units = [_unit(column) for column in columns]
    cells = [
        (
            "  " * (len(region["path"]) - 1) + region["path"][-1],
            fmt_count(region["instances"]),
            *(fmt_bytes(column[number], unit) for column, unit in zip(columns, units, strict=True)),
        )
        for number, region in enumerate(rows)
    ]
    names = ("region", "instances", "peak", "allocated", "freed", "net")
    print_table("Memory by region", names, cells, optional=("instances", "freed"))


def _print_live(loaded: Snapshot, device: int) -> None:
    from profiler_kit.analyses.stack_names import stack_name
    from profiler_kit.views.text import fmt_bytes, fmt_count, fmt_percent

    live = loaded.live_at_peak(device)
    unit = _unit(live["size_bytes"].tolist())
    columns = (live[column].head(LIVE_ROWS).tolist() for column in ("stack", "before", "count", "size_bytes", "share"))
    cells = [
        (stack_name(loaded.stacks[stack], before=before), fmt_count(count), fmt_bytes(size, unit), fmt_percent(share))
        for stack, before, count, size, share in zip(*columns, strict=True)
    ]
    rest = live.iloc[LIVE_ROWS:]
    if len(rest):
        more = fmt_bytes(int(rest["size_bytes"].sum()), unit), fmt_percent(float(rest["share"].sum()))
        cells.append((f"{fmt_count(len(rest))} more stacks", fmt_count(int(rest["count"].sum())), *more))
    names = ("allocated by", "allocations", "size", "share")
    print_table("Live at the peak", names, cells, optional=("allocations",))


def _unit(sizes: list[int]) -> ByteUnit:
    """One unit for a column, small enough that its small rows still say something."""
    from profiler_kit.views.text import byte_unit

    unit = byte_unit(sizes)
    return "MiB" if unit == "GiB" and max(map(abs, sizes)) < 100 * BYTES_PER_MIB * 1024 else unit


def _line(console: Console, text: str, *, style: str = "") -> None:
    console.print(printable(text), style=style, markup=False, highlight=False, soft_wrap=True)
