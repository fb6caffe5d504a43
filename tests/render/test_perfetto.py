"""Windowed exports: what is kept, what is added, and that the result is a valid trace whatever the source was."""

from __future__ import annotations

import gzip
import json
import random
from collections import Counter
from pathlib import Path
from typing import Any

import pandas as pd
import pytest

from profiler_kit.errors import InputError, KitError, OptionError
from profiler_kit.render.perfetto.export import Exported, export_window
from profiler_kit.render.perfetto.lanes import FIRST_TID
from profiler_kit.render.perfetto.tracks import FIRST_PID, Slice, nested_lanes
from profiler_kit.snapshot import load_snapshot
from profiler_kit.trace import load_trace
from tests.builders import TraceBuilder, real_traces
from tests.snapshots import T0, alloc, free, snapshot
from tests.snapshots import write as write_snapshot

Event = dict[str, Any]
ABSOLUTE_NANOSECONDS = ("ns_resolution.json.gz",)
BASE_NS = 1_700_000_000_000_000_000


def read(path: Path) -> list[Event]:
    data = path.read_bytes()
    value = json.loads(gzip.decompress(data) if path.suffix == ".gz" else data)
    events: list[Event] = value["traceEvents"]
    return events


def is_added(event: Event) -> bool:
    return isinstance(event.get("pid"), int) and event["pid"] >= FIRST_PID


def names(events: list[Event], phase: str = "X") -> list[str]:
    return sorted(e["name"] for e in events if e["ph"] == phase and not is_added(e))


def added(events: list[Event], phase: str) -> list[Event]:
    return [e for e in events if e["ph"] == phase and is_added(e)]


def arrow(correlation: int, at: float, stream: int = 7) -> Event:
    return {"ph": "f", "bp": "e", "cat": "ac2g", "name": "ac2g", "id": correlation, "pid": 0, "tid": stream, "ts": at}


def example() -> TraceBuilder:
    """Two regions of 100 us; what the first launches runs late, partly while the second is open."""
    trace = TraceBuilder()
    trace.events.append({"ph": "M", "name": "process_name", "pid": 100, "tid": 0, "ts": 0, "args": {"name": "python"}})
    for number, (name, start) in enumerate((("encoder", 0), ("decoder", 200))):
        trace.region(name, start, 100)
        trace.operator(f"aten::{name}", start + 10, 50, Shapes=[[1, 2], []])
        for place in range(2):
            correlation = 10 * number + place
            trace.launch(correlation, start + 20 + 10 * place)
            begin = start + 60 + 120 * place
            trace.kernel(correlation, begin, 100, name=f"{name} kernel {place}", stream=7 + place)
            trace.events.append(arrow(correlation, begin, 7 + place))
    trace.events.append({"ph": "i", "s": "t", "name": "[memory]", "pid": 100, "tid": 1, "ts": 30, "args": {"Bytes": 1}})
    trace.events.append({"ph": "i", "s": "t", "name": "late", "pid": 100, "tid": 1, "ts": 930, "args": {}})
    return trace


@pytest.fixture
def source(tmp_path: Path) -> Path:
    return example().write(tmp_path / "source.json.gz")


def test_a_region_is_kept_with_all_it_launched_and_all_that_overlaps(source: Path, tmp_path: Path) -> None:
    done = export_window(source, tmp_path / "out.json.gz", region="encoder")
    events = read(done.path)
    # 0 to 280 us: the end of kernel 1 of the encoder; the decoder (200 to 300) overlaps, its kernel 1 (380) is launched
    # in the window at 230 us
    assert (done.start_ns, done.end_ns) == (0, 280_001)
    assert done == Exported(
        path=tmp_path / "out.json.gz",
        label="encoder (instance 0 of 1)",
        start_ns=0,
        end_ns=280_001,
        events=12,
        gpu_events=4,
        added_events=3 + 2 + 2 + 3,
        memory_samples=0,
        size_bytes=(tmp_path / "out.json.gz").stat().st_size,
    )
    assert Counter(names(events)) == Counter(e["name"] for e in read(source) if e["ph"] == "X")
    assert [e["name"] for e in events if e["ph"] == "i"] == ["[memory]"]


def test_events_come_as_they_stand_in_the_source(source: Path, tmp_path: Path) -> None:
    out = export_window(source, tmp_path / "out.json", time_ns=(5_000, 40_000)).path
    originals = read(source)
    kept = [e for e in read(out) if not is_added(e)]
    assert all(event in originals for event in kept)
    assert names(kept) == [
        "aten::encoder",
        "cudaLaunchKernel",
        "cudaLaunchKernel",
        "encoder",
        "encoder kernel 0",  # launched in the window, run after it
        "encoder kernel 1",
    ]
    assert [e["id"] for e in kept if e["ph"] == "s"] == [0, 1] == [e["id"] for e in kept if e["ph"] == "f"]
    assert [e["name"] for e in kept if e["ph"] == "M"] == ["process_name"]


def test_a_kernel_in_the_window_brings_the_launch_from_before_it(source: Path, tmp_path: Path) -> None:
    events = read(export_window(source, tmp_path / "out.json", time_ns=(165_000, 190_000)).path)
    assert names(events) == ["cudaLaunchKernel", "encoder kernel 1"]
    assert [e["ts"] for e in events if e["name"] == "cudaLaunchKernel"] == [30]
    assert [(e["ph"], e["id"]) for e in events if e["ph"] in "sf"] == [("s", 1), ("f", 1)]


def test_the_profilers_own_bar_does_not_set_the_scale(tmp_path: Path) -> None:
    trace = example()
    trace.span("Trace", "PyTorch Profiler (0)", 0, 400, "PyTorch Profiler")
    source = trace.write(tmp_path / "t.json")
    window = read(export_window(source, tmp_path / "out.json", time_ns=(5_000, 40_000)).path)
    assert "PyTorch Profiler (0)" not in names(window)
    assert "PyTorch Profiler (0)" in names(read(export_window(source, tmp_path / "out.json").path))


def test_of_arrows_only_those_with_both_ends_stay(tmp_path: Path) -> None:
    trace = TraceBuilder()
    trace.operator("forward", 0, 10)
    trace.operator("backward", 50, 10)
    for phase, at in (("s", 0), ("f", 50)):
        flow = {"ph": phase, "bp": "e", "cat": "fwdbwd", "name": "fwdbwd", "id": 1, "pid": 100, "tid": 1, "ts": at}
        trace.events.append(flow)
    source = trace.write(tmp_path / "t.json")
    both = read(export_window(source, tmp_path / "both.json", time_ns=(0, 60_000)).path)
    one = read(export_window(source, tmp_path / "one.json", time_ns=(40_000, 60_000)).path)
    assert [e["ph"] for e in both if e.get("cat") == "fwdbwd"] == ["s", "f"]
    assert [e for e in one if e.get("cat") == "fwdbwd"] == []


def test_a_stream_leaves_out_what_ran_on_others(source: Path, tmp_path: Path) -> None:
    events = read(export_window(source, tmp_path / "out.json", stream=8).path)
    assert [name for name in names(events) if "kernel" in name] == ["decoder kernel 1", "encoder kernel 1"]
    assert names(events).count("cudaLaunchKernel") == 4  # the host stays whole
    assert sorted(e["id"] for e in events if e["ph"] == "f") == [1, 11]
    assert [e["args"]["name"] for e in added(events, "M") if e["name"] == "thread_name"] == ["stream 8"]


def test_regions_on_the_gpu_run_from_the_first_start_to_the_last_end(tmp_path: Path) -> None:
    trace = TraceBuilder()
    trace.region("outer", 0, 100)
    trace.region("inner", 10, 20)
    trace.launch(1, 12)
    trace.launch(2, 14)
    trace.launch(3, 50)
    trace.kernel(1, 20.001, 5)
    trace.kernel(2, 30, 5.5)
    trace.kernel(3, 60, 10, stream=9)
    events = read(export_window(trace.write(tmp_path / "t.json"), tmp_path / "out.json").path)
    slices = [(e["name"], e["ts"], e["dur"], e["args"]) for e in added(events, "X")]
    assert slices == [
        ("outer", 20.001, 15.499, {"path": "outer", "GPU events": 2}),
        ("inner", 20.001, 15.499, {"path": "outer > inner", "GPU events": 2}),
        ("outer", 60.0, 10.0, {"path": "outer", "GPU events": 1}),
    ]
    threads = {e["tid"]: e["args"]["name"] for e in added(events, "M") if e["name"] == "thread_name"}
    assert list(threads.values()) == ["stream 7", "stream 9"]
    assert [e["args"]["name"] for e in added(events, "M") if e["name"] == "process_name"] == ["GPU 0 · regions"]


@pytest.mark.parametrize("path", real_traces(), ids=lambda path: f"{path.parent.name}-{path.name}")
def test_region_slices_agree_with_a_plain_count(path: Path, tmp_path: Path) -> None:
    out = load_trace(export_window(path, tmp_path / "out.json.gz").path)
    trace = load_trace(path)
    instances, expected = trace.region_instances(), {}
    parents = instances["parent"].astype(object).where(instances["parent"].notna(), None).tolist()
    gpu = trace.gpu_events()
    rows = zip(gpu["instance"], gpu["device"], gpu["stream"], gpu["start_ns"], gpu["dur_ns"], strict=True)
    for instance, device, stream, start, dur in rows:
        at = None if pd.isna(instance) else int(instance)
        while at is not None:
            first, last = expected.get((at, device, stream), (start, start + dur))
            expected[at, device, stream] = (min(first, start), max(last, start + dur))
            at = parents[at]
    slices = out.events[out.events["category"] == "gpu_region"]
    shown = zip(slices["start_ns"] + out.base_ns - trace.base_ns, slices["dur_ns"], strict=True)
    assert Counter((start, start + dur) for start, dur in shown) == Counter(expected.values())
    unnumbered = slices["name"].astype(str).str.replace(r"(?<=^ProfilerStep)#\d+$", "", regex=True)
    assert Counter(unnumbered) == Counter(instances["name"].iloc[at] for at, _, _ in expected)


@pytest.mark.parametrize("path", real_traces(), ids=lambda path: f"{path.parent.name}-{path.name}")
def test_slices_of_every_thread_nest(path: Path, tmp_path: Path) -> None:
    """Perfetto drops what overlaps without nesting; 4 of the real traces hold such events."""
    out = export_window(path, tmp_path / "out.json").path
    loaded = load_trace(out)
    columns = loaded.columns
    order = sorted(
        range(len(columns)),
        key=lambda row: (columns.thread[row], columns.start_ns[row], -columns.dur_ns[row], row),
    )
    stack: list[int] = []
    thread = -1
    for row in order:
        if columns.thread[row] != thread:
            thread, stack = columns.thread[row], []
        start, end = columns.start_ns[row], columns.start_ns[row] + columns.dur_ns[row]
        while stack and stack[-1] <= start:
            stack.pop()
        assert not stack or end <= stack[-1]
        stack.append(end)


@pytest.mark.parametrize("path", real_traces(), ids=lambda path: f"{path.parent.name}-{path.name}")
def test_a_whole_export_loses_nothing(path: Path, tmp_path: Path) -> None:
    done = export_window(path, tmp_path / "out.json.gz")
    before, after = load_trace(path), load_trace(done.path)
    ours = after.events["category"] != "gpu_region"
    assert done.events == len(before.events) == int(ours.sum())
    for column in ("name", "dur_ns", "correlation"):
        assert after.events.loc[ours, column].tolist() == before.events[column].tolist()
    times = after.events.loc[ours, "start_ns"] + after.base_ns
    assert times.tolist() == (before.events["start_ns"] + before.base_ns).tolist()
    assert after.summary()["gpu_timeline"] == before.summary()["gpu_timeline"]
    assert after.quality.unlinked_gpu_events == before.quality.unlinked_gpu_events
    assert (after.base_ns == before.base_ns) == (path.name not in ABSOLUTE_NANOSECONDS)


def test_of_two_that_overlap_the_shorter_moves_with_its_arrow(tmp_path: Path) -> None:
    trace = TraceBuilder()
    trace.span("python_function", "enter", 0, 10)
    trace.region("step", 5, 100)
    trace.launch(1, 20)
    trace.launch(2, 22)
    trace.kernel(1, 30, 10, name="long")
    trace.kernel(2, 35, 6, name="short")
    trace.events += [arrow(1, 30), arrow(2, 35)]
    events = read(export_window(trace.write(tmp_path / "t.json"), tmp_path / "out.json").path)
    moved = {(e["ph"], e["name"]) for e in events if e["tid"] == FIRST_TID or e["tid"] == FIRST_TID + 1}
    assert {("X", "enter"), ("X", "short"), ("f", "ac2g"), ("M", "thread_name")} <= moved
    assert ("X", "step") not in moved and ("X", "long") not in moved
    lanes = {e["args"]["name"] for e in events if e["name"] == "thread_name" and e["tid"] >= FIRST_TID}
    assert lanes == {"thread 7 (2, overlaps)", "thread 1 (2, overlaps)"}
    (short,) = (e for e in events if e["name"] == "short")
    (its_arrow,) = (e for e in events if e["ph"] == "f" and e["id"] == 2)
    assert (short["ts"], short["pid"], short["tid"]) == (35, 0, its_arrow["tid"])


def test_lanes_hold_what_nests() -> None:
    def one(name: str, start: int, end: int) -> Slice:
        return Slice(name, (name,), start, end, 0, 1)

    lanes = nested_lanes([one("a", 0, 10), one("b", 0, 10), one("c", 5, 12), one("d", 6, 9), one("e", 12, 13)])
    assert [[s.name for s in lane] for lane in lanes] == [["a", "b", "d", "e"], ["c"]]


def test_the_critical_path_is_a_track(source: Path, tmp_path: Path) -> None:
    path = load_trace(source).critical_path()
    out = export_window(source, tmp_path / "out.json", critical=path).path
    mine = [event for event in read(out) if event.get("cat") == "critical_path"]
    assert [event["args"]["kind"] for event in mine] == path["kind"].tolist()
    assert sum(event["dur"] for event in mine) == pytest.approx(path["dur_ns"].sum() / 1000)
    assert len({event["pid"] for event in mine}) == 1


def test_counters_start_with_the_value_at_the_window(source: Path, tmp_path: Path) -> None:
    done = export_window(source, tmp_path / "out.json", time_ns=(25_000, 70_000), counters=True)
    counters = [(e["name"], e["args"], e["ts"]) for e in added(read(done.path), "C")]
    assert counters == [  # up to the end of what was launched in the window
        ("queue length", {"stream 7": 1}, 25.0),
        ("queue length", {"stream 7": 0}, 60.0),
        ("queue length", {"stream 7": 1}, 220.0),
        ("queue length", {"stream 7": 0}, 260.0),
        ("queue length", {"stream 8": 0}, 25.0),
        ("queue length", {"stream 8": 1}, 30.0),
        ("queue length", {"stream 8": 0}, 180.0),
        ("queue length", {"stream 8": 1}, 230.0),
        ("GPU events", {"running": 0}, 25.0),
        ("GPU events", {"running": 1}, 60.0),
        ("GPU events", {"running": 0}, 160.0),
        ("GPU events", {"running": 1}, 180.0),
        ("GPU events", {"running": 2}, 260.0),
        ("GPU events", {"running": 1}, 280.0),
    ]


def test_memory_of_the_same_time_becomes_a_counter(tmp_path: Path) -> None:
    trace = TraceBuilder()
    start_us = T0 - BASE_NS // 1000
    trace.region("step", start_us, 100)
    trace.launch(1, start_us + 1)
    trace.kernel(1, start_us + 10, 5)
    source = trace.write(tmp_path / "t.json")
    history = [alloc(-50, 0x1000, 512), alloc(20, 0x2000, 1024), *free(60, 0x1000, 512), alloc(500, 0x3000, 512)]
    memory = load_snapshot(write_snapshot(tmp_path / "memory.pickle", snapshot(history)))
    done = export_window(source, tmp_path / "out.json", counters=True, snapshot=memory)
    allocated = [
        (round(e["ts"] - start_us), e["args"]["allocated (bytes)"])
        for e in added(read(done.path), "C")
        if "allocated (bytes)" in e["args"]
    ]
    assert allocated == [(0, 512), (20, 1536), (60, 1024)]
    assert done.memory_samples == 4  # one of reserved memory, which no event changed
    within = load_snapshot(write_snapshot(tmp_path / "within.pickle", snapshot([alloc(20, 0x2000, 1024)])))
    export_window(source, tmp_path / "within.json", snapshot=within)
    first = next(e for e in added(read(tmp_path / "within.json"), "C") if "allocated (bytes)" in e["args"])
    # nothing is said of before
    assert (round(first["ts"] - start_us), first["args"]["allocated (bytes)"]) == (20, 1024)
    later = load_snapshot(write_snapshot(tmp_path / "later.pickle", snapshot([alloc(5000, 0x1000, 512)])))
    assert export_window(source, tmp_path / "out.json", counters=True, snapshot=later).memory_samples == 0
    alone = export_window(source, tmp_path / "alone.json", snapshot=memory, must_overlap=True)
    assert {e["name"] for e in added(read(alone.path), "C")} == {"memory"}
    with pytest.raises(InputError) as caught:
        export_window(source, tmp_path / "no.json", snapshot=later, must_overlap=True)
    assert str(caught.value) == (
        f"{later.path}: recorded at another time than {source} (whole trace), expected the memory snapshot of that "
        "time. Record both at once: memory_runner inside profiler_runner."
    )
    assert not (tmp_path / "no.json").exists()


def test_memory_rises_inside_the_region_that_allocates(tmp_path: Path) -> None:
    """On a real capture of both: where the encoder is open the counter moves as the snapshot says it does."""
    golden = Path(__file__).parents[1] / "golden"
    memory = load_snapshot(golden / "joined_h200.pickle")
    done = export_window(
        golden / "joined_h200.json.gz", tmp_path / "out.json.gz", region="image encoder", snapshot=memory
    )
    events = read(done.path)
    (encoder,) = (e for e in events if e["name"] == "image encoder" and e["cat"] == "user_annotation")
    until = encoder["ts"] + encoder["dur"]
    counted = [e for e in added(events, "C") if "allocated (bytes)" in e["args"] and encoder["ts"] <= e["ts"] <= until]
    wanted = memory.region_instances(0)
    wanted = wanted[[path[-1] == "image encoder" for path in wanted["path"]]].iloc[0]
    values = [e["args"]["allocated (bytes)"] for e in counted]
    assert max(values) == wanted["peak_bytes"] and values[-1] == wanted["after_bytes"]
    assert len(values) > 1_000


def test_instances_are_counted_by_start_and_steps_have_names(tmp_path: Path) -> None:
    trace = TraceBuilder()
    for number in (2, 0, 1):
        trace.region(f"ProfilerStep#{number + 5}", 100 * number, 50)
        trace.operator(f"op {number}", 100 * number, 10)
    source = trace.write(tmp_path / "t.json")
    for options in ({"region": "ProfilerStep", "instance": 1}, {"region": "ProfilerStep#6"}):
        events = read(export_window(source, tmp_path / "out.json", **options).path)  # type: ignore[arg-type]
        assert names(events) == ["ProfilerStep#6", "op 1"]


def test_the_metadata_of_the_source_stays_and_says_where_it_was_cut(source: Path, tmp_path: Path) -> None:
    export_window(source, tmp_path / "out.json", time_ns=(0, 50_000))
    value = json.loads((tmp_path / "out.json").read_bytes())
    assert value.pop("traceEvents")
    assert value == {
        "schemaVersion": 1,
        "baseTimeNanoseconds": BASE_NS,
        "traceName": "trace.json",
        "profilerKit": {
            "source": "source.json.gz",
            "window": "0.000 ms to 0.050 ms",
            "startNs": 0,
            "endNs": 50_000,
        },
    }


def test_malformed_sources_give_valid_traces(tmp_path: Path) -> None:
    text = (
        example().kineto().replace(b'"name": "encoder"', b'"name": "enc"oder"').replace(b'"Bytes": 1', b'"Bytes": NaN')
    )
    source = tmp_path / "broken.json"
    source.write_bytes(text[: text.index(b'"decoder kernel 1"')])
    done = export_window(source, tmp_path / "out.json.gz", counters=True)
    assert 'enc"oder' in names(read(done.path))
    assert (done.events, load_trace(done.path).quality.repaired_events) == (11, 0)


def test_a_bare_list_and_old_absolute_times(tmp_path: Path) -> None:
    trace = TraceBuilder()
    trace.operator("a", 1701310193026419, 10)
    source = tmp_path / "list.json"
    source.write_text(json.dumps(trace.events))
    done = export_window(source, tmp_path / "out.json")
    assert (done.start_ns, names(read(done.path))) == (1_701_310_193_026_419_000, ["a"])


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (
            {"region": "encode"},
            "{path}: no region 'encode', found decoder, encoder. Choose one of these, or a stretch of time with "
            "--time START:END.",
        ),
        (
            {"region": "encoder", "instance": 1},
            "--instance 1: region 'encoder' has 1 in {path}, expected 0 to 0.",
        ),
        ({"stream": 3}, "--stream 3: not in {path}, found 7, 8. Choose one of these."),
        (
            {"time_ns": (10**9, None)},
            "--time 1,000.000 ms to the end: nothing happened then in {path}, which lasts from 0 to 0.480 ms. "
            "Choose a time inside.",
        ),
        (
            {"region": "encoder", "time_ns": (0, 5)},
            "--region 'encoder' and --time: found two windows, expected one. Leave out one of them.",
        ),
        ({"stream": 8, "time_ns": (470_000, 471_000)}, None),
        (
            {"stream": 7, "time_ns": (470_000, 471_000)},
            "{path}: nothing happened in 0.470 ms to 0.471 ms on stream 7. Choose a longer window or another stream.",
        ),
    ],
)
def test_what_cannot_be_exported_is_one_line_and_leaves_the_target(
    options: dict[str, Any], message: str | None, source: Path, tmp_path: Path
) -> None:
    out = tmp_path / "out.json"
    out.write_text("before")
    if message is None:
        assert export_window(source, out, **options).gpu_events == 1
        return
    with pytest.raises(OptionError) as error:
        export_window(source, out, **options)
    assert str(error.value) == message.format(path=source)
    assert out.read_text() == "before"
    assert sorted(p.name for p in tmp_path.iterdir()) == ["out.json", "source.json.gz"]


def test_targets_that_cannot_be(source: Path, tmp_path: Path) -> None:
    for out, message in (
        ("out.txt", "cannot tell the format of 'out.txt', expected a name that ends in .json.gz."),
        (source.name, "the export would replace its own source. Choose another name with --output."),
    ):
        with pytest.raises(KitError) as error:
            export_window(source, tmp_path / out)
        assert str(error.value) == f"{tmp_path / out}: {message}"
    with pytest.raises(KitError, match="cannot make the folder"):
        export_window(source, source / "inside.json")


def test_a_cpu_only_trace_has_no_added_tracks(tmp_path: Path) -> None:
    trace = TraceBuilder()
    trace.region("step", 0, 10)
    done = export_window(trace.write(tmp_path / "t.json"), tmp_path / "out.json", counters=True)
    assert (done.added_events, done.gpu_events) == (0, 0)
    with pytest.raises(OptionError) as error:
        export_window(tmp_path / "t.json", tmp_path / "out.json", stream=7)
    assert str(error.value) == (f"--stream 7: not in {tmp_path / 't.json'}, found no GPU events at all.")


@pytest.mark.parametrize("seed", range(4))
def test_mutilated_sources_give_valid_traces_or_one_line(seed: int, tmp_path: Path) -> None:
    whole, rolls = example().kineto(), random.Random(seed)
    source, out = tmp_path / "source.json", tmp_path / "out.json"
    for _ in range(30):
        text = bytearray(whole)
        for _ in range(rolls.randint(1, 5)):
            at = rolls.randrange(len(text))
            junk = bytes(rolls.choice(b'"\\{}[],:\x00\xff') for _ in range(rolls.randint(1, 4)))
            text[at : at + rolls.choice((0, 1, 100))] = rolls.choice((junk, bytes(text[max(0, at - 200) : at])))
        source.write_bytes(text)
        try:
            done = export_window(source, out, counters=True)
        except KitError as error:
            assert "\n" not in str(error)
            continue
        json.loads(out.read_bytes())
        again = load_trace(out)
        assert (again.quality.repaired_events, again.quality.dropped_events) == (0, 0)
        assert int((again.events["category"] != "gpu_region").sum()) == len(load_trace(source).events) == done.events
