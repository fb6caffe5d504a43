"""Record CPU allocations through torch.profiler, in the form of a CUDA memory snapshot."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, replace
from typing import Any, Final, Literal

from torch._C._profiler import (
    RecordScope,
    _ExtraFields_Allocation,
    _ExtraFields_PyCall,
    _ExtraFields_PyCCall,
    _ExtraFields_TorchOp,
    _ProfilerEvent,
)

from profiler_kit.capture.sharing import Needs, Session, Window, join_session, now_ns, open_session
from profiler_kit.capture.slot_lines import slot_lines
from profiler_kit.capture.torch_profile import TorchProfile, quiet
from profiler_kit.errors import CaptureError
from profiler_kit.units import NS_PER_US

_KIND: Final = "memory_runner"
_LARGE_BYTES: Final = 1 << 20  # segment_type of the CUDA allocator: "small" up to here (kSmallSize)
_OOM_NAME: Final = "[OutOfMemory]"
_OOM_MESSAGE: Final = re.compile(r"tried to allocate (\d+) bytes")  # c10/core/impl/alloc_cpu.cpp

Frame = dict[str, Any]  # {"name", "filename", "line"}, as in a CUDA snapshot
Stack = list[Frame]  # innermost first


@dataclass(frozen=True, slots=True)
class Change:
    """One allocation (size above 0), one free (below 0) or one failed allocation, in the order they happened."""

    kind: Literal["memory", "oom"]
    time_ns: int  # Unix
    address: int
    size_bytes: int
    stack: Stack


class CpuRecording:
    """The CPU allocations of the threads that torch.profiler follows, from `start` to `stop`."""

    source: Final = "torch.profiler"

    def __init__(self, who: str, own: Needs, together: Needs, max_entries: int) -> None:
        """`own` is what this recording needs, `together` what it and the runners inside it need."""
        self._who = who
        self._own = own
        self._together = together
        self._max_entries = max_entries
        self._session: Session | None = None
        self._since_ns = 0

    def start(self) -> None:
        """Join the profile of a profiler_runner around it, or start one."""
        without_stacks = replace(self._own, with_stack=False)
        self._session = join_session(self._who, _KIND, without_stacks)
        if self._session is None:
            self._session = open_session(self._who, _KIND, self._make_profile)
        self._since_ns = now_ns()

    @property
    def lacks_stacks(self) -> bool:
        """Python frames are wanted, and the shared profile does not record them."""
        return self._own.with_stack and self._session is not None and not self._session.profile.with_stack

    def stop(self, error: BaseException | None, write: Callable[[dict[str, Any]], None]) -> None:
        """Hand the snapshot of what was recorded to `write`, once the profile has ended.

        `error` is what ended the recording, and tells the size of a failed allocation.
        """
        session, self._session = self._session, None
        assert session is not None, "start first"
        message = "" if error is None else str(error)
        if session.kind == _KIND:
            session.leave(_KIND, lambda: write(self._snapshot(session.profile, None, message)))
            session.close()
        else:
            window = (self._since_ns, now_ns())
            session.leave(_KIND, lambda: write(self._snapshot(session.profile, window, message)))

    def _make_profile(self) -> TorchProfile:
        needs = self._together
        with quiet():
            return TorchProfile(
                activities=list(needs.activities),
                record_shapes=needs.record_shapes,
                with_stack=needs.with_stack,
                profile_memory=needs.profile_memory,
                with_modules=needs.with_modules,
            )

    def _snapshot(self, recording: TorchProfile, window: Window | None, message: str) -> dict[str, Any]:
        result = None if recording.profiler is None else recording.profiler.kineto_results
        if result is None:
            raise CaptureError(
                f"{self._who}: another profiler was started inside and ended this recording, nothing is written: "
                "torch runs one at a time. Leave one of the two out."
            )
        roots = result.experimental_event_tree()
        changes = find_changes(roots, window, python_frames=self._own.with_stack)
        match = _OOM_MESSAGE.search(message)
        if match and changes and changes[-1].kind == "oom":
            changes[-1] = replace(changes[-1], size_bytes=int(match[1]))
        return build_snapshot(changes, find_regions(roots, window), self._max_entries)


def build_snapshot(
    changes: Iterable[Change], regions: Iterable[tuple[int, str, str]], max_entries: int
) -> dict[str, Any]:
    """Write changes and regions (Unix ns, START or END, name) in the form of `torch.cuda.memory._snapshot()`.

    The CPU allocator caches nothing, so each allocation is a segment of its own: segment_alloc, alloc,
    free_requested, free_completed, segment_free, and reserved equals allocated at all times. Blocks allocated in
    the recording and still live at its end are the segments. Addresses are real, the device is 0 and the stream 0.
    A free of memory that an earlier recording saw being allocated has no alloc, as in a CUDA history.
    The line of a frame is that of the call inside it; of an operator that is no call (`a + b`) it is found as
    `slot_lines` describes, and else, as for the frees of what goes out of use, the first line of the function.
    An oom has no device_free, and size 0 unless its exception ended the recording.
    When more than max_entries entries result, the oldest are dropped, as the CUDA allocator's ring buffer does.
    """
    trace: list[dict[str, Any]] = []
    live: dict[int, Change] = {}
    for change in changes:
        if change.kind == "oom":
            trace.append(_entry("oom", change))
        elif change.size_bytes > 0:
            lost = live.pop(change.address, None)
            if lost is not None:  # it was freed where the profiler does not look, in a thread of another kind
                trace.extend(_free(lost, change.time_ns, []))
            live[change.address] = change
            trace.append(_entry("segment_alloc", change))
            trace.append(_entry("alloc", change))
        elif change.size_bytes < 0:
            allocated = live.pop(change.address, change)
            trace.extend(_free(allocated, change.time_ns, change.stack))
    return {
        "segments": [_segment(change) for _, change in sorted(live.items())],
        "device_traces": [trace[-max_entries:]],
        "allocator_settings": {},
        "external_annotations": [
            {"stage": stage, "name": name, "device": 0, "time_us": time_ns // NS_PER_US}
            for time_ns, stage, name in regions
        ],
    }


def peak_bytes(snapshot: Mapping[str, Any], max_entries: int) -> int | None:
    """The highest total held, in bytes, by what build_snapshot wrote.

    What was freed without having been allocated in the recording was held from its beginning. None where that cannot
    be, since its address was in use before, and where entries may have been dropped.
    """
    (trace,) = snapshot["device_traces"]
    if len(trace) >= max_entries:
        return None
    sums, held, seen = [0], set(), set()
    for entry in trace:
        address = entry.get("addr")
        if entry["action"] == "alloc":
            held.add(address)
            seen.add(address)
            sums.append(sums[-1] + entry["size"])
        elif entry["action"] == "free_requested":
            if address in seen and address not in held:
                return None
            held.discard(address)
            seen.add(address)
            sums.append(sums[-1] - entry["size"])
    at_end = sum(int(segment["requested_size"]) for segment in snapshot["segments"])
    return int(at_end - sums[-1] + max(sums))


def _entry(action: str, change: Change, time_ns: int | None = None, stack: Stack | None = None) -> dict[str, Any]:
    return {
        "action": action,
        **({} if action == "oom" else {"addr": change.address}),
        "size": abs(change.size_bytes),
        "stream": 0,
        "time_us": (change.time_ns if time_ns is None else time_ns) // NS_PER_US,
        "compile_context": "N/A",
        "user_metadata": "",
        "frames": change.stack if stack is None else stack,
    }


def _free(allocated: Change, time_ns: int, stack: Stack) -> list[dict[str, Any]]:
    return [
        _entry(action, allocated, time_ns, stack) for action in ("free_requested", "free_completed", "segment_free")
    ]


def _segment(change: Change) -> dict[str, Any]:
    size = change.size_bytes
    return {
        "device": 0,
        "address": change.address,
        "total_size": size,
        "allocated_size": size,
        "active_size": size,
        "requested_size": size,
        "stream": 0,
        "segment_type": "large" if size > _LARGE_BYTES else "small",
        "segment_pool_id": (0, 0),
        "is_expandable": False,
        "frames": change.stack,
        "blocks": [
            {
                "address": change.address,
                "size": size,
                "requested_size": size,
                "state": "active_allocated",
                "frames": change.stack,
            }
        ],
    }


def find_changes(roots: Iterable[_ProfilerEvent], window: Window | None, *, python_frames: bool) -> list[Change]:
    """The changes of CPU memory in a profiler's event tree that lie in the window, by time.

    The size of a failed allocation is 0: torch does not report it.
    """
    changes = []
    frames = _Frames(python=python_frames)
    for event, above in _walk(roots):
        if not _inside(event.start_time_ns, window):
            continue
        if event.name == _OOM_NAME:
            changes.append(Change("oom", event.start_time_ns, 0, 0, frames.stack(above)))
            continue
        fields = event.extra_fields
        if isinstance(fields, _ExtraFields_Allocation) and fields.device.type == "cpu" and fields.alloc_size:
            changes.append(Change("memory", event.start_time_ns, fields.ptr, fields.alloc_size, frames.stack(above)))
    changes.sort(key=lambda change: change.time_ns)
    return changes


def find_regions(roots: Iterable[_ProfilerEvent], window: Window | None) -> list[tuple[int, str, str]]:
    """The starts and ends of record_function regions in a profiler's event tree, by time: Unix ns, stage, name.

    Those that start in the window; one that is still open when it ends, ends with it.
    """
    spans: dict[int, list[tuple[int, int, str]]] = {}  # by thread
    for event, _ in _walk(roots):
        if isinstance(event.extra_fields, _ExtraFields_TorchOp) and event.extra_fields.scope == RecordScope.USER_SCOPE:
            start, end = event.start_time_ns, event.end_time_ns
            if _inside(start, window):
                end = end if window is None else min(end, window[1])
                spans.setdefault(event.start_tid, []).append((start, max(start, end), event.name))
    marks = [mark for thread in spans.values() for mark in _nest(thread)]
    return sorted(marks, key=lambda mark: mark[0])  # stable, so that marks of one time stay nested


def _inside(time_ns: int, window: Window | None) -> bool:
    return window is None or window[0] <= time_ns <= window[1]


def _nest(spans: Iterable[tuple[int, int, str]]) -> Iterator[tuple[int, str, str]]:
    """Open and close the spans of one thread so that they nest, also where several share a time."""
    inside: list[tuple[int, int, str]] = []
    for span in sorted(spans, key=lambda span: (span[0], -span[1])):
        while inside and inside[-1][1] <= span[0]:
            _, end, name = inside.pop()
            yield end, "END", name
        inside.append(span)
        yield span[0], "START", span[2]
    for _, end, name in reversed(inside):
        yield end, "END", name


def _walk(roots: Iterable[_ProfilerEvent]) -> Iterator[tuple[_ProfilerEvent, _Node | None]]:
    """Every event with the chain of events around it, a parent before its children, in order."""
    todo: list[tuple[_ProfilerEvent, _Node | None]] = [(root, None) for root in reversed(list(roots))]
    while todo:
        event, above = todo.pop()
        yield event, above
        children = event.children
        if children:
            node = _Node(event, above)
            todo.extend((child, node) for child in reversed(children))


class _Node:
    """An event on the way from a root to an allocation; its stack and lines are made when first asked for."""

    __slots__ = ("above", "event", "lines", "stack")

    def __init__(self, event: _ProfilerEvent, above: _Node | None) -> None:
        self.event = event
        self.above = above
        self.stack: Stack | None = None
        self.lines: dict[tuple[int, str], int] | None = None  # of the operators it ran itself

    def line_of(self, operator: _ProfilerEvent) -> int | None:
        """The line in this Python call of an operator that it ran itself, without a call; None if not known."""
        if self.lines is None:
            self.lines = slot_lines(self.event)
        return self.lines.get((operator.start_time_ns, operator.name))


class _Frames:
    """Makes stacks; equal frames and equal stacks are one object, so that the pickle holds each once."""

    def __init__(self, *, python: bool) -> None:
        self._python = python
        self._frames: dict[tuple[str, str, int], Frame] = {}
        self._stacks: dict[tuple[int, ...], Stack] = {}

    def stack(self, node: _Node | None) -> Stack:
        """The operators and Python calls around an event, innermost first; regions are left to the annotations."""
        if node is None:
            return self._stacks.setdefault((), [])
        if node.stack is None:
            stack = list(self._chain(node))
            node.stack = self._stacks.setdefault(tuple(map(id, stack)), stack)
        return node.stack

    def _chain(self, node: _Node | None) -> Iterator[Frame]:
        line: int | None = None  # in the Python function around, as the call inside it tells
        operator: _ProfilerEvent | None = None  # just inside it, when there is no call between
        while node is not None:
            name, fields = node.event.name, node.event.extra_fields
            if isinstance(fields, _ExtraFields_TorchOp) and fields.scope != RecordScope.USER_SCOPE:
                operator = node.event
                yield self._frame(name, "", 0)
            elif self._python and isinstance(fields, _ExtraFields_PyCall):
                own = fields.callsite
                shown = name if name.startswith("nn.Module: ") else own.function_name
                if line is None and operator is not None:
                    line = node.line_of(operator)
                yield self._frame(shown, own.file_name, own.line_number if line is None else line)
            if isinstance(fields, _ExtraFields_PyCall | _ExtraFields_PyCCall):
                line, operator = fields.caller.line_number, None
            node = node.above

    def _frame(self, name: str, filename: str, line: int) -> Frame:
        return self._frames.setdefault((name, filename, line), {"name": name, "filename": filename, "line": line})
