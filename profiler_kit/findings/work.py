"""What a table says, in the sentence that is shown with it."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Mapping
from typing import Final, cast

import pandas as pd

from profiler_kit.analyses.gpu.kernels import By
from profiler_kit.analyses.gpu.timeline import gpu_timeline
from profiler_kit.analyses.gpu.window import operator_sums
from profiler_kit.finding import Evidence, Finding, Piece, bold, counted, say
from profiler_kit.findings.limits import OF_TABLES
from profiler_kit.findings.no_rows import is_hollow, no_rows
from profiler_kit.findings.ranks import findings_of_job, of_runs
from profiler_kit.names import fit_names, kernel_names
from profiler_kit.table import Filled
from profiler_kit.text import fmt_count, fmt_ns, fmt_percent

LETTERS: Final = 64
_GROUPS: Final = {"name": "kernel", "kind": "kind of work", "stream": "stream"}


def group_name(key: str, by: By) -> str:
    """The short name of a group of kernels."""
    return fit_names(kernel_names([key]), LETTERS)[0] if by == "name" else key


def longest_group(groups: pd.DataFrame, by: By) -> Finding:
    """How many GPU events there are, and what the longest group holds. Takes KERNEL_GROUPS, not empty."""
    first, events = groups.iloc[0], counted(int(groups["count"].sum()), "GPU event")
    one = "one" if len(groups) > 1 else "the only"
    said = say(
        f"{events} take {fmt_ns(int(groups['sum_ns'].sum()))}; ",
        bold(fmt_percent(float(first["share"]), 0)),
        f" of that in {one} {_GROUPS[by]}, ",
        bold(group_name(str(first["key"]), by)),
        ".",
    )
    evidence = Evidence("kernel_groups", {"key": (str(first["key"]),)}, {"by": by})
    return Finding("longest-kernels", "table", said, evidence=evidence, page="kernels")


def group_numbers(events: pd.DataFrame) -> str:
    """The numbers that sum up the events of one group. Takes GPU_EVENTS, not empty."""
    middle, last = (float(events["dur_ns"].quantile(share)) for share in (0.5, 0.95))
    return (
        f"{counted(len(events), 'time')} · sum {fmt_ns(int(events['dur_ns'].sum()))} · "
        f"busy {fmt_ns(gpu_timeline(events)['busy_ns'])} · median {fmt_ns(middle)} · 95 % below {fmt_ns(last)} · "
        f"longest {fmt_ns(int(events['dur_ns'].max()))}"
    )


def kernel_numbers(events: pd.DataFrame, range_ns: int | None) -> str:
    """The numbers that sum up kernels, those of a range so many ns long when there is one. Takes GPU_EVENTS."""
    busy = gpu_timeline(events)["busy_ns"]
    share = "" if range_ns is None else f" ({fmt_percent(busy / max(1, range_ns))} of the range)"
    total = fmt_ns(int(events["dur_ns"].sum()))
    return f"{fmt_count(len(events))} GPU events · sum {total} · busy {fmt_ns(busy)}{share}"


def operator_numbers(events: pd.DataFrame, range_ns: int | None) -> str:
    """The same of operators, which belong to the range that they start in. Takes OPERATORS."""
    said = f"{fmt_count(len(events))} operators · self time {fmt_ns(int(events['self_ns'].sum()))}"
    return said + ("" if range_ns is None else " · those that start in the range")


def no_call_sites(origins: pd.DataFrame) -> Finding | None:
    """What would tell more about where kernels were launched, when it was not recorded. Takes KERNEL_ORIGINS."""
    if not origins["site"].eq("").all():
        return None
    said, attempt = "Which line of Python launched it was not recorded.", "profiler_runner(path, with_stack=True)"
    return Finding("no-call-sites", "missing", say(said), attempt=attempt, page="kernels")


def longest_operator(operators: pd.DataFrame) -> Finding:
    """How long operators take on the host, and which takes most. Takes OPERATORS."""
    sums = operator_sums(operators)
    whole = int(sums["self_ns"].sum())
    calls, names = fmt_count(int(sums["count"].sum())), counted(len(sums), "operator")
    said: list[str | Piece] = [f"{calls} calls of {names} take {fmt_ns(whole)} on the host"]
    if whole:
        share = fmt_percent(int(sums["self_ns"].iloc[0]) / whole, 0)
        said += ["; ", bold(str(sums["name"].iloc[0])), " takes most, ", bold(share)]
    return Finding(
        "longest-operators",
        "table",
        say(*said, "."),
        evidence=Evidence("operator_sums", {"name": tuple(sums["name"].head(1))}),
        page="operators",
    )


def launch_cost(totals: pd.DataFrame) -> Finding:
    """What launching costs the host. Takes LAUNCH_TOTALS, not empty."""
    calls, short = int(totals["launches"].sum()), int(totals["short"].sum())
    said = say(
        f"{counted(calls, 'launch call')} {'takes' if calls == 1 else 'take'} ",
        f"{fmt_ns(int(totals['host_ns'].sum()))} on the host; ",
        bold(fmt_percent(short / max(1, calls), 0)),
        " of them take longer than the work they launch.",
    )
    return Finding("launch-cost", "table", said, evidence=Evidence("launch_totals"), page="operators")


LAUNCHED_NOTHING: Final = Finding(
    "launched-nothing", "table", say("It launched nothing itself: what it calls did."), page="operators"
)


def of_table(filled: Filled) -> Finding | None:
    """The sentence to show with a filled table; None where there is nothing to say."""
    if is_hollow(filled):
        return no_rows(filled)
    if filled.table.name == "kernel_groups":
        return longest_group(filled.frame, cast("By", filled.options["by"]))
    if filled.table.name in OF_TABLES:
        return OF_TABLES[filled.table.name](filled)
    if filled.table.name == "ranks":
        first, *more = findings_of_job(filled.source)
        also = (one.sentence for one in more if one.kind == "ranks")  # what was left out is said when a job is opened
        return dataclasses.replace(first, details=(*first.details, *also))
    said = _OF_FRAMES.get(filled.table.name)
    return said(filled.frame) if said is not None else None


_OF_FRAMES: Final[Mapping[str, Callable[[pd.DataFrame], Finding | None]]] = {
    "launch_totals": launch_cost,
    "operators": longest_operator,
    "job_runs": of_runs,
}
