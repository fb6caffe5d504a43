"""Several ranks of a job as one trace for Perfetto, on one clock: their GPU work and regions, a process each."""

from __future__ import annotations

import gzip
import json
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from profiler_kit.errors import OptionError
from profiler_kit.files import whole_file
from profiler_kit.ranks import Ranks
from profiler_kit.render.perfetto.export import SUFFIXES
from profiler_kit.units import NS_PER_US

_HOST, _GPU, _NO_STEP = 0, 1, -1  # processes of each rank; what is outside steps


def export_ranks(job: Ranks, out: Path, ranks: Sequence[int], step: int | None = None) -> int:
    """Write these ranks, of one step or all they recorded, as one trace; returns how many events.

    Times are those of the first rank's clock. Raises OptionError for a rank or a step that the job has not, for a name
    of no known format, and where the ranks share no collective: then what happened at the same time is unknown.
    """
    if not out.name.endswith(SUFFIXES):
        raise OptionError(f"{out}: cannot tell the format, expected a name that ends in .json.gz or .json.")
    unknown = sorted(set(ranks) - set(job.ranks))
    if unknown or not ranks:
        raise OptionError(
            f"--ranks: {unknown or 'none'} not among the ranks of {job.path}. Try: --ranks {job.ranks[0]}"
        )
    clocks = job.answer.clocks.set_index("rank").reindex(list(ranks))
    if clocks["component"].nunique(dropna=False) > 1:
        raise OptionError(
            f"--ranks {', '.join(map(str, ranks))}: no collective joins them, expected ranks on one clock. "
            "Which are on one: profiler-kit ranks FOLDER --by clock"
        )
    parts = [_events(job, rank, place) for place, rank in enumerate(ranks)]
    every = pd.concat(parts, ignore_index=True)
    first, last = int(every["start_ns"].min()), int((every["start_ns"] + every["dur_ns"]).max())
    if step is not None:
        steps = every[every["step"] == step]
        if steps.empty:
            raise OptionError(f"--step {step}: no ProfilerStep#{step} in these ranks. Leave it out for all of them.")
        first, last = int(steps["start_ns"].min()), int((steps["start_ns"] + steps["dur_ns"]).max())
    kept = every[(every["start_ns"] < last) & (every["start_ns"] + every["dur_ns"] > first)]
    with whole_file(out) as path:
        head = {"baseTimeNanoseconds": first, "displayTimeUnit": "ms", "profilerKit": {"ranks": list(ranks)}}
        names = [json.dumps(one) for place, rank in enumerate(ranks) for one in _names(place, rank)]
        listed = ",\n".join([*names, *_texts(kept, first)])
        data = f'{json.dumps(head)[:-1]}, "traceEvents": [\n{listed}\n]}}\n'.encode()
        path.write_bytes(gzip.compress(data, 6, mtime=0) if out.name.endswith(".gz") else data)
    return len(kept)


def _events(job: Ranks, rank: int, place: int) -> pd.DataFrame:
    """The GPU work and the regions of a rank, in Unix time by the clock of the first."""
    trace = job.traces[rank]
    gpu, regions = trace.gpu_events(), trace.region_instances()
    on_gpu = pd.DataFrame(
        {
            "name": gpu["name"].astype(object),
            "cat": gpu["category"].astype(object),
            "pid": 2 * place + _GPU,
            "tid": gpu["stream"].fillna(0).astype("int64"),
            "start_ns": gpu["start_ns"],
            "dur_ns": gpu["dur_ns"],
            "step": _NO_STEP,
        }
    )
    step = regions["step"].fillna(_NO_STEP).astype("int64")
    names = regions["name"].where(step == _NO_STEP, regions["name"] + "#" + step.astype(str))
    on_host = pd.DataFrame(
        {
            "name": names.astype(object),
            "cat": "user_annotation",
            "pid": 2 * place + _HOST,
            "tid": regions["thread"].astype("int64"),
            "start_ns": regions["start_ns"],
            "dur_ns": regions["end_ns"] - regions["start_ns"],
            "step": step,
        }
    )
    found = pd.concat([on_host, on_gpu], ignore_index=True)
    found["start_ns"] = job.answer.on_one_clock(rank, found["start_ns"].to_numpy(np.int64) + trace.base_ns)
    return found


def _names(place: int, rank: int) -> Iterator[dict[str, Any]]:
    for part, what in ((_HOST, "host"), (_GPU, "GPU")):
        pid = 2 * place + part
        yield {"ph": "M", "name": "process_name", "pid": pid, "tid": 0, "args": {"name": f"rank {rank} {what}"}}
        yield {"ph": "M", "name": "process_sort_index", "pid": pid, "tid": 0, "args": {"sort_index": pid}}


def _texts(events: pd.DataFrame, first: int) -> Iterator[str]:
    start = (events["start_ns"] - first).tolist()
    columns = (events[name].tolist() for name in ("name", "cat", "pid", "tid", "dur_ns"))
    for begin, name, category, pid, tid, dur in zip(start, *columns, strict=True):
        head = json.dumps({"ph": "X", "name": name, "cat": category, "pid": pid, "tid": tid})[:-1]
        yield f'{head}, "ts": {begin / NS_PER_US:.3f}, "dur": {dur / NS_PER_US:.3f}}}'
