"""What the timeline says of one span: labelled text, its Python stack, and arrows to what it launched.

An arrow goes from a launch call to the GPU work it launched. Its ends are rows and times of the timeline.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Final

import numpy as np
import pandas as pd

from profiler_kit.analyses.gpu.idle import NO_REQUEST
from profiler_kit.analyses.gpu.kernels import INSIDE_TORCH
from profiler_kit.analyses.gpu.roofline import ROOFLINE
from profiler_kit.analyses.serving.requests import REQUESTS, STAGES
from profiler_kit.errors import OptionError
from profiler_kit.load.trace.categories import KERNEL
from profiler_kit.names import gpu_name
from profiler_kit.text import fmt_bandwidth, fmt_bytes, fmt_count, fmt_ns, fmt_percent, fmt_rate
from profiler_kit.timeline.index import Kind, Row, Timeline

if TYPE_CHECKING:
    from profiler_kit.analyses.serving.batches import Served
    from profiler_kit.trace import Trace

MOST_ARROWS: Final = 100
_ARGUMENTS: Final = (
    ("grid", "Grid"),
    ("block", "Block"),
    ("registers_per_thread", "Registers a thread"),
    ("shared_memory", "Shared memory, bytes"),
    ("occupancy", "Estimated occupancy, %"),
)
_STRETCHES: Final = {
    "GPU": "the GPU runs it",
    "latency": "it could have started but has not",
    "host": "the host runs what comes before its launch",
    "wait": "the call returns after the GPU is done",
    NO_REQUEST: "the server has no request",
}
_SHAPES: Final = (("input_dims", "Input shapes"), ("input_type", "Input types"))
_LONGEST_TEXT: Final = 400

Place = tuple[int, int]  # row of the timeline, number in the row
Fact = tuple[str, str]
Moment = tuple[int, int]  # thread and time


@dataclass(frozen=True)
class _Span:
    """One span of the timeline, on the trace's clock."""

    row: int
    start_ns: int
    dur_ns: int

    def wire(self, base_ns: int) -> dict[str, int]:
        """For JSON, counted from the start of the timeline."""
        return {"row": self.row, "start": self.start_ns - base_ns, "dur": self.dur_ns}


@dataclass(frozen=True)
class _About:
    """Facts of a span; the launch of a GPU event; what a launch has launched; the call on the host, if it is of one."""

    facts: list[Fact]
    launch: _Span | None = None
    launched: list[_Span] = field(default_factory=list)
    called: Moment | None = None


def span_facts(trace: Trace, timeline: Timeline, row: int, index: int, served: Served | None = None) -> dict[str, Any]:
    """Name, path, facts, arrows ([from, to] each), and the spans before and after it on its row, for JSON.

    stack: the Python functions in which it was called or launched, the innermost first, where they were recorded; site:
    which of them is the innermost one outside torch. served: the requests, if the timeline has lanes of them.

    Raises OptionError when there is no such span.
    """
    if not (0 <= row < len(timeline.rows) and 0 <= index < len(timeline.rows[row])):
        raise OptionError(f"row {row}, span {index}: no such span in {trace.path}. Reload the page.")
    here = timeline.rows[row]
    kind, name, path, _ = timeline.labels[int(here.code[index])]
    item = int(here.item[index])
    if kind == "request":
        assert served is not None
        about = _request_facts(served, trace, timeline, item)
    else:
        about = _of_kind(kind, trace, timeline, item)
    stack = [] if about.called is None else _stack_at(timeline, *about.called)
    span = _span(timeline, (row, index))
    arrows = [(about.launch, span)] if about.launch is not None else [(span, one) for one in about.launched]
    base = timeline.start_ns
    around = {
        side: _span(timeline, (row, at)).wire(base)
        for side, at in (("before", index - 1), ("after", index + 1))
        if 0 <= at < len(here)
    }
    return {
        **span.wire(base),
        "index": index,
        "kind": kind,
        "name": name,
        "path": list(path),
        "facts": about.facts,
        "stack": stack,
        "site": next((number for number, name in enumerate(stack) if not INSIDE_TORCH.match(name)), 0),
        "arrows": [[one.wire(base), other.wire(base)] for one, other in arrows],
        **around,
    }


def _of_kind(kind: Kind, trace: Trace, timeline: Timeline, item: int) -> _About:
    if kind == "gpu":
        event = trace.gpu_events().iloc[item]
        place = _launch_place(trace, timeline, event)
        launch = None if place is None else _span(timeline, place)
        linked = not pd.isna(event["launch_start_ns"])
        called = (int(event["launch_thread"]), int(event["launch_start_ns"])) if linked else None
        return _About(_gpu_facts(trace, timeline, event, item), launch, called=called)
    if kind == "critical":
        stretch = trace.critical_path().iloc[item]
        of_gpu = [] if pd.isna(stretch["event"]) else _gpu_span(trace, timeline, int(stretch["event"]))
        return _About([("On the path", _STRETCHES[stretch["kind"]])], launched=of_gpu)
    if kind == "counter":
        return _About([])
    if kind == "launch":
        call = trace.launch_calls().iloc[item]
        launched = _launched(trace, timeline, int(call["event"]))
        return _About(_launch_facts(trace, timeline, call), None, launched, _moment(call))
    if kind == "operator":
        call = trace.operators().iloc[item]
        facts = [("Own time", fmt_ns(int(call["self_ns"])))]
        return _About(facts + _arguments(trace, int(call["event"]), _SHAPES), called=_moment(call))
    if kind == "python":
        return _About([], called=_moment(trace.python_calls().iloc[item]))
    instance = trace.region_instances().iloc[item]
    facts = [] if pd.isna(instance["step"]) else [("Step", str(instance["step"]))]
    facts.append(("On the host", fmt_ns(int(instance["end_ns"] - instance["start_ns"]))))
    if not pd.isna(instance["gpu_start_ns"]):
        facts.append(("On GPUs", fmt_ns(int(instance["gpu_end_ns"] - instance["gpu_start_ns"]))))
    return _About(facts, called=_moment(instance))


def _moment(call: pd.Series[Any]) -> Moment:
    return int(call["thread"]), int(call["start_ns"])


def _request_facts(served: Served, trace: Trace, timeline: Timeline, item: int) -> _About:
    """Stages of the request and what its batch ran; an arrow leads to the region of the batch."""
    request = served.requests.iloc[item]
    columns = ("latency_ns", *(f"{stage}_ns" for stage in STAGES), "gpu_idle_ns")
    facts = [(REQUESTS.label(name), fmt_ns(int(request[name]))) for name in columns if not pd.isna(request[name])]
    facts.append(("Status", str(request["status"])))
    batch = served.batches[served.batches["batch"] == request["batch"]]
    if batch.empty:
        return _About(facts)
    mine = batch.iloc[0]
    facts.append(("Batch", f"{mine['batch']}: {fmt_count(mine['batch_size'])} requests, {mine['queued']} still queued"))
    for part in served.parts[served.parts["batch"] == request["batch"]].itertuples():
        gpu = f", on the GPU {fmt_ns(part.gpu_busy_ns)}" if mine["gpu_events"] else ""
        facts.append((f"Batch, {part.part}", fmt_ns(part.host_ns) + gpu))
    if pd.isna(mine["instance"]):
        return _About(facts)
    region = int(mine["instance"])
    place = timeline.find("region", region, int(trace.region_instances()["start_ns"].iloc[region]))
    return _About(facts, launched=[] if place is None else [_span(timeline, place)])


def _gpu_facts(trace: Trace, timeline: Timeline, event: pd.Series[Any], item: int) -> list[Fact]:
    facts: list[Fact] = [] if event["category"] == KERNEL else [("Kind", str(event["category"]))]
    several = trace.quality.processes > 1
    device = (
        "" if pd.isna(event["device"]) else f", {gpu_name(int(event['device']), event['process'] if several else '')}"
    )
    facts.append(("Stream", ("not known" if pd.isna(event["stream"]) else str(event["stream"])) + device))
    if event["forward_path"]:
        facts.append(("Forward region", " › ".join(event["forward_path"])))
    if pd.isna(event["launch"]):
        operator = not pd.isna(event["launch_thread"])
        facts.append(
            ("Launch", "not recorded; its operator is known by its External id" if operator else "not in the trace")
        )
    else:
        columns, launch = trace.columns, int(event["launch"])
        thread, start = int(event["launch_thread"]), int(event["launch_start_ns"])
        call = f"{columns.names[columns.name[launch]]}, {fmt_ns(int(columns.dur_ns[launch]))}"
        facts += [
            ("Launch delay", fmt_ns(int(event["start_ns"]) - start)),
            ("Launched by", f"{call}, {_thread(trace, thread)}"),
            *_operator_at(trace, timeline, thread, start),
        ]
    modules = trace.kernel_details()["modules"].iloc[item]
    if modules:
        facts.append(("Module", " › ".join(modules)))
    moved = int(trace.columns.integers["bytes"][int(event["event"])])
    if moved > 0:
        facts.append(("Size", f"{fmt_bytes(moved)}, {fmt_bandwidth(moved * 10**9 / max(1, int(event['dur_ns'])))}"))
    if event["category"] != KERNEL:
        return facts
    return [*facts, *_arguments(trace, int(event["event"]), _ARGUMENTS), *_roofline(trace, item)]


def _roofline(trace: Trace, item: int) -> list[Fact]:
    """How far the operator call that launched it is from what the GPU can do; where not loaded, what has it."""
    found = trace.roofline_of(item)
    if found is None:
        where = "not read for a trace this large; see the tables Roofline and Short kernels"
        return [("Shapes, launch configuration, roofline", where)]
    if found.empty:
        return []
    row = found.iloc[0]
    if not row["modelled"]:
        return [("Roofline", f"unknown for {row['operator']}: {row['why']}")]
    said = [f"{fmt_rate(row[name])} {ROOFLINE.label(name)}" for name in ("tflop_per_s", "tb_per_s") if row[name] > 0]
    if not pd.isna(row["peak_share"]):
        said.append(f"{fmt_percent(row['peak_share'])} of the GPU's peak ({row['bound']})")
    return [("Roofline", f"{row['operator']} in {fmt_ns(int(row['gpu_ns']))}: {', '.join(said)}")]


def _launch_facts(trace: Trace, timeline: Timeline, call: pd.Series[Any]) -> list[Fact]:
    facts = [("Launched", f"{fmt_count(int(call['gpu_events']))} GPU events, {fmt_ns(int(call['gpu_ns']))}")]
    if not call["gpu_events"]:
        facts = [("Launched", "nothing")]
    return facts + _operator_at(trace, timeline, int(call["thread"]), int(call["start_ns"]))


def _operator_at(trace: Trace, timeline: Timeline, thread: int, time_ns: int) -> list[Fact]:
    """The innermost operator open on a thread, with its shapes where they were loaded."""
    places = timeline.open_at("operator", thread, time_ns)
    if not places:
        return []
    row, at = places[-1]
    event = int(trace.operators()["event"].iloc[int(timeline.rows[row].item[at])])
    return [("Operator", timeline.name(places[-1])), *_arguments(trace, event, _SHAPES)]


def _stack_at(timeline: Timeline, thread: int, time_ns: int) -> list[str]:
    """The Python functions open on a thread, the innermost first."""
    return [timeline.name(place) for place in reversed(timeline.open_at("python", thread, time_ns))]


def _arguments(trace: Trace, event: int, names: tuple[Fact, ...]) -> list[Fact]:
    """The arguments of an event that were loaded and are there, as the trace writes them."""
    found = []
    for key, label in names:
        column = trace.columns.extra.get(key)
        text = column.values[int(column.codes[event])] if column is not None else ""
        if text:
            found.append((label, text if len(text) <= _LONGEST_TEXT else text[:_LONGEST_TEXT] + " …"))
    return found


def _launch_place(trace: Trace, timeline: Timeline, event: pd.Series[Any]) -> Place | None:
    if pd.isna(event["launch"]):
        return None
    calls = trace.launch_calls()
    start = int(event["launch_start_ns"])
    first = int(np.searchsorted(calls["start_ns"].to_numpy(), start, "left"))
    for item in range(first, len(calls)):
        if int(calls["start_ns"].iloc[item]) != start:
            return None
        if int(calls["event"].iloc[item]) == int(event["launch"]):
            return timeline.find("launch", item, start)
    return None


def _gpu_span(trace: Trace, timeline: Timeline, event: int) -> list[_Span]:
    """The span of the GPU event that is that row of the trace's events; none where it is no GPU event."""
    events = trace.gpu_events()
    items = np.flatnonzero(events["event"].to_numpy() == event)
    places = (timeline.find("gpu", int(item), int(events["start_ns"].iloc[item])) for item in items)
    return [_span(timeline, place) for place in places if place is not None]


def _launched(trace: Trace, timeline: Timeline, launch: int) -> list[_Span]:
    events = trace.gpu_events()
    same = (events["launch"] == launch).to_numpy(dtype=bool, na_value=False)
    places = (
        timeline.find("gpu", int(item), int(events["start_ns"].iloc[item]))
        for item in np.flatnonzero(same)[:MOST_ARROWS].tolist()
    )
    return [_span(timeline, place) for place in places if place is not None]


def _span(timeline: Timeline, place: Place) -> _Span:
    row: Row = timeline.rows[place[0]]
    at = place[1]
    return _Span(place[0], int(row.start[at]), int(row.busy[at + 1] - row.busy[at]))


def _thread(trace: Trace, thread: int) -> str:
    return f"thread {trace.threads['tid'].iloc[thread]}"
