"""What objects show of themselves in a notebook: HTML that needs no network.

Drawn as the report is (some 20 kB a cell; plotly.js would add 4.8 MB to each), in the colours of the notebook's theme.
A whole page is shown in a frame of its own.
"""

from __future__ import annotations

import os
import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from markupsafe import Markup, escape

from profiler_kit.analyses.compare.traces import Comparison
from profiler_kit.files import whole_file
from profiler_kit.findings.no_rows import no_rows
from profiler_kit.findings.records import what_ran
from profiler_kit.formats.run_record import RunRecord
from profiler_kit.load.discover.runs import RunFolder
from profiler_kit.render.html import asset, fill, table_html
from profiler_kit.render.icicle import icicle
from profiler_kit.render.report.layers import heat_styles, layer_section
from profiler_kit.render.report.markdown import comparison_markdown, report_markdown
from profiler_kit.render.report.memory import memory_plot
from profiler_kit.render.report.overview import overview
from profiler_kit.render.report.page import comparison, record_section, report_page
from profiler_kit.render.report.section import Block, Section, colours_of
from profiler_kit.render.report.timeline import trace_timeline
from profiler_kit.run import Layers, Run
from profiler_kit.snapshot import Snapshot
from profiler_kit.table import Filled
from profiler_kit.trace import Trace

HEIGHT_PX: Final = 720
LARGEST_BYTES: Final = 16 << 20  # a notebook keeps what its cells show, once for every time they ran
TABLE_ROWS: Final = 30
_ICICLE: Final = re.compile(r'<svg class="icicle" width="100%" height="(\d+)".*?</svg></svg>', re.DOTALL)
_FRAMED: Final = "body{margin:0}svg svg{overflow:hidden}text{font:11.5px system-ui,sans-serif}"
_NOWHERE: Final = Path()
_INSTEAD: Final = "Write it to a file with .save('report.html')."


@dataclass(frozen=True)
class Card:
    """A section that shows itself in a notebook. text: what it reads where there is no HTML."""

    text: str
    section: Section | None
    title: str = ""
    facts: Sequence[str] = ()

    def __repr__(self) -> str:
        return self.text

    def _repr_html_(self) -> str:
        style = Markup(asset("parts.css") + asset("card.css") + heat_styles(dark=False))
        card = fill("card.html.j2", style=style, title=self.title, facts=self.facts, section=self.section)
        return _ICICLE.sub(_in_frame, card)


def _in_frame(drawing: re.Match[str]) -> str:
    """A tree in a frame: a notebook that is not trusted drops frames whole, of drawings it keeps all names as text."""
    page = escape(f"<style>{_FRAMED}</style>{drawing[0]}")
    return f'<iframe srcdoc="{page}" sandbox="" width="100%" height="{drawing[1]}" frameborder="0"></iframe>'


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


def framed(page: str, *, instead: str, height_px: int = HEIGHT_PX, largest_bytes: int = LARGEST_BYTES) -> str:
    """`page` in a frame of its own, cut off from the notebook around it.

    The frame may run the page's scripts and nothing else: it has an origin of its own, so that neither the page nor
    a name in it reaches the notebook. A page above `largest_bytes` (UTF-8) is left out; the cell then shows its size
    and `instead`, plain text that says how to see it ("trace.report('report.html') writes it to a file").
    """
    size = len(page.encode())
    most = f"{largest_bytes / 1e6:.1f} MB"
    note = f"This page takes {size / 1e6:.1f} MB, more than the {most} a notebook should keep. {instead}"
    return fill("frame.html.j2", page=escape(page), height=height_px, note=note if size > largest_bytes else "")


def run_card(run: Run) -> Card:
    """What ran, where the time went, what is most worth fixing."""
    return Card(repr(run), overview(run, colours_of([run])), run.name, [what_ran(run.record, run.broken_record)])


def trace_card(trace: Trace) -> Card:
    """Where the time of a trace went."""
    run = Run.holding(trace.path, trace)
    return Card(repr(trace), overview(run, colours_of([run])), run.name)


def timeline_card(trace: Trace) -> Card:
    """The whole timeline as a picture."""
    return _drawn(f"timeline of {trace.path}", trace_timeline(trace, colours_of([Run.holding(trace.path, trace)])))


def layers_card(layers: Layers) -> Card:
    """The heat map of time per item, and lines for the layers that tell most."""
    run = Run.holding(_NOWHERE, layers=layers)
    return Card(f"Layers({layers.totals['layer'].nunique()} layers)", layer_section(run))


def memory_card(snapshot: Snapshot, device: int) -> Card:
    """Memory over time, its peak marked, with the regions below.

    Raises OptionError for an unknown device.
    """
    run = Run.holding(_NOWHERE, snapshot=snapshot)
    picture = memory_plot(snapshot, snapshot.require_device(device), colours_of([run]))
    return _drawn(f"memory of device {device}", picture)


def table_card(filled: Filled) -> Card:
    """The first rows of a table, a tree drawn above them; of an empty one why it is empty."""
    empty = None if len(filled) else no_rows(filled)
    if empty is not None:
        return Card(repr(filled), None, filled.table.heading, [empty.line])
    return _drawn(repr(filled), icicle(filled) + table_html(filled, top=TABLE_ROWS), filled.table.title)


def comparison_card(a: Run, b: Run, found: Comparison) -> Card:
    """What changed from A to B."""
    return Card(comparison_markdown(a, b, found), comparison(a, b, found, colours_of([a, b])))


def record_card(record: RunRecord) -> Card:
    """What ran, one line a fact."""
    return Card(repr(record), record_section(record), record.name)


def folder_card(folder: RunFolder) -> Card:
    """What a run folder holds, without opening any of it."""
    files = (("trace", folder.trace), ("memory", folder.memory), ("layers", folder.layers), ("masks", folder.masks))
    held = ", ".join(name for name, file in files if file is not None) or "nothing"
    facts = [what_ran(folder.record, folder.problem), f"Holds: {held}.", folder.problem or ""]
    return Card(repr(folder), None, folder.label, [line for line in facts if line])


def _drawn(text: str, body: Markup, title: str = "") -> Card:
    return Card(text, Section("", "", rows=[[Block("", body)]]), title)
