"""`profiler-kit memory SNAPSHOT [B]`: where memory went, or what changed; as tables, JSON, one HTML page."""

from __future__ import annotations

import os
import re
import sys
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from itertools import zip_longest
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Final

import typer

from profiler_kit.cli.diff import compare_memory, parse_percent
from profiler_kit.cli.output import check_formats, check_top, hanging, print_json
from profiler_kit.cli.table_command import print_filled
from profiler_kit.errors import InputError, OptionError
from profiler_kit.files import PLAIN_OR_PACKED, whole_file
from profiler_kit.formats.run_record import MEMORY, TRACE
from profiler_kit.names import printable
from profiler_kit.progress import progress_bar

if TYPE_CHECKING:
    from rich.console import Console

    from profiler_kit.snapshot import DeviceRow, Snapshot
    from profiler_kit.table import Filled, Value

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
# The tables that each option prints, and those whose rows are in --json under their key.
TABLES: Final = {
    "live": ("live_at_end",),
    "live_at_peak": ("live_at_peak", "live_by_region", "live_by_layer"),
    "leaks": ("memory_leaks", "memory_growth"),
    "lifetimes": ("memory_lifetimes",),
    "fragmentation": ("memory_moments",),
    "oom": ("out_of_memory",),
    "fits": ("memory_fits",),
    "by": ("memory_groups",),
}
IN_JSON: Final = TABLES | {"fragmentation": ("memory_fragmentation",), "oom": (), "fits": ()}
USUAL: Final = ("memory_stats", "memory_regions", "live_at_peak")
AT_END: Final = (
    "memory_stats",
    "live_at_end",
)  # what is printed of a device without a history, with those of OF_END asked for
OF_END: Final = ("out_of_memory", "memory_fits", "memory_groups", "memory_notes")
SAID: Final = ("memory_groups", "memory_notes")  # printed where the file itself says something of allocations


def _device(text: str) -> int:
    """The number of a device given as the table names it."""
    from profiler_kit.load.snapshot.data import HOST

    if text.lower() == "host":
        return HOST
    if not re.fullmatch(r"-?\d{1,9}", text, re.ASCII):
        raise typer.BadParameter("expected the number of a device, or host")
    return int(text)


def command(
    snapshot: Annotated[
        Path,
        typer.Argument(
            help="memory.pickle of memory_runner, torch.cuda.memory._dump_snapshot or torch.save "
            f"({PLAIN_OR_PACKED}), a run folder, or a chrome trace with [memory] events."
        ),
    ],
    other: Annotated[
        Path | None, typer.Argument(metavar="[B]", help="Another one, to compare with: B against the first.")
    ] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON instead of tables.")] = False,
    html: Annotated[
        Path | None, typer.Option(help="Also write a page that shows the memory: one offline file.")
    ] = None,
    device: Annotated[
        int | None,
        typer.Option(parser=_device, metavar="DEVICE", help="Only this device: 0, or host for pinned memory."),
    ] = None,
    live: Annotated[bool, typer.Option("--live", help="Show what is live at the end, by stack.")] = False,
    live_at_peak: Annotated[
        bool, typer.Option("--live-at-peak", help="Show what is live at the peak, by stack, region and layer.")
    ] = False,
    leaks: Annotated[bool, typer.Option("--leaks", help="Show what closed regions left behind, and growth.")] = False,
    lifetimes: Annotated[bool, typer.Option("--lifetimes", help="Show how long allocations lived, by stack.")] = False,
    fragmentation: Annotated[
        bool,
        typer.Option("--fragmentation", help="Show active, reserved and the largest free block, at the worst moments."),
    ] = False,
    oom: Annotated[bool, typer.Option("--oom", help="Show only the summary, and why allocations failed.")] = False,
    fits: Annotated[
        list[str] | None,
        typer.Option(metavar="SIZE", help="Show what an allocation of SIZE (512MiB) would have found."),
    ] = None,
    fail_above: Annotated[
        str | None,
        typer.Option(
            "--fail-above",
            metavar="PERCENT",
            help="With B: exit with 1 when a peak grew by more than this, such as 5%.",
        ),
    ] = None,
    as_markdown: Annotated[
        bool, typer.Option("--markdown", help="With B: print Markdown to paste into a pull request.")
    ] = False,
    by: Annotated[
        str | None, typer.Option("--by", help="Group by stack, metadata, category, compile_context or annotation.")
    ] = None,
    top: Annotated[int, typer.Option("--top", help="Rows of a table; --json has all.")] = LIVE_ROWS,
    memory_limit: Annotated[
        float | None, typer.Option(help="GiB of memory the reading process may use. [default: at most 3]")
    ] = None,
) -> None:
    """See what held the memory of a run: peak, regions, out-of-memory, what was live at the peak.

    With a second snapshot, see what changed: peaks, regions, and stacks, which are matched by the names of their
    functions and files, without lines. --fail-above asks the peaks of devices and of regions above 1 % of them.
    """
    limit = _limit(memory_limit)
    check_top(top)
    from profiler_kit.tables.memory import BY, parse_size

    sizes = [parse_size(size) for size in fits or ()]
    BY.check(by)
    asked = {"live": live, "live_at_peak": live_at_peak, "leaks": leaks, "lifetimes": lifetimes}
    asked |= {"fragmentation": fragmentation, "oom": oom}
    chosen = [name for name, yes in {**asked, "fits": bool(fits), "by": by is not None}.items() if yes]
    if other is not None:
        _refuse_alone(html=html, device=device, chosen=chosen)
        threshold = None if fail_above is None else parse_percent(fail_above)
        check_formats(as_json, as_markdown, "--markdown")
        sides = (_load(snapshot, limit), _load(other, limit))
        compare_memory(sides, (snapshot, other), limit=threshold, as_json=as_json, as_markdown=as_markdown, top=top)
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
        print_json({"devices": [to_json(loaded, row, chosen, sizes, by) for row in summary["devices"]]})
    else:
        names = [table for name in chosen for table in TABLES[name]] or [*USUAL, *SAID]
        options: dict[str, Mapping[str, Value]] = {
            "memory_fits": {"fits": ",".join(fits or ())},
            "memory_groups": {"by": by},
        }
        _print(loaded, summary["devices"], names, top, device=device, options=options)
    _refuse_empty(loaded)


def _file(path: Path) -> Path:
    """The snapshot of a run folder, or else its trace; any other path as it is."""
    from profiler_kit.load.discover.runs import part_file

    return part_file(path, MEMORY) or part_file(path, TRACE) or path


def _load(path: Path, limit: int | None) -> Snapshot:
    from profiler_kit.snapshot import load_snapshot

    file = _file(path)
    with progress_bar("Reading the snapshot") as report:
        return load_snapshot(file, memory_limit_bytes=limit, report=report)


def _refuse_alone(*, html: Path | None, device: int | None, chosen: Sequence[str]) -> None:
    """Raises OptionError for what says nothing about two snapshots."""
    if html is not None or device is not None or chosen:
        raise OptionError(
            "memory A B: --html, --device and the tables of one snapshot say nothing about two. Leave them out."
        )


def _refuse_empty(loaded: Snapshot) -> None:
    """Raises InputError when there is nothing in the snapshot, after that has been printed."""
    from profiler_kit.findings.devices import holds_memory

    if not any(holds_memory(row) for row in loaded.summary()["devices"]):
        raise InputError(
            f"{loaded.path}: it holds no event and no memory, expected a snapshot of a run. Record with "
            "profiler_kit.memory_runner, or call torch.cuda.memory._record_memory_history() before the run."
        )


def to_json(
    loaded: Snapshot, row: DeviceRow, chosen: Sequence[str], sizes: Sequence[int], by: str | None = None
) -> dict[str, object]:
    """What --json prints of one device: the contract, a key for each table asked for, and what the file says itself."""
    from profiler_kit.findings.out_of_memory import out_of_memory
    from profiler_kit.tables import every_table

    device = row["device"]
    values: Mapping[str, object] = row
    out = {key: values[key] for key in CONTRACT}
    out |= {name: values[name] for name in ("peak_bound", "device_type", "history_followed")}
    out |= {"left_out_blocks": row["left_out_blocks"], "left_out_segments": row["left_out_segments"]}
    missing = loaded.missing(device)
    out["missing_allocations"] = missing.unmatched_frees + missing.recorded_before if missing.truncated else 0
    asked = ["memory_stats", *(table for option in chosen for table in IN_JSON[option])]
    for name in dict.fromkeys((*asked, *(table for table in SAID if _says(loaded, table, device)))):
        table = every_table()[name]
        filled = table.of_source(loaded, device=device, **({"by": by} if name == "memory_groups" else {}))
        out[table.key] = _with_frames(loaded, filled)
    if "oom" in chosen:
        out["oom_reports"] = [
            {**(asdict(report) if report else {}), "lines": [one.line, *one.details]}
            for report, one in zip_longest(loaded.oom_reports(device), out_of_memory(loaded, device))
        ]
    if "fits" in chosen:
        out["fits"] = [asdict(loaded.fit(device, size)) for size in sizes]
    return out


def _says(loaded: Snapshot, table: str, device: int) -> bool:
    """Whether one of the tables SAID tells something of a device that only the file could say."""
    return bool(loaded.keys_said(device) if table == "memory_groups" else len(loaded.notes(device)))


def _with_frames(loaded: Snapshot, filled: Filled) -> list[dict[str, object]]:
    """The rows of a table; stacks as text, innermost frame first, in place of their number."""
    from profiler_kit.analyses.memory.stack_names import frame_text

    rows = filled.records()
    for row in rows if "stack" in filled.frame else ():
        row["frames"] = [frame_text(frame) for frame in loaded.stacks[row.pop("stack")]]
        row.update({key: None for key, value in row.items() if value != value})  # NaN is not JSON
    return rows


def _print(
    loaded: Snapshot,
    devices: Sequence[DeviceRow],
    names: Sequence[str],
    top: int,
    *,
    device: int | None,
    options: Mapping[str, Mapping[str, Value]],
) -> None:
    """The devices, then of each that did anything what is wrong with it and the tables asked for."""
    from rich.console import Console

    from profiler_kit.findings.memory import raised
    from profiler_kit.tables import every_table

    console = Console()
    print_filled(every_table()["memory_devices"].of_source(loaded, device=device), loaded.path)
    used = [row for row in devices if row["events"] or row["reserved_bytes"] or row["end_allocated_bytes"]]
    for row in used:
        _print_findings(console, loaded, row["device"], every_failure="out_of_memory" in names)
        shown = names if row["history_followed"] else [*AT_END, *(name for name in names if name in OF_END)]
        for name in shown:
            given = options.get(name, {})
            if name in SAID and not any(given.values()) and not _says(loaded, name, row["device"]):
                continue
            filled = every_table()[name].of_source(loaded, device=row["device"], **given)
            print_filled(filled, loaded.device_name(row["device"]) if len(used) > 1 else "", top)
    for one in raised(loaded):
        _line(console, one.sentence, style="red")


def _print_findings(console: Console, loaded: Snapshot, device: int, *, every_failure: bool) -> None:
    """What went wrong on a device; the peak is in the table."""
    from profiler_kit.findings import memory
    from profiler_kit.findings.out_of_memory import out_of_memory

    found = memory.of_device(loaded, device)[1:]
    if every_failure:
        found = out_of_memory(loaded, device) + [one for one in found if not one.id.startswith("out-of-memory")]
    for one in found:
        style = {"error": "red", "warning": "yellow"}.get(one.level, "")
        _line(console, one.line, style=style)
        for detail in one.details:
            _line(console, detail, start="  ", style=style)
    if found:
        console.print()


def _line(console: Console, text: str, *, start: str = "", style: str = "") -> None:
    console.print(hanging(start, printable(text)), style=style, markup=False, highlight=False, soft_wrap=True)


def _limit(gib: float | None) -> int | None:
    if gib is None:
        return None
    if not 0 < gib <= LARGEST_LIMIT_GIB:  # NaN fails both
        raise OptionError(
            f"--memory-limit: {gib:g} GiB cannot be used, expected a positive number up to {LARGEST_LIMIT_GIB}. "
            "Try --memory-limit 6."
        )
    return int(gib * (1 << 30))


def _check_page(html: Path, snapshot: Path) -> None:
    """Refuse, before anything is read, to write the page over what is not a page: the snapshot above all."""
    if os.path.isdir(html):  # noqa: PTH112 - unlike Path.is_dir, says no to a name that is too long
        raise OptionError(f"--html: {html} is a folder, expected a file. Try --html {html / 'memory.html'}.")
    if html.suffix.lower() not in PAGE_SUFFIXES:
        raise OptionError(
            f"--html: {html} does not end in .html, expected a page. Try --html "
            f"{html.with_suffix('.html') if html.name else 'memory.html'}."
        )
    if os.path.exists(html) and os.path.exists(snapshot) and html.samefile(snapshot):  # noqa: PTH110 - likewise
        raise OptionError(f"--html: {html} is the snapshot itself, expected another file.")


def _write_page(loaded: Snapshot, html: Path, device: int | None) -> None:
    from profiler_kit.render.memory_page.page import memory_page

    title = os.fsencode(Path(loaded.path).name).decode("utf-8", "replace")
    page = memory_page(loaded, title, device=device)
    with whole_file(html) as temporary:
        temporary.write_text(page, encoding="utf-8")
    print(f"wrote {printable(html)}", file=sys.stderr)
