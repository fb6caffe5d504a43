"""`profiler-kit memory A B`: what takes more and less memory in B than in A."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from profiler_kit.cli.diff import print_comparison
from profiler_kit.cli.output import print_json, records
from profiler_kit.errors import InputError, ThresholdError

if TYPE_CHECKING:
    from profiler_kit.analyses.compare.snapshots import MemoryChange, MemoryComparison
    from profiler_kit.snapshot import Snapshot


def compare(
    sides: tuple[Snapshot, Snapshot],
    paths: tuple[Path, Path],
    *,
    limit: float | None,
    as_json: bool,
    as_markdown: bool,
    top: int,
) -> None:
    """Print the comparison; raises ThresholdError when something grew beyond the limit (0.05: 5 %)."""
    from profiler_kit.analyses.compare.snapshots import compare_snapshots
    from profiler_kit.findings.compare import changed, from_to, of_memory

    found = compare_snapshots(*sides)
    said = of_memory(found, list(zip("AB", sides, strict=True)))
    if limit is not None:
        for side, path in zip(sides, paths, strict=True):
            _require_history(side, path, limit)
    worst = None if limit is None else found.worst(limit)
    if as_json:
        print_json(to_json(found, paths, [one.sentence for one in said], limit, worst))
    else:
        print_comparison("memory diff", found, paths, said, as_markdown=as_markdown, top=top)
    if worst is not None and limit is not None:
        raise ThresholdError(
            f"{paths[1]}: {_named(worst)} grew over {paths[0]}: {from_to(worst)} "
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


def _named(row: MemoryChange) -> str:
    from profiler_kit.text import fmt_path

    if row.kind == "region":
        return f"the peak in region {fmt_path(row.path)} of device {row.device}"
    return f"{row.path[0]} of device {row.device}"


def to_json(
    found: MemoryComparison, paths: tuple[Path, Path], lines: list[str], limit: float | None, worst: MemoryChange | None
) -> dict[str, object]:
    """What --json prints."""
    return {
        "a": str(paths[0]),
        "b": str(paths[1]),
        "verdict": lines,
        "fail_above": limit,
        "failed": None if worst is None else _rows(type(found)((worst,)))[0],
        "changes": _rows(found),
    }


def _rows(found: MemoryComparison) -> list[dict[str, object]]:
    from profiler_kit.analyses.compare.snapshots import memory_compared

    return records(memory_compared({"B": found}).drop(columns="run"))
