"""Print what a snapshot says: a summary of each device, then the tables asked for (Snapshot -> text)."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from profiler_kit.cli.output import print_table
from profiler_kit.names import printable
from profiler_kit.units import BYTES_PER_MIB, NS_PER_US

if TYPE_CHECKING:
    import pandas as pd
    from rich.console import Console

    from profiler_kit.snapshot import DeviceRow, Snapshot
    from profiler_kit.text import ByteUnit


@dataclass(frozen=True)
class Wanted:
    """Which tables to print beside the summary; sizes: for which allocations to say what they would have found."""

    live: bool = False
    leaks: bool = False
    lifetimes: bool = False
    fragmentation: bool = False
    oom: bool = False
    sizes: tuple[int, ...] = ()
    top: int = 10

    @property
    def any(self) -> bool:
        """Whether one of them was asked for, which then stands in place of the usual tables."""
        return any((self.live, self.leaks, self.lifetimes, self.fragmentation, self.oom, self.sizes))


def print_snapshot(loaded: Snapshot, devices: list[DeviceRow], wanted: Wanted) -> None:
    """The summary of each device that did anything, with its tables."""
    from rich.console import Console

    from profiler_kit.findings.memory import raised

    console = Console()
    used = [row for row in devices if row["events"] or row["reserved_bytes"] or row["end_allocated_bytes"]]
    for row in used:
        _print_device(console, loaded, row, wanted)
    idle = [str(row["device"]) for row in devices if row not in used]
    if idle:
        _line(console, f"device {', '.join(idle)}: nothing allocated, no events")
    for one in raised(loaded):
        _line(console, one.sentence, style="red")


def _print_device(console: Console, loaded: Snapshot, row: DeviceRow, wanted: Wanted) -> None:
    device = row["device"]
    _print_summary(console, loaded, row)
    _print_findings(console, loaded, device, every_failure=wanted.oom)
    console.print()
    if not wanted.any:
        _print_regions(row)
        _print_live(loaded, device, wanted.top)
    if wanted.live:
        _print_live(loaded, device, wanted.top)
        for title, tree in (("region", loaded.live_by_region(device)), ("layer", loaded.live_by_layer(device))):
            _print_tree(f"Live at the peak, by the {title} that allocated", title, tree, wanted.top)
    if wanted.leaks:
        _print_leaks(loaded, device, wanted.top)
    if wanted.lifetimes:
        _print_lifetimes(loaded, device, wanted.top)
    if wanted.fragmentation:
        _print_fragmentation(loaded, device)
    if wanted.sizes:
        _print_fits(loaded, device, wanted.sizes)


def _print_summary(console: Console, loaded: Snapshot, row: DeviceRow) -> None:
    from profiler_kit.text import fmt_bytes, fmt_count, fmt_ns, fmt_path, fmt_percent

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


def _print_findings(console: Console, loaded: Snapshot, device: int, *, every_failure: bool) -> None:
    """What went wrong on a device; the peak is in the summary."""
    from profiler_kit.findings import memory

    found = memory.of_device(loaded, device)[1:]
    if every_failure:
        found = memory.out_of_memory(loaded, device) + [one for one in found if not one.id.startswith("out-of-memory")]
    for one in found:
        style = {"error": "red", "warning": "yellow"}.get(one.level, "")
        _line(console, f"  {one.line}", style=style)
        for line in one.details:
            _line(console, f"    {line}", style=style)


def _since(origin_us: int, time_us: int | None) -> str:
    from profiler_kit.text import fmt_ns

    return fmt_ns(None if time_us is None else (time_us - origin_us) * NS_PER_US)


def _print_regions(row: DeviceRow) -> None:
    from profiler_kit.text import fmt_bytes, fmt_count

    rows = row["regions"]
    columns = [
        [r["peak_bytes"] for r in rows],
        [r["allocated_bytes"] for r in rows],
        [r["freed_bytes"] for r in rows],
        [r["net_bytes"] for r in rows],
        [r["churn_bytes"] for r in rows],
        [r["largest_bytes"] for r in rows],
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
    names = ("region", "instances", "peak", "allocated", "freed", "net", "churn", "largest")
    print_table("Memory by region", names, cells, optional=("instances", "freed", "churn", "largest"))


def _print_live(loaded: Snapshot, device: int, top: int) -> None:
    from profiler_kit.analyses.memory.stack_names import stack_name
    from profiler_kit.text import fmt_bytes, fmt_count, fmt_percent

    live = loaded.live_at_peak(device)
    unit = _unit(live["size_bytes"].tolist())
    columns = (live[column].head(top).tolist() for column in ("stack", "before", "count", "size_bytes", "share"))
    cells = [
        (stack_name(loaded.stacks[stack], before=before), fmt_count(count), fmt_bytes(size, unit), fmt_percent(share))
        for stack, before, count, size, share in zip(*columns, strict=True)
    ]
    rest = live.iloc[top:]
    if len(rest):
        more = fmt_bytes(int(rest["size_bytes"].sum()), unit), fmt_percent(float(rest["share"].sum()))
        cells.append((f"{fmt_count(len(rest))} more stacks", fmt_count(int(rest["count"].sum())), *more))
    names = ("allocated by", "allocations", "size", "share")
    print_table("Live at the peak", names, cells, optional=("allocations",))


def _print_tree(title: str, what: str, tree: pd.DataFrame, top: int) -> None:
    from profiler_kit.text import fmt_bytes, fmt_count, fmt_percent

    shown = tree.head(max(top, 2 * top))
    unit = _unit(tree["size_bytes"].tolist())
    columns = (shown[name].tolist() for name in ("path", "count", "size_bytes", "self_bytes", "share"))
    cells = [
        (
            "  " * (len(path) - 1) + path[-1],
            fmt_count(count),
            fmt_bytes(size, unit),
            fmt_bytes(own, unit),
            fmt_percent(share),
        )
        for path, count, size, own, share in zip(*columns, strict=True)
    ]
    print_table(title, (what, "allocations", "size", "self", "share"), cells, optional=("allocations", "self"))


def _print_leaks(loaded: Snapshot, device: int, top: int) -> None:
    from profiler_kit.analyses.memory.stack_names import stack_name
    from profiler_kit.text import fmt_bytes, fmt_count, fmt_path

    leaks = loaded.leaks(device)
    unit = _unit(leaks["size_bytes"].tolist())
    cells = [
        (
            stack_name(loaded.stacks[row["stack"]]),
            fmt_path(row["path"]),
            f"{fmt_count(row['instances_left'])} of {fmt_count(row['instances'])}",
            fmt_count(row["count"]),
            fmt_bytes(row["size_bytes"], unit),
            "grows" if row["growing"] else "",
        )
        for row in leaks.head(top).to_dict("records")
    ]
    title = "Live at the end though its region closed" + (
        f" ({len(leaks)}, the first {top})" if len(leaks) > top else ""
    )
    names = ("allocated by", "region", "instances", "allocations", "size", "")
    print_table(title, names, cells or [("nothing", *[""] * 5)], left=2, optional=("allocations", "instances"))
    growth = loaded.growth(device)
    unit = _unit(growth["last_bytes"].tolist())
    cells = [
        (
            fmt_path(row["path"]),
            fmt_count(row["instances"]),
            fmt_bytes(row["first_bytes"], unit),
            fmt_bytes(row["last_bytes"], unit),
            fmt_bytes(row["median_step_bytes"]),
            f"{fmt_count(row['growing_steps'])} of {fmt_count(row['steps'])}",
        )
        for row in growth.head(top).to_dict("records")
    ]
    if cells:
        names = ("region", "instances", "after the first", "after the last", "median change", "grew")
        print_table("Total from instance to instance", names, cells, optional=("instances",))


def _print_lifetimes(loaded: Snapshot, device: int, top: int) -> None:
    from profiler_kit.analyses.memory.stack_names import stack_name
    from profiler_kit.text import fmt_bytes, fmt_count, fmt_ns

    frame = loaded.lifetimes()
    frame = frame[frame["device"] == device].head(top)
    unit = _unit(frame["size_bytes"].tolist())
    cells = [
        (
            stack_name(loaded.stacks[row["stack"]]),
            fmt_count(row["count"]),
            fmt_bytes(row["size_bytes"], unit),
            fmt_count(row["live_count"]),
            *(fmt_ns(None if row[key] != row[key] else row[key] * NS_PER_US) for key in ("median_us", "max_us")),
        )
        for row in frame.to_dict("records")
    ]
    names = ("allocated by", "allocations", "allocated", "live at the end", "median life", "longest")
    print_table("Lifetimes, most allocated first", names, cells, optional=("live at the end", "longest"))


def _print_fragmentation(loaded: Snapshot, device: int) -> None:
    from profiler_kit.text import fmt_bytes, fmt_percent

    one, blocks = loaded.replay(device), loaded.block_replay(device)
    origin = loaded.origin_us(device)
    idle = one.reserved_bytes - blocks.active_bytes
    last = len(idle) - 1
    moments = {"peak": one.peak, "most in no active block": int(idle.argmax())}
    moments |= {"most beside blocks in use": int(blocks.split_bytes.argmax())}
    moments |= {f"out of memory {n}": report.state for n, report in enumerate(loaded.oom_reports(device), 1)}
    moments["end"] = last
    unit = _unit(one.reserved_bytes.tolist())
    cells = []
    for name, state in moments.items():
        time_us = int(one.times_us[max(state - 1, 0)]) if len(one.times_us) else None
        reserved = int(one.reserved_bytes[state])
        values = (
            one.allocated_bytes,
            blocks.active_bytes,
            one.reserved_bytes,
            blocks.largest_free_bytes,
            blocks.split_bytes,
        )
        share = int(idle[state]) / reserved if reserved else 0.0
        cells.append(
            (name, _since(origin, time_us), *(fmt_bytes(int(v[state]), unit) for v in values), fmt_percent(share))
        )
    names = (
        "moment",
        "time",
        "allocated",
        "active",
        "reserved",
        "largest free",
        "inactive split",
        "in no active block",
    )
    print_table("Fragmentation", names, cells, optional=("allocated", "time"))
    if blocks.mismatches:
        print(f"{blocks.mismatches} blocks differ from torch's own at the end: the settings changed on the way.\n")


def _print_fits(loaded: Snapshot, device: int, sizes: tuple[int, ...]) -> None:
    from profiler_kit.text import fmt_bytes, fmt_percent

    one = loaded.replay(device)
    cells = []
    for size in sizes:
        fits = loaded.fits(device, size)
        texts = []
        for state in (one.peak, len(fits) - 1):
            found = loaded.fit(device, size, state=state)
            texts.append(
                f"a free block of {fmt_bytes(found.found_bytes)}"
                if found.found is not None
                else f"a new segment of {fmt_bytes(found.segment_bytes)}"
            )
        cells.append((fmt_bytes(size), *texts, fmt_percent(float(fits.mean()))))
    names = ("an allocation of", "at the peak", "at the end", "events with a free block")
    print_table("What an allocation would have found, default pool and stream", names, cells)


def _unit(sizes: list[int]) -> ByteUnit:
    """One unit for a column, small enough that its small rows still say something."""
    from profiler_kit.text import byte_unit

    unit = byte_unit(sizes)
    return "MiB" if unit == "GiB" and max(map(abs, sizes)) < 100 * BYTES_PER_MIB * 1024 else unit


def _line(console: Console, text: str, *, style: str = "") -> None:
    console.print(printable(text), style=style, markup=False, highlight=False, soft_wrap=True)
