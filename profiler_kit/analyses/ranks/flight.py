"""Who is missing in which collective, from the dumps of the flight recorder that ranks wrote when their job hung."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Final

import pandas as pd

from profiler_kit.load.flight.reader import Dump, Dumps, Entry
from profiler_kit.schema import Column, Schema

STATES: Final = ("scheduled", "started", "completed")
MOST_NAMED: Final = 4
_PAIR: Final = re.compile(r"(send|recv)\s+(\d+)\s*(?:->|<-)\s*(\d+)")

FLIGHT: Final = Schema(
    "FLIGHT",
    "collective that some rank had issued, the uncompleted ones first",
    {
        "group": Column("str", "Process group, as the dumps name it."),
        "description": Column("str", "What the group is for.", show="varied"),
        "sequence": Column("Int64", "Its number in the group.", unit="id"),
        "operation": Column("str", "What most of its ranks issued."),
        "state": Column("str", "The least of what its ranks say: missing, differs, scheduled, started, completed."),
        "missing": Column("str", "Ranks of the group that have not issued it, although they wrote a dump."),
        "differs": Column("str", "Ranks that issued something else under that number, and what."),
        "waiting": Column("str", "Ranks that issued it, and on which it did not complete."),
        "completed": Column("int64", "On how many ranks it completed."),
        "members": Column("int64", "How many ranks the group has; 0 where no dump says."),
        "no_dump": Column("str", "Ranks of the group of which there is no dump.", "no dump", show="varied"),
        "unknown": Column("str", "Ranks whose record of that time was overwritten.", show="varied"),
        "waits_ns": Column("Int64", "From its first issue to the last thing that any dump records after it.", "for"),
        "at": Column("str", "The line of code that issued it, on the first rank.", "issued at"),
        "missing_at": Column("str", "What the first of the missing ranks had issued last in any group.", "missing at"),
    },
)


@dataclass
class _Issued:
    members: tuple[int, ...]
    entries: dict[int, Entry] = field(default_factory=dict)


def flight(dumps: Dumps) -> pd.DataFrame:
    """Dumps of the ranks of a job -> FLIGHT.

    A member of the group whose dump does not have the number is missing, unless it has only later ones: then its
    record was overwritten, and the collective is behind it; or unless it has none of that group, and others were
    overwritten: then it is unknown. Sends and receives are of two ranks and numbered apart.
    """
    groups = {name: told for dump in dumps.ranks.values() for name, told in dump.groups.items()}
    found: dict[tuple[str, str, int], _Issued] = {}
    for rank, dump in dumps.ranks.items():
        for entry in dump.entries:
            key, members = _key(entry, (dump.groups.get(entry.group) or groups.get(entry.group) or ("", ()))[1])
            if key is not None:
                found.setdefault(key, _Issued(members)).entries.setdefault(rank, entry)
    firsts: dict[tuple[int, str, str], int] = {}
    for (group, pair, sequence), issued in found.items():
        for rank in issued.entries:
            firsts[rank, group, pair] = min(sequence, firsts.get((rank, group, pair), sequence))
    end = max((time for dump in dumps.ranks.values() for one in dump.entries for time in _times(one)), default=0)
    rows = [_row(key, issued, dumps, groups, firsts, end) for key, issued in found.items()]
    rows.sort(key=lambda row: (row["state"] == "completed", str(row["group"]), row["sequence"]))
    return FLIGHT.of(rows)


def _key(entry: Entry, members: tuple[int, ...]) -> tuple[tuple[str, str, int] | None, tuple[int, ...]]:
    """Group, pair of ranks ("" of a collective) and number of an operation, and the ranks that it needs."""
    pair = _PAIR.search(entry.operation)
    if not (entry.is_pair or pair):
        return (None if entry.sequence is None else (entry.group, "", entry.sequence)), members
    number = entry.pair_sequence if entry.pair_sequence is not None else entry.sequence
    if pair is None or number is None:
        return None, ()
    own, other = int(pair[2]), int(pair[3])
    ends = (own, other) if pair[1] == "send" else (other, own)
    ranks = tuple(members[one] if one < len(members) else one for one in ends)
    return (entry.group, f"{ranks[0]}->{ranks[1]}", number), ranks


def _row(
    key: tuple[str, str, int],
    issued: _Issued,
    dumps: Dumps,
    groups: Mapping[str, tuple[str, tuple[int, ...]]],
    firsts: dict[tuple[int, str, str], int],
    end: int,
) -> dict[str, object]:
    group, pair, sequence = key
    entries = issued.entries
    usual, sizes, other = f"send {pair}", "", {}
    if not pair:
        (((usual, sizes), _),) = Counter((one.operation, one.sizes) for one in entries.values()).most_common(1)
        other = {rank: one for rank, one in entries.items() if _differs(one, usual, sizes)}
    absent = [rank for rank in issued.members if rank not in entries]
    without = [rank for rank in absent if rank not in dumps.ranks]
    passed = [rank for rank in absent if rank in dumps.ranks and _is_past(dumps.ranks[rank], key, firsts)]
    missing = [rank for rank in absent if rank in dumps.ranks and rank not in passed]
    waiting = [rank for rank, one in entries.items() if one.state != STATES[-1]]
    least = min(STATES.index(one.state) if one.state in STATES else 0 for one in entries.values())
    first = min(entries.values(), key=_created)
    created = min(filter(None, map(_created, entries.values())), default=None)
    behind = max(dumps.ranks[missing[0]].entries, key=_created, default=None) if missing else None
    listed = [
        f"rank {rank}: {one.operation}" + (f" of {one.sizes}" if one.operation == usual else "")
        for rank, one in sorted(other.items())
    ]
    return {
        "group": group,
        "description": groups.get(group, ("", ()))[0],
        "sequence": sequence,
        "operation": usual,
        "state": "missing" if missing else "differs" if other and waiting else STATES[least],
        "missing": ranks_text(missing),
        "differs": "; ".join(
            [*listed[:MOST_NAMED], *([f"{len(other) - MOST_NAMED} more"] if len(other) > MOST_NAMED else [])]
        ),
        "waiting": ranks_text(waiting),
        "completed": len(entries) - len(waiting),
        "members": len(issued.members),
        "no_dump": ranks_text(without),
        "unknown": ranks_text(passed),
        "waits_ns": pd.NA if created is None or not waiting or end == created else end - created,
        "at": first.line,
        "missing_at": "" if behind is None else f"{behind.operation} ({behind.state}) {behind.line}".strip(),
    }


def _differs(entry: Entry, operation: str, sizes: str) -> bool:
    """Whether it is another operation, or its sizes do not fit; those of scatter, gather, all_to_all vary by rank."""
    if entry.operation != operation:
        return True
    return entry.sizes != sizes and not re.search(r"scatter|gather|to_?all|coalesced", operation.lower())


def _is_past(dump: Dump, key: tuple[str, str, int], firsts: Mapping[tuple[int, str, str], int]) -> bool:
    """Whether a rank whose dump does not have a number has only later ones, or may have had it before these."""
    group, pair, sequence = key
    first = firsts.get((dump.rank, group, pair))
    if first is not None:
        return first > sequence
    return dump.last[group] >= sequence if not pair and group in dump.last else not dump.whole


def _created(entry: Entry) -> int:
    return entry.created_ns or 0


def _times(entry: Entry) -> Iterable[int]:
    return filter(None, (entry.created_ns, entry.started_ns, entry.completed_ns))


def ranks_text(ranks: Iterable[int]) -> str:
    """Ranks as people write them: 0-3, 7."""
    runs: list[list[int]] = []
    for rank in sorted(ranks):
        if runs and rank == runs[-1][1] + 1:
            runs[-1][1] = rank
        else:
            runs.append([rank, rank])
    return ", ".join(str(low) if low == high else f"{low}-{high}" for low, high in runs)
