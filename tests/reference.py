"""An independent, slow attribution: plain json, Decimal times, one Python loop per GPU event.

Written from the rules of the design alone; shares no code with the package.
"""

from __future__ import annotations

import gzip
import itertools
import json
from collections import defaultdict
from decimal import Decimal
from pathlib import Path
from typing import Any

Path_ = tuple[str, ...]


def ns(value: Any) -> int:
    return int(Decimal(str(value)) * 1000)


def read(path: Path) -> list[dict[str, Any]]:
    data = path.read_bytes()
    if data[:2] == b"\x1f\x8b":
        data = gzip.decompress(data)
    events = json.loads(data, parse_float=Decimal)["traceEvents"]
    spans = []
    for order, e in enumerate(events):
        if e.get("ph") == "X":
            start = ns(e["ts"])
            spans.append({**e, "order": order, "start": start, "end": start + ns(e["dur"]), "args": e.get("args", {})})
    return spans


def _thread(event: dict[str, Any]) -> tuple[Any, Any]:
    return event["pid"], event["tid"]


def _name(event: dict[str, Any]) -> str:
    name: str = event["name"]
    number = name.removeprefix("ProfilerStep#")
    return "ProfilerStep" if number != name and number.isdigit() else name


def open_regions(regions: list[dict[str, Any]], at: int) -> list[dict[str, Any]]:
    """Regions of one thread open at a moment, outermost first."""
    return sorted((r for r in regions if r["start"] <= at < r["end"]), key=lambda r: r["place"])


def place(regions: list[dict[str, Any]]) -> None:
    """Give each region of one thread its place among those open with it, by comparing every two of them."""
    alike = defaultdict(list)
    for r in regions:
        alike[r["start"], r["end"]].append(r["args"].get("External id"))
    by_id = {times: None not in ids for times, ids in alike.items()}  # else equal ones stand as in the file

    def order(r: dict[str, Any]) -> tuple[Any, ...]:
        tie = (r["args"].get("External id"), r["name"]) if by_id[r["start"], r["end"]] else (r["order"], "")
        return (r["start"], -r["end"], *tie)

    regions.sort(key=order)
    first: dict[str, int] = {}
    straddle, contain = set(), set()
    for number, outer in enumerate(regions):
        first.setdefault(_name(outer), -1 if _name(outer) == "ProfilerStep" else number)
        for inner in regions[number + 1 :]:
            if inner["start"] >= outer["end"]:
                break
            pair = (_name(outer), _name(inner))
            if inner["end"] > outer["end"]:
                straddle |= {pair, pair[::-1]}
            else:
                contain.add(pair)
    changed = True
    while changed:
        changed = False
        for outer_name, inner_name in contain - straddle:
            if first[inner_name] < first[outer_name]:
                first[outer_name], changed = first[inner_name], True
    for number, region in enumerate(regions):
        region["place"] = (first[_name(region)], number)


def host_rows(path: Path) -> dict[Path_, tuple[int, int]]:
    """Instances and host time of each path, moment by moment; threads stand for themselves."""
    threads = defaultdict(list)
    for e in read(path):
        if e.get("cat") == "user_annotation":
            threads[_thread(e)].append(e)
    rows: dict[Path_, tuple[set[int], int]] = {}
    for regions in threads.values():
        place(regions)
        times = {time for r in regions for time in (r["start"], r["end"])}
        for region in regions:
            cuts = sorted(time for time in times if region["start"] < time < region["end"])
            for begin, end in itertools.pairwise([region["start"], *cuts, region["end"]]):
                stack = [r for r in open_regions(regions, begin) if r["place"] < region["place"]]
                where = (*(_name(r) for r in stack), _name(region))
                ids, length = rows.get(where, (set(), 0))
                rows[where] = (ids | {region["order"]}, length + end - begin)
    return {where: (len(ids), length) for where, (ids, length) in rows.items()}


DAY = 86_400 * 10**9
ON_GPU = ("kernel", "gpu_memcpy", "gpu_memset")


def believed(spans: list[dict[str, Any]], calls: dict[int, Any]) -> list[dict[str, Any]]:
    """The GPU events whose time can be: it was recorded, and in-order streams leave room for it.

    calls: the launch of each GPU event by its order in the file.
    """
    found = [e for e in spans if e.get("cat") in ON_GPU]
    found = [e for e in found if (e["start"], e["end"]) != (0, 0) and e["end"] - e["start"] <= DAY]
    found = [e for e in found if e["end"] - e["start"] not in (2**32 - 1, 1000 * (2**32 - 1))]
    early = {e["order"]: calls[e["order"]]["start"] - e["start"] for e in found if calls[e["order"]]}
    usual = max([100_000, *(early.get(e["order"], 0) for e in found if e["start"])])
    found = [e for e in found if e["start"] or early.get(e["order"], 0) <= usual]
    rocm = any(e["name"].startswith("hip") for e in spans)
    lanes = defaultdict(list)
    for e in found:
        in_order = (e["cat"] == "kernel" or not rocm) and "stream" in e["args"] and e["end"] > e["start"]
        lanes[(_thread(e), e["args"].get("device"), e["args"]["stream"]) if in_order else e["order"]].append(e)
    wrong = {e["order"] for lane in lanes.values() for e in _running_past(lane)}
    return [e for e in found if e["order"] not in wrong]


def _running_past(lane: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """Events that go on for too long after the start of a later one of their stream and another launch."""
    lane.sort(key=lambda e: (e["start"], e["end"]))
    launches = [e["args"].get("correlation", ("none", place)) for place, e in enumerate(lane)]
    last = {launch: place for place, launch in enumerate(launches)}  # nothing of a launch comes after its successors
    wrong = []
    for place, e in enumerate(lane):
        for later in lane[last[launches[place]] + 1 :]:
            past = e["end"] - later["start"]
            if past <= 2_000:
                break
            if later["end"] < e["end"] or past > 1_000_000:
                # the first successor says by how much
                wrong.append(e)
                break
    return wrong


def attribute(path: Path) -> list[tuple[dict[str, Any], Path_]]:
    """Each GPU event with its region path."""
    spans = read(path)
    regions = defaultdict(list)
    launches: dict[Any, list[dict[str, Any]]] = defaultdict(list)
    operators: list[dict[str, Any]] = []
    backward = defaultdict(list)
    sequence = defaultdict(list)
    for e in spans:
        category = e.get("cat", "")
        if category == "user_annotation":
            regions[_thread(e)].append(e)
        elif category.endswith(("_runtime", "_driver")) and "correlation" in e["args"]:
            launches[e["args"]["correlation"]].append(e)
        elif category == "cpu_op":
            operators.append(e)
            number = e["args"].get("Sequence number")
            if e["name"].startswith("autograd::engine::evaluate_function"):
                backward[_thread(e)].append(e)
            elif number is not None and not e["args"].get("Fwd thread id"):
                sequence[number].append(e)
    for of_thread in regions.values():
        place(of_thread)
    callers = {thread: _caller(thread, events, sequence, backward) for thread, events in backward.items()}
    result = []
    gpu = [e for e in spans if e.get("cat") in ON_GPU]
    by_id = defaultdict(list)
    for e in gpu:
        by_id[e["args"].get("correlation")].append(e)
    calls = {e["order"]: launch_of(e, launches, by_id) for e in gpu}
    for e in believed(spans, calls):
        launch = calls[e["order"]] or operator_of(e, launches, operators)
        if launch is None:
            result.append((e, ("(unlinked)",)))
            continue
        thread, at = _thread(launch), launch["start"]
        stack = open_regions(regions[thread], at)
        caller = callers.get(thread)
        if caller is not None:
            began = stack[0]["start"] if stack else at
            stack = open_regions(regions[caller], began) + stack
        result.append((e, tuple(_name(r) for r in stack) or ("(no region)",)))
    return result


def _rank(event: dict[str, Any]) -> str:
    """What stands before the number in a pid like "[rank 1] 100"."""
    return str(event["pid"]).rpartition(" ")[0]


def launch_of(e: dict[str, Any], launches: dict[Any, list[Any]], by_id: dict[Any, list[dict[str, Any]]]) -> Any:
    """The call of the event's rank with its id: the only one, else by their turns, else the last that had begun."""
    number = e["args"].get("correlation")
    mine = [c for c in launches[number] if _rank(c) == _rank(e)]
    mine.sort(key=lambda c: (c["start"], repr(_thread(c))))
    # a call inside another with its id, or begun with it, is the same launch
    calls: list[dict[str, Any]] = []
    for call in mine:
        if not any(
            c["start"] == call["start"] or (_thread(c) == _thread(call) and c["end"] > call["start"])
            for c in calls[-1:]
        ):
            calls.append(call)
    if len(calls) < 2:
        return calls[0] if calls else None
    begun = [c for c in calls if c["start"] <= e["start"]]
    if not begun or number == 0:
        return None
    same = sorted((one for one in by_id[number] if _rank(one) == _rank(e)), key=lambda one: one["start"])
    called, ran = next((cs, es) for cs, es in turns(calls, same) if any(one is e for one in es))
    if len(called) == 1:
        return called[0]
    streams = defaultdict(list)
    for one in ran:
        streams[repr(_thread(one)), one["args"].get("device"), one["args"].get("stream")].append(one)
    overlap = any(b["start"] + 2_000 < a["end"] for many in streams.values() for a, b in itertools.pairwise(many))
    if len(called) == len(ran) and len(streams) == 1 and not overlap:
        return called[next(place for place, one in enumerate(ran) if one is e)]
    before = begun[-2:-1]
    between = [one for one in same if before and before[0]["start"] <= one["start"] < begun[-1]["start"]]
    return begun[-1] if not overlap or between or not before else None  # overlapping work is not of one process


def turns(calls: list[dict[str, Any]], events: list[dict[str, Any]]) -> list[tuple[list[Any], list[Any]]]:
    """Calls and events in the order of time, cut before each call by which the work of all earlier ones had begun."""
    found: list[tuple[list[Any], list[Any]]] = []
    waiting = 0
    for _, is_event, one in sorted(
        [*((c["start"], 0, c) for c in calls), *((e["start"], 1, e) for e in events)], key=lambda item: item[:2]
    ):
        if not is_event and not waiting:
            found.append(([], []))
        if found:
            found[-1][is_event].append(one)
        waiting = max(0, waiting - 1) if is_event else waiting + 1
    return found


def operator_of(e: dict[str, Any], launches: dict[Any, list[Any]], operators: list[dict[str, Any]]) -> Any:
    """Where no call has the event's id: the only operator of its rank with its External id, begun by then."""
    number, external = e["args"].get("correlation"), e["args"].get("External id")
    if not external or e["name"].lower().startswith(("nccl", "rccl")):
        return None
    calls = [c for c in launches[number] if _rank(c) == _rank(e)]
    if calls and (number or len({(c["start"], repr(_thread(c))) for c in calls}) == 1):
        return None
    mine = [o for o in operators if o["args"].get("External id") == external and _rank(o) == _rank(e)]
    return mine[0] if len(mine) == 1 and mine[0]["start"] <= e["start"] else None


def _caller(thread: Any, events: list[dict[str, Any]], sequence: Any, backward: Any) -> Any:
    """The thread that ran most of the forward operators with these sequence numbers; none when it is this one."""
    votes: dict[Any, int] = defaultdict(int)
    for e in events:
        for forward in sequence.get(e["args"].get("Sequence number"), []):
            votes[_thread(forward)] += 1
    if not votes:
        return None
    best = max(votes, key=lambda key: votes[key])
    return None if best == thread else best


def union_ns(intervals: list[tuple[int, int]]) -> int:
    """Length of a union, by walking the sorted ends."""
    total, reach = 0, None
    for start, end in sorted(intervals):
        if reach is None or start > reach:
            total += end - start
            reach = end
        elif end > reach:
            total += end - reach
            reach = end
    return total


def region_rows(attributed: list[tuple[dict[str, Any], Path_]]) -> dict[Path_, dict[str, int]]:
    """sum, busy, self and count of each path that `attribute` gave, ancestors included."""
    rows: dict[Path_, dict[str, Any]] = defaultdict(lambda: {"sum": 0, "self": 0, "count": 0, "intervals": []})
    for event, where in attributed:
        length = event["end"] - event["start"]
        rows[where]["self"] += length
        for depth in range(1, len(where) + 1):
            row = rows[where[:depth]]
            row["sum"] += length
            row["count"] += 1
            row["intervals"].append((event["start"], event["end"]))
    return {
        key: {"sum": r["sum"], "self": r["self"], "count": r["count"], "busy": union_ns(r["intervals"])}
        for key, r in rows.items()
    }
