"""The report as Markdown to paste into a pull request, short enough to be read there."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from itertools import chain
from pathlib import Path
from typing import Final

import pandas as pd

from profiler_kit.analyses.compare.traces import Comparison
from profiler_kit.finding import Finding, of_kind
from profiler_kit.findings.compare import of_comparison
from profiler_kit.findings.devices import holds_memory
from profiler_kit.findings.no_rows import is_hollow, no_rows
from profiler_kit.findings.numbers import numbers
from profiler_kit.findings.records import of_ladder, what_ran
from profiler_kit.formats.ladder_file import ladder_rows
from profiler_kit.formats.ladder_record import LadderRecord
from profiler_kit.render.ladder_style import agreement_title, ladder_facts
from profiler_kit.render.layout import SHARE_OF_WHOLE
from profiler_kit.render.markdown import grid, plain, table_markdown
from profiler_kit.render.text_table import table_title
from profiler_kit.run import Run, compare_runs
from profiler_kit.snapshot import Snapshot
from profiler_kit.tables import every_table
from profiler_kit.tables.ladder import shown_of
from profiler_kit.tables.memory import live
from profiler_kit.text import MISSING, fmt_count, fmt_factor, fmt_ns, fmt_rate
from profiler_kit.trace import Trace
from profiler_kit.units import bytes_to_mib, ns_to_ms

REGIONS: Final = 10
KINDS: Final = 6
ADVICE: Final = 3
RANKED: Final = 5
_REGIONS: Final = ("path", "busy_ns", SHARE_OF_WHOLE, "host_ns", "launches")
_HOST_REGIONS: Final = ("path", "host_ns", SHARE_OF_WHOLE, "instances")
_RANKED: Final = {
    "kernels": ("Longest kernels", ("name", "sum_ns", SHARE_OF_WHOLE, "count")),
    "operator_sums": ("Longest operators, self time", ("name", "self_ns", SHARE_OF_WHOLE, "count")),
}
# The tables of a comparison that fit into a pull request with how many rows, by what regions are compared by.
_TABLES: Final = {
    "gpu": {"diff_totals": None, "diff_regions": REGIONS, "diff_work": KINDS, "diff_kernels": RANKED},
    "host": {"diff_totals": None, "diff_regions": REGIONS, "diff_operators": RANKED},
}


def report_markdown(runs: Sequence[Run]) -> str:
    """One run summed up; or several beside each other, and what changed from the first to each of the others."""
    return "\n".join(_one(runs[0]) if len(runs) == 1 else _several(runs)).rstrip("\n") + "\n"


def ladder_markdown(folder: Path, record: LadderRecord) -> str:
    """A ladder as a heading and its tables."""
    title, footer = ladder_facts(record)
    others = [name for name in shown_of(record) if name != "ladder"]
    rows = []
    table = ladder_rows(record)
    for row in table.to_dict("records"):
        cells = [
            MISSING if pd.isna(value) else shown(value)
            for value, shown in (
                (row["images_per_s"], fmt_rate),
                (row["speedup"], fmt_factor),
                (ns_to_ms(row["median_ns"]), "{:,.2f}".format),
                (row["samples"], str),
                (bytes_to_mib(row["peak_memory_bytes"]), "{:,.0f}".format),
                (row["agreement"], "{:.4f}".format),
            )
        ]
        last = row["speedup_verdict"] if row["status"] == "ok" else row["status"]
        rows.append([str(row["technique"]), *cells, str(last)])
    head = ["row", f"{record.setup.unit}/s", "× fp32", "median ms", "n", "peak MiB", agreement_title(table), ""]
    said = [f"- {_line(one)}" for one in of_ladder(record, table)]
    lines = [
        f"### {plain(folder.resolve().name)}",
        "",
        plain(title),
        "",
        *grid(head, rows),
        "",
        *chain.from_iterable((*table_markdown(every_table()[name].of_source(record)), "") for name in others),
        *said,
        "",
        plain(footer),
    ]
    return "\n".join(lines) + "\n"


def _one(run: Run) -> Iterator[str]:
    yield from (f"### {plain(run.name)}", "", plain(what_ran(run.record, run.broken_record)), "")
    yield from (f"- {line}" for line in _said(run))
    shown = numbers(run)
    if shown:
        yield from ("", *grid([one.name for one in shown], [[one.value for one in shown]], named=False))
    if run.trace is not None and run.presence is not None:
        yield from _trace(run, run.trace, on_gpu=run.presence.ran == "gpu")
    if run.snapshot is not None:
        yield from _memory(run.snapshot)
    yield from _layers(run)


def _said(run: Run) -> Iterator[str]:
    """What to know first, a line each; of what is worth fixing, the first few."""
    found = run.findings
    rest = of_kind(found, "advice")[ADVICE:]
    for one in found:
        if one not in rest:
            yield f"{'Worth fixing: ' if one.kind == 'advice' else ''}{_line(one)}"


def _line(one: Finding) -> str:
    """A finding in one line: title, gain, sentence, what to try."""
    title = f"**{plain(one.heading)}.** " if one.title else ""
    return f"{title}{_bold(one)}{f' Try: {plain(one.attempt)}' if one.attempt else ''}"


def _trace(run: Run, trace: Trace, *, on_gpu: bool) -> Iterator[str]:
    regions = every_table()["regions"].of_source(trace)
    bounds = [run.bounds.get(path, MISSING) for path in regions.frame["path"][:REGIONS]]
    times = [fmt_count(count) for count in regions.frame["instances"][:REGIONS]]
    extra = {"bound by": bounds, "instances": times} if on_gpu else {}
    lines = table_markdown(regions, REGIONS, columns=_REGIONS if on_gpu else _HOST_REGIONS, extra=extra)
    why = no_rows(regions) if is_hollow(regions) else None
    if len(regions) or why is not None:
        yield from ("", f"**Regions{_of(REGIONS, len(regions))}**", "", *lines)
    if len(regions) and why is not None:  # rows of what has no region alone
        yield from ("", plain(why.line))
    name = "kernels" if on_gpu else "operator_sums"
    title, columns = _RANKED[name]
    filled = every_table()[name].of_source(trace)
    lines = table_markdown(filled, RANKED, columns=columns)
    if len(filled) or no_rows(filled) is not None:
        yield from ("", f"**{title}{_of(RANKED, len(filled))}**", "", *lines)


def _memory(snapshot: Snapshot) -> Iterator[str]:
    for row in snapshot.summary()["devices"]:
        device = row["device"]
        if not holds_memory(row):
            continue
        yield from ("", "**Memory**" if device == 0 else f"**Memory of device {device}**", "")
        held = live(row).of_source(snapshot, device=device)
        yield from table_markdown(held, RANKED, columns=("stack", "size_bytes", "share")) if len(held) else ()


def _layers(run: Run) -> Iterator[str]:
    """The parts of the model at each batch size."""
    if run.layers is None or run.layers.totals.empty:
        return
    totals = run.layers.totals
    rows = totals[totals["depth"] <= 1]
    batches = sorted(rows["batch_size"].unique().tolist())
    value = dict(zip(zip(rows["layer"], rows["batch_size"], strict=True), rows["per_image_ns"], strict=True))
    names = list(dict.fromkeys(rows["layer"]))[:REGIONS]
    cells = [
        (name, *(fmt_ns(value[name, batch]) if (name, batch) in value else MISSING for batch in batches))
        for name in names
    ]
    yield from (
        "",
        "**Layers: time per item by batch size**",
        "",
        *grid(("layer", *(f"batch {b}" for b in batches)), cells),
    )


def _several(runs: Sequence[Run]) -> Iterator[str]:
    yield from (f"### {' → '.join(plain(run.name) for run in runs)}", "")
    shown = [{one.name: one.value for one in numbers(run)} for run in runs]
    names = list(dict.fromkeys(name for one in shown for name in one if name != "Events in the trace"))
    yield from grid(
        ("run", *names),
        [(run.name, *(one.get(name, MISSING) for name in names)) for run, one in zip(runs, shown, strict=True)],
    )
    for run in runs[1:]:
        found = compare_runs(runs[0], run)
        if found is None:
            without = ", ".join(one.name for one in (runs[0], run) if one.trace is None)
            yield from ("", plain(f"{runs[0].name} → {run.name}: not compared, no trace in {without}."))
        else:
            yield from _changes(runs[0], run, found, tables=len(runs) == 2)
    for run in runs:
        yield from ("", *(f"- {plain(run.name)}: {plain(line)}" for line in run.problems)) if run.problems else ()


def comparison_markdown(a: Run, b: Run, found: Comparison) -> str:
    """What changed from A to B, to paste into a pull request."""
    head = f"### {plain(a.name)} → {plain(b.name)}"
    return "\n".join([head, *_changes(a, b, found, tables=True)]) + "\n"


def _changes(a: Run, b: Run, found: Comparison, *, tables: bool) -> Iterator[str]:
    """The sentences of a comparison and its tables; of more than two runs only totals and regions."""
    said = of_comparison(found, (a.record, b.record))
    title = () if tables else (f"**{plain(a.name)} → {plain(b.name)}**", "")
    yield from ("", *title, *(f"- {_bold(one)}" for one in said))
    for name, top in (_TABLES[found.metric] if tables else {"diff_regions": REGIONS}).items():
        filled = every_table()[name].of_source({"B": found})
        head, rows = plain(table_title(filled, top=top)), table_markdown(filled, top)
        if len(filled) and filled.table.top is not None:
            yield from ("", "<details>", f"<summary>{head}</summary>", "", *rows, "", "</details>")
        elif len(filled):
            yield from ("", f"**{head}**", "", *rows)


def _bold(one: Finding) -> str:
    return "".join(f"**{plain(piece)}**" if bold else plain(piece) for piece, bold in one.pieces)


def _of(shown: int, all_of_them: int) -> str:
    return f" ({shown} of {fmt_count(all_of_them)})" if shown < all_of_them else ""
