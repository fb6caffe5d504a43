"""Regions, kernels and operators as the tables of a report (Trace -> HTML)."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

import pandas as pd

from profiler_kit.analyses.gpu.kernels import KERNEL_TOTALS
from profiler_kit.analyses.gpu.operator_work import MODULE_WORK, OPERATOR_WORK
from profiler_kit.analyses.gpu.regions import REGION_TOTALS
from profiler_kit.analyses.gpu.window import operator_sums
from profiler_kit.names import fit_names, kernel_names
from profiler_kit.render.report.parts import Colours, Column, chip, counts, folded, named, shares, table, times
from profiler_kit.render.svg import bar
from profiler_kit.run import Run
from profiler_kit.text import fmt_count, fmt_ns, fmt_path, fmt_percent
from profiler_kit.timeline.palette import HUES, colour_of
from profiler_kit.trace import Trace

REGIONS: Final = 40
KERNELS: Final = 25
OPERATORS: Final = 20
MODULES: Final = 30
NAME_LETTERS: Final = 52


def region_tables(run: Run, trace: Trace, colours: Colours, *, host: bool) -> str:
    """The tree of regions with what bounds each; the rest, where there are many, behind a line."""
    regions = trace.regions()
    if host:
        regions = regions[regions["host_ns"] > 0].reset_index(drop=True)
    if regions.empty:
        return ""
    verdicts = {} if host else run.bounds
    shown = region_table(regions.head(REGIONS), regions, verdicts, colours, host=host)
    rest = regions.iloc[REGIONS : REGIONS * 6].reset_index(drop=True)
    if rest.empty:
        return shown
    title = _next(len(rest), len(regions) - REGIONS, "regions")
    return shown + folded(title, region_table(rest, regions, verdicts, colours, host=host))


def region_table(
    shown: pd.DataFrame, regions: pd.DataFrame, verdicts: dict[tuple[str, ...], str], colours: Colours, *, host: bool
) -> str:
    """Rows of REGION_TOTALS; `regions` are all of them, for the shares."""
    REGION_TOTALS.check(shown)
    column = "host_ns" if host else "busy_ns"
    whole = int(regions.loc[regions["path"].map(len) == 1, column].sum()) or 1
    paths = list(shown["path"])
    names = fit_names([path[-1] for path in paths], [max(16, NAME_LETTERS - 2 * len(path)) for path in paths])
    columns = [
        Column(
            "region",
            [named(colour_of(colours, path[-1]), name, len(path) - 1) for path, name in zip(paths, names, strict=True)],
            "html",
            "A record_function block; nested regions are indented under the one around them.",
            [fmt_path(path) for path in paths],
        ),
        _bars(shown[column] / whole, [colour_of(colours, path[-1]) for path in paths]),
        shares("share", list(shown[column] / whole), "Of the rows at the top."),
    ]  # fmt: skip
    if host:
        return table([*columns, times("host", list(shown["host_ns"]), HOST), counts("times", list(shown["instances"]))],
                     "Regions", sortable=False)  # fmt: skip
    columns += [
        times("busy", list(shown["busy_ns"]), "Time in which at least one of its kernels ran (overlaps counted once)."),
        times("sum", list(shown["sum_ns"]), "All durations added up; above busy when several ran at once."),
        times("self", list(shown["self_sum_ns"]), "Sum of what it launched itself, outside nested regions."),
        times("span", list(shown["span_ns"]), "Last end minus first start of what it launched, over its instances."),
        times("host", list(shown["host_ns"]), HOST),
        counts("launches", list(shown["launches"]), "Kernel, copy and graph launches made inside it."),
        counts("times", list(shown["instances"]), "How often the region was entered."),
        Column("bound by", [chip(verdicts.get(path, "")) for path in paths], "html"),
    ]
    return table(columns, "Regions", sortable=False)


HOST: Final = "Time the host thread spent inside the region."


def kernel_tables(trace: Trace) -> str:
    """Kernels, copies and sets by name, stream and device, longest first."""
    kernels = trace.kernels()
    if kernels.empty:
        return ""
    KERNEL_TOTALS.check(kernels)
    whole = int(kernels["sum_ns"].sum()) or 1
    rows = kernels.head(KERNELS)
    names = fit_names(kernel_names(list(rows["name"])), NAME_LETTERS)
    streams = ["–" if pd.isna(stream) else str(stream) for stream in rows["stream"]]
    devices = ["–" if pd.isna(device) else str(device) for device in rows["device"]]
    columns = [
        Column("kernel", names, "text", "Kernel, copy or memory set; its full name on hover.", list(rows["name"])),
        _bars(rows["sum_ns"] / whole, [HUES[0]] * len(rows)),
        shares("share", list(rows["sum_ns"] / whole), "Of the sum of all of them."),
        times("sum", list(rows["sum_ns"])),
        counts("count", list(rows["count"])),
        times("mean", list(rows["mean_ns"])),
        times("min", list(rows["min_ns"])),
        times("max", list(rows["max_ns"])),
        Column("stream", streams, "number", "Work on one stream runs in order."),
    ]  # fmt: skip
    columns += [Column("GPU", devices)] if kernels["device"].nunique() > 1 else []
    return table(columns, "Kernels") + _rest(kernels["sum_ns"].iloc[KERNELS:], whole, "kernels")


def operator_tables(trace: Trace, *, host: bool) -> str:
    """Operators with the GPU work they launched; of a trace without a GPU their host time."""
    if host:
        sums = operator_sums(trace.operators())
        whole = int(sums["self_ns"].sum()) or 1
        rows = sums.head(OPERATORS)
        columns = [
            Column("operator", fit_names(list(rows["name"]), NAME_LETTERS), "text", full=list(rows["name"])),
            _bars(rows["self_ns"] / whole, [HUES[0]] * len(rows)),
            shares("share", list(rows["self_ns"] / whole), "Of the self time of all operators."),
            times("self", list(rows["self_ns"]), "Host time inside it, less the operators it calls."),
            times("sum", list(rows["sum_ns"]), "Host time inside it, operators it calls included."),
            counts("calls", list(rows["count"])),
        ]
        return (
            table(columns, "Operators") + _rest(sums["self_ns"].iloc[OPERATORS:], whole, "operators")
            if len(rows)
            else ""
        )
    work = OPERATOR_WORK.check(trace.operator_work())
    rows, whole = work.head(OPERATORS), int(work["gpu_ns"].sum()) or 1
    if rows.empty:
        return ""
    columns = [
        Column("operator", fit_names(list(rows["name"]), NAME_LETTERS), "text", full=list(rows["name"])),
        _bars(rows["gpu_ns"] / whole, [HUES[0]] * len(rows)),
        shares("share", list(rows["gpu_ns"] / whole), "Of all GPU work."),
        times("GPU", list(rows["gpu_ns"]), "Sum of what it launched itself, as the innermost operator."),
        times("GPU, all", list(rows["nested_gpu_ns"]), "Sum of what was launched in it or in an operator it calls."),
        counts("GPU events", list(rows["gpu_events"])),
        times("host", list(rows["self_ns"]), "Host time inside it, less the operators it calls."),
        counts("calls", list(rows["calls"])),
    ]
    return table(columns, "Operators") + _rest(work["gpu_ns"].iloc[OPERATORS:], whole, "operators")


def module_tables(trace: Trace) -> str:
    """GPU time by nn.Module; empty when the trace was recorded without modules."""
    work = MODULE_WORK.check(trace.module_work())
    whole = int(work["self_sum_ns"].sum()) or 1
    work = work[work["path"].map(len) > 0]
    if work.empty:
        return ""
    rows = work[work["path"].map(len) <= 4].head(MODULES)
    columns = [
        Column("module", [named(HUES[2], path[-1], len(path) - 1) for path in rows["path"]], "html",
               full=[fmt_path(path) for path in rows["path"]]),
        _bars(rows["sum_ns"] / whole, [HUES[2]] * len(rows)),
        shares("share", list(rows["sum_ns"] / whole), "Of all GPU work."),
        times("sum", list(rows["sum_ns"]), "What was launched in its forward, modules it calls included."),
        times("self", list(rows["self_sum_ns"]), "With this module as the innermost."),
        counts("GPU events", list(rows["gpu_events"])),
    ]  # fmt: skip
    left = len(work) - len(rows)
    more = f'<p class="note">{fmt_count(left)} more modules, deeper or shorter, are not shown.</p>' if left else ""
    return table(columns, "Modules", sortable=False) + more


def _bars(shares: pd.Series, colours: Sequence[str]) -> Column:
    """A column of bars without a head."""
    return Column("", [bar(share, hue, height=10) for share, hue in zip(shares, colours, strict=True)], "html")


def _next(shown: int, left: int, what: str) -> str:
    return (
        f"{fmt_count(left)} more {what}"
        if shown == left
        else f"The next {fmt_count(shown)} of {fmt_count(left)} more {what}"
    )


def _rest(values: pd.Series, whole: int, what: str) -> str:
    """What the rows left out add up to."""
    if values.empty:
        return ""
    total = int(values.sum())
    return f'<p class="note">{fmt_count(len(values))} more {what}: {fmt_ns(total)}, {fmt_percent(total / whole)}.</p>'
