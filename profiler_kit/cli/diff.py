"""`profiler-kit diff A B`: what got slower and faster between two traces or runs."""

from __future__ import annotations

import re
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Final

import typer

from profiler_kit.cli.output import AsJson, check_formats, check_top, hanging, open_trace, print_json, records
from profiler_kit.cli.table_command import print_filled
from profiler_kit.errors import InputError, OptionError, ThresholdError
from profiler_kit.files import PLAIN_OR_PACKED
from profiler_kit.names import printable

if TYPE_CHECKING:
    from profiler_kit.analyses.compare.measurements import Measured
    from profiler_kit.analyses.compare.snapshots import MemoryChange, MemoryComparison
    from profiler_kit.analyses.compare.traces import Change, Comparison
    from profiler_kit.finding import Finding
    from profiler_kit.formats.run_record import RunRecord
    from profiler_kit.snapshot import Snapshot
    from profiler_kit.table import Of


_PERCENT: Final = re.compile(r"(\d+(?:\.\d+)?)\s*%")
_NAME: Final = f"A chrome trace (.json; {PLAIN_OR_PACKED}) or a run folder that holds one: what "


def command(
    a: Annotated[Path, typer.Argument(metavar="A", help=f"{_NAME}was.")],
    b: Annotated[Path, typer.Argument(metavar="B", help=f"{_NAME}is.")],
    fail_above: Annotated[
        str | None,
        typer.Option(
            "--fail-above", metavar="PERCENT", help="Exit with 1 when B is slower by more than this, such as 5%."
        ),
    ] = None,
    as_json: AsJson = False,
    as_markdown: Annotated[
        bool, typer.Option("--markdown", help="Print Markdown to paste into a pull request.")
    ] = False,
    top: Annotated[
        int | None,
        typer.Option(
            "--top", help="How many kernels and operators (10) or rows of the tree (60) to show; --json has all."
        ),
    ] = None,
    tree: Annotated[
        bool, typer.Option("--tree", help="Compare the trees of regions, modules, operators and kernels instead.")
    ] = False,
) -> None:
    """Compare two recordings: regions, kernels and operators that came, went, got slower or faster.

    Times are per ProfilerStep when both have steps, else per outermost region that both repeat. A change counts when
    it exceeds the noise, taken from those repetitions: the notches around the medians (1.57 * IQR / sqrt(n)) do not
    overlap. Kernels are matched by name without dtype and sizes, so that float and bfloat16 meet. --fail-above
    asks the totals and the regions, those above 1 % of the whole.
    """
    threshold = None if fail_above is None else parse_percent(fail_above)
    check_formats(as_json, as_markdown, "--markdown")
    if top is not None:
        check_top(top, 10)
    if tree:
        if other := "--markdown" * as_markdown or "--fail-above" * (fail_above is not None):
            raise OptionError(f"--tree {other}: these exclude each other, expected one of them. Leave one out.")
        compare_call_trees(a, b, as_json=as_json, top=top)
        return
    from profiler_kit.findings import compare

    records = (_record(a), _record(b))
    found = compare_files(a, b, records)
    said = compare.of_comparison(found, records)
    worst = None if threshold is None else found.worst(threshold)
    if as_json:
        print_json(to_json(found, (a, b), [one.sentence for one in said], threshold, worst))
    else:
        print_comparison("diff", found, (a, b), said, as_markdown=as_markdown, top=top or 10)
    if worst is not None:
        known = f"noise {compare.noise(worst)}" if worst.noise_ns is not None else "measured once, noise unknown"
        raise ThresholdError(
            f"{b}: {_named(found, worst)} got slower than in {a}: {compare.from_to(worst)} "
            f"({(worst.change or 0.0) * 100:+.1f} %, {known}), expected at most +{fail_above}. "
            "Look at what changed, or raise --fail-above."
        )


def compare_call_trees(a: Path, b: Path, *, as_json: bool, top: int | None) -> None:
    """`diff A B --tree`: print the two trees of calls side by side."""
    from profiler_kit.tables.diff import TREE

    found = TREE.of_source({"A": open_trace(a), "B": open_trace(b)})
    if as_json:
        print_json(found.records())
        return
    print_filled(found, f"{a} → {b}", top or TREE.top)


def print_comparison(
    of: Of, found: object, paths: tuple[Path, Path], said: Sequence[Finding], *, as_markdown: bool, top: int
) -> None:
    """Print the findings of a comparison and its tables; in Markdown long tables are folded."""
    from profiler_kit.render.markdown import document
    from profiler_kit.tables import tables_of

    filled = [table.of_source({"B": found}) for table in tables_of(of)]
    tables = [(one, one.table.top and top, one.table.top is not None) for one in filled if len(one)]
    sentences = [one.sentence for one in said]
    if as_markdown:
        heading = " → ".join(printable(path.name or str(path)) for path in paths)
        typer.echo(document(f"{'Memory: ' if of == 'memory diff' else ''}{heading}", sentences, tables), nl=False)
        return
    sides = [f"{side}: {printable(path)}" for side, path in zip("AB", paths, strict=True)]
    typer.echo("\n".join((*sides, "", *(hanging("", sentence) for sentence in sentences), "")))
    for one, rows, _ in tables:
        print_filled(one, top=rows)


def parse_percent(text: str) -> float:
    """5% as 0.05; raises OptionError for anything else."""
    found = _PERCENT.fullmatch(text.strip())
    if found is None:
        raise OptionError(f"--fail-above {text}: not a percentage, expected a number and a percent sign. Try: 5%")
    return float(found[1]) / 100


def compare_files(a: Path, b: Path, records: tuple[RunRecord | None, RunRecord | None]) -> Comparison:
    """Load both and compare them; of two runs the latency without the profiler too."""
    from profiler_kit.analyses.compare.traces import compare
    from profiler_kit.run import latency_change

    return compare(open_trace(a).side(), open_trace(b).side(), latency_change(*records))


def _record(path: Path) -> RunRecord | None:
    """run.json of a run folder; a broken one is reported and left out."""
    from profiler_kit.formats.run_record import RECORD, read_record

    if not (path / RECORD).is_file():
        return None
    try:
        return read_record(path)
    except InputError as error:
        typer.echo(f"profiler-kit: {' '.join(str(error).split())}", err=True)
        return None


def _named(found: Comparison, row: Change) -> str:
    from profiler_kit.text import fmt_path

    if row.kind == "region":
        return f"region {fmt_path(row.path)} ({'GPU busy time' if row.metric == 'gpu' else 'host time'})"
    return {"round": found.round or "", "trace": "the whole trace"}.get(row.path[0], row.path[0])


def to_json(
    found: Comparison, paths: tuple[Path, Path], lines: list[str], threshold: float | None, worst: Change | None
) -> dict[str, object]:
    """What --json prints."""
    return {
        "a": str(paths[0]),
        "b": str(paths[1]),
        "per": found.round,
        "rounds": list(found.rounds),
        "regions_by": found.metric,
        "verdict": lines,
        "fail_above": threshold,
        "failed": None if worst is None else _json_row(worst),
        "changes": [_json_row(row) for row in found.changes],
    }


def _json_row(row: Change) -> dict[str, object]:
    sides = {"a": _json_side(row.a), "b": _json_side(row.b)}
    names = ("kind", "path", "metric", "status", "a", "b", "delta_ns", "change", "noise_ns")
    return {name: sides[name] if name in sides else getattr(row, name) for name in names}


def _json_side(side: Measured | None) -> dict[str, object] | None:
    if side is None:
        return None
    names = ("value_ns", "count", "calls", "sum_ns", "mean_ns", "samples", "notch_ns", "names")
    return {name: len(side.samples) if name == "samples" else getattr(side, name) for name in names}


def compare_memory(
    sides: tuple[Snapshot, Snapshot],
    paths: tuple[Path, Path],
    *,
    limit: float | None,
    as_json: bool,
    as_markdown: bool,
    top: int,
) -> None:
    """`memory A B`: print the comparison; raises ThresholdError when something grew beyond the limit (0.05: 5 %)."""
    from profiler_kit.analyses.compare.snapshots import compare_snapshots
    from profiler_kit.findings.compare import changed, from_to, of_memory

    found = compare_snapshots(*sides)
    said = of_memory(found, list(zip("AB", sides, strict=True)))
    if limit is not None:
        for side, path in zip(sides, paths, strict=True):
            _require_history(side, path, limit)
    worst = None if limit is None else found.worst(limit)
    if as_json:
        changes = _memory_rows(found)
        failed = None if worst is None else _memory_rows(type(found)((worst,)))[0]
        names = {"a": str(paths[0]), "b": str(paths[1]), "verdict": [one.sentence for one in said]}
        print_json({**names, "fail_above": limit, "failed": failed, "changes": changes})
    else:
        print_comparison("memory diff", found, paths, said, as_markdown=as_markdown, top=top)
    if worst is not None and limit is not None:
        raise ThresholdError(
            f"{paths[1]}: {_memory_named(worst)} grew over {paths[0]}: {from_to(worst)} "
            f"({changed(worst)}), expected at most +{100 * limit:g} %. "
            "Look at what changed, or raise --fail-above."
        )


def _require_history(side: Snapshot, path: Path, limit: float) -> None:
    """Raises InputError for a snapshot of which no peak is known."""
    held = [row for row in side.summary()["devices"] if row["events"] or row["reserved_bytes"]]
    if not held or not all(row["history_followed"] for row in held):
        raise InputError(
            f"{path}: no history to follow, so that its peak is not known, expected one for --fail-above "
            f"{100 * limit:g}%. Record it with profiler_kit.memory_runner."
        )


def _memory_named(row: MemoryChange) -> str:
    from profiler_kit.text import fmt_path

    if row.kind == "region":
        return f"the peak in region {fmt_path(row.path)} of device {row.device}"
    return f"{row.path[0]} of device {row.device}"


def _memory_rows(found: MemoryComparison) -> list[dict[str, object]]:
    from profiler_kit.analyses.compare.snapshots import memory_compared

    return records(memory_compared({"B": found}).drop(columns="run"))
