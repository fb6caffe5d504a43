"""Small memory snapshots for tests: plain dicts in torch's form, written as pickles."""

from __future__ import annotations

import pickle
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parents[1]
CAPTURES = ROOT / ".." / "shared" / "traces" / "h200"
T0 = 1_795_000_000_000_000  # Unix time in µs


def captures() -> list[Path]:
    """The real snapshots: those in the repository, and those beside it where they are there and whole."""
    found = [*ROOT.glob("tests/golden/*.pickle"), *ROOT.glob("traces/h200-*/*.pickle"), *CAPTURES.glob("*.pickle")]
    return sorted(path for path in found if path.read_bytes()[:1] == b"\x80")


def frame(name: str, filename: str = "train.py", line: int = 1) -> dict[str, Any]:
    return {"name": name, "filename": filename, "line": line}


def event(action: str, at_us: int, addr: int = 0, size: int = 0, **more: Any) -> dict[str, Any]:
    out = {"action": action, "addr": addr, "size": size, "stream": 0, "time_us": T0 + at_us, "frames": []}
    return {**out, **more}


def alloc(at_us: int, addr: int, size: int, **more: Any) -> dict[str, Any]:
    return event("alloc", at_us, addr, size, **more)


def free(at_us: int, addr: int, size: int, **more: Any) -> list[dict[str, Any]]:
    return [event("free_requested", at_us, addr, size, **more), event("free_completed", at_us, addr, size, **more)]


def mark(stage: str, name: str, at_us: int, device: int = 0) -> dict[str, Any]:
    return {"stage": stage, "name": name, "device": device, "time_us": T0 + at_us}


def block(addr: int, size: int, requested: int, state: str = "active_allocated", **more: Any) -> dict[str, Any]:
    return {"address": addr, "size": size, "requested_size": requested, "state": state, "frames": [], **more}


def segment(addr: int, total: int, *blocks: dict[str, Any], device: int = 0, **more: Any) -> dict[str, Any]:
    return {
        "device": device,
        "address": addr,
        "total_size": total,
        "stream": 0,
        "segment_type": "large",
        "segment_pool_id": (0, 0),
        "is_expandable": False,
        "blocks": list(blocks),
        **more,
    }


def snapshot(
    *traces: list[dict[str, Any]],
    segments: list[dict[str, Any]] | None = None,
    marks: list[dict[str, Any]] | None = None,
) -> dict[str, Any]:
    return {
        "segments": segments or [],
        "device_traces": list(traces),
        "allocator_settings": {"expandable_segments": False, "roundup_power2_divisions": {"1": 0}},
        "external_annotations": marks or [],
    }


def write(path: Path, data: object, protocol: int = 4) -> Path:
    path.write_bytes(pickle.dumps(data, protocol=protocol))
    return path
