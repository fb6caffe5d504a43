"""The memory page: one HTML file that shows a snapshot with no network (Snapshot -> HTML text).

The allocations travel as columns (byte planes, gzip, base64) that the page unpacks into typed arrays; everything it
draws it computes from them. The page may load nothing: its content policy allows its own script and style, by hash.
"""

from __future__ import annotations

import base64
import gzip
import hashlib
import html
import json
import re
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Final

import numpy as np
import numpy.typing as npt

from profiler_kit.analyses.memory import explain_oom, fragmentation
from profiler_kit.analyses.stack_names import is_noise, is_own

if TYPE_CHECKING:
    from profiler_kit.load.snapshot_tables import Frame
    from profiler_kit.snapshot import Snapshot

FOLDER: Final = Path(__file__).with_name("memory_page")
SCRIPTS: Final = ("unpack.js", "model.js", "format.js", "paint.js", "panels.js", "main.js")
NOISE, OTHER, PYTHON, OWN = 0, 1, 2, 3  # what a frame is; unpack.js and model.js know the same numbers

Array = npt.NDArray[np.generic]


def memory_page(snapshot: Snapshot, title: str, *, device: int | None = None) -> str:
    """A self-contained page with every device of the snapshot; `device` is shown first.

    Without it the first one shown is the one with the highest peak. Text of the snapshot reaches the page inside the
    packed data only, and the script writes it as text.

    Raises OptionError for an unknown device.
    """
    if device is None:
        device = max(snapshot.devices, key=lambda one: int(snapshot.replay(one).allocated_bytes.max()), default=None)
    else:
        snapshot.require_device(device)
    style = (FOLDER / "page.css").read_text(encoding="utf-8")
    script = "\n".join((FOLDER / name).read_text(encoding="utf-8") for name in SCRIPTS)
    parts = {
        "title": html.escape(title),
        "policy": (
            f"default-src 'none'; script-src '{_digest(script)}'; style-src '{_digest(style)}'; "
            "base-uri 'none'; form-action 'none'"
        ),
        "style": style,
        "script": script,
        "data": base64.b64encode(pack(snapshot, title, device)).decode("ascii"),
    }
    template = (FOLDER / "page.html").read_text(encoding="utf-8")
    return re.sub(r"\{\{(\w+)\}\}", lambda match: parts[match[1]], template)


def _digest(text: str) -> str:
    """The source expression of a content policy that allows exactly this inline text."""
    return "sha256-" + base64.b64encode(hashlib.sha256(text.encode()).digest()).decode("ascii")


class Packer:
    """Columns of non-negative integers, each as planes: all lowest bytes, then all second bytes, and so on.

    Neighbours in a plane are alike, so that gzip makes them two to three times smaller than whole numbers.
    """

    def __init__(self) -> None:
        self._parts: list[bytes] = []
        self._size = 0

    def add(self, values: Array) -> list[int]:
        """Store a column; returns [offset, items, bytes per item]."""
        numbers = np.ascontiguousarray(values, dtype="<u8")
        width = max(1, (int(numbers.max()).bit_length() + 7) // 8) if len(numbers) else 1
        planes = numbers.view(np.uint8).reshape(-1, 8)[:, :width].T.tobytes()
        place = [self._size, len(numbers), width]
        self._parts.append(planes)
        self._size += len(planes)
        return place

    def pack(self, meta: Mapping[str, object]) -> bytes:
        """gzip of: 4 bytes little endian (length of the head), the head as JSON, the planes."""
        head = json.dumps(meta, separators=(",", ":")).encode()
        return gzip.compress(len(head).to_bytes(4, "little") + head + b"".join(self._parts), 6, mtime=0)


def pack(snapshot: Snapshot, title: str, device: int | None) -> bytes:
    """Everything the page needs to know of a snapshot."""
    packer = Packer()
    used = _used_stacks(snapshot)
    meta: dict[str, object] = {
        "title": title,
        "path": snapshot.path,
        "source": snapshot.source,
        "torch": snapshot.recording.torch,
        "error": snapshot.recording.error,
        "settings": dict(snapshot.settings),
        "first": device,
        **_stacks(snapshot, used, packer),
        "devices": [_device(snapshot, one, used, packer) for one in snapshot.devices],
    }
    return packer.pack(meta)


def _used_stacks(snapshot: Snapshot) -> npt.NDArray[np.int64]:
    """Numbers of the stacks the page shows: of allocations and of failures; 0 is always among them."""
    stacks = (snapshot.allocations()["stack"].to_numpy(), snapshot.oom()["stack"].to_numpy(), np.zeros(1, np.int64))
    return np.unique(np.concatenate(stacks))


def _stacks(snapshot: Snapshot, used: npt.NDArray[np.int64], packer: Packer) -> dict[str, object]:
    """Frames as text with their kind, stacks as runs of frame numbers without the noise."""
    frames = snapshot.frames
    kinds = np.array([_kind(frame) for frame in frames] or [NOISE], np.uint8)
    kept = [numbers[kinds[numbers] != NOISE] for numbers in (snapshot.stacks.numbers_of(int(one)) for one in used)]
    flat = np.concatenate(kept) if kept else np.zeros(0, np.int32)
    shown, numbers = np.unique(flat, return_inverse=True)
    return {
        "frames": [[frames[i].name, frames[i].filename, frames[i].line] for i in shown.tolist()],
        "frame_kinds": packer.add(kinds[shown]),
        "stack_frames": packer.add(numbers),
        "stack_lengths": packer.add(np.array([len(one) for one in kept], np.int64)),
    }


def _kind(frame: Frame) -> int:
    if is_noise(frame):
        return NOISE
    if is_own(frame):
        return OWN
    return PYTHON if frame.filename.endswith(".py") else OTHER


def _device(snapshot: Snapshot, device: int, used: npt.NDArray[np.int64], packer: Packer) -> dict[str, object]:
    """One device. State 0 is before the first event, state i + 1 after event i; times are µs since `origin_us`."""
    one = snapshot.replay(device)
    regions = snapshot.nested_regions(device)
    origin = snapshot.origin_us(device)
    last = int(max(one.times_us.max(initial=origin), regions.end_us.max(initial=origin)))
    changed = np.flatnonzero(np.diff(one.reserved_bytes))
    shown = regions.start_us >= origin  # others ended before the first event
    missing = snapshot.missing(device)
    return {
        "device": device,
        "name": "CPU" if snapshot.device_type == "cpu" else f"GPU {device}",
        "reserves": snapshot.device_type != "cpu",  # a CPU allocates from the system, without a cache between
        "events": len(one.rows),
        "origin_us": origin,
        "span_us": last - origin,
        "peak_state": one.peak,
        "peak_region": list(snapshot.peak_region(device)),
        "fragmentation": fragmentation(snapshot.blocks, snapshot.segments, device),
        "truncated": missing.truncated,
        "known_missing": missing.unmatched_frees + missing.recorded_before,
        "paths": [list(path) for path in regions.paths],
        "ooms": _ooms(snapshot, device, origin, used),
        "time": packer.add(np.diff(one.times_us, prepend=origin)),
        "reserved_state": packer.add(np.diff(changed + 1, prepend=0)),
        "reserved_bytes": packer.add(one.reserved_bytes[np.concatenate(([0], changed + 1))]),
        "span_path": packer.add(regions.instance_path[shown]),
        "span_start": packer.add(regions.start_us[shown] - origin),
        "span_end": packer.add(regions.end_us[shown] - origin),
        **_elements(snapshot, device, used, packer),
    }


def _elements(snapshot: Snapshot, device: int, used: npt.NDArray[np.int64], packer: Packer) -> dict[str, object]:
    """Allocations by the state they appear in; `life` counts states, 0 for one that is never freed."""
    one = snapshot.replay(device)
    frame = snapshot.allocations()
    frame = frame[frame["device"] == device]
    size = frame["size_bytes"].to_numpy()
    born = _state(frame["alloc_event"].fillna(-1).to_numpy(np.int64), one.rows, missing=0)
    gone = _state(frame["free_event"].fillna(-1).to_numpy(np.int64), one.rows, missing=-1)
    order = np.lexsort((np.where(born == 0, -size, 0), born))  # what was there before: the largest at the bottom
    born, gone, size = born[order], gone[order], size[order]
    change = np.zeros(len(one.rows) + 2, np.int64)
    np.add.at(change, born, size)
    np.add.at(change, np.where(gone < 0, len(change) - 1, gone), -size)
    regions = snapshot.nested_regions(device)
    path = np.full(len(born), -1, np.int64)
    path[born > 0] = regions.path_at(one.times_us[born[born > 0] - 1])
    stream = frame["stream"].to_numpy()[order]
    streams, stream_number = np.unique(stream, return_inverse=True)
    address = frame["address"].to_numpy()[order]
    out: dict[str, object] = {
        "streams": [str(value) for value in streams.tolist()],
        "born": packer.add(np.diff(born, prepend=0)),
        "life": packer.add(np.where(gone < 0, 0, gone - born)),
        "size": packer.add(np.maximum(size, 0)),
        "stack": packer.add(np.searchsorted(used, frame["stack"].to_numpy()[order])),
        "region": packer.add(path + 1),  # 0: no region
        "stream": packer.add(stream_number),
        "address_low": packer.add(address & np.uint64(0xFFFFFFFF)),
        "address_high": packer.add(address >> np.uint64(32)),
    }
    if not np.array_equal(np.cumsum(change)[:-1], one.allocated_bytes):  # a history with a gap
        out["allocated_bytes"] = packer.add(one.allocated_bytes)
    return out


def _state(events: npt.NDArray[np.int64], rows: npt.NDArray[np.int64], *, missing: int) -> npt.NDArray[np.int64]:
    """State right after each event (a row of SNAPSHOT_EVENTS); `missing` where there is no event."""
    return np.where(events < 0, missing, np.searchsorted(rows, events) + 1)


def _ooms(snapshot: Snapshot, device: int, origin: int, used: npt.NDArray[np.int64]) -> list[dict[str, object]]:
    frame = snapshot.oom()
    events = frame.loc[frame["device"] == device, "event"].to_numpy()
    states = _state(events, snapshot.replay(device).rows, missing=0)
    return [
        {
            "state": state,
            "time_us": failed.time_us - origin,
            "requested_bytes": failed.requested_bytes,
            "device_free_bytes": failed.device_free_bytes,
            "allocated_bytes": failed.allocated_bytes,
            "reserved_bytes": failed.reserved_bytes,
            "stack": int(np.searchsorted(used, failed.stack)),
            "why": explain_oom(
                failed.requested_bytes, failed.device_free_bytes, failed.reserved_bytes - failed.allocated_bytes
            ),
        }
        for state, failed in zip(states.tolist(), snapshot.failures(device), strict=True)
    ]
