"""`profiler-kit memory SNAPSHOT [B]`: where memory went, or what changed (-> tables, JSON, one HTML page)."""

from __future__ import annotations

import os
import re
import sys
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Final

import typer

from profiler_kit.cli import memory_diff
from profiler_kit.cli.diff import parse_percent
from profiler_kit.cli.memory_tables import Wanted, print_snapshot
from profiler_kit.cli.output import check_top, print_json, records
from profiler_kit.errors import InputError, OptionError
from profiler_kit.files import whole_file
from profiler_kit.formats.run_record import MEMORY, TRACE
from profiler_kit.progress import progress_bar

if TYPE_CHECKING:
    import pandas as pd

    from profiler_kit.snapshot import DeviceRow, Snapshot

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
_SIZE: Final = re.compile(r"(\d+(?:\.\d+)?)\s*([KMGT]?)I?B?", re.IGNORECASE)
_UNITS: Final = {"": 1, "K": 1 << 10, "M": 1 << 20, "G": 1 << 30, "T": 1 << 40}


def command(
    snapshot: Annotated[
        Path,
        typer.Argument(
            help="memory.pickle of memory_runner or torch.cuda.memory._dump_snapshot, a run folder, or a chrome trace "
            "with [memory] events"
        ),
    ],
    other: Annotated[
        Path | None, typer.Argument(metavar="[B]", help="another one: compare what it is (B) with what was")
    ] = None,
    as_json: Annotated[bool, typer.Option("--json", help="print JSON instead of tables")] = False,
    html: Annotated[Path | None, typer.Option(help="also write a page that shows the memory, one offline file")] = None,
    device: Annotated[int | None, typer.Option(help="only this device")] = None,
    live: Annotated[bool, typer.Option("--live-at-peak", help="by stack, region and layer")] = False,
    leaks: Annotated[bool, typer.Option("--leaks", help="what regions that closed left behind, and growth")] = False,
    lifetimes: Annotated[bool, typer.Option("--lifetimes", help="how long allocations lived, by stack")] = False,
    fragmentation: Annotated[
        bool, typer.Option("--fragmentation", help="active, reserved and the largest free block, at the worst moments")
    ] = False,
    oom: Annotated[bool, typer.Option("--oom", help="only the summary, and why allocations failed")] = False,
    fits: Annotated[
        list[str] | None, typer.Option(metavar="SIZE", help="what an allocation of SIZE (512MiB) would have found")
    ] = None,
    fail_above: Annotated[
        str | None,
        typer.Option("--fail-above", metavar="PERCENT", help="with B: exit with 1 when a peak grew more, such as 5%"),
    ] = None,
    as_markdown: Annotated[
        bool, typer.Option("--markdown", help="with B: print Markdown to paste into a pull request")
    ] = False,
    top: Annotated[int, typer.Option("--top", help="rows of a table; --json has all")] = LIVE_ROWS,
    memory_limit: Annotated[
        float | None, typer.Option(help="GiB of memory the reading process may use (3 at most by itself)")
    ] = None,
) -> None:
    """See what held the memory of a run: peak, regions, out-of-memory, what was live at the peak.

    With a second snapshot, see what changed: peaks, regions, and stacks, which are matched by the names of their
    functions and files, without lines. --fail-above asks the peaks of devices and of regions above 1 % of them.
    """
    limit = _limit(memory_limit)
    check_top(top)
    wanted = Wanted(live, leaks, lifetimes, fragmentation, oom, tuple(map(parse_size, fits or ())), top)
    if other is not None:
        _refuse_alone(html=html, device=device, wanted=wanted)
        threshold = None if fail_above is None else parse_percent(fail_above)
        if as_json and as_markdown:
            raise OptionError("--json --markdown: these exclude each other, want one of them. Leave one out.")
        sides = (_load(snapshot, limit), _load(other, limit))
        memory_diff.compare(
            sides, (snapshot, other), limit=threshold, as_json=as_json, as_markdown=as_markdown, top=top
        )
        return
    if fail_above is not None or as_markdown:
        name = "--markdown" if as_markdown else f"--fail-above {fail_above}"
        raise OptionError(f"{name}: this compares two snapshots, found one. Try: profiler-kit memory A B {name}")
    if html is not None:
        _check_page(html, _file(snapshot))
    loaded = _load(snapshot, limit)
    summary = loaded.summary(device)
    if html is not None:
        _write_page(loaded, html, device)
    if as_json:
        print_json({"devices": [to_json(loaded, row, wanted) for row in summary["devices"]]})
    else:
        print_snapshot(loaded, summary["devices"], wanted)
    _refuse_empty(loaded)


def _file(path: Path) -> Path:
    """The snapshot of a run folder, or else its trace; any other path as it is."""
    for name in (MEMORY, TRACE):
        if os.path.isfile(path / name):  # noqa: PTH113 - unlike Path.is_file, says no to a name that is too long
            return path / name
    return path


def _load(path: Path, limit: int | None) -> Snapshot:
    from profiler_kit.snapshot import load_snapshot

    file = _file(path)
    with progress_bar("Reading the snapshot") as report:
        return load_snapshot(file, memory_limit_bytes=limit, report=report)


def _refuse_alone(*, html: Path | None, device: int | None, wanted: Wanted) -> None:
    """Raises OptionError for what says nothing about two snapshots."""
    if html is not None or device is not None or wanted.any:
        raise OptionError(
            "memory A B: --html, --device and the tables of one snapshot say nothing about two. Leave them out."
        )


def _refuse_empty(loaded: Snapshot) -> None:
    """Raises InputError when the history is empty, after what is known of the end has been printed."""
    if not len(loaded.events):
        raise InputError(
            f"{loaded.path}: its history is empty, so that only the state at the end is known. Record with "
            "profiler_kit.memory_runner, or call torch.cuda.memory._record_memory_history() before the run."
        )


def parse_size(text: str) -> int:
    """512MiB in bytes; raises OptionError for what is no size."""
    found = _SIZE.fullmatch(text.strip())
    size = int(float(found[1]) * _UNITS[found[2].upper()]) if found else 0
    if not 0 < size < 1 << 50:
        raise OptionError(f"--fits {text}: this is no size, want a number with KiB, MiB or GiB. Try: --fits 512MiB")
    return size


def to_json(loaded: Snapshot, row: DeviceRow, wanted: Wanted) -> dict[str, object]:
    """What --json prints of one device: the contract, and a key for each table asked for."""
    device = row["device"]
    out: dict[str, object] = {key: row[key] for key in CONTRACT}  # type: ignore[literal-required]
    out["device_type"] = row["device_type"]
    missing = loaded.missing(device)
    out["missing_allocations"] = missing.unmatched_frees + missing.recorded_before if missing.truncated else 0
    if wanted.live:
        out["live_at_peak"] = _with_stacks(loaded, loaded.live_at_peak(device))
        out["live_by_region"] = records(loaded.live_by_region(device))
        out["live_by_layer"] = records(loaded.live_by_layer(device))
    if wanted.leaks:
        out["leaks"] = _with_stacks(loaded, loaded.leaks(device))
        out["growth"] = records(loaded.growth(device))
    if wanted.lifetimes:
        frame = loaded.lifetimes()
        out["lifetimes"] = _with_stacks(loaded, frame[frame["device"] == device])
    if wanted.fragmentation:
        frame = loaded.fragmentation()
        out["fragmentation_timeline"] = records(frame[frame["device"] == device])
    if wanted.oom:
        from profiler_kit.findings.memory import out_of_memory

        out["oom_reports"] = [
            {**asdict(report), "lines": [one.line, *one.details]}
            for report, one in zip(loaded.oom_reports(device), out_of_memory(loaded, device), strict=True)
        ]
    if wanted.sizes:
        out["fits"] = [asdict(loaded.fit(device, size)) for size in wanted.sizes]
    return out


def _with_stacks(loaded: Snapshot, frame: pd.DataFrame) -> list[dict[str, object]]:
    """Rows with their stack as text, innermost first, in place of its number."""
    rows = records(frame)
    for row in rows:
        frames = loaded.stacks[row.pop("stack")]
        row["frames"] = [f"{one.name} ({one.filename}:{one.line})" if one.filename else one.name for one in frames]
        row.update({key: None for key, value in row.items() if value != value})  # NaN is no JSON
    return rows


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
    from profiler_kit.render.memory_page.page import memory_page

    title = os.fsencode(Path(loaded.path).name).decode("utf-8", "replace")
    page = memory_page(loaded, title, device=device)
    try:
        with whole_file(html) as temporary:
            temporary.write_text(page, encoding="utf-8")
    except OSError as error:
        raise InputError(f"{html}: cannot be written ({error.strerror}). Choose another path for --html.") from error
    print(f"wrote {html}", file=sys.stderr)
