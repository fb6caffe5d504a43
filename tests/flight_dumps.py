"""Dumps of torch's flight recorder, as its ranks write them (version 2.10, torch 2.6 on)."""

from __future__ import annotations

import json
import pickle
from pathlib import Path
from typing import Any


def entry(
    sequence: int,
    operation: str = "all_reduce",
    state: str = "completed",
    *,
    group: str = "0",
    size: int = 8,
    **more: Any,
) -> dict[str, Any]:
    return {
        "frames": [
            {"name": "all_reduce", "filename": "/x/torch/distributed/distributed_c10d.py", "line": 2_800},
            {"name": "train", "filename": "train.py", "line": 40 + sequence},
        ],
        "record_id": sequence - 1,
        "pg_id": 0,
        "process_group": ("0", "default_pg"),
        "collective_seq_id": sequence,
        "p2p_seq_id": 0,
        "op_id": sequence,
        "profiling_name": f"nccl:{operation}",
        "time_created_ns": 1_700_000_000_000_000_000 + sequence * 1_000_000,
        "input_sizes": [[size]],
        "input_dtypes": ["Float"],
        "output_sizes": [[size]],
        "output_dtypes": ["Float"],
        "state": state,
        "time_discovered_started_ns": None,
        "time_discovered_completed_ns": None,
        "retired": state == "completed",
        "timeout_ms": 600_000,
        "is_p2p": False,
        **more,
    }


def dump(entries: list[dict[str, Any]], size: int = 4, last: int | None = None) -> dict[str, Any]:
    found: dict[str, Any] = {
        "version": "2.10",
        "pg_config": {"0": {"name": "0", "desc": "default_pg", "ranks": str(list(range(size)))}},
        "entries": entries,
    }
    if last is not None:
        found["pg_status"] = {"0": {"last_enqueued_collective": last, "last_completed_collective": last}}
    return found


def two(folder: Path) -> Path:
    """The dumps of two ranks; the second has not issued collective 2."""
    return write(folder, {0: dump([entry(1), entry(2, state="started")], 2), 1: dump([entry(1)], 2)})


def write(folder: Path, dumps: dict[int, dict[str, Any]], *, as_json: bool = False) -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    for rank, one in dumps.items():
        data = json.dumps(one).encode() if as_json else pickle.dumps(one)
        (folder / f"nccl_trace_rank_{rank}").write_bytes(data)
    return folder
