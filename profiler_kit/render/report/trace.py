"""Regions, timeline, kernels and operators of a trace as sections of a report."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Final

from markupsafe import Markup

from profiler_kit.analyses.gpu.utilization import REGION_UTILIZATION
from profiler_kit.render.html import Colours, HtmlColumn, table_html, verdict_chip
from profiler_kit.render.report.section import Block, Section
from profiler_kit.render.report.timeline import trace_timeline
from profiler_kit.run import Run
from profiler_kit.table import Filled
from profiler_kit.tables import every_table
from profiler_kit.text import fmt_count
from profiler_kit.trace import Trace

REGIONS: Final = 40
ROWS: Final = {"kernels": 25, "operator_work": 20, "operator_sums": 20, "module_work": 30}
_TIMELINE: Final = (
    "All of the recording. Colour is the region. Where spans are too short to see, height is the share of busy time."
)


def shown_tables(*, on_gpu: bool) -> tuple[str, ...]:
    """The tables that sections show."""
    known = ("regions", "region_overview", "layer_totals")
    return (*known, "kernels", "operator_work", "module_work") if on_gpu else (*known, "operator_sums")


def trace_sections(run: Run, trace: Trace, colours: Colours, prefix: str, *, on_gpu: bool) -> Iterator[Section]:
    """Each with its heading; those with nothing to show are empty."""
    yield Section(f"{prefix}regions", "Regions", rows=[_regions(run, trace, colours, on_gpu=on_gpu)])
    picture = Block("", trace_timeline(trace, colours))
    yield Section(f"{prefix}timeline", "Timeline", rows=[[picture]], lead=_TIMELINE)
    yield Section(f"{prefix}kernels", "Kernels", rows=[[Block("", _top("kernels", trace))]] if on_gpu else ())
    operators = [Block("", _top("operator_work" if on_gpu else "operator_sums", trace))]
    has_modules = on_gpu and any(trace.module_work()["path"])
    modules = [Block("Modules", _top("module_work", trace))] if has_modules else []
    yield Section(f"{prefix}operators", "Operators and modules", rows=[operators, modules])


def _top(name: str, trace: Trace) -> Markup:
    filled = every_table()[name].of_source(trace)
    return table_html(filled, top=ROWS[name])


def _regions(run: Run, trace: Trace, colours: Colours, *, on_gpu: bool) -> list[Block]:
    """The tree of regions with what bounds each; the rest, where there are many, behind a line."""
    filled = every_table()["regions"].of_source(trace)
    rest = len(filled) - REGIONS
    shown = [Block("", _region_rows(filled, run, colours, 0, on_gpu=on_gpu))]
    if rest > 0:
        most = 5 * REGIONS
        title = f"{fmt_count(rest)} more regions" if rest <= most else f"The next {most} of {fmt_count(rest)} regions"
        shown.append(Block(title, _region_rows(filled, run, colours, REGIONS, on_gpu=on_gpu), folded=True))
    return shown


def _region_rows(filled: Filled, run: Run, colours: Colours, start: int, *, on_gpu: bool) -> Markup:
    top = 5 * REGIONS if start else REGIONS
    chips = (
        [verdict_chip(run.bounds.get(path, "")) for path in filled.frame["path"][start : start + top]] if on_gpu else []
    )
    extra = [HtmlColumn("bound by", chips, "text", REGION_UTILIZATION.meaning("verdict"))] if on_gpu else []
    return table_html(filled, top=top, start=start, colours=colours, extra=extra, more=False)
