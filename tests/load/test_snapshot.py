from __future__ import annotations

import gzip
import os
import pickle
import struct
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from profiler_kit.errors import InputError, OptionError, SnapshotFormatError
from profiler_kit.load.snapshot.data import Frame, SnapshotData
from profiler_kit.load.snapshot.reader import CHILD, read_snapshot
from tests import snapshots as s
from tests.fuzz.snapshots import columns_of

HINT = "Record one with profiler_kit.memory_runner or torch.cuda.memory._dump_snapshot."
PLAIN = "expected a CUDA memory snapshot (plain dicts, lists, numbers and strings)"


def load(path: Path, data: object, protocol: int = 4) -> SnapshotData:
    found = read_snapshot(s.write(path, data, protocol))
    columns_of(path.read_bytes())  # both readers give the same
    return found


def refused(path: Path) -> str:
    """The message, after checking that it is one line that begins with the file."""
    with pytest.raises(SnapshotFormatError) as caught:
        read_snapshot(path)
    message = str(caught.value)
    assert message.startswith(f"{path}: ")
    assert "\n" not in message
    return message.removeprefix(f"{path}: ")


# ---- what torch writes ----


@pytest.mark.parametrize("protocol", [2, 3, 4, 5])
def test_columns_hold_what_the_pickle_holds(tmp_path: Path, protocol: int) -> None:
    frames = [s.frame("linear", "torch/nn/functional.py", 7), s.frame("step", "train.py", 12)]
    trace = [
        s.event("segment_alloc", 0, 0x7F0000000000, 2048),
        s.alloc(1, 0x7F0000000000, 100, frames=frames, stream=5),
        {"action": "oom", "size": 1 << 40, "device_free": 77, "stream": 0, "time_us": s.T0 + 2, "frames": frames},
        {"action": "snapshot", "addr": 0, "size": 100, "stream": 0, "time_us": s.T0 + 3},
    ]
    segments = [s.segment(0x7F0000000000, 2048, s.block(0x7F0000000000, 512, 100, frames=frames))]
    data = load(tmp_path / "m.pickle", s.snapshot(trace, segments=segments), protocol)
    assert data.events["action"].tolist() == ["segment_alloc", "alloc", "oom", "snapshot"]
    assert data.events["address"].tolist() == [0x7F0000000000, 0x7F0000000000, 0, 0]
    assert data.events["stream"].tolist() == [0, 5, 0, 0]
    assert data.events["stack"].tolist() == [0, 1, 1, 0]
    assert data.events["device_free_bytes"].fillna(-1).tolist() == [-1, -1, 77, -1]
    assert data.stacks[1] == (Frame("torch/nn/functional.py", 7, "linear"), Frame("train.py", 12, "step"))
    assert data.blocks["requested_bytes"].tolist() == [100]
    assert data.blocks["stack"].tolist() == [1]
    assert data.segments["total_bytes"].tolist() == [2048]
    assert data.segments["pool"].tolist() == ["0,0"]
    assert data.settings == {"expandable_segments": False, "roundup_power2_divisions": {"1": 0}}
    assert data.devices == (0,)


def test_equal_stacks_are_one_stack(tmp_path: Path) -> None:
    trace = [s.alloc(i, 512 * i, 1, frames=[s.frame("f"), s.frame("g")]) for i in range(3)]
    data = load(tmp_path / "m.pickle", s.snapshot(trace))
    assert data.events["stack"].tolist() == [1, 1, 1]
    assert len(data.stacks) == 2


def test_several_devices_unknown_actions_and_missing_keys(tmp_path: Path) -> None:
    traces = [[], [{"action": "teleport", "addr": 1}, {"action": "alloc"}]]
    data = load(tmp_path / "m.pickle", {"device_traces": traces})
    assert data.devices == (0, 1)
    assert data.events["device"].tolist() == [1, 1]
    assert data.events["action"].tolist() == ["teleport", "alloc"]
    assert data.events["size_bytes"].tolist() == [0, 0]
    assert len(data.blocks) == len(data.segments) == len(data.annotations) == 0


def test_list_form_is_the_segments_alone(tmp_path: Path) -> None:
    old = {"device": 1, "address": 4096, "total_size": 2048, "blocks": [{"size": 512, "state": "active_allocated"}]}
    data = load(tmp_path / "m.pickle", [old])
    assert data.devices == (1,)
    assert data.blocks[["address", "size_bytes", "requested_bytes"]].to_numpy().tolist() == [[4096, 512, 512]]


def test_history_of_torch_2_0_blocks(tmp_path: Path) -> None:
    block = {"size": 512, "state": "active_allocated", "history": [{"real_size": 300, "frames": [s.frame("f")]}]}
    data = load(tmp_path / "m.pickle", [s.segment(0, 512) | {"blocks": [block]}])
    assert data.blocks["requested_bytes"].tolist() == [300]
    assert data.stacks[int(data.blocks["stack"].iloc[0])] == (Frame("train.py", 1, "f"),)


def test_events_say_their_pool_since_torch_2_13(tmp_path: Path) -> None:
    trace = [
        s.event("segment_alloc", 0, 0x1000, 2 << 20, pool_id=(1, 0)),
        s.alloc(1, 0x1000, 512, pool_id=[1, 0]),
        s.alloc(2, 0x2000, 512, pool_id=None),
        s.event("snapshot", 3),
    ]
    assert load(tmp_path / "m.pickle", s.snapshot(trace)).events["pool"].tolist() == ["1,0", "1,0", "", ""]
    assert load(tmp_path / "m.pickle", s.snapshot([s.alloc(1, 1, 1)])).events["pool"].tolist() == [""]


def test_annotations_are_kept_once_as_the_file_says(tmp_path: Path) -> None:
    marks = [s.mark("START", "a", 5, device=1), {"stage": "START", "name": "all", "time_us": s.T0}]
    data = load(tmp_path / "m.pickle", s.snapshot([], [], marks=marks))
    assert data.annotations["name"].tolist() == ["all", "a"]
    assert data.annotations["device"].fillna(-1).tolist() == [-1, 1]


@pytest.mark.parametrize("line", [2**64 - 1, 2**63, -1, None, "3", b"3", 1.5, [], 10**4000])
def test_a_line_that_says_nothing_is_unknown(tmp_path: Path, line: object) -> None:
    frames = [{"name": "wrap", "filename": "fake_tensor.py", "line": line}, s.frame("step", "train.py", 3)]
    data = load(tmp_path / "m.pickle", s.snapshot([s.alloc(0, 0x1000, 5 << 20, frames=frames)]))
    assert data.stacks[1] == (Frame("fake_tensor.py", None, "wrap"), Frame("train.py", 3, "step"))


@pytest.mark.parametrize(
    ("given", "shown"),
    [
        ({"name": None, "filename": "a.py", "line": 1}, Frame("a.py", 1, "")),
        ({"name": b"f", "filename": b"a.py", "line": 1}, Frame("a.py", 1, "f")),
        ({"name": 7, "filename": ["a.py"], "line": 1}, Frame("", 1, "7")),
        ({"name": "f" * 5000, "other": {}}, Frame("", None, "f" * 4095 + "…")),
        ({}, Frame("", None, "")),
        (3, Frame("", None, "")),
        (None, Frame("", None, "")),
    ],
)
def test_an_odd_frame_is_shown_as_far_as_it_can_be(tmp_path: Path, given: object, shown: Frame) -> None:
    data = load(tmp_path / "m.pickle", s.snapshot([s.alloc(0, 0x1000, 512, frames=[given])]))
    assert data.stacks[1] == (shown,)


@pytest.mark.parametrize(
    ("key", "value", "column", "read"),
    [
        ("stream", 2**64 - 1, "stream", -1),
        ("stream", 2**63 + 5, "stream", 5 - 2**63),
        ("stream", 2**64, "stream", 0),
        ("stream", "7", "stream", 0),
        ("stream", None, "stream", 0),
        ("time_us", s.T0 + 5.5, "time_us", s.T0 + 5),
        ("time_us", float("nan"), "time_us", 0),
        ("time_us", None, "time_us", 0),
        ("action", b"alloc", "action", "alloc"),
        ("action", None, "action", ""),
        ("frames", 3, "stack", 0),
        ("frames", b"x", "stack", 0),
        ("pool_id", "x", "pool", "0,0"),
        ("device_free", "x", "size_bytes", 512),
        ("user_metadata", b"layer 1", "user_metadata", "layer 1"),
        ("user_metadata", {"layer": 1, "deep": {}}, "user_metadata", "layer=1"),
        ("user_metadata", [1], "user_metadata", ""),
        ("compile_context", None, "compile_context", ""),
        ("category", b"gradient", "category", "gradient"),
        ("colour", object, "size_bytes", 512),
    ],
)
def test_an_odd_value_of_what_is_only_shown_refuses_nothing(
    tmp_path: Path, key: str, value: object, column: str, read: object
) -> None:
    value = "red" if value is object else value
    data = load(tmp_path / "m.pickle", s.snapshot([s.alloc(0, 0x1000, 512), {**s.alloc(1, 0x2000, 512), key: value}]))
    assert data.events[column].iloc[1] == read
    assert len(data.events) == 2


def test_odd_segments_blocks_and_annotations_are_read_as_far_as_they_can_be(tmp_path: Path) -> None:
    block = {**s.block(0x1000, 512, 100), "requested_size": None, "state": b"active_allocated", "frames": None}
    segment = {**s.segment(0x1000, 2048, block), "segment_type": None, "stream": 2**64 - 1, "segment_pool_id": "x"}
    del segment["is_expandable"]
    marks = [
        {"stage": "START", "name": None, "device": None, "time_us": s.T0},
        {"stage": "START", "name": b"a", "device": 2**70, "time_us": s.T0 + 1},
        {"stage": "END", "name": b"a", "device": 0, "time_us": 2**70},
        {"stage": "MIDDLE", "name": "no region"},
        None,
    ]
    data = load(tmp_path / "m.pickle", s.snapshot([], segments=[segment], marks=marks))
    assert data.blocks[["requested_bytes", "state", "stream"]].to_numpy().tolist() == [[512, "active_allocated", -1]]
    assert data.segments[["segment_type", "pool"]].to_numpy().tolist() == [["", "0,0"]]
    assert data.annotations["name"].tolist() == ["", "a"]


def test_a_stack_beyond_what_python_can_call_says_what_is_left_out(tmp_path: Path) -> None:
    frames = [s.frame(f"f{number}") for number in range(1030)]
    stack = load(tmp_path / "m.pickle", s.snapshot([s.alloc(0, 1, 1, frames=frames)])).stacks[1]
    assert (len(stack), stack[1023].name, stack[1024].name) == (1025, "f1023", "(6 more frames)")


def test_our_own_recording_is_told(tmp_path: Path) -> None:
    kit = {"version": "0.1", "source": "torch.profiler", "max_entries": 10, "torch": "2.12", "error": "ValueError: no"}
    data = load(tmp_path / "m.pickle", {**s.snapshot([]), "profiler_kit": kit})
    recording = data.recording
    assert (recording.source, recording.max_entries, recording.torch, recording.error) == (
        "torch.profiler",
        10,
        "2.12",
        "ValueError: no",
    )


def test_lone_surrogates_do_not_travel_on(tmp_path: Path) -> None:
    data = load(tmp_path / "m.pickle", s.snapshot([s.alloc(0, 1, 1, frames=[s.frame("a\ud800b")])]))
    assert data.stacks[1][0].name == "a?b"


@pytest.mark.parametrize("path", s.captures(), ids=lambda path: path.name)
def test_real_captures_agree_with_a_plain_reading(path: Path) -> None:
    plain = pickle.loads(path.read_bytes())
    data = read_snapshot(path)
    events = [event for trace in plain["device_traces"] for event in trace]
    assert data.events["action"].tolist() == [event["action"] for event in events]
    assert data.events["size_bytes"].tolist() == [event["size"] for event in events]
    assert data.events["address"].tolist() == [event.get("addr", 0) for event in events]
    assert data.events["time_us"].tolist() == [event["time_us"] for event in events]
    for row, event in list(enumerate(events))[::97]:
        frames = tuple(Frame(f["filename"], f["line"], f["name"]) for f in event.get("frames", ()))
        assert data.stacks[int(data.events["stack"].iloc[row])] == frames
    blocks = [block for segment in plain["segments"] for block in segment["blocks"]]
    assert data.blocks["requested_bytes"].tolist() == [block["requested_size"] for block in blocks]
    assert data.blocks["state"].tolist() == [block["state"] for block in blocks]


# ---- other files ----


def test_missing_empty_and_folder(tmp_path: Path) -> None:
    (tmp_path / "empty.pickle").touch()
    for name, found in (("no.pickle", "no such file"), ("empty.pickle", "the file is empty (0 bytes)")):
        with pytest.raises(InputError) as caught:
            read_snapshot(tmp_path / name)
        assert str(caught.value) == f"{tmp_path / name}: {found}, expected a CUDA memory snapshot. {HINT}"
    with pytest.raises(InputError, match="this is a folder"):
        read_snapshot(tmp_path)


@pytest.mark.parametrize("packed", [False, True])
def test_a_trace_is_told_apart(tmp_path: Path, packed: bool) -> None:
    path = tmp_path / "trace.json"
    text = b' {"traceEvents": []}'
    path.write_bytes(gzip.compress(text) if packed else text)
    found = "a chrome trace (JSON packed with gzip)" if packed else "a chrome trace (JSON)"
    assert refused(path) == (
        f"this is {found}, expected a CUDA memory snapshot (a pickle). "
        "For a trace use: profiler-kit summary, regions or kernels."
    )


def test_a_page_is_told_apart(tmp_path: Path) -> None:
    path = tmp_path / "x"
    path.write_bytes(b"<!doctype html>")
    assert refused(path).startswith("this is an HTML page (of a download or a login?), expected")


@pytest.mark.parametrize("cut", [1, 10, 40, 0.5, 0.99])
def test_a_cut_off_pickle(tmp_path: Path, cut: float) -> None:
    whole = pickle.dumps(s.snapshot([s.alloc(i, i, 1) for i in range(50)]))
    path = tmp_path / "m.pickle"
    path.write_bytes(whole[: cut if isinstance(cut, int) else int(len(whole) * cut)])
    assert refused(path) == f"the pickle is cut off, expected a whole CUDA memory snapshot. {HINT}"


def test_another_pickle(tmp_path: Path) -> None:
    path = tmp_path / "m.pickle"
    s.write(path, {"model": 1, "epoch": 2})
    assert refused(path) == (
        f"the pickle has neither 'segments' nor 'device_traces' (found epoch, model), {PLAIN}. {HINT}"
    )
    s.write(path, [1, 2])
    assert (
        refused(path) == f"the pickle's top level is a list of something else, expected a CUDA memory snapshot. {HINT}"
    )
    s.write(path, 7)
    assert refused(path) == f"the pickle's top level is int, expected an object with 'device_traces'. {HINT}"


@pytest.mark.parametrize(
    "broken",
    [
        {"device_traces": [[5]]},
        {"device_traces": ["alloc"]},
        {"device_traces": [[{"action": ["alloc"]}]]},
        {"device_traces": [[{"action": "alloc", "size": 1.5}]]},
        {"device_traces": [[{"action": "alloc", "size": 1 << 70}]]},
        {"device_traces": [[{"action": "alloc", "addr": -1}]]},
        {"device_traces": [[{"action": "alloc", "addr": "0x1000"}]]},
        {"device_traces": [[{"action": 5}]]},
        {"device_traces": [[None]]},
        {"host_traces": [{"action": "alloc", "size": "1"}]},
        {"host_traces": {}},
        {"host_segments": [5]},
        {"segments": [{"total_size": 1.5}]},
        {"segments": [{"blocks": [{"size": "5"}]}]},
        {"device_traces": {}},
        {"segments": [{"blocks": [None]}]},
        {"segments": [{"blocks": 5}]},
        {"segments": [{"device": -3}]},
        {"segments": [], "device_traces": [], "external_annotations": 5},
    ],
)
def test_entries_of_another_shape(tmp_path: Path, broken: object) -> None:
    refused(s.write(tmp_path / "m.pickle", broken))


# ---- hostile pickles, byte by byte ----

PROTO = b"\x80\x04"
SNAPSHOT_HEAD = PROTO + b"}\x8c\x0ddevice_traces"  # {'device_traces': ... with the key on the stack


class Evil:
    def __reduce__(self) -> tuple[Any, ...]:
        return (os.system, ("touch evil",))


def collisions(count: int) -> bytes:
    """A dict whose keys all have one hash: building it takes count**2 / 2 comparisons."""
    modulus = sys.hash_info.modulus
    keys = b"".join(pickle.LONG1 + b"\x20" + (i * modulus).to_bytes(32, "little") + b"K\x01" for i in range(1, count))
    return PROTO + b"}(" + keys + b"u."


def shared_lists(levels: int) -> bytes:
    """Lists of ten times the list before: ten to the power of `levels` leaves."""
    out = PROTO + b"]\x94"
    for _ in range(levels):
        out += b"](" + b"h\x00" * 10 + b"e" + b"r\x00\x00\x00\x00"
    return out + b"."


HOSTILE = {
    "global": b"cos\nsystem\n(S'touch evil'\ntR.",
    "stack global": PROTO + b"\x8c\x02os\x8c\x06system\x93\x8c\x0atouch evil\x85R.",
    "inst": b"(S'touch evil'\nios\nsystem\n.",
    "reduce": pickle.dumps(Evil()),
    "inside an event": pickle.dumps({"device_traces": [[{"action": Evil()}]]}),
    "extension": PROTO + b"\x82\x01.",
    "persistent id": b"Pevil\n.",
    "binary persistent id": PROTO + b"K\x01Q.",
    "buffer": b"\x80\x05\x97.",
    "memo bomb": PROTO + b"]r\xff\xff\xff\x7f.",
    "smaller memo bomb": PROTO + b"]r\x00\x00\x00\x08.",
    "long string": PROTO + b"\x8d" + struct.pack("<Q", 1 << 40) + b"x.",
    "long bytes": PROTO + b"\x8e" + struct.pack("<Q", 1 << 40) + b"x.",
    "long bytearray": b"\x80\x05\x96" + struct.pack("<Q", 1 << 33) + b"x.",
    "long frame": PROTO + b"\x95" + struct.pack("<Q", 1 << 62) + b"x.",
    "long number": PROTO + b"\x8b" + struct.pack("<i", 0x7FFFFFFF) + b"x.",
    "many digits": b"I" + b"9" * 100_000 + b"\n.",
    "deep lists": PROTO + b"]" * 1_000_000 + b"a" * 999_999 + b".",
    "deep tuple as key": PROTO + b"})" + b"\x85" * 1_000_000 + b"K\x01s.",
    "a list that holds itself": PROTO + b"]\x94h\x00a.",
    "a history that holds itself": SNAPSHOT_HEAD + b"]\x94h\x00as.",
    "shared lists": shared_lists(12),
    "one history a hundred times": SNAPSHOT_HEAD + b"](]\x94(" + b"}" * 1000 + b"e" + b"h\x00" * 99 + b"es.",
    "four thousand devices": SNAPSHOT_HEAD + b"](" + b"]" * 4096 + b"es.",
    "colliding keys": collisions(60_000),
    "new object": PROTO + b"\x8c\x02os\x8c\x06system\x93)\x81.",
    "new object with arguments": PROTO + b"\x8c\x02os\x8c\x06system\x93)}\x92.",
    "build on a dict": PROTO + b"}}\x8c\x01aK\x01sb.",
    "extension of two bytes": PROTO + b"\x83\x01\x00.",
    "extension of four bytes": PROTO + b"\x84\x01\x00\x00\x00.",
    "next buffer read-only": b"\x80\x05\x97\x98.",
    "global inside a stack of frames": SNAPSHOT_HEAD + b"]]}\x8c\x06framescos\nsystem\nsaas.",
    "global as a key": PROTO + b"}cbuiltins\neval\nK\x01s.",
    "memo in text": PROTO + b"]p999999999999999999\n.",
    "memo below zero": PROTO + b"]p-5\n.",
    "memo that is not there": PROTO + b"j\xff\xff\xff\xff.",
    "string of negative length": PROTO + b"T" + struct.pack("<i", -5) + b"x.",
    "number of negative length": PROTO + b"\x8b" + struct.pack("<i", -5) + b"x.",
    "frame inside a frame": PROTO + (b"\x95" + struct.pack("<Q", 1 << 40)) * 3 + b"].",
    "text that is no UTF-8": PROTO + b"}\x8c\x02\xff\xfeK\x01s.",
    "set of lists": PROTO + b"\x8f(]]\x90.",
    "appends to a number": PROTO + b"K\x01(]]e.",
    "items of a list": PROTO + b"](K\x01K\x02u.",
    "marks without end": PROTO + b"(" * 3_000_000 + b".",
    "nested dicts": PROTO + b"}\x8c\x08segments" * 100_000 + b"]" + b"s" * 100_000 + b".",
    "settings of settings": PROTO
    + b"}(\x8c\x08segments]\x8c\x12allocator_settings"
    + b"}\x8c\x01a" * 100_000
    + b"s" * 99_999,
    "junk": b"\x80\x04\xff\xfe\xfd",
    "protocol 9": b"\x80\x09}.",
    "empty stack": b"\x80\x040000.",
}


@pytest.mark.parametrize("name", HOSTILE)
def test_hostile_pickles_are_refused(tmp_path: Path, name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    path = tmp_path / "hostile.pickle"
    path.write_bytes(HOSTILE[name])
    refused(path)
    assert [found.name for found in tmp_path.iterdir()] == ["hostile.pickle"]


def test_an_event_that_is_its_own_stack_does_no_harm(tmp_path: Path) -> None:
    path = tmp_path / "m.pickle"
    path.write_bytes(SNAPSHOT_HEAD + b"]]}\x94\x8c\x06frames](h\x00esaas.")
    data = read_snapshot(path)
    assert data.events["stack"].tolist() == [1]
    assert data.stacks[1] == (Frame("", None, ""),)


def test_what_a_refusal_says(tmp_path: Path) -> None:
    path = tmp_path / "m.pickle"
    path.write_bytes(HOSTILE["global"])
    assert refused(path) == f"the pickle asks for the global os.system, {PLAIN}. Nothing of it was run. {HINT}"
    path.write_bytes(HOSTILE["persistent id"])
    assert refused(path) == f"the pickle holds a persistent id, {PLAIN}. {HINT}"
    path.write_bytes(HOSTILE["memo bomb"])
    assert refused(path) == (
        f"reading it takes more than 256 MiB of memory, {PLAIN}. If you trust it, raise the limit with --memory-limit."
    )
    path.write_bytes(HOSTILE["one history a hundred times"])
    assert refused(path) == (
        f"it lists 100000 events in {path.stat().st_size} bytes, more than they can hold, "
        f"expected a snapshot as torch writes it. {HINT}"
    )
    path.write_bytes(HOSTILE["colliding keys"])
    assert refused(path) == f"reading it took more than 1 s of processor time, expected a CUDA memory snapshot. {HINT}"


def test_the_child_stays_within_its_memory(tmp_path: Path) -> None:
    """In a process of its own, so that RUSAGE_CHILDREN counts the hostile readings alone."""
    for name, data in HOSTILE.items():
        (tmp_path / name.replace(" ", "_")).write_bytes(data)
    code = (
        "import resource, sys, pathlib\n"
        "from profiler_kit.errors import SnapshotFormatError\n"
        "from profiler_kit.load.snapshot.reader import read_snapshot\n"
        "for path in sorted(pathlib.Path(sys.argv[1]).iterdir()):\n"
        "    if path.name == 'colliding_keys': continue\n"
        "    try: read_snapshot(path)\n"
        "    except SnapshotFormatError: pass\n"
        "print(resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss)\n"
    )
    done = subprocess.run([sys.executable, "-c", code, tmp_path], capture_output=True, text=True, check=True)
    assert int(done.stdout) * 1024 < 300 << 20


def test_the_child_imports_nothing_but_the_standard_library(tmp_path: Path) -> None:
    path = s.write(tmp_path / "m.pickle", s.snapshot([]))
    with path.open("rb") as handle:
        done = subprocess.run(
            [sys.executable, "-I", "-S", "-X", "importtime", CHILD, str(1 << 30), "5", "100"],
            stdin=handle,
            capture_output=True,
            check=True,
        )
    for heavy in (b"numpy", b"pandas", b"torch", b"profiler_kit"):
        assert heavy not in done.stderr


def test_memory_limit_can_be_chosen(tmp_path: Path) -> None:
    path = s.write(tmp_path / "m.pickle", s.snapshot([s.alloc(0, 1, 1)]))
    assert len(read_snapshot(path, memory_limit_bytes=1 << 30).events) == 1
    with pytest.raises(OptionError) as caught:
        read_snapshot(path, memory_limit_bytes=1 << 20)
    assert str(caught.value) == "memory limit: 1 MiB is too little to read a snapshot, expected at least 256 MiB."
