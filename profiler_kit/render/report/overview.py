"""The first screen of a report: where the time went and why."""

from __future__ import annotations

from typing import Final

from markupsafe import Markup

from profiler_kit.analyses.gpu.idle import CAUSES
from profiler_kit.analyses.gpu.timeline import GpuTimeline
from profiler_kit.analyses.gpu.window import name_sums, operator_sums
from profiler_kit.finding import of_kind, of_the_file
from profiler_kit.findings.advice import HELP, NOTHING
from profiler_kit.findings.collect import headline
from profiler_kit.findings.numbers import numbers
from profiler_kit.findings.time import REGION_BARS, activities, idle_causes, idle_regions, of_gpu, wholes
from profiler_kit.render.bars import Bar, kernel_rows, operator_rows, region_rows
from profiler_kit.render.html import Colours, fill
from profiler_kit.render.icicle import icicle
from profiler_kit.render.report.section import Block, Section
from profiler_kit.render.svg import Part, stacked
from profiler_kit.run import Run
from profiler_kit.text import fmt_ns, fmt_path, fmt_percent
from profiler_kit.timeline.palette import ACTIVITY, HUES, IDLE_CAUSE, colour_of
from profiler_kit.trace import Trace

REGION_ROWS: Final = 12
RANKED_ROWS: Final = 6
WAITS: Final = 5
ADVICE: Final = 3
_IDLE: Final = "Stretches in which nothing ran on any GPU, by what ended them. They add up to the idle time exactly."
_TREE: Final = "Each as wide as its GPU time; what it calls is below it."
Row = list[Block]


def overview(run: Run, colours: Colours, prefix: str = "") -> Section:
    """Sentence, numbers, and where the time went."""
    rows: list[Row] = []
    trace, on_gpu = run.trace, run.presence is not None and run.presence.ran == "gpu"
    if trace is not None:
        rows += _on_gpu(run, trace, colours) if on_gpu else [_on_host(trace, colours)]
    rows.append(_worth_fixing(run))
    if trace is not None and on_gpu:
        rows += [_why(run), _idle(run, colours)]
    has_numbers = trace is not None or run.record is not None  # a snapshot's numbers are in its own section
    return Section(
        f"{prefix}overview",
        "",
        said=headline(run),
        warnings=of_the_file(run.findings),
        numbers=numbers(run) if has_numbers else (),
        rows=rows,
    )


def _on_gpu(run: Run, trace: Trace, colours: Colours) -> list[Row]:
    kernels = name_sums(trace.kernels())
    regions = region_rows(trace.regions(), REGION_ROWS, colours=colours, bounds=run.bounds)
    of_span, of_busy, of_sum = (f"{said}." for said in wholes(trace, kernels))
    did = [[Block(f"What {name} did while recorded", activity(part), of_span)] for name, part in activities(trace)]
    return [
        *did,
        [Block("GPU time by region, module, operator and kernel", icicle(trace.table("call_tree")), _TREE)],
        [
            Block("Where GPU time went", _bars(regions, "marked"), of_busy, REGION_BARS),
            Block("Longest kernels", _bars(kernel_rows(kernels, RANKED_ROWS), "above"), of_sum),
        ],
    ]


def _on_host(trace: Trace, colours: Colours) -> Row:
    regions = region_rows(trace.regions(), REGION_ROWS, host=True, colours=colours)
    operators = operator_rows(operator_sums(trace.operators()), RANKED_ROWS)
    return [
        Block("Time in each region", _bars(regions), "Host time, nested regions included."),
        Block("Longest operators", _bars(operators, "above"), "Host time inside an operator, less what it calls."),
    ]


def _bars(rows: list[Bar], style: str = "") -> Markup:
    """Name, bar, value and share of each row; "marked" adds what bounds it, "above" has room for long names."""
    return fill("bars.html.j2", rows=rows, style=style)


def _worth_fixing(run: Run) -> Row:
    """The causes that could give back most, with their evidence; empty for a run that holds no time."""
    if run.trace is None and run.layers is None:
        return []
    found = of_kind(run.findings, "advice")
    body = fill("advice.html.j2", found=found[:ADVICE], more=found[ADVICE:], nothing=NOTHING, colour=HUES[4])
    return [Block("Most worth fixing", body, meaning=HELP)]


def activity(time: GpuTimeline) -> Markup:
    """What the GPU did from its first event to its last, as one bar that adds up to the whole."""
    total = max(1, time["total_ns"])
    rows = (
        ("Computation", time["computation_ns"], ACTIVITY["computation"],
         "Kernels that are not communication, and memory sets."),
        ("Communication, exposed", time["exposed_communication_ns"], ACTIVITY["communication"],
         "NCCL or RCCL kernels while nothing was computed."),
        ("Memory copies, exposed", time["exposed_memcpy_ns"], ACTIVITY["memcpy"], "Copies while no kernel ran."),
        ("Idle", time["idle_ns"], ACTIVITY["idle"], "Nothing ran on any stream."),
    )  # fmt: skip
    parts = [Part(name, fmt_ns(ns), ns / total, colour, meaning) for name, ns, colour, meaning in rows if ns]
    return stacked(parts, f"busy {fmt_percent(time['busy_ns'] / total)} of {fmt_ns(total)}")


def _why(run: Run) -> Row:
    """What the GPU waited for and what bounds the regions, in sentences."""
    return [Block("", fill("said.html.j2", found=of_kind(run.findings, "why")))]


def _idle(run: Run, colours: Colours) -> Row:
    """Why the GPU was idle, and in which regions; empty when it never was."""
    causes, regions = idle_causes(run), idle_regions(run)[:WAITS]
    total = sum(causes.values())
    if not total or run.trace is None:
        return []
    parts = [
        Part(name.capitalize(), fmt_ns(ns), ns / total, IDLE_CAUSE[name], CAUSES[name])
        for name, ns in causes.items()
        if ns
    ]
    longest = max((ns for _, ns, _ in regions), default=1)
    idle = [
        Bar(path[-1], fmt_ns(ns), fmt_percent(ns / max(1, wall)), f"{fmt_path(path)}\n{fmt_ns(wall)} in all",
            ns / longest, colour_of(colours, path[-1]))
        for path, ns, wall in regions
    ]  # fmt: skip
    return [
        Block(f"Why {of_gpu(run.trace)} was idle", stacked(parts, "idle time by cause"),
              f"100 % is the idle time, {fmt_ns(total)}.", _IDLE),
        Block("Where it was idle", _bars(idle),
              "Idle time while each innermost region was open, and its share of the region's time."),
    ]  # fmt: skip
