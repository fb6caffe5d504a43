"""Replay a trace with other durations: what a change would give, and the path that the time depends on.

Each GPU event starts as soon as its launch allows, all before it on its stream is done and what it waited for on
another stream is done; each with the delay that was measured, or where another of these held it up, at most the usual
one. The host runs as it did, but a call that waited for the GPU returns when that is done, and all after it moves
along. With nothing changed that gives the recorded times. Which stream waits for which is seldom recorded
(stream_waits): else a late start right after an end on another stream counts as a wait for it.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Final

import numpy as np
import pandas as pd

from profiler_kit.analyses.gpu.idle import NO_REQUEST
from profiler_kit.analyses.gpu.intervals import cut, union
from profiler_kit.analyses.gpu.operators import NO_OPERATOR
from profiler_kit.analyses.gpu.stream_waits import UNTOLD
from profiler_kit.attribute.frames import KERNEL_DETAILS, LAUNCH_CALLS, REGION_INSTANCES
from profiler_kit.attribute.launch_context import codes_of, stream_codes
from profiler_kit.attribute.regions import NO_REGION, UNLINKED
from profiler_kit.load.integers import I64, Mask
from profiler_kit.schema import Column, Schema

NONE: Final = -1
NO_LAUNCHING: Final = "(nothing launched)"  # the host behind the last wait
LATE_NS: Final = 2_000  # a start that much after all that is known to hold it up has another reason
NEAR_NS: Final = 20_000  # and that soon after an end on another stream it waited for that
BIG: Final = 1 << 62
TRUSTED: Final = 0.02  # of the recorded span: what an unchanged replay may be off
TRIED: Final = 2  # regions and kernels that are tried unasked

WHAT_IF: Final = Schema(
    "WHAT_IF",
    "change that was tried, the one that saves most first; the first row changes nothing",
    {
        "tried": Column("str", "What is tried.", "what if"),
        "name": Column("str", "The region or kernel that it is tried on.", unit="kernel"),
        "span_ns": Column("int64", "From the first call or GPU event to the last end, replayed.", "then"),
        "saved_ns": Column("int64", "Less than recorded.", "saves"),
        "saved_share": Column("float64", "Of the recorded span.", "of span", unit="share"),
    },
)
CRITICAL_PATH: Final = Schema(
    "CRITICAL_PATH",
    "stretch of the path that the end depends on, by start; they add up to the recorded span",
    {
        "kind": Column(
            "str",
            "GPU: an event runs; latency: it could have begun; host: the calls before its launch; wait: a call returns "
            "after the GPU is done; no request: the server had none.",
        ),
        "name": Column("str", "The GPU event, the call, or the operator that launches next.", unit="kernel"),
        "event": Column("Int64"),
        "start_ns": Column("int64", show="never"),
        "dur_ns": Column("int64"),
    },
)
CRITICAL_TOTALS: Final = Schema(
    "CRITICAL_TOTALS",
    "kind and name on the path that the end depends on, longest first",
    {
        "kind": CRITICAL_PATH.columns["kind"],
        "name": CRITICAL_PATH.columns["name"],
        "count": Column("int64"),
        "sum_ns": Column("int64", "Their share of the recorded span."),
    },
)


@dataclass(frozen=True)
class Replay:
    """What holds up what. Rows are GPU events by start, then waits by end; `order` has both by time.

    from_*: the measured or usual delay after the stream is free, the launch began, `other` ended. held: whether it was
    `other` that an event started after. wait: the last one that had returned before each launch. after: the GPU event
    that each wait was for; also: the last ones of all streams, if it was for the device. tail: how long after the end
    it returned.
    """

    start: I64
    dur: I64
    stream: I64
    device: I64
    launch: I64
    other: I64
    held: Mask
    from_stream: I64
    from_launch: I64
    from_other: I64
    wait: I64
    wait_start: I64
    wait_end: I64
    wait_event: I64
    wait_before: I64
    after: I64
    also: list[list[int]]
    tail: I64
    first_ns: int
    last_host_ns: int

    @property
    def span_ns(self) -> int:
        """The recorded span."""
        return max(int((self.start + self.dur).max(initial=-BIG)), self.last_host_ns) - self.first_ns

    def run(self, dur: I64, gone: Mask, saved: Sequence[I64], cap_ns: int | None) -> tuple[list[int], list[int], int]:
        """Ends of GPU events and waits, and the end of all.

        dur: of each GPU event; gone: which do not run. saved: what the host has gained before each launch, at the
        start of each wait, and at its end. cap_ns: no gap of a device is longer.
        """
        count, waits = len(self.start), len(self.wait_start)
        ends, back = [0] * count, [0] * waits
        free: list[int] = [-BIG] * (int(self.stream.max(initial=0)) + 1)
        busy: list[int] = [-BIG] * (int(self.device.max(initial=0)) + 1)
        # by time; of equal times GPU events first: a wait that returns at an end is after it
        order = np.argsort(np.concatenate((self.start, self.wait_end)), kind="stable").tolist()
        shift = 0
        shifts = [0] * (waits + 1)  # the last one stands for no wait before
        launch = np.where(self.launch == -BIG, -BIG, self.launch + self.from_launch - saved[0]).tolist()
        rows = list(
            zip(self.stream.tolist(), self.device.tolist(), launch, self.wait.tolist(), self.from_stream.tolist(),
                self.other.tolist(), self.from_other.tolist(), dur.tolist(), gone.tolist(), strict=True)
        )  # fmt: skip
        wait_start, wait_end = (self.wait_start - saved[1]).tolist(), (self.wait_end - saved[2]).tolist()
        length = np.minimum(self.wait_end - self.wait_start, np.maximum(self.tail, 0)).tolist()
        after, tail, before = self.after.tolist(), self.tail.tolist(), self.wait_before.tolist()
        for at in order:
            if at < count:
                stream, device, launched, wait, gap, other, lag, took, left_out = rows[at]
                if left_out:  # the first of a stream would have begun at its launch: what has none may depend on it
                    if free[stream] == -BIG:
                        free[stream] = launched + shifts[wait]
                    ends[at] = free[stream]
                    continue
                begin, ready = free[stream] + gap, launched + shifts[wait]
                if ready > begin:
                    begin = ready
                if other >= 0 and ends[other] + lag > begin:
                    begin = ends[other] + lag
                if cap_ns is not None and busy[device] + cap_ns < begin and busy[device] != -BIG:
                    begin = max(busy[device] + cap_ns, free[stream])
                end = begin + took
                ends[at] = end
                if end > free[stream]:
                    free[stream] = end
                if end > busy[device]:
                    busy[device] = end
            else:
                row = at - count
                began = wait_start[row] + shifts[before[row]]
                done = ends[after[row]]
                for one in self.also[row]:
                    if ends[one] > done:
                        done = ends[one]
                back[row] = max(began + length[row], done + tail[row])
                shifts[row] = back[row] - wait_end[row]
                shift = shifts[row]
        gained = int(saved[3][0]) if len(saved) > 3 else 0
        return ends, back, max([*ends, self.last_host_ns - gained + shift])


def replay_of(details: pd.DataFrame, calls: pd.DataFrame, waited_for: I64 | None = None) -> Replay:
    """KERNEL_DETAILS, LAUNCH_CALLS of one process -> Replay. waited_for: as stream_waits has it."""
    details, calls = KERNEL_DETAILS.check(details), LAUNCH_CALLS.check(calls)
    start, dur = details["start_ns"].to_numpy(), details["dur_ns"].to_numpy()
    end, rows = start + dur, np.arange(len(start))
    device, queue = (details[name].fillna(NONE).to_numpy(dtype=np.int64) for name in ("device", "stream"))
    stream = stream_codes(codes_of(details["process"]), device, queue)
    previous = details["previous_end_ns"].fillna(-BIG).to_numpy(dtype=np.int64)
    launch = details["launch_start_ns"].fillna(-BIG).to_numpy(dtype=np.int64)
    launch = np.where((launch == -BIG) & (previous == -BIG), start, launch)
    launched = details["launch_end_ns"].fillna(-BIG).to_numpy(dtype=np.int64)
    # a copy in whose call the host waited was launched as that began
    in_wait = details["launch"].isin(calls.loc[calls["waits"], "event"]).to_numpy(dtype=bool)
    launched = np.where(in_wait, launch, launched)
    by_end = np.argsort(end, kind="stable")
    # where nothing says it, a late start right after an end on another stream: the event that ended last before it
    place = np.searchsorted(end[by_end], start, side="right") - 1
    last = np.where(place >= 0, by_end[np.maximum(place, 0)], NONE)
    late = start - np.maximum(previous, launched) > LATE_NS
    other = np.where(late & (last != NONE) & (stream[last] != stream) & (start - end[last] < NEAR_NS), last, NONE)
    other = np.where(other < rows, other, NONE)
    held = other != NONE
    if waited_for is not None:
        other = np.where(waited_for == UNTOLD, other, waited_for)
        held = (other != NONE) & (end[other] > np.maximum(previous, launched))
    queued = (previous > launched) & ~held
    by_launch = (launch != -BIG) & ~queued & ~held
    from_other = np.where(other == NONE, 0, start - end[other])
    usual_wait = int(np.median(from_other[held])) if held.any() else 0
    from_launch, from_stream = start - launch, np.where(previous == -BIG, 0, start - previous)
    usual_launch = int(np.median(from_launch[by_launch])) if by_launch.any() else 0
    usual_gap = int(np.median(from_stream[queued])) if queued.any() else 0
    whole = np.array(["DeviceSynchronize" in name for name in calls["name"].cat.categories] or [False], dtype=bool)
    began, took = calls["start_ns"].to_numpy(), calls["dur_ns"].to_numpy()
    waits = np.flatnonzero(calls["waits"].to_numpy() & (took > 0))
    waits = waits[np.argsort(began[waits] + took[waits], kind="stable")]
    wait_start, wait_end = began[waits], began[waits] + took[waits]
    # what each wait was for: the GPU event that ended last before it returned
    place = np.searchsorted(end[by_end], wait_end, side="right") - 1
    known = place >= 0
    waits, wait_start, wait_end, place = (part[known] for part in (waits, wait_start, wait_end, place))
    after = by_end[place] if len(place) else np.zeros(0, dtype=np.int64)
    return Replay(
        start=start,
        dur=dur,
        stream=stream,
        device=np.unique(device, return_inverse=True)[1],
        launch=launch,
        other=other,
        held=held,
        from_stream=np.where(queued | (previous == -BIG), from_stream, np.minimum(from_stream, usual_gap)),
        from_launch=np.where(by_launch, from_launch, np.minimum(from_launch, usual_launch)),
        from_other=np.where(held, from_other, np.minimum(from_other, usual_wait)),
        wait=np.searchsorted(wait_end, launch, side="right") - 1,
        wait_start=wait_start,
        wait_end=wait_end,
        wait_event=calls["event"].to_numpy()[waits],
        wait_before=np.searchsorted(wait_end, wait_start, side="right") - 1,
        after=after,
        also=_also(start, end, stream, device, wait_end, after, np.flatnonzero(whole[codes_of(calls["name"])[waits]])),
        tail=wait_end - np.maximum(end[after], wait_start) if len(after) else after,
        first_ns=min(int(start.min(initial=BIG)), int(began.min(initial=BIG))),
        last_host_ns=int((began + took).max(initial=-BIG)),
    )


def _also(start: I64, end: I64, stream: I64, device: I64, wait_end: I64, after: I64, asked: I64) -> list[list[int]]:
    """Of the waits that are `asked` for the last event of each stream of the device that the wait was for, unless that
    went on after it returned.
    """
    found: list[list[int]] = [[] for _ in wait_end]
    order = np.argsort(stream, kind="stable")
    for first, last in _runs(stream[order]):
        mine = order[first:last]
        place = np.searchsorted(start[mine], wait_end[asked], side="right") - 1
        row = mine[np.maximum(place, 0)]
        known = (place >= 0) & (end[row] <= wait_end[asked]) & (device[row] == device[after[asked]])
        for wait, one in zip(asked[known].tolist(), row[known].tolist(), strict=True):
            found[wait].append(one)
    return found


@dataclass(frozen=True)
class Change:
    """What is tried. faster: which GPU events take 1 / factor of their time; host: regions in which the host does."""

    what: str
    name: str = ""
    factor: float = 1.0
    faster: Mask | None = None
    gone: Mask | None = None
    host: tuple[I64, I64] | None = None
    cap_ns: int | None = None


def in_region(details: pd.DataFrame, instances: pd.DataFrame, path: tuple[str, ...]) -> tuple[Mask, tuple[I64, I64]]:
    """Which GPU events a region launched, nested regions included, and when the host was in it."""
    instances = REGION_INSTANCES.check(instances)

    def inside(paths: pd.Series[Any]) -> Mask:
        wanted = [found[: len(path)] == path for found in paths.cat.categories]
        return np.array(wanted or [False], dtype=bool)[paths.cat.codes.to_numpy()]

    exactly = inside(instances["path"])
    return inside(details["path"]), union(
        instances["start_ns"].to_numpy()[exactly], instances["end_ns"].to_numpy()[exactly]
    )


def faster_region(details: pd.DataFrame, instances: pd.DataFrame, path: tuple[str, ...], factor: int) -> Change:
    """The region `factor` times as fast, on the GPU and on the host."""
    faster, host = in_region(details, instances, path)
    return Change(f"{factor} times as fast", " > ".join(path), factor, faster=faster, host=host)


def while_served(change: Change, in_flight: tuple[I64, I64]) -> Change:
    """The change where a server had a request, for a faster host does not wait less for the next one.

    What it gains counts where it is gained: that the next request then finds it waiting longer is not replayed.
    """
    if change.host is None:
        return change
    _, start, end, served = cut(*change.host, in_flight)
    return dataclasses.replace(change, host=(start[served], end[served]))


def without_kernel(details: pd.DataFrame, text: str, *, whole: bool = False) -> Change:
    """The kernels gone whose names hold `text`, or are it."""
    names = details["name"]
    gone = names == text if whole else names.str.contains(text, regex=False)
    return Change("gone", text, gone=gone.to_numpy(dtype=bool))


def what_takes_most(
    details: pd.DataFrame,
    instances: pd.DataFrame,
    regions: pd.DataFrame,
    kernels: pd.DataFrame,
    factor: int,
    gap_ns: int,
) -> list[Change]:
    """What to try unasked: the regions and kernels that take most, and gaps cut short."""
    real = regions[[path not in (NO_REGION, UNLINKED) for path in regions["path"]]]
    return [
        *(faster_region(details, instances, path, factor) for path in real.nlargest(TRIED, "self_sum_ns")["path"]),
        *(
            without_kernel(details, name, whole=True)
            for name in kernels.groupby("name")["sum_ns"].sum().nlargest(TRIED).index
        ),
        Change(f"no gap above {gap_ns / 1e3:g} µs", cap_ns=gap_ns),
    ]


def what_if(replay: Replay, changes: Sequence[Change]) -> pd.DataFrame:
    """Each change replayed -> WHAT_IF; the first row is the unchanged replay, which says how far to trust others."""
    whole, rows = replay.span_ns, []
    for change in [Change("nothing"), *changes]:
        span = _span_with(replay, change)
        rows.append((change.what, change.name, span, whole - span, (whole - span) / max(1, whole)))
    frame = WHAT_IF.of(rows)
    return WHAT_IF.join([frame.iloc[:1], frame.iloc[1:].sort_values(["saved_ns", "name"], ascending=[False, True])])


def saved_ns(replay: Replay, change: Change) -> int | None:
    """What a change saves; None where the unchanged replay is not the recording."""
    if abs(_span_with(replay, Change("nothing")) - replay.span_ns) > TRUSTED * replay.span_ns:
        return None
    return replay.span_ns - _span_with(replay, change)


def _span_with(replay: Replay, change: Change) -> int:
    """The span with a change."""
    dur = replay.dur
    if change.faster is not None:
        dur = np.where(change.faster, np.rint(dur / change.factor).astype(np.int64), dur)
    gone = np.zeros(len(dur), dtype=bool) if change.gone is None else change.gone
    ends = np.array([replay.last_host_ns], dtype=np.int64)
    saved = [_host_gain(change, replay, time) for time in (replay.launch, replay.wait_start, replay.wait_end, ends)]
    return replay.run(dur, gone, saved, change.cap_ns)[2] - replay.first_ns


def gone(events: Mask) -> Change:
    """These GPU events do not run."""
    return Change("gone", gone=events)


def _host_gain(change: Change, replay: Replay, time: I64) -> I64:
    """What the host gains before each moment when its own work in the regions is faster; waiting stays waiting."""
    if change.host is None:
        return np.zeros(len(time), dtype=np.int64)
    start, end = change.host
    waits = union(replay.wait_start, replay.wait_end)
    # from the beginning of the span on: a region may be open before
    start, end = np.maximum(start, replay.first_ns), np.maximum(end, replay.first_ns)
    both = union(np.concatenate((start, waits[0])), np.concatenate((end, waits[1])))
    inside = _before(both, time) - _before(waits, time)  # in the region and not waiting
    gained: I64 = np.rint(inside * (1 - 1 / change.factor)).astype(np.int64)
    return gained


def _before(pieces: tuple[I64, I64], time: I64) -> I64:
    """How much of these disjoint, sorted intervals lies before each moment."""
    start, end = pieces
    if not len(start):
        return np.zeros(len(time), dtype=np.int64)
    sums = np.concatenate(([0], np.cumsum(end - start)))
    place = np.searchsorted(start, time, side="right")  # intervals begun by then; the last of them may go on
    last = np.maximum(place - 1, 0)
    return np.asarray(np.where(place > 0, sums[last] + np.minimum(time, end[last]) - start[last], 0), dtype=np.int64)


def critical_path(
    replay: Replay, details: pd.DataFrame, calls: pd.DataFrame, in_flight: tuple[I64, I64] | None = None
) -> pd.DataFrame:
    """From the last end back to the first event, through what each thing waited for -> CRITICAL_PATH.

    in_flight: when a server had a request; what the path spends on the host is cut there.
    """
    ended = replay.start + replay.dur
    start, end, other, launch = (part.tolist() for part in (replay.start, ended, replay.other, replay.launch))
    held = replay.held.tolist()
    previous = _before_on_stream(replay.stream, ended).tolist()
    waited = np.flatnonzero(ended[replay.after] > replay.wait_start) if len(replay.after) else replay.after
    waited_end = replay.wait_end[waited]
    # from the end back; `of` is the GPU event, or the wait, that a stretch is named after
    stretches: list[tuple[str, int, int, int]] = []  # kind, of, since, until
    add = stretches.append

    at = max(int(ended.max(initial=-BIG)), replay.last_host_ns)
    node = int(ended.argmax()) if len(end) and int(ended.max()) == at else NONE
    launched = NONE  # the GPU event that the host had to launch next
    while at > replay.first_ns:
        if node == NONE:  # the host, back to the last call that waited
            place = int(np.searchsorted(waited_end, at, side="right")) - 1
            back = int(waited_end[place]) if place >= 0 else replay.first_ns
            add(("host", launched, back, at))
            if place < 0:
                break
            call = int(waited[place])
            node = int(replay.after[call])
            at = end[node]
            add(("wait", call, at, back))
        add(("GPU", node, start[node], at))
        at, launched, before = start[node], node, previous[node]
        if held[node]:
            until, node = end[other[node]], other[node]
        elif before != NONE and (end[before] > launch[node] or launch[node] == -BIG):
            until, node = min(end[before], at), before
        else:
            until, node = max(launch[node], replay.first_ns), NONE
        add(("latency", launched, until, at))
        at = until
    return _named(replay, details, calls, [one for one in stretches[::-1] if one[3] > one[2]], in_flight)


def _named(
    replay: Replay,
    details: pd.DataFrame,
    calls: pd.DataFrame,
    stretches: list[tuple[str, int, int, int]],
    in_flight: tuple[I64, I64] | None,
) -> pd.DataFrame:
    """The stretches as CRITICAL_PATH: the GPU event, the call that waited, or the operator that launches next."""
    if not stretches:
        return CRITICAL_PATH.empty()
    kinds, *numbers = zip(*stretches, strict=True)
    kind = np.array(kinds, dtype=object)
    row, start, until = (np.array(column, dtype=np.int64) for column in numbers)
    if in_flight is not None:
        piece, cut_start, cut_until, served = cut(start, until, in_flight)
        on_host = kind[piece] == "host"
        kept = on_host | (cut_start == start[piece])  # what is no host's stays whole
        start, until = cut_start[kept], np.where(on_host, cut_until, until[piece])[kept]
        row, kind = row[piece][kept], np.where(on_host & ~served, NO_REQUEST, kind[piece])[kept]
    gpu, waits = kind == "GPU", kind == "wait"
    loose = row == NONE
    operator = details["operator"].astype(object).where(details["operator"].notna(), NO_OPERATOR).to_numpy()
    found = np.append(operator, NO_LAUNCHING)[row]
    found[gpu] = details["name"].astype(object).to_numpy()[row[gpu]]
    event = np.append(details["event"].to_numpy(), NONE)[row]
    event[waits] = replay.wait_event[row[waits]]
    names = pd.Series(calls["name"].astype(object).to_numpy(), index=calls["event"].to_numpy())
    found[waits] = names.loc[event[waits]].to_numpy()
    found[kind == NO_REQUEST] = f"({NO_REQUEST})"
    frame = pd.DataFrame({"kind": kind, "name": found, "start_ns": start, "dur_ns": until - start})
    frame["event"] = pd.Series(event).astype("Int64").mask(loose | ~(gpu | waits))
    return CRITICAL_PATH.cast(frame)


def _before_on_stream(stream: I64, end: I64) -> I64:
    """The event that ended last of those before each one on its stream; NONE for the first."""
    order = np.argsort(stream, kind="stable")
    previous = np.full(len(end), NONE, dtype=np.int64)
    for first, last in _runs(stream[order]):
        mine = order[first:last]
        reach = np.maximum.accumulate(end[mine])
        # the last one that reaches as far as any before it
        best = np.maximum.accumulate(np.where(end[mine] == reach, np.arange(len(mine)), 0))
        previous[mine[1:]] = mine[best[:-1]]
    return previous


def _runs(codes: I64) -> list[tuple[int, int]]:
    """First and last row of each stretch of equal numbers."""
    cuts = np.flatnonzero(np.concatenate(([True], codes[1:] != codes[:-1], [True]))) if len(codes) else codes
    return list(zip(cuts[:-1].tolist(), cuts[1:].tolist(), strict=True))


def critical_totals(path: pd.DataFrame) -> pd.DataFrame:
    """CRITICAL_PATH -> CRITICAL_TOTALS."""
    grouped = (
        CRITICAL_PATH.check(path).groupby(["kind", "name"])["dur_ns"].agg(count="size", sum_ns="sum").reset_index()
    )
    order = grouped.sort_values(["sum_ns", "kind", "name"], ascending=[False, True, True], ignore_index=True)
    return CRITICAL_TOTALS.cast(order)
