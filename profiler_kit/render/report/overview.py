"""The first screen of a report: where the time went and why (Run -> HTML)."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

import pandas as pd

from profiler_kit.analyses.gpu.idle import HOST_BOUND, KERNEL_WAIT, OTHER
from profiler_kit.analyses.gpu.regions import REGION_TOTALS
from profiler_kit.analyses.gpu.timeline import GpuTimeline
from profiler_kit.analyses.gpu.window import NAME_SUMS, OPERATOR_SUMS, name_sums, operator_sums
from profiler_kit.finding import Finding, of_kind, of_the_file
from profiler_kit.findings.advice import HELP, NOTHING
from profiler_kit.findings.collect import headline
from profiler_kit.findings.numbers import numbers
from profiler_kit.findings.time import IDLE_CAUSES, idle_causes, idle_regions
from profiler_kit.names import fit_names, kernel_names
from profiler_kit.render.report.parts import Colours, chip, folded, sentence, sub, tiles, two, verdict_line, warning
from profiler_kit.render.svg import Part, bar, escape, stacked
from profiler_kit.run import Run
from profiler_kit.text import fmt_count, fmt_ns, fmt_path, fmt_percent
from profiler_kit.timeline.palette import ACTIVITY, HUES, IDLE, NEUTRAL, colour_of
from profiler_kit.trace import Trace

REGION_ROWS: Final = 12
RANKED_ROWS: Final = 6
WAITS: Final = 5
CARDS: Final = 3
LETTERS: Final = 34
LONG_LETTERS: Final = 52
_SAME: Final = 1.005  # a sum this close to busy time is drawn as one bar
_BARS: Final = (
    "Solid: busy, time in which a kernel the region launched ran, overlaps counted once. Pale: their sum. Nested "
    "regions are part of the one above them."
)
_IDLE: Final = "Stretches in which nothing ran on any GPU, by what ended them. They add up to the idle time exactly."


@dataclass(frozen=True)
class Row:
    """One bar with its name. length, pale: share of the longest bar."""

    name: str
    value: str
    share: str
    tip: str
    length: float
    colour: str
    pale: float = 0.0
    depth: int = 0
    mark: str = ""


def overview(run: Run, colours: Colours) -> str:
    """Sentence, numbers, and where the time went."""
    parts = [verdict_line(headline(run)), *warnings(run)]
    if run.trace is not None or run.record is not None:  # a snapshot's numbers stand in its own section
        parts.append(tiles(numbers(run)))
    if run.trace is not None and run.presence is not None:
        parts.append(_on_gpu(run, run.trace, colours) if run.presence.ran == "gpu" else _on_host(run.trace, colours))
    parts.append(worth_fixing(run))
    if run.presence is not None and run.presence.ran == "gpu" and run.trace is not None:
        parts.append(idle(run, colours))
    return "".join(parts)


def warnings(run: Run) -> list[str]:
    """What is broken, lost or not there."""
    return list(map(warning, of_the_file(run.findings)))


def _on_gpu(run: Run, trace: Trace, colours: Colours) -> str:
    time, regions = trace.summary()["gpu_timeline"], trace.regions()
    kernels = name_sums(trace.kernels())
    return (
        sub("What the GPU did while recorded", activity(time),
            lead=f"100 % is the recorded span, {fmt_ns(time['total_ns'])}.")
        + two(
            sub("Where the GPU's time went", region_bars(regions, colours, verdicts=run.bounds), meaning=_BARS,
                lead=f"100 % is the time in which the GPU was busy, {fmt_ns(time['busy_ns'])}."),
            sub("Longest kernels", kernel_bars(kernels),
                lead=f"100 % is the sum of all of them, {fmt_ns(int(kernels['sum_ns'].sum()))}."),
            wide_left=True,
        )
    )  # fmt: skip


def _on_host(trace: Trace, colours: Colours) -> str:
    operators = operator_sums(trace.operators())
    return two(
        sub(
            "Time in each region",
            region_bars(trace.regions(), colours, host=True),
            lead="Host time, nested regions included.",
        ),
        sub("Longest operators", operator_bars(operators), lead="Host time inside an operator, less what it calls."),
    )


def worth_fixing(run: Run) -> str:
    """The causes that could give back most, with their evidence; empty for a run that holds no time."""
    if run.trace is None and run.layers is None:
        return ""
    found = of_kind(run.findings, "advice")
    cards = list(map(_card, found[:CARDS]))
    body = f'<ol class="cards">{"".join(cards)}</ol>' if cards else f'<p class="note">{escape(NOTHING)}</p>'
    more = folded(f"{len(found) - CARDS} more", _plain_list(found[CARDS:])) if found[CARDS:] else ""
    return sub("Most worth fixing", body + more, meaning=HELP)


def _card(one: Finding) -> str:
    share = one.gain.share if one.gain else 0.0
    return (
        f'<li><b>{escape(one.title)}</b><span class="gain">{escape(str(one.gain))}</span>'
        f"{bar(share, HUES[4], height=6)}<p>{sentence(one)}</p>"
        f"<p><b>Try</b> {escape(one.attempt)}</p></li>"
    )


def _plain_list(found: Sequence[Finding]) -> str:
    return f'<ul class="said">{"".join(f"<li>{escape(one.line)}</li>" for one in found)}</ul>'


def activity(time: GpuTimeline) -> str:
    """What the GPU did from its first event to its last, as one bar that adds up to the whole."""
    total = max(1, time["total_ns"])
    rows = (
        ("Computation", time["computation_ns"], ACTIVITY["computation"],
         "Kernels that are not communication, and memory sets."),
        ("Communication, exposed", time["exposed_communication_ns"], ACTIVITY["communication"],
         "NCCL or RCCL kernels while nothing else computed."),
        ("Memory copies, exposed", time["exposed_memcpy_ns"], ACTIVITY["memcpy"], "Copies while no kernel ran."),
        ("Idle", time["idle_ns"], ACTIVITY["idle"], "Nothing ran on any stream."),
    )  # fmt: skip
    parts = [Part(name, fmt_ns(ns), ns / total, colour, meaning) for name, ns, colour, meaning in rows if ns]
    return stacked(parts, f"busy {fmt_percent(time['busy_ns'] / total)} of {fmt_ns(total)}")


_IDLE_HUES: Final = {HOST_BOUND: HUES[1], KERNEL_WAIT: NEUTRAL, OTHER: IDLE}


def idle(run: Run, colours: Colours) -> str:
    """Why the GPU was idle, and in which regions; empty when it never was."""
    causes = idle_causes(run)
    total = sum(causes.values())
    if not total:
        return ""
    parts = [
        Part(name.capitalize(), fmt_ns(ns), ns / total, _IDLE_HUES.get(name, HUES[4]), IDLE_CAUSES[name])
        for name, ns in causes.items()
        if ns
    ]
    found = of_kind(run.findings, "why")
    said = "".join(f'<p class="note">{sentence(one)}</p>' for one in found)
    return said + two(
        sub("Why the GPU was idle", stacked(parts, "idle time by cause"),
            lead=f"100 % is the idle time, {fmt_ns(total)}.", meaning=_IDLE),
        sub("Where it was idle", _waits(run, colours),
            lead="Idle time while each innermost region was open, and its share of the region's time."),
        wide_left=True,
    )  # fmt: skip


def _waits(run: Run, colours: Colours) -> str:
    rows = idle_regions(run)[:WAITS]
    names = fit_names([path[-1] for path, _, _ in rows], LETTERS)
    longest = max((ns for _, ns, _ in rows), default=1)
    return bars(
        [
            Row(name, fmt_ns(ns), fmt_percent(ns / max(1, wall)), f"{fmt_path(path)}\n{fmt_ns(wall)} in all",
                ns / longest, colour_of(colours, path[-1]))
            for name, (path, ns, wall) in zip(names, rows, strict=True)
        ]
    )  # fmt: skip


def region_bars(
    regions: pd.DataFrame, colours: Colours, *, host: bool = False, verdicts: dict[tuple[str, ...], str] | None = None
) -> str:
    """Time of each region, a region above the ones nested in it. Takes REGION_TOTALS; verdicts: what bounds each."""
    REGION_TOTALS.check(regions)
    column = "host_ns" if host else "busy_ns"
    rows = regions[regions[column] > 0]
    rows = rows.loc[rows[column].nlargest(REGION_ROWS).index.sort_values()]  # a parent takes as long as its children
    top = int(regions.loc[regions["path"].map(len) == 1, column].sum()) or 1
    pale = not host and bool((rows["sum_ns"] > rows["busy_ns"] * _SAME).any())
    longest = int((rows["sum_ns"] if pale else rows[column]).max()) if len(rows) else 1
    names = fit_names([path[-1] for path in rows["path"]], [max(14, LETTERS - 2 * len(path)) for path in rows["path"]])
    return bars(
        [
            Row(
                name,
                fmt_ns(row["busy_ns"] if not host else row["host_ns"]),
                fmt_percent(row[column] / top),
                f"{fmt_path(row['path'])}\nbusy {fmt_ns(row['busy_ns'])} · sum {fmt_ns(row['sum_ns'])}\n"
                f"host {fmt_ns(row['host_ns'])} · {fmt_count(row['launches'])} launches · "
                f"{fmt_count(row['instances'])} times",
                row[column] / longest,
                colour_of(colours, row["path"][-1]),
                row["sum_ns"] / longest if pale else 0.0,
                len(row["path"]) - 1,
                (verdicts or {}).get(row["path"], ""),
            )
            for name, row in zip(names, rows.to_dict("records"), strict=True)
        ],
        marked=verdicts is not None,
    )


def kernel_bars(kernels: pd.DataFrame) -> str:
    """Kernels by summed time over all streams and devices. Takes NAME_SUMS."""
    NAME_SUMS.check(kernels)
    rows = kernels.head(RANKED_ROWS)
    return _ranked(rows, kernel_names(list(rows["name"])), "sum_ns", int(kernels["sum_ns"].sum()), "events")


def operator_bars(operators: pd.DataFrame) -> str:
    """Host time inside each operator itself. Takes OPERATOR_SUMS."""
    OPERATOR_SUMS.check(operators)
    rows = operators.head(RANKED_ROWS)
    return _ranked(rows, list(rows["name"]), "self_ns", int(operators["self_ns"].sum()), "calls")


def _ranked(rows: pd.DataFrame, names: Sequence[str], column: str, whole: int, counted: str) -> str:
    longest = int(rows[column].max()) if len(rows) else 1
    return bars(
        [
            Row(
                name,
                fmt_ns(row[column]),
                fmt_percent(row[column] / max(1, whole)),
                f"{row['name']}\n{fmt_ns(row[column])} in {fmt_count(row['count'])} {counted}",
                row[column] / max(1, longest),
                HUES[0],
            )
            for row, name in zip(rows.to_dict("records"), fit_names(names, LONG_LETTERS), strict=True)
        ],
        above=True,
    )


def bars(rows: Sequence[Row], *, marked: bool = False, above: bool = False) -> str:
    """Name, bar, value and share of each row; `marked` adds what bounds it, `above` has room for long names."""
    lines = "".join(
        f'<div class="row" title="{escape(row.tip)}"><span class="name d{min(row.depth, 9)}">{escape(row.name)}</span>'
        f"{bar(row.length, row.colour, pale=row.pale)}"
        f'<span class="value">{escape(row.value)}</span><span class="share">{escape(row.share)}</span>'
        f"{f'<span>{chip(row.mark)}</span>' if marked else ''}</div>"
        for row in rows
    )
    kind = " marked" if marked else " above" if above else ""
    return f'<div class="bars{kind}">{lines}</div>' if rows else ""
