"""The native reader of snapshots: what it reads, and what it leaves to the one in Python."""

from __future__ import annotations

import io
import pickle
from pathlib import Path
from typing import Any

import pytest

from profiler_kit.load.snapshot import native, reader
from tests import readers
from tests import snapshots as s
from tests.fuzz.snapshots import columns_of, corpus

pytestmark = pytest.mark.skipif(not readers.HAVE_NATIVE, reason="no native reader here")
CAPTURES = sorted((s.ROOT / "traces").glob("*/memory.pickle")) + sorted((s.ROOT / "tests" / "golden").glob("*.pickle"))


def reads(data: bytes, most_bytes: int = 1 << 20) -> bool:
    return native.read_columns(io.BytesIO(data), most_bytes) is not None


def taken(data: object, protocol: int = 4) -> bool:
    """Whether the native reader reads it; then it reads what the other one does."""
    return columns_of(pickle.dumps(data, protocol))[2]


@pytest.mark.parametrize("path", CAPTURES, ids=lambda path: "/".join(path.parts[-2:]))
def test_captures_need_no_python(path: Path) -> None:
    assert columns_of(path.read_bytes())[2]


@pytest.mark.parametrize("protocol", [2, 3, 4, 5])
def test_cases_need_no_python_whatever_the_protocol(protocol: int) -> None:
    left = [data for data in corpus() if not taken(pickle.loads(data), protocol)]
    assert len(left) == 1 and b"user_defined" in left[0]  # its regions stand in the history


def test_a_process_is_started_only_for_the_reader_in_python(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = s.write(tmp_path / "m.pickle", s.snapshot([s.alloc(0, 0x1000, 512)]))
    monkeypatch.setattr(reader, "CHILD", tmp_path / "no such script")
    assert len(reader.read_snapshot(path).events) == 1
    with readers.reader("python"), pytest.raises(reader.SnapshotFormatError):
        reader.read_snapshot(path)


def test_it_holds_no_more_than_it_may() -> None:
    data = pickle.dumps(s.snapshot([s.alloc(number, 512 * number, 512) for number in range(2000)]))
    assert reads(data, 16 * len(data))
    assert not reads(data, 5 * len(data)) and not reads(data, len(data))


def test_what_one_object_means_is_bounded_however_often_it_is_meant() -> None:
    """A dict that each item of a list is would be walked at each; a text that each setting is, kept for each."""
    for keys, taken_natively in ((40, True), (200, False)):
        shared = {f"k{number}": None for number in range(keys)}
        assert reads(pickle.dumps({"segments": [], "external_annotations": [shared] * 100})) is taken_natively
    for length in (4_000, 5_000):
        text = "x" * length
        assert reads(pickle.dumps({"segments": [], "profiler_kit": {"a": text, "b": text}})) is (length < 4_096)
        assert reads(pickle.dumps({"segments": [], "profiler_kit": {text: 1}})) is (length < 4_096)


FRAME = s.frame("f")


@pytest.mark.parametrize(
    "more",
    [
        {}, {"addr": 2**64 - 1}, {"size": -(2**59)}, {"stream": 2**64 - 1}, {"stream": -1}, {"time_us": 2**63 + 1},
        {"action": None}, {"user_metadata": None}, {"user_metadata": "é" * 2000}, {"compile_context": "0/1"},
        {"frames": None}, {"frames": []}, {"frames": ()}, {"frames": (FRAME, FRAME)}, {"frames": [{}]},
        {"frames": [FRAME | {"line": 2**64 - 1}]}, {"frames": [FRAME | {"line": -1}]},
        {"frames": [FRAME | {"line": "7"}]},
        {"frames": [FRAME | {"line": 2**62}]}, {"frames": [FRAME] * 1024}, {"pool_id": (3, 0)}, {"pool_id": [0, -7]},
        {"pool_id": None}, {"odd": [{"deep": ((),)}], "é": 1.5}, {"action": "oom", "device_free": 2**62},
        {"action": "oom", "device_free": True}, {"action": "oom", "device_free": 2**63},
        {"action": "oom", "size": 2**60},
    ],
)  # fmt: skip
def test_what_torch_may_write_is_taken(more: dict[str, Any]) -> None:
    history = [s.alloc(0, 0x1000, 512), {**s.alloc(1, 0x2000, 512, frames=[FRAME]), **more}, {"action": "snapshot"}]
    assert taken(s.snapshot(history, history))
    assert taken({"host_traces": [history, []], "device_traces": [[], history]})
    assert taken({"host_traces": history, "external_annotations": [s.mark("START", "a", 1), s.mark("NO", "a", 2), {}]})


@pytest.mark.parametrize(
    "more",
    [
        {"addr": None}, {"size": 1.5}, {"size": True}, {"action": b"alloc"}, {"stream": "7"}, {"time_us": 1.0},
        {"user_metadata": 7}, {"user_metadata": "x" * 5000}, {"frames": [None]}, {"frames": [FRAME] * 1025},
        {"frames": [FRAME | {"name": 7}]}, {"pool_id": "0"}, {"pool_id": (1, 2, 3)}, {"odd": 2**64},
        {"odd": b"x"}, {7: 1}, {"action": "user_defined"},
    ],
)  # fmt: skip
def test_what_is_odd_is_left_to_python(more: dict[Any, Any]) -> None:
    assert not reads(pickle.dumps(s.snapshot([s.alloc(0, 0x1000, 512), {**s.alloc(1, 0x2000, 512), **more}])))


@pytest.mark.parametrize(
    "more",
    [
        {"blocks": []}, {"device": 3}, {"stream": 2**64 - 1}, {"segment_pool_id": (1, 2)}, {"is_expandable": True},
        {"allocated_size": 5}, {"active_size": -5}, {"requested_size": 2**63}, {"requested_size": 2**61},
        {"allocated_size": None}, {"segment_type": None},
        {"blocks": [{"size": 5}, {"size": 6, "state": "x"}, {"address": 0}]},
    ],
)  # fmt: skip
def test_segments_are_taken(more: dict[str, Any]) -> None:
    segment = s.segment(0x1000, 2048, s.block(0x1000, 512, 100, frames=[FRAME]), {"size": 512}) | more
    settings = {"a": 1, "b": 2.5, "c": None, "d": {"e": "f", "g": True, "a": 2**63}, "h": "é", "i": -1.0}
    said = {"allocator_settings": settings, "profiler_kit": {"source": "cuda", "max_entries": 7}}
    assert taken({**s.snapshot([], segments=[segment, {}]), "host_segments": [segment], **said})


def test_the_last_of_equal_keys_counts() -> None:
    double = b"\x80\x02}(X\x0d\x00\x00\x00device_traces](](}(X\x04\x00\x00\x00addrK\x01X\x04\x00\x00\x00addrK\x02ueeu."
    _, columns, native_too = columns_of(double)
    assert native_too and columns["event.address"].tolist() == [2]


@pytest.mark.parametrize(
    "opcodes",
    [
        b"cos\nsystem\n", b"\x8c\x02os\x8c\x06system\x93", b"}\x81", b"}}b", b"}R", b"}Q", b"Pa\n", b"\x82\x01",
        b"(i\n\n", b"I1\n", b"L1L\n", b"F1\n", b"S'a'\n", b"\x8b\x01\x00\x00\x00\x01", b"C\x01a",
        b"\x96\x00\x00\x00\x00\x00\x00\x00\x00", b"\x8f", b"(\x91", b"2", b"(1}", b"p0\n", b"g0\n", b"h\xff",
        b"q\x07", b"j\xff\xff\xff\x7f", b"X\xff\xff\xff\xffa", b"X\x01\x00\x00\x00\xff",
        b"X\x01\x00\x00\x00\xc3\x94", b"\x8a\xff", b"e", b"u", b"t", b"\x87", b"}]a", b"}]s", b"]]u",
    ],
)  # fmt: skip
def test_other_opcodes_and_broken_ones_are_not_for_it(opcodes: bytes) -> None:
    before, after = b"\x80\x04}(\x8c\x08segments]\x8c\x01x", b"u."
    assert reads(before + b"K\x01" + after)
    assert not reads(before + opcodes + after)


def test_a_frame_holds_whole_opcodes() -> None:
    body = b"}(\x8c\x08segments]u."
    for length, sound in ((len(body), True), (len(body) + 1, False), (3, False), (2, True), (0, True)):
        data = b"\x80\x04\x95" + length.to_bytes(8, "little") + body
        assert reads(data) == sound, length
