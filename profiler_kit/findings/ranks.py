"""What is worth saying about a job of several ranks: who holds it up, by what, and what is not known."""

from __future__ import annotations

from typing import Any, Final

import pandas as pd

from profiler_kit.analyses.ranks.ranks import RANK_TOTALS
from profiler_kit.analyses.ranks.trend import TREND
from profiler_kit.analyses.ranks.verdict import NAMED_FROM, Slow, Verdict
from profiler_kit.finding import Evidence, Finding, Gain, Piece, bold, counted, say
from profiler_kit.findings.numbers import Number
from profiler_kit.names import fit_names, kernel_names
from profiler_kit.ranks import Ranks
from profiler_kit.text import fmt_count, fmt_ns, fmt_percent

LETTERS: Final = 64
CLEAR: Final = 0.1  # of all waiting: less is not worth a word
MOST_NAMED: Final = 8
LEAST_ERROR_NS: Final = 1_000
_CAUSES: Final = {
    "compute": "its kernels take longer",
    "host": "its host launches late",
    "data": "its host waits for data",
    "copies": "its copies take longer",
    "link": "its link is slow",
    None: "the cause is not clear",
}
_ATTEMPTS: Final = {
    "compute": "compare clocks, power and temperature of its GPU with the others; else give it less work.",
    "host": "look at that region on its host: other processes, garbage collection, a slow file system.",
    "data": "more workers or a larger prefetch for its data loader.",
    "copies": "pinned memory, and copies that overlap with computation.",
    "link": "look at its cable, port or switch; leave the node out.",
}


def findings_of_job(ranks: Ranks) -> list[Finding]:
    """Everything worth saying about a job, the most important first."""
    found = [who_holds_up(ranks), who_waits(ranks.totals()), unmatched(ranks), clocks_apart(ranks), left_out(ranks)]
    return [one for one in found if one is not None]


def numbers_of_job(ranks: Ranks) -> list[Number]:
    """The numbers that sum up a job."""
    answer, wall = ranks.answer, ranks.step_times()["wall_ns"]
    whole = max(len(ranks.ranks), ranks.world_size)
    read = fmt_count(len(ranks.ranks)) + ("" if len(ranks.ranks) == whole else f" of {fmt_count(whole)}")
    shown = [Number("Ranks", read, "Ranks whose trace was read, out of those that the traces name.")]
    if len(wall):
        meaning = f"Of the slowest rank in each of {counted(len(wall), 'step')}, on the host."
        shown += [
            Number(f"Step, {name}", fmt_ns(float(wall.quantile(share))), meaning)
            for name, share in (("median", 0.5), ("95 %", 0.95), ("99 %", 0.99))
        ]
    kernels = answer.matched + answer.unmatched
    if kernels:
        meaning = "Share of communication kernels, on all ranks, whose collective is known."
        shown.append(Number("Matched", fmt_percent(answer.matched / kernels), meaning))
    if len(answer.clocks) > 1 and answer.matched:
        error = _error(answer.clocks)
        shown.append(Number("Clocks within", error, "The largest error left after the clocks were aligned."))
    return shown


def of_runs(runs: pd.DataFrame) -> Finding | None:
    """How the last run differs from the one before it; None where there is one. Takes TREND."""
    if len(TREND.check(runs)) < 2:
        return None
    before, after = (runs.astype(object).iloc[row] for row in (-2, -1))
    said: list[str | Piece] = []
    if pd.isna(after["step_change"]):
        said += [f"{after['run']} against {before['run']}: without steps in both there is no time to compare. "]
    else:
        change = float(after["step_change"])
        how = f"{fmt_percent(abs(change))} {'more' if change > 0 else 'less'} than"
        said += ["A step takes ", bold(fmt_ns(int(after["step_ns"]))), ", ", bold(how), f" in {before['run']} "]
        said.append(f"({fmt_ns(int(before['step_ns']))}). ")
    shares = (fmt_percent(one["exposed_communication_ns"] / max(1, one["total_ns"])) for one in (after, before))
    said += ["Exposed communication: {} of the time, {} in the earlier run. ".format(*shares)]
    said += [f"{after['run']}: {_told(after)}; {before['run']}: {_told(before)}."]
    return Finding("runs", "change", say(*said), evidence=Evidence("job_runs"), page="ranks")


def _told(run: Any) -> str:
    """The verdict on a run in a few words."""
    if run["verdict"] in ("nobody", "cannot tell"):
        return {"nobody": "nothing holds it up", "cannot tell": "what holds it up is unknown"}[run["verdict"]]
    who = f"rank {run['slow_rank']}" if run["verdict"] == "rank" else f"a {run['verdict']}"
    who = "several ranks" if run["verdict"] == "spread" else who
    gain = "" if pd.isna(run["gain_share"]) else f", {fmt_percent(float(run['gain_share']))} to gain"
    return f"{who} ({run['cause'] or 'cause not clear'}{gain})"


def who_holds_up(ranks: Ranks) -> Finding:
    """The rank, the node or the link that holds the job up, by what, since when, and what that would gain."""
    answer = ranks.answer
    verdict = answer.verdict
    rows = {} if verdict.rank is None else {"rank": (verdict.rank,)}
    gain = None
    if verdict.gain_share is not None:
        saved = verdict.gain_share * answer.recorded_ns
        gain = Gain(saved, "ns", "measured", verdict.gain_share)
    return Finding(
        "who-holds-up",
        "ranks",
        say(*_verdict(verdict, ranks)),
        details=tuple(_details(verdict, ranks)),
        gain=gain,
        attempt=_attempt(verdict),
        evidence=Evidence("ranks", rows),
        page="ranks",
    )


def _verdict(verdict: Verdict, ranks: Ranks) -> list[str | Piece]:
    if verdict.state == "cannot tell":
        if ranks.missing and not verdict.ranks:
            return ["What holds the job up is unknown: it may be waiting for ranks without a trace."]
        if len(ranks.ranks) > 1 and len(ranks.answer.scores) < 2:
            return ["What holds the job up is unknown: no two ranks recorded a collective."]
        if len(ranks.answer.scores) < 2:
            return ["There is only one rank, and none to compare it with."]
        if verdict.chance:
            return ["What holds the job up is unknown: ", bold(f"rank {verdict.ranks[0]}"),
                    " has more work than the others, which may be chance over so few steps. Record more "
                    "steps."]  # fmt: skip
        if verdict.ranks:
            return ["What holds the job up is unknown: it waited for ", bold(f"rank {verdict.ranks[0]}"),
                    " in its first collective, and what came before that is not all recorded. Record more "
                    "steps."]  # fmt: skip
        scores = ranks.answer.scores
        silent = sorted(set(ranks.ranks) - set(scores["rank"][scores["collectives"] > 0].tolist()))
        if len(ranks.answer.what_if) and silent:
            who = _names(tuple(silent)).lower() if len(silent) > 1 else f"rank {silent[0]}"
            return ["What holds the job up is unknown: it may be waiting for ", bold(who),
                    ", of which no collective is recorded."]  # fmt: skip
        if len(ranks.answer.what_if):
            return ["What holds the job up is unknown: it may be waiting for ranks that did not record it."]
        return ["What holds the job up is unknown: too few collectives could be matched between ranks."]
    if verdict.state == "nobody":
        return ["Nothing holds the job up: no rank, node or link would make it ",
                f"{fmt_percent(NAMED_FROM, 0)} faster by being like the others."]  # fmt: skip
    since = _when(verdict)
    who = {
        "rank": f"Rank {verdict.rank}",
        "node": f"Node {verdict.node}",
        "link": _link(verdict),
        "spread": _names(verdict.ranks),
    }[verdict.state]
    many = verdict.state in ("spread",)
    why = _CAUSES[verdict.cause].replace("its ", "their ") if many else _CAUSES[verdict.cause]
    said: list[str | Piece] = [bold(who), f" {'hold' if many else 'holds'} the job up"]
    if len({one[1:] for one in verdict.slow}) > 1:
        said += [": ", bold("; ".join(_one_of_many(one) for one in verdict.slow[:MOST_NAMED]))]
    elif verdict.state != "link":
        said += [since, ": ", bold(why)]
    else:
        said += [since]
    low, high = (max(0.0, one) for one in (verdict.gain_low or 0.0, verdict.gain_high or 0.0))
    said += [f". If {'they' if many else 'it'} were like the others, the job would take "]
    said += [bold(f"{fmt_percent(verdict.gain_share or 0)} less")]
    parts = "steps" if ranks.answer.by_steps else "parts"
    said.append(f" (90 % interval over its {parts}: {fmt_percent(low)} to {fmt_percent(high)}).")
    return said


def _attempt(verdict: Verdict) -> str:
    if verdict.cause is not None or not verdict.slow:
        attempt = _ATTEMPTS.get(verdict.cause or "", "")
        of_many = verdict.state == "spread" or (verdict.state == "node" and verdict.cause != "host")
        return f"for each rank, {attempt}" if attempt and of_many else attempt
    each = [(one.rank, _ATTEMPTS.get(one.cause or "", "")) for one in verdict.slow[:MOST_NAMED]]
    return " ".join(f"Rank {rank}: {attempt}" for rank, attempt in each if attempt)


def _when(slow: Verdict | Slow) -> str:
    when = "since" if slow.slow_steps is None else "in" if slow.slow_steps == 1 else "most in"
    return "" if slow.since_step is None else f" {when} step {slow.since_step}"


def _one_of_many(slow: Slow) -> str:
    return f"rank {slow.rank}{_when(slow)}, {_CAUSES[slow.cause]}"


def _link(verdict: Verdict) -> str:
    if verdict.rank is not None:
        return f"The link of rank {verdict.rank}"
    if verdict.node:
        return f"A link of node {verdict.node} ({_names(verdict.ranks).lower()})"
    return f"A link between {_names(verdict.ranks).lower()}"


def _names(ranks: tuple[int, ...]) -> str:
    more = len(ranks) - MOST_NAMED
    return "Ranks " + ", ".join(map(str, ranks[:MOST_NAMED])) + (f" and {more} more" if more > 0 else "")


def _details(verdict: Verdict, ranks: Ranks) -> list[str]:
    """How the extra work splits up, and the kernels or regions that hold it."""
    parts = ranks.answer.slow_parts
    if verdict.state not in ("rank", "node", "spread") or parts.empty:
        return []
    whole = parts.iloc[0]
    pairs = zip(parts["part"][1:], parts["more_ns"][1:], strict=True)
    split = ", ".join(f"{part} {fmt_ns(int(more))}" for part, more in pairs if more)
    own = "Own" if verdict.state == "rank" else f"Rank {whole['rank']}, the slowest: own"
    found = [f"{own} work beyond that of its peers, where it is slow: {fmt_ns(int(whole['more_ns']))} ({split})."]
    names = ranks.slow_names()
    kind = "kernel" if verdict.cause == "compute" else "region"
    names = names[(names["kind"] == kind) & (names["more_ns"] > 0)].head(3)
    if len(names) and verdict.cause in ("compute", "host", "data"):
        short = fit_names(kernel_names(names["name"].tolist()), LETTERS) if kind == "kernel" else names["name"].tolist()
        listed = ", ".join(f"{name} {fmt_ns(int(more))}" for name, more in zip(short, names["more_ns"], strict=True))
        found.append(f"Most in {kind}s: {listed}.")
    return found


def who_waits(totals: pd.DataFrame) -> Finding | None:
    """Who waits for whom; None where no collective was recorded on two ranks. Takes RANK_TOTALS."""
    RANK_TOTALS.check(totals)
    if not totals["collectives"].any():
        return None
    waiter, holder = (totals.astype(object).loc[totals[name].idxmax()] for name in ("wait_ns", "held_ns"))
    wait, whole = int(waiter["wait_ns"]), max(1, int(waiter["communication_ns"]))
    said: list[str | Piece]
    if wait < CLEAR * whole:
        said = ["No rank waits long for another: ", bold(fmt_ns(wait))]
        said.append(f" of rank {waiter['rank']}'s {fmt_ns(whole)} of communication at most.")
    else:
        said = [bold(f"Rank {waiter['rank']}"), " waits ", bold(fmt_ns(wait))]
        said += [f" of its {fmt_ns(whole)} of communication ({fmt_percent(wait / whole, 0)}); "]
        said += [bold(f"rank {holder['rank']}"), f" arrives last at {fmt_count(int(holder['arrived_last']))} of "]
        said.append(f"{counted(int(holder['collectives']), 'collective')}.")
    evidence = Evidence("ranks", {"rank": (int(waiter["rank"]), int(holder["rank"]))})
    return Finding("who-waits", "ranks", say(*said), evidence=evidence, page="ranks")


def unmatched(ranks: Ranks) -> Finding | None:
    """How many kernels could not be matched between ranks, and why."""
    answer = ranks.answer
    if not answer.unmatched:
        return None
    why = "; ".join(f"{fmt_count(count)}: {reason}" for reason, count in answer.why.items())
    said = say(
        f"{counted(answer.unmatched, 'kernel')} of {fmt_count(answer.matched + answer.unmatched)} of communication "
        f"could not be matched between ranks ({why})."
    )
    return Finding("unmatched", "ranks", said, evidence=Evidence("rank_collectives"), page="ranks")


def clocks_apart(ranks: Ranks) -> Finding | None:
    """How far the clocks of the ranks were apart, and how well they were put on one."""
    clocks = ranks.answer.clocks
    if len(clocks) < 2 or not ranks.answer.matched:
        return None
    apart = int(clocks["offset_ns"].max() - clocks["offset_ns"].min())
    groups = int(clocks["component"].max()) + 1
    said = say(
        f"Clocks were {fmt_ns(apart)} apart and are aligned to within ",
        bold(_error(clocks)),
        "." if groups == 1 else f", in {groups} groups of ranks that share no collective.",
    )
    return Finding("clocks", "ranks", said, evidence=Evidence("rank_clocks"), page="ranks")


def _error(clocks: pd.DataFrame) -> str:
    """The largest error of the clocks; what traces write rounded is not known to the nanosecond."""
    return fmt_ns(max(int(clocks["error_ns"].max()), LEAST_ERROR_NS))


def left_out(ranks: Ranks) -> Finding | None:
    """Files that are left out, and ranks without a trace."""
    if not ranks.problems:
        return None
    first, *more = ranks.problems
    return Finding("left-out", "lost", say(first), level="warning", details=tuple(more), page="ranks")
