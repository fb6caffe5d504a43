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
EVENT_KEYS: Final = (("address", "addr", "Q"), ("size_bytes", "size", "q"), ("stream", "stream", "q"))
SEGMENT_CODES: Final = {
    "segment.device": "q", "segment.address": "Q", "segment.total_bytes": "q", "segment.stream": "q",
    "segment.type": "i", "segment.pool": "i", "segment.expandable": "b",
    "block.segment": "q", "block.address": "Q", "block.size_bytes": "q", "block.requested_bytes": "q",
    "block.state": "i",
}  # fmt: skip
MAX_NAMES: Final = 4096  # different actions, block states and the like; a real snapshot has about ten
SETTING_LENGTH: Final = 4096  # characters kept of one value of the settings
SETTING_VALUES: Final = 1000


class Refused(Exception):
    """The pickle is not a memory snapshot; the message ends the line "<path>: "."""


class PlainUnpickler(pickle.Unpickler):
    """Builds dicts, lists, tuples, numbers and strings; anything that names code is refused."""

    def find_class(self, module: str, name: str) -> Any:
        raise Refused(f"the pickle asks for the global {_short(f'{module}.{name}')}, {EXPECTED}. Nothing of it was run")

    def persistent_load(self, pid: Any) -> Any:
        raise Refused(f"the pickle holds a persistent id, {EXPECTED}")


class Numbering(dict[Any, int]):
    """Gives each new string the next number."""

    def __missing__(self, key: Any) -> int:
        if type(key) is not str:
            raise Refused(f"found a {type(key).__name__} where a name belongs, {EXPECTED}")
        self[key] = number = len(self)
        return number


class Stacks:
    """Gives each stack of frames a number: by identity of the frame list (the pickle memo keeps it), then by value.

    Stack 0 is the empty one. `frames` is flat: filename, line, name of each different frame.
    """

    def __init__(self) -> None:
        self.strings = Numbering()
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
            raise Refused(f"a stack is {type(frames).__name__}, expected a list of frames")
        by_id = self._frame_by_id
        try:
            key = tuple([by_id[id(frame)] for frame in frames])
        except KeyError:
            key = tuple([self._frame(frame) for frame in frames])
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
        if not isinstance(frame, dict):
            raise Refused(f"a frame is {type(frame).__name__}, expected an object with name, filename and line")
        line = frame.get("line", 0)
        if type(line) is not int or not -(2**63) <= line < 2**63:
            raise Refused(f"a frame's line is {type(line).__name__} or out of range, expected a number")
        value = (self.strings[frame.get("filename", "")], line, self.strings[frame.get("name", "")])
        number = self._frame_by_value.get(value)
        if number is None:
            number = self._frame_by_value[value] = len(self._frame_by_value)
            self.frames.extend(value)
        self._frame_by_id[id(frame)] = number
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
        return PlainUnpickler(stream).load()
    except (Refused, MemoryError):
        raise
    except EOFError:
        raise Refused("the pickle is cut off, expected a whole CUDA memory snapshot") from None
    except Exception as error:
        text = str(error)
        if "truncated" in text or "ran out of" in text.lower():
            raise Refused("the pickle is cut off, expected a whole CUDA memory snapshot") from None
        raise Refused(f"not a pickle that can be read ({type(error).__name__}: {_short(text)}), {EXPECTED}") from None


def convert(data: Any, size: int) -> tuple[dict[str, Any], Columns]:
    """The head and the columns of an unpickled snapshot.

    `size` bounds the entries: every entry of an honest pickle takes at least a byte of the file, so that more
    entries than bytes mean lists that share lists, built to explode.
    """
    top, traces, segments, annotations = _parts(data)
    stacks, actions, states, names, pools = Stacks(), Numbering(), Numbering(), Numbering(), Numbering()
    try:
        columns = _events(traces, stacks, actions, pools, size)
        columns |= _segments(segments, stacks, states, pools, size)
        columns |= _annotations(annotations, names)
    except OverflowError:
        raise Refused("a number does not fit in 64 bits, expected sizes, addresses and times") from None
    except (TypeError, AttributeError, ValueError) as error:
        raise Refused(f"an entry is not of the shape a snapshot has ({_short(str(error))}), {EXPECTED}") from None
    columns |= {"frames": stacks.frames, "stack_frames": stacks.flat, "stack_ends": stacks.ends}
    for numbering in (actions, states, pools):
        if len(numbering) > MAX_NAMES:
            raise Refused(f"{len(numbering)} different kinds of entry, {EXPECTED}")
    head = {
        "strings": list(stacks.strings),
        "actions": list(actions),
        "states": list(states),
        "pools": list(pools),
        "names": list(names),
        "devices": len(traces),
        "settings": _settings(top.get("allocator_settings")),
        "kit": _settings(top.get("profiler_kit")),
    }
    return head, columns


def _parts(data: Any) -> tuple[dict[Any, Any], list[Any], list[Any], list[Any]]:
    if isinstance(data, list):  # torch.cuda.memory_snapshot() of old: the segments alone
        data = {"segments": data}
        if not data["segments"] or not all(isinstance(s, dict) and "blocks" in s for s in data["segments"]):
            raise Refused("the pickle's top level is a list of something else, expected a CUDA memory snapshot")
    if not isinstance(data, dict):
        raise Refused(f"the pickle's top level is {type(data).__name__}, expected an object with 'device_traces'")
    if "segments" not in data and "device_traces" not in data:
        found = ", ".join(sorted(_short(str(key)) for key in list(data)[:8] if isinstance(key, str))) or "no keys"
        raise Refused(f"the pickle has neither 'segments' nor 'device_traces' (found {found}), {EXPECTED}")
    parts = []
    for key in ("device_traces", "segments", "external_annotations"):
        part = data.get(key)
        part = [] if part is None else part
        if not isinstance(part, list):
            raise Refused(f"{key!r} is {type(part).__name__}, expected a list")
        parts.append(part)
    if len(parts[0]) > MAX_NAMES:
        raise Refused(f"'device_traces' names {len(parts[0])} devices, expected one list per GPU")
    return data, parts[0], parts[1], parts[2]


def _events(traces: list[Any], stacks: Stacks, actions: Numbering, pools: Numbering, size: int) -> Columns:
    device, action, stack, pool = array("i"), array("i"), array("i"), array("i")
    values: Columns = {name: array(code) for name, _, code in EVENT_KEYS} | {"time_us": array("q")}
    free_row, free_bytes = array("q"), array("q")
    for number, trace in enumerate(traces):
        if not isinstance(trace, list):
            raise Refused(f"the history of device {number} is {type(trace).__name__}, expected a list")
        if len(device) + len(trace) > size:
            raise Refused("it lists more events than the file has bytes, expected a snapshot as torch writes it")
        kinds = [event.get("action", "") for event in trace]
        for name, key, _ in EVENT_KEYS:
            values[name].extend(_numbers(trace, key))
        values["time_us"].extend(_numbers(trace, "time_us"))
        if "oom" in kinds:
            for row, kind in enumerate(kinds):
                if kind == "oom" and isinstance(free := trace[row].get("device_free"), int):
                    free_row.append(len(device) + row)
                    free_bytes.append(free)
        action.extend(map(actions.__getitem__, kinds))
        stack.extend(stacks.numbers([event.get("frames") for event in trace]))
        pool.extend(_pools(trace, pools))
        device.extend(array("i", [number]) * len(trace))
    columns = {"device": device, "action": action, **values, "stack": stack, "pool": pool}
    return {
        **{f"event.{name}": column for name, column in columns.items()},
        "free.row": free_row,
        "free.bytes": free_bytes,
    }


def _numbers(trace: list[Any], key: str) -> list[int]:
    """`key` of each entry; 0 where it is missing or None (an `oom` has no address)."""
    try:
        return [entry[key] for entry in trace]
    except KeyError:
        return [entry.get(key) or 0 for entry in trace]


def _pools(trace: list[Any], pools: Numbering) -> Iterable[int]:
    """The number of each event's pool; that of "" where the event does not say it, as before torch 2.13."""
    if not any("pool_id" in event for event in trace):
        return array("i", [pools[""]]) * len(trace)
    return [pools[_pool(event["pool_id"]) if event.get("pool_id") is not None else ""] for event in trace]


def _segments(segments: list[Any], stacks: Stacks, states: Numbering, pools: Numbering, size: int) -> Columns:
    out: Columns = {name: array(code) for name, code in SEGMENT_CODES.items()}
    frames: list[Any] = []
    for number, segment in enumerate(segments):
        if not isinstance(segment, dict) or not isinstance(segment.get("blocks", []), list):
            raise Refused("an entry of 'segments' is not one, expected objects with address, total_size and blocks")
        blocks = segment.get("blocks", [])
        address = segment.get("address") or 0
        if number + len(frames) + len(blocks) > size:
            raise Refused("it lists more blocks than the file has bytes, expected a snapshot as torch writes it")
        for name, value in (
            ("device", segment.get("device") or 0),
            ("address", address),
            ("total_bytes", segment.get("total_size") or 0),
            ("stream", segment.get("stream") or 0),
            ("type", states[segment.get("segment_type", "")]),
            ("pool", pools[_pool(segment.get("segment_pool_id"))]),
            ("expandable", bool(segment.get("is_expandable", False))),
        ):
            out[f"segment.{name}"].append(value)
        for block in blocks:
            size_bytes, requested, stack = _block(block)
            out["block.segment"].append(number)
            out["block.address"].append(block.get("address", address))
            out["block.size_bytes"].append(size_bytes)
            out["block.requested_bytes"].append(requested)
            out["block.state"].append(states[block.get("state", "")])
            frames.append(stack)
            address = out["block.address"][-1] + size_bytes
    return {**out, "block.stack": stacks.numbers(frames)}


def _block(block: Any) -> tuple[int, int, Any]:
    """Size, requested size and frames; torch 2.0 keeps the last two in a history (torch/cuda/_memory_viz.py)."""
    size_bytes = block.get("size", 0)
    history = block.get("history")
    if "frames" not in block and isinstance(history, list) and history and isinstance(history[0], dict):
        return size_bytes, history[0].get("real_size", size_bytes), history[0].get("frames")
    return size_bytes, block.get("requested_size", size_bytes), block.get("frames")


def _pool(pool: Any) -> str:
    if isinstance(pool, (list, tuple)) and len(pool) == 2 and all(type(part) is int for part in pool):
        return f"{pool[0]},{pool[1]}"
    return "0,0"


def _annotations(annotations: list[Any], names: Numbering) -> Columns:
    """START and END of record_function regions; device -1 or no device means every device."""
    rows = [a for a in annotations if isinstance(a, dict) and a.get("stage") in ("START", "END")]
    return {
        "annotation.end": array("b", [a["stage"] == "END" for a in rows]),
        "annotation.device": array("q", [a.get("device", -1) for a in rows]),
        "annotation.name": array("i", map(names.__getitem__, [a.get("name", "") for a in rows])),
        "annotation.time_us": array("q", _numbers(rows, "time_us")),
    }


def _settings(value: Any) -> dict[str, Any]:
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
                out[str(key)[:SETTING_LENGTH]] = plain(item.items(), depth - 1)
            elif isinstance(item, str):
                out[str(key)[:SETTING_LENGTH]] = item[:SETTING_LENGTH]
            elif isinstance(item, (bool, float, type(None))) or (isinstance(item, int) and abs(item) < 2**64):
                out[str(key)[:SETTING_LENGTH]] = item
        return out

    try:
        return plain(value.items(), 1) if isinstance(value, dict) else {}
    except ValueError:  # str() of a number with more than 4,300 digits
        return {}


def _short(text: str) -> str:
    line = " ".join(text.split())
    return repr(line if len(line) <= 80 else line[:77] + "...")[1:-1]


if __name__ == "__main__":
    main()
