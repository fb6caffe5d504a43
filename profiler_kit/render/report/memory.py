"""The memory of a run: over time, at the peak, by region, and why it ran out."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from typing import Final

import numpy as np
import numpy.typing as npt
import pandas as pd
from markupsafe import Markup

from profiler_kit.analyses.memory.regions import MEMORY_REGION_SPANS
from profiler_kit.analyses.memory.replay import MEMORY_TIMELINE
from profiler_kit.findings import memory as findings
from profiler_kit.findings.devices import holds_memory
from profiler_kit.findings.numbers import of_device
from profiler_kit.render.downsample import keep_peaks
from profiler_kit.render.html import Colours, table_html
from profiler_kit.render.report.section import Block, Section
from profiler_kit.render.svg import Dot, curve, dots, draw, joined, legend, marks, percent, plot
from profiler_kit.snapshot import DeviceRow, Snapshot
from profiler_kit.tables import every_table
from profiler_kit.tables.memory import live
from profiler_kit.text import byte_unit, bytes_in, fmt_bytes, fmt_ns, fmt_path, ns_in, time_unit
from profiler_kit.timeline.palette import ALLOCATED, MARK, RESERVED, colour_of
from profiler_kit.units import NS_PER_US

POINTS: Final = 1_200
SPANS: Final = 400
HEIGHT_PX: Final = 240
BAND_PX: Final = 17
REGIONS: Final = 40
STACKS: Final = 15
_BAND_LABEL: Final = 0.03


SHOWN: Final = ("live_at_peak", "memory_regions")  # the tables that this section shows


def memory_section(snapshot: Snapshot, colours: Colours, prefix: str = "", *, lead: bool = True) -> Section:
    """Every device that held memory. lead: with the sentence on the peak."""
    used = [row for row in snapshot.summary()["devices"] if holds_memory(row)]
    said = [one for one in snapshot.findings() if one.id in ("raised", "no-memory-held")]
    parts = [_device(snapshot, row, colours, lead=lead or len(used) > 1) for row in used]
    whole = Section(f"{prefix}memory", "Memory", warnings=said, parts=parts)
    if len(parts) != 1:
        return whole
    return replace(parts[0], anchor=whole.anchor, title=whole.title, warnings=[*said, *parts[0].warnings])


def _device(snapshot: Snapshot, row: DeviceRow, colours: Colours, *, lead: bool) -> Section:
    device = row["device"]
    first, *others = findings.of_device(snapshot, device)
    of_live, regions = live(row), every_table()["memory_regions"].of_source(snapshot, device=device)
    title, meaning = ("Live at the peak", "What held the memory when the total was highest.")
    if not row["history_followed"]:
        title, meaning = ("Live at the end", "What held the memory when the snapshot was saved.")
    return Section(
        "",
        snapshot.device_name(device, "GPU"),
        said=first if lead else None,
        warnings=others,
        numbers=of_device(row),
        rows=[
            [Block("Memory over time", memory_plot(snapshot, device, colours))],
            [Block(title, table_html(of_live.of_source(snapshot, device=device), top=STACKS), meaning)],
            [Block("By region", table_html(regions, top=REGIONS, colours=colours),
                   "From the record_function regions in the snapshot.")],
        ],
    )  # fmt: skip


def memory_plot(snapshot: Snapshot, device: int, colours: Colours) -> Markup:
    """Allocated and reserved memory over time with the peak marked, and the regions below; empty without a history."""
    timeline, spans = snapshot.timeline(), snapshot.region_spans()
    timeline, spans = timeline[timeline["device"] == device], spans[spans["device"] == device]
    if timeline.empty:
        return Markup()
    MEMORY_TIMELINE.check(timeline)
    timed = snapshot.replay(device).timed
    if not timed:  # one after the other
        timeline = timeline.assign(time_us=np.arange(len(timeline)))
    base = snapshot.origin_us(device)
    spans = spans[spans["end_us"] >= base]
    last = max(int(timeline["time_us"].iloc[-1]), int(spans["end_us"].max()) if len(spans) else base)
    span_us = max(last - base, 1)
    at = ((timeline["time_us"].to_numpy() - base) / span_us).clip(0, 1)
    columns = ["allocated_bytes"] if snapshot.device_type(device) == "cpu" else ["allocated_bytes", "reserved_bytes"]
    top = 1.1 * max(1, *(int(timeline[column].max()) for column in columns))

    def points(column: str) -> list[tuple[float, float]]:
        values: npt.NDArray[np.int64] = timeline[column].to_numpy(np.int64)
        kept = [(float(at[row]), float(values[row]) / top) for row in keep_peaks(values, POINTS)]
        return [*kept, (1.0, float(values[-1]) / top)]

    lines = [curve(points("allocated_bytes"), HEIGHT_PX, ALLOCATED, holds=True, filled=True)]
    if len(columns) > 1:
        lines.append(curve(points("reserved_bytes"), HEIGHT_PX, RESERVED, holds=True, dash="5 4"))
    peak = int(timeline["allocated_bytes"].to_numpy().argmax())
    highest = int(timeline["allocated_bytes"].iloc[peak])
    unit, clock = byte_unit([int(top)]), time_unit((span_us * NS_PER_US,))
    unit = "MiB" if unit == "GiB" and top < 100 << 30 else unit
    over = fmt_ns(span_us * NS_PER_US) if timed else "its changes"
    picture = plot(
        lines, _peak(float(at[peak]), highest, top), height=HEIGHT_PX,
        y_ticks=marks(bytes_in(top, unit), unit),
        x_ticks=marks(ns_in(span_us * NS_PER_US, clock), clock, 7) if timed else marks(span_us, "changes", 7),
        label=f"Allocated memory over {over}, peak {fmt_bytes(highest)}",
    )  # fmt: skip
    names = ((ALLOCATED, "requested by tensors"), (RESERVED, "reserved from the driver"))[: len(columns)]
    return picture + _bands(spans, base, span_us, colours) + legend(names)


def _peak(x: float, value: int, top: float) -> list[Markup]:
    side = "start" if x < 0.1 else "end" if x > 0.9 else "middle"
    text = '<text class="peak" x="{}" y="{:.1f}" text-anchor="{}">peak {}</text>'
    named = draw(text, percent(x), HEIGHT_PX * (1 - value / top) - 9, side, fmt_bytes(value))
    return [*dots([Dot(x, value / top, MARK, radius=4.5)], HEIGHT_PX), named]


def _bands(spans: pd.DataFrame, base: int, span_us: int, colours: Colours) -> Markup:
    """The regions below the line: one bar an instance, a row a nesting level."""
    if spans.empty:
        return Markup()
    MEMORY_REGION_SPANS.check(spans)
    rows = spans.assign(length=spans["end_us"] - spans["start_us"]).nlargest(SPANS, "length")
    depth = min(int(spans["path"].map(len).max()), 6)
    whole = (
        '<div class="plot bands"><span></span><svg width="100%" height="{}" role="img" aria-label="Regions over time">'
        "{}</svg></div>"
    )
    return draw(whole, depth * BAND_PX, joined(_bands_of(rows[rows["path"].map(len) <= depth], base, span_us, colours)))


def _bands_of(rows: pd.DataFrame, base: int, span_us: int, colours: Colours) -> Iterator[Markup]:
    for path, start, length in zip(rows["path"], rows["start_us"], rows["length"], strict=True):
        wide = length / span_us
        name = draw('<text class="in" x="4" y="12.5">{}</text>', path[-1]) if wide > _BAND_LABEL else Markup()
        yield draw(
            '<svg x="{}" y="{}" width="{}" height="{}"><rect width="100%" height="100%" fill="{}"><title>{}\n{}</title>'
            "</rect>{}</svg>",
            percent(max(0.0, (start - base) / span_us)), (len(path) - 1) * BAND_PX, percent(max(wide, 0.001)),
            BAND_PX - 1, colour_of(colours, path[-1]), fmt_path(path), fmt_ns(int(length) * NS_PER_US), name,
        )  # fmt: skip
