"""The report: one HTML file that shows runs with no network and no server (Runs -> HTML text).

The page may load nothing: its content policy allows its own style and script, by hash. It can be read without the
script, which only sorts tables.
"""

from __future__ import annotations

import base64
import hashlib
import re
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Final

from profiler_kit.findings.records import what_ran
from profiler_kit.formats.ladder_record import LadderRecord
from profiler_kit.render.ladder_style import ladder_facts
from profiler_kit.render.report.compare import comparison, side_by_side
from profiler_kit.render.report.layers import heat_styles, layer_section
from profiler_kit.render.report.memory import memory_section
from profiler_kit.render.report.overview import overview
from profiler_kit.render.report.parts import Colours, asset, colours_of, facts_list, notice, section, sub
from profiler_kit.render.report.tables import kernel_tables, module_tables, operator_tables, region_tables
from profiler_kit.render.report.timeline import trace_timeline
from profiler_kit.render.svg import escape
from profiler_kit.run import Run, compare_runs
from profiler_kit.version import __version__

_TIMELINE: Final = (
    "All of the recording. Colour is the region. Where spans are too short to see, height is the share of busy time."
)


_LADDER: Final = "The published model and named rewrites of it, one process a row."


def report_page(runs: Sequence[Run], ladders: Sequence[tuple[Path, LadderRecord]] = ()) -> str:
    """A self-contained page on one run, or on several: then the first is what the others are compared with.

    ladders: folders and what their results.json say, each a section at the end. Raises ValueError without either.
    """
    style = asset("page.css") + asset("parts.css") + heat_styles()
    script = asset("page.js")
    several = len(runs) > 1
    names = [run.name for run in runs] or [folder.resolve().name for folder, _ in ladders]
    if not names:
        raise ValueError("want a run or a ladder to report on")
    title = " → ".join(names)
    colours = colours_of(runs)
    body = "".join(_several(runs, colours)) if several else "".join(_one(runs[0], "", colours)) if runs else ""
    for number, (folder, record) in enumerate(ladders):
        from profiler_kit.render.report.ladder import (
            ladder_section,  # plotly and Pillow, which a run alone does not need
        )

        named = f"Ladder: {folder.resolve().name}"
        body += section(f"ladder{number}", named, ladder_section(folder, record), lead=_LADDER)
    facts = _facts(runs[0]) if runs else ladder_facts(ladders[0][1])[0]
    if several:
        facts = f"{len(runs)} runs, compared with the first"
    parts = {
        "title": escape(f"{title} · profiler_kit"),
        "policy": (
            f"default-src 'none'; script-src '{digest(script)}'; style-src '{digest(style)}'; "
            f"{'img-src data:; ' if ladders else ''}base-uri 'none'; form-action 'none'"
        ),
        "style": style,
        "script": script,
        "heading": escape(title),
        "facts": escape(facts),
        "nav": _nav(body),
        "body": body,
        "version": escape(__version__),
    }
    return re.sub(r"\{\{(\w+)\}\}", lambda match: parts[match[1]], asset("page.html"))


def digest(text: str) -> str:
    """The source expression of a content policy that allows exactly this inline text."""
    return "sha256-" + base64.b64encode(hashlib.sha256(text.encode()).digest()).decode("ascii")


def _facts(run: Run) -> str:
    if run.record is None and run.path.is_file():
        return "A file of its own: no run.json says what ran."
    return what_ran(run.record)


def _several(runs: Sequence[Run], colours: Colours) -> Iterator[str]:
    """Runs beside each other, each against the first, then every run by itself."""
    yield section("side-by-side", "Runs beside each other", side_by_side(runs))
    for number, run in enumerate(runs[1:], 1):
        found = compare_runs(runs[0], run)
        title = f"A: {runs[0].name} → B: {run.name}"
        if found is None:
            without = ", ".join(one.name for one in (runs[0], run) if one.trace is None)
            yield section(f"compare-{number}", title, notice(f"Not compared: no trace in {without}.", "plain"))
        else:
            yield section(f"compare-{number}", title, comparison(runs[0], run, found, colours))
    for number, run in enumerate(runs):
        inner = "".join(_one(run, f"run{number}-", colours))
        head = f'<header><h2>{escape(run.name)}</h2><p class="facts">{escape(_facts(run))}</p></header>'
        yield f'<article id="run{number}">{head}{inner}</article>'


def _one(run: Run, prefix: str, colours: Colours) -> Iterator[str]:
    """The sections of one run; those it holds nothing for are left out, and named in the overview."""
    level = 3 if prefix else 2
    yield f'<section id="{prefix}overview" class="first">{overview(run, colours)}</section>'
    trace = run.trace
    if trace is not None and run.presence is not None:
        host = run.presence.ran != "gpu"
        yield section(f"{prefix}regions", "Regions", region_tables(run, trace, colours, host=host), level=level)
        yield section(f"{prefix}timeline", "Timeline", trace_timeline(trace, colours), level=level, lead=_TIMELINE)
        yield section(f"{prefix}kernels", "Kernels", kernel_tables(trace), level=level)
        operators = operator_tables(trace, host=host) + sub("Modules", module_tables(trace))
        yield section(f"{prefix}operators", "Operators and modules", operators, level=level)
    yield section(f"{prefix}layers", "Layers against batch size", layer_section(run), level=level)
    if run.snapshot is not None:
        alone = run.trace is None
        yield section(f"{prefix}memory", "Memory", memory_section(run.snapshot, colours, lead=not alone), level=level)
    if run.record is not None:
        yield section(f"{prefix}what", "What ran", facts_list(run.record), level=level)


def _nav(body: str) -> str:
    """Links to the sections and runs that are on the page."""
    found = re.findall(r'<(section|article) id="([\w-]+)"[^>]*>(?:<header>)?<h[23]>(.*?)</h[23]>', body)
    top = any(kind == "article" for kind, _, _ in found)
    links = [
        f'<a href="#{anchor}">{title}</a>'
        for kind, anchor, title in found
        if not top or kind == "article" or not anchor.startswith("run")
    ]
    return "".join(links)
