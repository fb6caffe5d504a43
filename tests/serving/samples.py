"""Requests and loads with the numbers on the page."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pandas as pd

from profiler_kit.formats.load_file import Peaks, Rle, Sample
from profiler_kit.formats.request_file import SERVED, TIMES, write_requests
from tests.builders import TraceBuilder

BASE_NS = 1_700_000_000_000_000_000
WHOLE = Rle((2, 2), "04")  # four pixels, all set


def served(base_ns: int = 1_000) -> pd.DataFrame:
    """Three requests on a clock that a trace counts from `base_ns`; the third hung up in the queue."""
    rows = [
        (0, 0, 2, 200, 10, 12, 15, 30, 80, 85),
        (1, 0, 2, 200, 11, 13, 25, 30, 80, 90),
        (2, 1, 1, 499, 20, 21, 22, None, None, 60),
    ]
    frame = pd.DataFrame(rows, columns=list(SERVED.columns)).astype(SERVED.dtypes())
    frame[list(TIMES)] += base_ns
    return frame


def rows_of(frame: pd.DataFrame) -> list[dict[str, Any]]:
    """The rows as the server writes them."""
    return frame.astype(object).where(frame.notna(), None).to_dict("records")


def sample(step: str, due: int, sent: int, done: int, **more: object) -> Sample:
    """An answer to a.png unless more is said."""
    return Sample(**{**{"step": step, "image": "a.png", "scheduled_ns": due, "sent_ns": sent, "done_ns": done,
                        "status": 200}, **more})  # type: ignore[arg-type]  # fmt: skip


def a_load(folder: Path, *, mask: Rle = WHOLE, count: int = 100) -> Path:
    """A first call with its mask, `count` requests the n-th of which takes n µs, and two without an answer."""
    lines = [sample("first", 0, 0, 9, first=True, masks=(mask,), scores=(0.5,)).line()]
    for n in range(1, count + 1):
        timing = {"queue": n / 1e3, "gpu": 2.0}
        lines.append(sample("rate 5", 0, 500, 1_000 * n, batch_size=1 + n % 2, timing_ms=timing).line())
    lines.append(sample("rate 5", 0, 0, 1, status=503, error="full").line())
    lines.append(sample("rate 5", 0, 0, 1, status=0, error="timed out").line())
    lines.append(Peaks("rate 5", 1 << 20, 1 << 21).line())
    path = folder / "load.jsonl"
    path.write_text("".join(lines))
    return path


def served_run(folder: Path) -> Path:
    """The requests of `served` and a trace of their batch 0, on clocks that differ by a nanosecond.

    The batch takes 31 to 79 ns: 20 ns encoder, twice 5 ns nms, and the rest. On the GPU the encoder ran from 40 to 60
    on one stream and 50 to 65 on another, nms from 66 to 70, and what was launched between them 2 ns.
    """
    trace = TraceBuilder()
    trace.region("ProfilerStep#1", 0.0, 0.095)
    trace.region("batch", 0.031, 0.048)
    trace.region("image encoder", 0.032, 0.020)
    trace.region("attention", 0.033, 0.010)
    trace.region("nms", 0.060, 0.005)
    trace.region("nms", 0.070, 0.005)
    trace.region("decode image", 0.031, 0.010, tid=2)
    kernels = ((0.034, 0.040, 0.020, 7), (0.045, 0.050, 0.015, 8), (0.061, 0.066, 0.004, 7), (0.055, 0.075, 0.002, 7))
    for number, (at, start, dur, stream) in enumerate(kernels, 1):
        trace.launch(number, at, dur=0.001)
        trace.kernel(number, start, dur, name=f"kernel {number}", stream=stream)
    trace.launch(9, 0.090, dur=0.001)
    trace.kernel(9, 0.091, 0.002)
    trace.number().write(folder / "trace.json.gz")
    write_requests(folder / "requests.parquet", rows_of(served(BASE_NS)))
    return folder


def request(number: int, start: int, dur: int, base_ns: int = BASE_NS) -> dict[str, int | None]:
    """A row of requests.parquet; us after base_ns. It was not answered, but its batch was computed."""
    began, ended = (base_ns + 1000 * time for time in (start, start + dur))
    times = {name: began for name in TIMES}
    return {
        "id": number,
        "batch": number,
        "batch_size": 1,
        "status": 499,
        **times,
        "computed_ns": ended,
        "done_ns": None,
    }


def two_requests(folder: Path, base_ns: int = BASE_NS) -> Path:
    """us: requests 5-40 and 300-340; kernels 20-30 and 320-330, the host waiting from 25 to 32; a region 0-400."""
    trace = TraceBuilder()
    trace.region("serve", 0, 400)
    for correlation, at in enumerate((10, 310)):
        trace.launch(correlation, at)
        trace.kernel(correlation, at + 10, 10)
    trace.span("cuda_runtime", "cudaStreamSynchronize", 25, 7)
    write_requests(folder / "requests.parquet", [request(0, 5, 35, base_ns), request(1, 300, 40, base_ns)])
    return trace.write(folder / "trace.json.gz")
