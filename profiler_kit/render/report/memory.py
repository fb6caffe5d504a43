"""The memory of a run: over time, at the peak, by region, and why it ran out (Snapshot -> HTML)."""

from __future__ import annotations

from typing import Final

import numpy as np
import pandas as pd

from profiler_kit.analyses.memory.regions import MEMORY_REGION_SPANS, MEMORY_REGIONS
from profiler_kit.analyses.memory.replay import MEMORY_TIMELINE
from profiler_kit.analyses.memory.stack_names import stack_name
from profiler_kit.findings import memory as findings
from profiler_kit.findings.numbers import of_device
from profiler_kit.names import fit_names
from profiler_kit.render.downsample import keep_peaks
from profiler_kit.render.report.parts import (
    Colours,
    Column,
    counts,
    named,
    shares,
    size_unit,
    sizes,
    sub,
    table,
    tiles,
    verdict_line,
    warning,
)
from profiler_kit.render.svg import WIDE, bar, escape, line, percent, plot, swatch, tick_text, ticks
from profiler_kit.snapshot import DeviceRow, Snapshot
from profiler_kit.text import bytes_in, fmt_bytes, fmt_count, fmt_ns, fmt_path, ns_in, time_unit
from profiler_kit.timeline.palette import ALLOCATED, HUES, MARK, RESERVED, colour_of
from profiler_kit.units import NS_PER_US

POINTS: Final = 1_600
SPANS: Final = 400
HEIGHT_PX: Final = 240
BAND_PX: Final = 17
REGIONS: Final = 40
STACKS: Final = 15
NAME_LETTERS: Final = 48
_BAND_LABEL: Final = 0.03


def memory_section(snapshot: Snapshot, colours: Colours, *, lead: bool = True) -> str:
    """Every device that held memory. lead: with the sentence on the peak."""
    used = [row for row in snapshot.summary()["devices"] if findings.holds_memory(row)]
    several = len(used) > 1
    said = "".join(warning(one) for one in snapshot.findings() if one.id in ("raised", "no-memory-held"))
    return said + "".join(_device(snapshot, row, colours, several=several, lead=lead or several) for row in used)


def _device(snapshot: Snapshot, row: DeviceRow, colours: Colours, *, several: bool, lead: bool) -> str:
    device = row["device"]
    name = "CPU" if row["device_type"] == "cpu" else f"GPU {device}"
    first, *others = findings.of_device(snapshot, device)
    body = (
        (verdict_line(first) if lead else "")
        + "".join(map(warning, others))
        + tiles(of_device(row))
        + sub("Memory over time", memory_plot(snapshot, device, colours))
        + sub("Live at the peak", _live(snapshot, device), lead="Who held the memory when the total was highest.")
        + sub(
            "By region", _regions(snapshot, device, colours), lead="From the record_function regions in the snapshot."
        )
    )
    return f"<h3>{escape(name)}</h3>{body}" if several else body


def memory_plot(snapshot: Snapshot, device: int, colours: Colours) -> str:
    """Allocated and reserved memory over time with the peak marked, and the regions below; empty without a history."""
    timeline, spans = snapshot.timeline(), snapshot.region_spans()
    timeline, spans = timeline[timeline["device"] == device], spans[spans["device"] == device]
    if timeline.empty:
        return ""
    MEMORY_TIMELINE.check(timeline)
    base = snapshot.origin_us(device)
    spans = spans[spans["end_us"] >= base]
    last = max(int(timeline["time_us"].iloc[-1]), int(spans["end_us"].max()) if len(spans) else base)
    span_us = max(last - base, 1)
    reserves = snapshot.device_type(device) != "cpu"
    top = 1.1 * max(1, *(int(timeline[c].max()) for c in ("allocated_bytes", "reserved_bytes")[: 1 + reserves]))
    allocated = timeline["allocated_bytes"].to_numpy(np.int64)
    peak = int(allocated.argmax())
    at = ((timeline["time_us"].to_numpy() - base) / span_us).clip(0, 1)

    def points(values: np.ndarray[tuple[int, ...], np.dtype[np.int64]]) -> list[tuple[float, float]]:
        rows = keep_peaks(values, POINTS)
        return [*((float(at[row]), float(values[row]) / top) for row in rows), (1.0, float(values[-1]) / top)]

    area = line(points(allocated), HEIGHT_PX, steps=True)
    body = (
        f'<path d="{area}V{HEIGHT_PX}H{WIDE * float(at[0]):.1f}z" fill="{ALLOCATED}" opacity=".25"/>'
        f'<path class="line" d="{area}" stroke="{ALLOCATED}"/>'
    )
    if reserves:
        held = line(points(timeline["reserved_bytes"].to_numpy(np.int64)), HEIGHT_PX, steps=True)
        body += f'<path class="line" d="{held}" stroke="{RESERVED}" stroke-dasharray="5 4"/>'
    unit, clock = size_unit([int(top)]), time_unit((span_us * NS_PER_US,))
    length = ns_in(span_us * NS_PER_US, clock)
    legend = f"<li>{swatch(ALLOCATED)}allocated by tensors</li>" + (
        f"<li>{swatch(RESERVED)}reserved from the driver</li>" if reserves else ""
    )
    picture = plot(
        body, _peak(float(at[peak]), int(allocated[peak]), top), height=HEIGHT_PX,
        y_ticks=[(value / bytes_in(top, unit), f"{tick_text(value)} {unit}") for value in ticks(bytes_in(top, unit))],
        x_ticks=[(value / length, f"{tick_text(value)} {clock}") for value in ticks(length, 7)],
        label=f"Allocated memory over {fmt_ns(span_us * NS_PER_US)}, peak {fmt_bytes(int(allocated.max()))}",
    )  # fmt: skip
    return f'{picture}{_bands(spans, base, span_us, colours)}<ul class="legend">{legend}</ul>'


def _peak(x: float, value: int, top: float) -> str:
    y = HEIGHT_PX * (1 - value / top)
    side = "start" if x < 0.1 else "end" if x > 0.9 else "middle"
    return (
        f'<circle cx="{percent(x)}" cy="{y:.1f}" r="4.5" fill="{MARK}"/>'
        f'<text class="peak" x="{percent(x)}" y="{y - 9:.1f}" text-anchor="{side}">'
        f"peak {fmt_bytes(value)}</text>"
    )


def _bands(spans: pd.DataFrame, base: int, span_us: int, colours: Colours) -> str:
    """The regions below the line: one bar an instance, a row a nesting level."""
    if spans.empty:
        return ""
    MEMORY_REGION_SPANS.check(spans)
    rows = spans.assign(length=spans["end_us"] - spans["start_us"]).nlargest(SPANS, "length")
    depth = min(int(spans["path"].map(len).max()), 6)
    out = []
    for path, start, length in zip(rows["path"], rows["start_us"], rows["length"], strict=True):
        if len(path) > depth:
            continue
        x, wide = max(0.0, (start - base) / span_us), length / span_us
        name = f'<text class="in" x="4" y="12.5">{escape(path[-1])}</text>' if wide > _BAND_LABEL else ""
        out.append(
            f'<svg x="{percent(x)}" y="{(len(path) - 1) * BAND_PX}" width="{percent(max(wide, 0.001))}" '
            f'height="{BAND_PX - 1}"><rect width="100%" height="100%" fill="{colour_of(colours, path[-1])}"><title>'
            f"{escape(fmt_path(path))}\n{fmt_ns(int(length) * NS_PER_US)}</title></rect>{name}</svg>"
        )
    return (
        f'<div class="plot bands"><span></span><svg width="100%" height="{depth * BAND_PX}" role="img" '
        f'aria-label="Regions over time">{"".join(out)}</svg></div>'
    )


def _live(snapshot: Snapshot, device: int) -> str:
    live = snapshot.live_at_peak(device)
    rows = live.head(STACKS)
    if rows.empty:
        return ""
    places = [
        stack_name(snapshot.stacks[int(stack)], before=bool(before))
        for stack, before in zip(rows["stack"], rows["before"], strict=True)
    ]
    columns = [
        Column("allocated by", fit_names(places, 90), "text", "The innermost Python frame of the stack.", places),
        Column("", [bar(float(share), HUES[0], height=10) for share in rows["share"]], "html"),
        shares("share", list(rows["share"]), "Of all that was allocated at the peak."),
        sizes("size", list(rows["size_bytes"])),
        counts("allocations", list(rows["count"])),
    ]
    rest = live.iloc[STACKS:]
    more = f"{fmt_count(len(rest))} more stacks: {fmt_bytes(int(rest['size_bytes'].sum()))}." if len(rest) else ""
    return table(columns, "Live at the peak") + (f'<p class="note">{more}</p>' if more else "")


def _regions(snapshot: Snapshot, device: int, colours: Colours) -> str:
    regions = MEMORY_REGIONS.check(snapshot.regions())
    regions = regions[regions["device"] == device].head(REGIONS)
    if regions.empty:
        return ""
    paths = list(regions["path"])
    names = fit_names([path[-1] for path in paths], [max(16, NAME_LETTERS - 2 * len(path)) for path in paths])
    columns = [
        Column(
            "region",
            [named(colour_of(colours, path[-1]), name, len(path) - 1) for path, name in zip(paths, names, strict=True)],
            "html",
            full=[fmt_path(path) for path in paths],
        ),
        sizes("peak", list(regions["peak_bytes"]), "Highest total of the device while the region was open."),
        sizes("allocated", list(regions["allocated_bytes"]), "Allocated while it was open."),
        sizes("freed", list(regions["freed_bytes"]), "Freed while it was open."),
        sizes("net", list(regions["net_bytes"]), "Allocated less freed: what it left behind."),
        counts("times", list(regions["instances"])),
    ]
    return table(columns, "Memory by region", sortable=False)
