"""A comparison as people read it: what changed, in sentences first, then tables (Comparison -> text, Markdown)."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

from profiler_kit.analyses.compare.measurements import STEP
from profiler_kit.analyses.compare.traces import LATENCY, Change, Comparison
from profiler_kit.formats.run_record import RunRecord
from profiler_kit.render.markdown import grid, plain
from profiler_kit.text import MISSING, fmt_bytes, fmt_count, fmt_ns, fmt_path, fmt_percent, time_unit

AS_FACTOR: Final = 1.5  # from here on "2.1 × faster" reads better than "-52 %"
HOLDS: Final = 0.5  # a nested region that holds this share of the change around it is the better answer
STARVED: Final = 0.25  # idle share from which the GPU is said to wait
WIDTH: Final = 90  # of a kernel's name; JSON has all of it
_FACTS: Final = ("model", "weights", "optimizations", "dtype", "batch_size", "image_size", "device_name", "images")


@dataclass(frozen=True)
class Grid:
    """A table: the first column is text, the others numbers."""

    title: str
    columns: tuple[str, ...]
    rows: tuple[tuple[str, ...], ...]
    detail: bool


def verdict(found: Comparison, records: tuple[RunRecord | None, RunRecord | None] = (None, None)) -> list[str]:
    """Some sentences, the most important first."""
    said = [_headline(found, records), _where(found), _waiting(found), _memory(records), _facts(records), _basis(found)]
    return [line for line in said if line]


def changed(row: Change) -> str:
    """The change in words: `+4.8 %`, `3.09 × faster`, `same`, `new`, `gone`."""
    if row.status in ("added", "removed"):
        return "new" if row.status == "added" else "gone"
    if row.status == "same":
        return "same"
    return ratio(row)


def ratio(row: Change) -> str:
    """The change as a number, without asking the noise."""
    if row.change is None:
        return MISSING
    factor = 1 + row.change
    if factor >= AS_FACTOR:
        return f"{factor:.2f} × slower"
    if 0 < factor <= 1 / AS_FACTOR:
        return f"{1 / factor:.2f} × faster"
    return f"{row.change * 100:+.1f} %"


def from_to(row: Change) -> str:
    """`91.828 → 29.681 ms`, in one unit."""
    values = [side.value_ns for side in (row.a, row.b) if side]
    unit = time_unit(values)
    texts = [fmt_ns(side.value_ns if side else None, unit) for side in (row.a, row.b)]
    return f"{texts[0].removesuffix(unit).strip()} → {texts[1]}"


def noise(row: Change) -> str:
    """`± 0.092 ms`; `unknown` when both sides ran once."""
    return "unknown" if row.noise_ns is None else f"± {fmt_ns(row.noise_ns)}"


def grids(found: Comparison, top: int) -> list[Grid]:
    """The tables: totals, regions, kinds of GPU work, and of kernels and operators those that changed most."""
    per = _per(found) or "in all"
    values = ("A", "B", "change", "noise")
    tables = [
        Grid("Totals", ("", *values), tuple((_label(found, row), *_cells(row)) for row in found.of("total")), False),
        _region_grid(found),
    ]
    for kind, title in (
        ("work", "GPU work by kind"),
        ("kernel", "Kernels"),
        ("operator", "Operators, self time on the host"),
    ):
        rows = found.of(kind)  # type: ignore[arg-type]
        shown = rows if kind == "work" else rows[:top]
        if shown:
            many = f"the {len(shown)} of {fmt_count(len(rows))} that changed most, " if len(shown) < len(rows) else ""
            cells = tuple((_short(row.path[0]), *_cells(row), _counts(row)) for row in shown)
            columns = ("kind" if kind == "work" else kind, *values, "calls")
            tables.append(Grid(f"{title}: {many}{per}", columns, cells, kind != "work"))
    return [table for table in tables if table.rows]


def markdown(found: Comparison, names: tuple[str, str], lines: Sequence[str], top: int) -> str:
    """The comparison to paste into a pull request; kernels and operators folded away."""
    return grids_markdown(f"{names[0]} → {names[1]}", lines, grids(found, top))


def grids_markdown(title: str, lines: Sequence[str], tables: Sequence[Grid]) -> str:
    """A heading, a list and tables as Markdown; tables of details are folded away."""
    out = [f"### {plain(title)}", "", *(f"- {plain(line)}" for line in lines), ""]
    for table in tables:
        rows = grid(table.columns, table.rows)
        if table.detail:
            out += ["<details>", f"<summary>{plain(table.title)}</summary>", "", *rows, "", "</details>", ""]
        else:
            out += [f"**{plain(table.title)}**", "", *rows, ""]
    return "\n".join(out)


def _region_grid(found: Comparison) -> Grid:
    host = {row.path: row for row in found.of("region", "host")}
    main = found.of("region", found.metric)
    rows = []
    for row in main or list(host.values()):
        cells = (_indented(row.path), *_cells(row))
        rows.append((*cells, from_to(host[row.path]), changed(host[row.path])) if found.metric == "gpu" else cells)
    what = "GPU busy time" if found.metric == "gpu" else "host time"
    per = _per(found) or "per instance, median"
    columns = ("region", "A", "B", "change", "noise", *(("host", "host change") if found.metric == "gpu" else ()))
    return Grid(f"Regions: {what} {per}", columns, tuple(rows), False)


def _headline(found: Comparison, records: tuple[RunRecord | None, RunRecord | None]) -> str:
    totals = {row.path[0]: row for row in found.of("total")}
    row = totals.get(LATENCY) or totals.get("round") or totals.get("GPU busy") or totals.get("trace")
    if row is None or row.a is None or row.b is None:
        return "Nothing to compare: the traces share no time."
    first, second = records
    images = f" of {first.batch_size} images" if first and second and first.batch_size == second.batch_size else ""
    what = {
        LATENCY: f"a batch{images}, recorded without the profiler"
        if images
        else "an image, recorded without the profiler",
        "round": "a step" if found.round == STEP else f"a {found.round}",
        "GPU busy": "of GPU work in all",
        "trace": "from first to last event",
    }[row.path[0]]
    if row.status == "same":
        said = "B takes as long as A"
    elif row.change is not None and -1 / 3 < row.change < 0.5:
        said = (
            f"B takes {row.change * 100:+.1f} % of A's time on top"
            if row.change > 0
            else f"B saves {-row.change * 100:.1f} %"
        )
    else:
        said = f"B is {ratio(row)} than A"
    return f"{said}: {from_to(row)} {what} (noise {noise(row)})."


def _where(found: Comparison) -> str:
    """The innermost region that holds most of the change of GPU (else host) time."""
    rows = [row for row in found.of("region", found.metric) if row.a and row.b and row.status in ("slower", "faster")]
    whole = next((row.delta_ns for row in found.of("total") if row.path[0] == "GPU busy"), 0.0)
    if found.metric == "host":
        whole = next((row.delta_ns for row in found.of("total", "wall")), 0.0)
    best: Change | None = None
    while True:
        below = [row for row in rows if len(row.path) == len(best.path if best else ()) + 1]
        below = [row for row in below if best is None or row.path[:-1] == best.path]
        around = best.delta_ns if best else whole
        share = [row.delta_ns / around for row in below if around]
        if not share or max(share) < HOLDS:
            break
        best = below[share.index(max(share))]
    if best is None or best.path == (found.round,):
        return ""
    what = "GPU" if found.metric == "gpu" else "Host"
    return f"{what} time changed most in {fmt_path(best.path)}: {from_to(best)} ({ratio(best)})."


def _waiting(found: Comparison) -> str:
    """Say so when the GPU waits in B, and more than in A."""
    totals = {row.path[0]: row for row in found.of("total")}
    step, busy = totals.get("round") or totals.get("trace"), totals.get("GPU busy")
    if step is None or busy is None or not (step.a and step.b and busy.a and busy.b):
        return ""
    share_a, share_b = busy.a.value_ns / step.a.value_ns, busy.b.value_ns / step.b.value_ns
    if 1 - share_b < STARVED or share_b > share_a:
        return ""
    return (
        f"B's GPU is busy {fmt_percent(share_b, 0)} of the time while recorded (A's {fmt_percent(share_a, 0)}): "
        "look at launches and copies next."
    )


def _memory(records: tuple[RunRecord | None, RunRecord | None]) -> str:
    peaks = [record.peak_memory_bytes if record else None for record in records]
    if None in peaks:
        return ""
    return f"Peak memory: {fmt_bytes(peaks[0])} → {fmt_bytes(peaks[1])}."


def _facts(records: tuple[RunRecord | None, RunRecord | None]) -> str:
    """What was set differently."""
    first, second = records
    if first is None or second is None:
        return ""
    differ = []
    for name in _FACTS:
        values = [getattr(record, name) for record in (first, second)]
        if values[0] != values[1]:
            texts = [", ".join(v) or "none" if isinstance(v, tuple) else str(v) for v in values]
            differ.append(f"{name.replace('_', ' ')} {texts[0]} → {texts[1]}")
    torch = [record.versions.get("torch", "") for record in (first, second)]
    differ += [f"torch {torch[0]} → {torch[1]}"] if torch[0] != torch[1] else []
    return (
        f"Set differently: {'; '.join(differ)}." if differ else "Set alike: model, optimizations, sizes, device, torch."
    )


def _basis(found: Comparison) -> str:
    if found.round is None:
        return (
            "The traces share no ProfilerSteps and no repeated outermost region: regions are compared per instance, "
            "kernels and operators in all."
        )
    a, b = found.rounds
    if a == b == 1:
        return f"Times are of one {found.round} each, so that nothing is known of their noise."
    return f"Times are per {found.round}: medians of {a if a == b else f'{a} and of {b}'}."


def _per(found: Comparison) -> str:
    return "" if found.round is None else "per step" if found.round == STEP else f"per {found.round}"


def _label(found: Comparison, row: Change) -> str:
    names = {"round": f"{'step' if found.round == STEP else found.round}, on the host", "trace": "first to last event"}
    return names.get(row.path[0], row.path[0])


def _cells(row: Change) -> tuple[str, str, str, str]:
    unit = time_unit(side.value_ns for side in (row.a, row.b) if side)
    values = [fmt_ns(side.value_ns if side else None, unit) for side in (row.a, row.b)]
    return values[0], values[1], changed(row), noise(row)


def _counts(row: Change) -> str:
    counts = [f"{side.count:,.1f}".removesuffix(".0") if side else MISSING for side in (row.a, row.b)]
    return counts[0] if counts[0] == counts[1] else f"{counts[0]} → {counts[1]}"


def _short(name: str) -> str:
    return name if len(name) <= WIDTH else name[: WIDTH - 1] + "…"


def _indented(path: tuple[str, ...]) -> str:
    return "  " * (len(path) - 1) + path[-1]


def for_letter(line: str, letter: str) -> str:
    """A sentence of `verdict` with the second run called by another letter than B."""
    return re.sub(r"\bB\b", letter, line)
