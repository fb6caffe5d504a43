"""Two processes load what one loads: same columns in the same order, also when a block is malformed."""

from __future__ import annotations

import gzip
import itertools
import json
from pathlib import Path

import numpy as np
import pytest

from profiler_kit.errors import OptionError
from profiler_kit.load.trace import chrome
from profiler_kit.load.trace.chrome import ChromeTrace, read_chrome_trace
from profiler_kit.load.trace.second_process import MOST_BLOCKS, SecondProcess, SecondProcessError
from tests.builders import TraceBuilder

pytestmark = pytest.mark.usefixtures("decoder_alone")


def big_trace() -> TraceBuilder:
    """Some 2 MB: regions, operators with shapes, launches, kernels, flows, metadata and string pids, interleaved."""
    trace = TraceBuilder()
    trace.events.append({"ph": "M", "name": "process_labels", "pid": 0, "tid": 0, "args": {"labels": "GPU 0"}})
    for number in range(3000):
        tid = 1 + number // 250
        trace.region(f"region {number % 97}", 100 * number, 90, tid)
        trace.operator(f"aten::op{number % 31}", 100 * number + 1, 20, tid, **{"Input Dims": [[number % 7, 2], []]})
        trace.launch(number, 100 * number + 2, tid)
        trace.kernel(number, 100 * number + 30, 5.125, name=f"kernel<{number % 53}>", stream=7 + number % 3)
        flow = {"cat": "fwdbwd", "name": "fwdbwd", "id": number, "pid": 1, "tid": tid, "ts": 100 * number + 1}
        trace.events += [{"ph": "s", **flow}, {"ph": "f", **flow, "tid": 99}]
        if number % 500 == 0:
            thread = {"ph": "M", "name": "thread_name", "pid": 1, "tid": tid, "args": {"name": f"worker {tid}"}}
            trace.events.append(thread)
            trace.span("Trace", "odd", 100 * number, 1, "Spans")["pid"] = "Spans"
    return trace


def equal(one: ChromeTrace, other: ChromeTrace) -> None:
    assert one.quality == other.quality
    assert one.metadata == other.metadata
    a, b = one.columns, other.columns
    for column in ("start_ns", "dur_ns"):
        assert np.array_equal(getattr(a, column), getattr(b, column))
    assert a.integers.keys() == b.integers.keys()
    for column in a.integers:
        assert np.array_equal(a.integers[column], b.integers[column])
    for column, keys in (("name", "names"), ("category", "categories"), ("thread", "threads")):
        decoded = [[getattr(c, keys)[code] for code in getattr(c, column)] for c in (a, b)]
        assert decoded[0] == decoded[1]
    for column in a.extra:
        decoded = [[c.extra[column].values[code] for code in c.extra[column].codes] for c in (a, b)]
        assert decoded[0] == decoded[1]
    launched = [sorted((id, c.threads[t]) for id, t in c.launched.tolist()) for c in (a, b)]
    assert launched[0] == launched[1] and launched[0]
    for flows in ("forward_flows", "backward_flows"):
        rows = [sorted((f, c.threads[t], s) for f, t, s in getattr(c, flows).tolist()) for c in (a, b)]
        assert rows[0] == rows[1] and rows[0]
    assert (a.thread_names, a.process_labels) == (b.thread_names, b.process_labels)


@pytest.fixture
def shared(monkeypatch: pytest.MonkeyPatch) -> None:
    """Every file is worth two processes, and the child takes every other block, however long it needs."""
    turns = itertools.cycle((True, False))

    def ready(self: SecondProcess) -> bool:
        if not next(turns):
            return False
        while self._waiting >= MOST_BLOCKS:
            self._take_answers()
        return True

    monkeypatch.setattr(SecondProcess, "ready", ready)
    monkeypatch.setattr(chrome, "TWO_PROCESSES_BYTES", 0)
    monkeypatch.setattr("profiler_kit.load.trace.decompress.BLOCK_BYTES", 50_000)
    monkeypatch.setattr(chrome.os, "sched_getaffinity", lambda _: {0, 1}, raising=False)


def alone(path: Path, monkeypatch: pytest.MonkeyPatch, arguments: tuple[str, ...] = ()) -> ChromeTrace:
    with monkeypatch.context() as patched:
        patched.setattr(chrome, "TWO_PROCESSES_BYTES", 1 << 60)
        return read_chrome_trace(path, arguments=arguments)


@pytest.mark.parametrize("packed", [False, True])
def test_two_processes_load_what_one_loads(
    packed: bool, tmp_path: Path, shared: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = big_trace().write(tmp_path / ("t.json.gz" if packed else "t.json"))
    asked = ("input_dims", "cbid")
    used: list[bool] = []
    decode = SecondProcess.decode
    monkeypatch.setattr(SecondProcess, "decode", lambda self, block: used.append(True) or decode(self, block))
    both = read_chrome_trace(path, arguments=asked)
    assert len(used) > 3  # the child took part
    equal(both, alone(path, monkeypatch, asked))
    dims = both.columns.extra["input_dims"]
    assert {dims.values[code] for code in dims.codes} == {"", *(f"[[{n},2],[]]" for n in range(7))}
    assert set(both.columns.extra["cbid"].codes.tolist()) == {0}


@pytest.mark.parametrize("at", [0.1, 0.5, 0.9])
def test_a_malformed_block_is_left_to_one_process(
    at: float, tmp_path: Path, shared: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    data = bytearray(big_trace().kineto())
    spot = data.index(b'"name": "', int(len(data) * at)) + 10
    data[spot : spot + 1] = b'"x"'
    path = tmp_path / "t.json"
    path.write_bytes(data)
    loaded = read_chrome_trace(path)
    assert loaded.quality.repaired_events == 1
    equal(loaded, alone(path, monkeypatch))


@pytest.mark.parametrize("layout", ["compact", "old times", "cut", "tail"])
def test_other_layouts_and_endings_give_the_same(
    layout: str, tmp_path: Path, shared: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    trace = big_trace()
    data = trace.kineto()
    if layout == "compact":
        data = json.dumps({"traceEvents": trace.events}, separators=(",", ":")).encode()
    elif layout == "old times":
        for event in trace.events:
            event["ts"] = event.get("ts", 0) + 1_700_000_000_000_000
        data = trace.kineto()
    elif layout == "cut":
        data = data[: len(data) * 2 // 3]
    else:  # metadata after the events that looks like events
        data = data.rstrip()[:-1] + b',\n"more": [\n  {\n    "a": 1\n  },\n  {\n    "a": 2\n  }\n]}' + b" " * 200_000
    path = tmp_path / "t.json.gz"
    path.write_bytes(gzip.compress(data))
    equal(read_chrome_trace(path), alone(path, monkeypatch))


def test_a_child_that_dies_is_no_loss(tmp_path: Path, shared: None, monkeypatch: pytest.MonkeyPatch) -> None:
    path = big_trace().write(tmp_path / "t.json")
    decode = SecondProcess.decode
    monkeypatch.setattr(SecondProcess, "decode", lambda self, block: self._child.kill() or decode(self, block))
    equal(read_chrome_trace(path), alone(path, monkeypatch))


def test_a_process_that_cannot_be_started_is_no_loss(
    tmp_path: Path, shared: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = big_trace().write(tmp_path / "t.json")
    monkeypatch.setattr("sys.executable", "/nowhere/python")
    equal(read_chrome_trace(path), alone(path, monkeypatch))


def test_the_child_is_gone_afterwards() -> None:
    with SecondProcess((), ()) as second:
        child = second._child
        with pytest.raises(SecondProcessError):
            second.decode(b"[{]")
            while True:  # its hello may come alone
                second._take_answers()
    assert child.poll() is not None


def test_an_argument_that_is_a_column_already_is_refused(tmp_path: Path) -> None:
    path = TraceBuilder().write(tmp_path / "t.json")
    with pytest.raises(OptionError) as raised:
        read_chrome_trace(path, arguments=["correlation"])
    assert str(raised.value) == "arguments: 'correlation' is a column already, expected other arguments. Leave it out."


def test_an_argument_that_cannot_be_a_key_is_refused(tmp_path: Path) -> None:
    path = TraceBuilder().write(tmp_path / "t.json")
    with pytest.raises(OptionError, match="arguments: 'a \"b' cannot be the key of an argument"):
        read_chrome_trace(path, arguments=['a "b'])
