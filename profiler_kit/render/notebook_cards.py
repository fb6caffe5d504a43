"""What objects show of themselves in a notebook: a Run, Trace or record in, HTML that needs no network out.

Drawn with the report's own SVG and HTML (some 20 kB a cell; plotly.js would add 4.8 MB to each), in the colours of the
notebook's theme. A whole report is a page of its own and is shown in a frame.
"""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from profiler_kit.analyses.compare.traces import Comparison
from profiler_kit.files import whole_file
from profiler_kit.findings.records import what_ran
from profiler_kit.formats.run_record import RunRecord
from profiler_kit.load.discover.runs import RunFolder
from profiler_kit.render.notebook import framed
from profiler_kit.render.report.compare import comparison
from profiler_kit.render.report.layers import heat_styles, layer_section
from profiler_kit.render.report.markdown import comparison_markdown, report_markdown
from profiler_kit.render.report.memory import memory_plot
from profiler_kit.render.report.overview import overview
from profiler_kit.render.report.page import report_page
from profiler_kit.render.report.parts import asset, colours_of, facts_list
from profiler_kit.render.report.timeline import trace_timeline
from profiler_kit.render.svg import escape
from profiler_kit.run import Layers, Run
from profiler_kit.snapshot import Snapshot
from profiler_kit.trace import Trace

_NOWHERE: Final = Path()
_INSTEAD: Final = "Write it to a file with .save('report.html')."


@dataclass(frozen=True)
class Card:
    """A piece of HTML that shows itself in a notebook. text: what it reads where there is no HTML."""

    body: str
    text: str

    def __repr__(self) -> str:
        return self.text

    def _repr_html_(self) -> str:
        style = asset("parts.css") + asset("card.css") + heat_styles(dark=False)
        return f'<div class="pk-report pk-card"><style>{style}</style>{self.body}</div>'


@dataclass(frozen=True, eq=False)
class ReportPage:
    """The report of one run, or of several, as a page: it shows itself in a frame, and can be saved."""

    runs: tuple[Run, ...]

    def __repr__(self) -> str:
        return f"ReportPage({', '.join(run.name for run in self.runs)})"

    def _repr_html_(self) -> str:
        return framed(report_page(self.runs), instead=_INSTEAD)

    def markdown(self) -> str:
        """The same, short, to paste into a pull request."""
        return report_markdown(self.runs)

    def save(self, path: str | os.PathLike[str]) -> None:
        """Write the page, whole or not at all."""
        with whole_file(path) as temporary:
            temporary.write_text(report_page(self.runs), encoding="utf-8")


def run_card(run: Run) -> Card:
    """What ran, where the time went, what is most worth fixing."""
    facts = f'<h2>{escape(run.name)}</h2><p class="facts">{escape(what_ran(run.record))}</p>'
    return Card(facts + overview(run, colours_of([run])), repr(run))


def trace_card(trace: Trace) -> Card:
    """Where the time of a trace went."""
    run = Run.holding(trace.path, trace)
    return Card(f"<h2>{escape(run.name)}</h2>{overview(run, colours_of([run]))}", repr(trace))


def timeline_card(trace: Trace) -> Card:
    """The whole timeline as a picture."""
    run = Run.holding(trace.path, trace)
    return Card(trace_timeline(trace, colours_of([run])), f"timeline of {trace.path}")


def layers_card(layers: Layers) -> Card:
    """The heat map of time per image, and lines for the layers that tell most."""
    run = Run.holding(_NOWHERE, layers=layers)
    return Card(layer_section(run), f"Layers({layers.totals['layer'].nunique()} layers)")


def memory_card(snapshot: Snapshot, device: int) -> Card:
    """Memory over time, its peak marked, with the regions below.

    Raises OptionError for an unknown device.
    """
    run = Run.holding(_NOWHERE, snapshot=snapshot)
    return Card(memory_plot(snapshot, snapshot.require_device(device), colours_of([run])), f"memory of device {device}")


def comparison_card(a: Run, b: Run, found: Comparison) -> Card:
    """What changed from A to B."""
    return Card(comparison(a, b, found, colours_of([a, b])), comparison_markdown(a, b, found))


def record_card(record: RunRecord) -> Card:
    """What ran, one line a fact."""
    return Card(f"<h2>{escape(record.name)}</h2>{facts_list(record)}", repr(record))


def folder_card(folder: RunFolder) -> Card:
    """What a run folder holds, without opening any of it."""
    files = (("trace", folder.trace), ("memory", folder.memory), ("layers", folder.layers), ("masks", folder.masks))
    held = ", ".join(name for name, file in files if file is not None) or "nothing"
    facts = [what_ran(folder.record), f"Holds: {held}.", folder.problem or ""]
    lines = "".join(f'<p class="facts">{escape(line)}</p>' for line in facts if line)
    return Card(f"<h2>{escape(folder.label)}</h2>{lines}", repr(folder))
