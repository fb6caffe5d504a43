"""Unpickle a CUDA memory snapshot from standard input, under limits, and write plain columns to standard output.

Runs as a script in a process of its own (reader.py starts it), so that a hostile pickle can at most kill this
process. Imports only the standard library: it starts in some 20 ms, and the address space that `RLIMIT_AS` grants is
left to the data.

Output: 8 bytes little endian (length of the head), the head as JSON, then the columns one after the other as raw
little-endian items. Head: {"error": str}, or {"columns": [[name, typecode, items], ...], "strings", "actions", ...}.
"""

from __future__ import annotations

import gc
import json
import os
import pickle
import sys
from array import array
from collections.abc import Iterable
from typing import IO, Any, Final

Columns = dict[str, "array[int]"]

EXPECTED: Final = "expected a CUDA memory snapshot (plain dicts, lists, numbers and strings)"
NO_PICKLE: Final = "not a pickle that can be read"
CUT_OFF: Final = "the pickle is cut off"
OTHER: Final = (  # how the message on another pickle begins, a checkpoint for instance
    "the pickle asks for the global",
    "the pickle holds a persistent id",
    "the pickle has neither 'segments' nor 'device_traces'",
)
EVENT_TEXTS: Final = (
    "user_metadata",
    "compile_context",
    "category",
)  # what an event says of an allocation, if anything
UNKNOWN_LINE: Final = -1  # of a frame; data.py makes it None
UNSAID: Final = -(2**63)  # what a segment does not say of itself; data.py leaves it out
OLD_TORCH_SAVE: Final = 0x1950A86A20F9469CFC6C  # what torch.save wrote first before it made zip archives
HOST: Final = -2  # the device of pinned host memory; data.py knows the same number
SEGMENT_CODES: Final = {
    "segment.device": "q", "segment.address": "Q", "segment.total_bytes": "q", "segment.stream": "q",
    "segment.type": "i", "segment.pool": "i", "segment.expandable": "b",
    "segment.allocated_bytes": "q", "segment.active_bytes": "q", "segment.requested_bytes": "q",
    "block.segment": "q", "block.address": "Q", "block.size_bytes": "q", "block.requested_bytes": "q",
    "block.state": "i",
}  # fmt: skip
MAX_NAMES: Final = 4096  # different actions, block states and the like; a real snapshot has about ten
MAX_DEVICES: Final = 128  # torch counts devices in a signed byte
MAX_FRAMES: Final = 1024  # of one stack; Python's own limit is 1,000 calls
LEAST_ENTRY_BYTES: Final = 16  # an event of torch takes 40 bytes of the pickle at least
TEXT_LENGTH: Final = 4096  # characters kept of a name, a text or one value of the settings
SETTING_VALUES: Final = 1000


class Refused(Exception):
    """The pickle is not a memory snapshot; the message ends the line "<path>: "."""


class PlainUnpickler(pickle.Unpickler):
    """Builds dicts, lists, tuples, numbers and strings; anything that names code is refused."""

    def find_class(self, module: str, name: str) -> Any:
        raise Refused(f"{OTHER[0]} {_short(f'{module}.{name}')}, {EXPECTED}. Nothing of it was run")

    def persistent_load(self, pid: Any) -> Any:
        raise Refused(f"{OTHER[1]}, {EXPECTED}")


class Numbering(dict[Any, int]):
    """Gives each new name the next number; `texts` are the names by number."""

    def __init__(self) -> None:
        self.texts: list[str] = []

    def text_of(self, key: Any) -> str:
        """The name that a value stands for; here a name is needed, be it in bytes."""
        if not isinstance(key, (str, bytes)):
            raise Refused(f"found a {type(key).__name__} where a name belongs, {EXPECTED}")
        return _text(key)

    def __missing__(self, key: Any) -> int:
        text = self.text_of(key)
        if type(key) is str and text == key:
            self.texts.append(text)
            self[key] = len(self.texts) - 1
        else:
            self[key] = self[text]
        return self[key]


class Texts(Numbering):
    """Likewise for what is only shown: any value becomes a text, "" where it says nothing."""

    def text_of(self, key: Any) -> str:
        return _text(key)

    def numbers(self, values: list[Any]) -> Iterable[int]:
        """The number of each value; one that cannot be a key is made a text first."""
        try:
            return array("i", map(self.__getitem__, values))
        except TypeError:
            return array("i", [self[_text(value)] for value in values])


class Stacks:
    """Gives each stack of frames a number: by identity of the frame list (the pickle memo keeps it), then by value.

    Stack 0 is the empty one. `frames` is flat: filename, line, name of each different frame.
    """

    def __init__(self) -> None:
        self.strings = Texts()
        self.frames = array("q")
        self.flat = array("i")
        self.ends = array("q", [0])
        self._frame_by_id: dict[int, int] = {}
        self._frame_by_value: dict[tuple[int, int, int], int] = {}
        self._by_id: dict[int, int] = {id(None): 0}
        self._by_value: dict[tuple[int, ...], int] = {(): 0}

    def numbers(self, lists: list[Any]) -> array[int]:
        """The stack number of each frame list."""
        ids = list(map(id, lists))
        known = self._by_id
        for key, frames in dict(zip(ids, lists, strict=True)).items():
            if key not in known:
                known[key] = self._number(frames)
        return array("i", map(known.__getitem__, ids))

    def _number(self, frames: Any) -> int:
        if not isinstance(frames, (list, tuple)):
            return 0
        by_id = self._frame_by_id
        try:
            key = tuple([by_id[id(frame)] for frame in frames[:MAX_FRAMES]])
        except KeyError:
            key = tuple([self._frame(frame) for frame in frames[:MAX_FRAMES]])
        if len(frames) > MAX_FRAMES:
            key = (*key, self._frame_number(None, UNKNOWN_LINE, f"({len(frames) - MAX_FRAMES:,} more frames)"))
        number = self._by_value.get(key)
        if number is None:
            number = self._by_value[key] = len(self.ends)
            self.flat.extend(key)
            self.ends.append(len(self.flat))
        return number

    def _frame(self, frame: Any) -> int:
        known = self._frame_by_id.get(id(frame))
        if known is not None:
            return known
        parts = frame if isinstance(frame, dict) else {}
        line = parts.get("line")
        if (
            type(line) is not int or not 0 <= line < 2**63
        ):  # torch writes 2**64 - 1 for code whose line it does not know
            line = UNKNOWN_LINE
        number = self._frame_by_id[id(frame)] = self._frame_number(parts.get("filename"), line, parts.get("name"))
        return number

    def _frame_number(self, file: Any, line: int, name: Any) -> int:
        file_number, name_number = self.strings.numbers([file, name])
        value = (file_number, line, name_number)
        number = self._frame_by_value.get(value)
        if number is None:
            number = self._frame_by_value[value] = len(self._frame_by_value)
            self.frames.extend(value)
        return number


def main() -> None:
    """Arguments: bytes of address space, seconds of CPU time, size of the pickle in bytes."""
    space, seconds, size = (int(text) for text in sys.argv[1:4])
    _limit(space, seconds)
    gc.disable()  # nothing here is cyclic unless hostile, and collecting doubles the time
    try:
        head, columns = convert(unpickle(sys.stdin.buffer), size)
    except Refused as refused:
        head, columns = {"error": str(refused)}, {}
    except MemoryError:
        head, columns = {"error": f"reading it takes more than {space >> 20} MiB of memory, {EXPECTED}"}, {}
    head["columns"] = [[name, column.typecode, len(column)] for name, column in columns.items()]
    text = json.dumps(head).encode()
    out = sys.stdout.buffer
    out.write(len(text).to_bytes(8, "little"))
    out.write(text)
    for column in columns.values():
        if sys.byteorder == "big":
            column.byteswap()
        out.write(memoryview(column).cast("B"))
    out.flush()
    os._exit(0)  # freeing millions of objects one by one would take as long as reading them


def _limit(space: int, seconds: int) -> None:
    try:
        import resource
    except ImportError:  # not on Windows; the parent's clock still holds
        return
    limits = ((resource.RLIMIT_AS, space, 0), (resource.RLIMIT_CPU, seconds, 1), (resource.RLIMIT_CORE, 0, 0))
    for kind, value, grace in limits:  # the second of grace makes it SIGXCPU, which tells why, and not SIGKILL
        hard = resource.getrlimit(kind)[1]
        if hard != resource.RLIM_INFINITY:
            value, grace = min(value, hard), min(grace, max(0, hard - value))
        try:
            resource.setrlimit(kind, (value, value + grace))
        except (ValueError, OSError):  # macOS refuses some limits
            continue


def unpickle(stream: IO[bytes]) -> Any:
    """What a pickle holds; raises Refused when anything is wrong with it, and MemoryError."""
    try:
        found = PlainUnpickler(stream).load()
        if found == OLD_TORCH_SAVE and type(found) is int:  # then a version, facts of the system, and what was saved
            found = [PlainUnpickler(stream).load() for _ in range(3)][-1]
        return found
    except (Refused, MemoryError):
        raise
    except EOFError:
        raise Refused(f"{CUT_OFF}, expected a whole CUDA memory snapshot") from None
    except Exception as error:
        text = str(error)
        if "truncated" in text or "ran out of" in text.lower():
            raise Refused(f"{CUT_OFF}, expected a whole CUDA memory snapshot") from None
        raise Refused(f"{NO_PICKLE} ({type(error).__name__}: {_short(text)}), {EXPECTED}") from None


def convert(data: Any, size: int) -> tuple[dict[str, Any], Columns]:
    """The head and the columns of an unpickled snapshot.

    `size` bounds the entries: every entry of an honest pickle takes at least a byte of the file, so that more
    entries than bytes mean lists that share lists, built to explode.
    """
    top, traces, segments, annotations = _parts(data)
    odd = sum(not isinstance(one, dict) or one.get("stage") not in STAGES for one in annotations)
    annotations = annotations + _user_regions(traces)
    _refuse_more_than(size, traces, segments, annotations)
    stacks, actions, states, names, pools = Stacks(), Numbering(), Numbering(), Texts(), Numbering()
    texts = {name: Texts() for name in EVENT_TEXTS}
    try:
        columns = _events(traces, stacks, actions, pools, texts)
        columns |= _segments(segments, stacks, states, pools)
        _refuse_sums(columns, actions.get("oom", -1))
        columns |= _annotations(annotations, names)
    except OverflowError:
        raise Refused("a size or an address does not fit in 64 bits, expected numbers as torch writes them") from None
    except (TypeError, AttributeError, ValueError) as error:
        raise Refused(f"an entry is not of the shape a snapshot has ({_short(str(error))}), {EXPECTED}") from None
    columns |= {"frames": stacks.frames, "stack_frames": stacks.flat, "stack_ends": stacks.ends}
    for numbering in (actions, states, pools):
        if len(numbering.texts) > MAX_NAMES:
            raise Refused(f"{len(numbering.texts)} different kinds of entry, {EXPECTED}")
    head = {
        "strings": stacks.strings.texts,
        "actions": actions.texts,
        "states": states.texts,
        "pools": pools.texts,
        "names": names.texts,
        **{name: of.texts for name, of in texts.items()},
        "odd_annotations": odd,
        "devices": sum(device != HOST for device, _ in traces),
        "settings": plain_settings(top.get("allocator_settings")),
        "kit": plain_settings(top.get("profiler_kit")),
    }
    return head, columns


STAGES = ("START", "END")
Traces = list[tuple[int, list[Any]]]  # the history of each device
Segments = list[tuple[int, dict[Any, Any]]]  # and the segments of each


def _parts(data: Any) -> tuple[dict[Any, Any], Traces, Segments, list[Any]]:
    if isinstance(data, list):  # torch.cuda.memory_snapshot() of old: the segments alone
        data = {"segments": data}
        if not data["segments"] or not all(isinstance(s, dict) and "blocks" in s for s in data["segments"]):
            raise Refused("the pickle's top level is a list of something else, expected a CUDA memory snapshot")
    if not isinstance(data, dict):
        raise Refused(f"the pickle's top level is {type(data).__name__}, expected an object with 'device_traces'")
    if not any(key in data for key in ("segments", "device_traces", "host_segments", "host_traces")):
        found = ", ".join(sorted(_short(str(key)) for key in list(data)[:8] if isinstance(key, str))) or "no keys"
        raise Refused(f"{OTHER[2]} (found {found}), {EXPECTED}")
    parts = []
    for key in ("device_traces", "segments", "external_annotations", "host_traces", "host_segments"):
        part = data.get(key)
        part = [] if part is None else part
        if not isinstance(part, list):
            raise Refused(f"{key!r} is {type(part).__name__}, expected a list")
        parts.append(part)
    traces, segments, annotations, host_trace, host_segments = parts
    if len(traces) > MAX_DEVICES:
        raise Refused(f"'device_traces' names {len(traces)} devices, expected one list per GPU, {MAX_DEVICES} at most")
    for number, trace in enumerate(traces):
        if not isinstance(trace, list):
            raise Refused(f"the history of device {number} is {type(trace).__name__}, expected a list")
    histories = list(enumerate(traces))
    if host_trace:
        nested = all(isinstance(part, list) for part in host_trace)  # as the histories of the devices are
        histories.append((HOST, [entry for part in host_trace for entry in part] if nested else host_trace))
    owned: Segments = []
    for segment in segments + host_segments:
        if not isinstance(segment, dict) or not isinstance(segment.get("blocks", []), list):
            raise Refused("an entry of 'segments' is not one, expected objects with address, total_size and blocks")
        owned.append((HOST if len(owned) >= len(segments) else segment.get("device") or 0, segment))
    return data, histories, owned, annotations


def _refuse_more_than(size: int, traces: Traces, segments: Segments, annotations: list[Any]) -> None:
    """Bound the rows by the bytes of the pickle, whatever its lists share.

    Regions count on every device with a history, so that their rows are a product of two counts.
    """
    events = sum(len(trace) for _, trace in traces)
    blocks = len(segments) + sum(len(segment.get("blocks", ())) for _, segment in segments)
    regions = len(annotations) * max(1, sum(bool(trace) for _, trace in traces))
    most = 1024 + size // LEAST_ENTRY_BYTES
    for count, what, bound in (
        (events, "events", most), (blocks, "blocks", most), (len(annotations), "regions", most),
        (regions, "regions on all devices", 1024 + size // 2),
    ):  # fmt: skip
        if count > bound:
            raise Refused(
                f"it lists {count} {what} in {size} bytes, more than they can hold, "
                "expected a snapshot as torch writes it"
            )


def _refuse_sums(columns: Columns, failed: int) -> None:
    """Refuse sizes whose totals would not fit; what a failed allocation asked for is in no total."""
    moved = zip(columns["event.size_bytes"], columns["event.action"], strict=True)
    sums = [sum(abs(size) for size, action in moved if action != failed)]
    held = ("segment.total_bytes", "block.size_bytes", "block.requested_bytes")
    sums += [sum(map(abs, columns[name])) for name in held]
    if max(sums) >= 2**62:
        raise Refused("the sizes add up to more than 64 bits hold, expected numbers as torch writes them")


def _events(traces: Traces, stacks: Stacks, actions: Numbering, pools: Numbering, texts: dict[str, Texts]) -> Columns:
    names = ("device", "action", "stack", "pool", *EVENT_TEXTS)
    columns: Columns = {name: array("i") for name in names}
    columns |= {"address": array("Q"), "size_bytes": array("q"), "stream": array("q"), "time_us": array("q")}
    free: Columns = {"row": array("q"), "bytes": array("q")}
    for number, trace in traces:
        kinds = [event.get("action") or "" for event in trace]
        if "oom" in kinds:
            for row, kind in enumerate(kinds, len(columns["device"])):
                known = trace[row - len(columns["device"])].get("device_free") if kind == "oom" else None
                if type(known) is int and -(2**63) <= known < 2**63:
                    free["row"].append(row)
                    free["bytes"].append(known)
        said = {name: [event.get(name) for event in trace] for name in EVENT_TEXTS}
        if "user_defined" in kinds:
            for row, kind in enumerate(kinds):
                if kind == "user_defined" and said["user_metadata"][row] is None:
                    said["user_metadata"][row] = " ".join(map(_text, _user_region(trace[row]))).strip()
        columns["action"].extend(map(actions.__getitem__, kinds))
        columns["address"].extend(_numbers(trace, "addr"))
        columns["size_bytes"].extend(_numbers(trace, "size"))
        columns["stream"].extend(_shown_numbers(trace, "stream"))
        columns["time_us"].extend(_shown_numbers(trace, "time_us"))
        columns["stack"].extend(stacks.numbers([event.get("frames") for event in trace]))
        columns["pool"].extend(_pools(trace, pools))
        for name in EVENT_TEXTS:
            columns[name].extend(texts[name].numbers(said[name]))
        columns["device"].extend(array("i", [number]) * len(trace))
    return {
        **{f"event.{name}": column for name, column in columns.items()},
        **{f"free.{name}": column for name, column in free.items()},
    }


def _numbers(trace: list[Any], key: str) -> list[int]:
    """`key` of each entry; 0 where it is missing or None (an `oom` has no address)."""
    try:
        return [entry[key] for entry in trace]
    except KeyError:
        return [entry.get(key) or 0 for entry in trace]


def _shown_numbers(trace: list[Any], key: str) -> array[int]:
    """Likewise of a number that nothing depends on: one of 64 bits without a sign is read as torch's signed one."""
    try:
        return array("q", _numbers(trace, key))
    except (OverflowError, TypeError):
        return array("q", [_signed(entry.get(key)) for entry in trace])


def _signed(value: Any) -> int:
    """A number as 64 bits with a sign; 0, which is unknown, for anything else."""
    if isinstance(value, float) and -(2.0**63) <= value < 2.0**63:
        value = int(value)
    if not isinstance(value, int) or not -(2**63) <= value < 2**64:
        return 0
    return value - 2**64 if value >= 2**63 else int(value)


def _pools(trace: list[Any], pools: Numbering) -> Iterable[int]:
    """The number of each event's pool; that of "" where the event does not say it, as before torch 2.13."""
    if not any("pool_id" in event for event in trace):
        return array("i", [pools[""]]) * len(trace)
    return [pools[_pool(event["pool_id"]) if event.get("pool_id") is not None else ""] for event in trace]


def _segments(segments: Segments, stacks: Stacks, states: Numbering, pools: Numbering) -> Columns:
    out: Columns = {name: array(code) for name, code in SEGMENT_CODES.items()}
    frames: list[Any] = []
    for number, (device, segment) in enumerate(segments):
        address = segment.get("address") or 0
        for name, value in (
            ("device", device),
            ("address", address),
            ("total_bytes", segment.get("total_size") or 0),
            ("stream", _signed(segment.get("stream"))),
            ("type", states[_text(segment.get("segment_type"))]),
            ("pool", pools[_pool(segment.get("segment_pool_id"))]),
            ("expandable", bool(segment.get("is_expandable", False))),
            *(
                (f"{name}_bytes", _own_size(segment.get(f"{name}_size")))
                for name in ("allocated", "active", "requested")
            ),
        ):
            out[f"segment.{name}"].append(value)
        for block in segment.get("blocks", ()):
            size_bytes, requested, stack = _block(block)
            out["block.segment"].append(number)
            out["block.address"].append(block.get("address", address))
            out["block.size_bytes"].append(size_bytes)
            out["block.requested_bytes"].append(requested)
            out["block.state"].append(states[block.get("state", "")])
            frames.append(stack)
            address = out["block.address"][-1] + size_bytes
    return {**out, "block.stack": stacks.numbers(frames)}


def _own_size(value: Any) -> int:
    """A size that a segment says of what it holds; -1 for what is no size."""
    if value is None:
        return UNSAID
    return value if type(value) is int and 0 <= value < 2**62 else -1


def _block(block: Any) -> tuple[int, int, Any]:
    """Size, requested size and frames; torch 2.0 keeps the last two in a history (torch/cuda/_memory_viz.py)."""
    size_bytes = block.get("size", 0)
    history = block.get("history")
    if "frames" not in block and isinstance(history, list) and history and isinstance(history[0], dict):
        return size_bytes, history[0].get("real_size", size_bytes), history[0].get("frames")
    requested = block.get("requested_size")
    return size_bytes, size_bytes if requested is None else requested, block.get("frames")


def _pool(pool: Any) -> str:
    if isinstance(pool, (list, tuple)) and len(pool) == 2 and all(type(part) is int and part < 2**64 for part in pool):
        return f"{pool[0]},{pool[1]}"
    return "0,0"


def _user_region(event: dict[Any, Any]) -> tuple[Any, Any]:
    """Stage and name of a user-defined entry: its own keys, or those of its only frame, as torch 2.4 wrote them."""
    frames = event.get("frames")
    if "name" not in event and isinstance(frames, list) and frames and isinstance(frames[0], dict):
        return frames[0].get("name"), frames[0].get("filename")
    return event.get("stage"), event.get("name")


def _user_regions(traces: Traces) -> list[dict[str, Any]]:
    """The regions that stand in the history itself, as those of external_annotations."""
    found = []
    for device, trace in traces:
        for event in trace:
            if isinstance(event, dict) and event.get("action") == "user_defined":
                stage, name = _user_region(event)
                found.append({"stage": stage, "name": name, "device": device, "time_us": event.get("time_us")})
    return found


def _annotations(annotations: list[Any], names: Texts) -> Columns:
    """START and END of record_function regions; device -1 where they name none."""
    rows = [a for a in annotations if isinstance(a, dict) and a.get("stage") in STAGES]
    devices = [a.get("device") for a in rows]
    return {
        "annotation.end": array("b", [a["stage"] == "END" for a in rows]),
        "annotation.device": array(
            "q", [one if type(one) is int and 0 <= one < MAX_DEVICES else -1 for one in devices]
        ),
        "annotation.name": array("i", names.numbers([a.get("name") for a in rows])),
        "annotation.time_us": _shown_numbers(rows, "time_us"),
    }


def plain_settings(value: Any) -> dict[str, Any]:
    """The plain part of a settings dict: strings, numbers, booleans, and dicts of these one level down."""
    budget = [SETTING_VALUES]

    def plain(items: Iterable[tuple[Any, Any]], depth: int) -> dict[str, Any]:
        out: dict[str, Any] = {}
        for key, item in items:
            budget[0] -= 1
            if budget[0] < 0:
                break
            if not isinstance(key, (str, int)):
                continue
            if isinstance(item, dict) and depth:
                out[str(key)[:TEXT_LENGTH]] = plain(item.items(), depth - 1)
            elif isinstance(item, str):
                out[str(key)[:TEXT_LENGTH]] = item[:TEXT_LENGTH]
            elif isinstance(item, (bool, float, type(None))) or (isinstance(item, int) and abs(item) < 2**64):
                out[str(key)[:TEXT_LENGTH]] = item
        return out

    try:
        return plain(value.items(), 1) if isinstance(value, dict) else {}
    except ValueError:  # str() of a number with more than 4,300 digits
        return {}


def _text(value: Any) -> str:
    """A value as a text to show; "" for what says nothing. One that is an object: key=value, one level of them."""
    if isinstance(value, (bytes, bytearray)):
        value = value[: 4 * TEXT_LENGTH].decode("utf-8", "replace")
    if isinstance(value, dict):
        plain = [(key, one) for key, one in list(value.items())[:16] if not isinstance(one, dict)]
        value = ", ".join(f"{_text(key)}={_text(one)}" for key, one in plain)
    if isinstance(value, int) and abs(value) >= 2**64:
        return ""
    text = str(value) if isinstance(value, (str, int, float)) else ""
    return text if len(text) <= TEXT_LENGTH else text[: TEXT_LENGTH - 1] + "…"


def _short(text: str) -> str:
    line = " ".join(text.split())
    return repr(line if len(line) <= 80 else line[:77] + "...")[1:-1]


if __name__ == "__main__":
    main()
