"""Folders of runs for the tests of the dashboard: a GPU run, a host run, bare files, broken files; and a server."""

from __future__ import annotations

import contextlib
import http.client
import os
import pickle
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from urllib.parse import urlparse

import pandas as pd

from profiler_kit.formats.layer_file import FORWARD_CALLS, LAYER_CALLS, LayerFile, write_layers
from profiler_kit.formats.request_file import write_requests
from profiler_kit.formats.run_record import RunRecord
from tests.builders import TraceBuilder
from tests.serving.samples import rows_of, served

CHECKOUT = Path(__file__).parents[2]
PATIENCE_S = 900  # only what hangs gets there: other work may hold the machine


def record(name: str, *, device: str = "cuda") -> RunRecord:
    return RunRecord(
        name=name,
        created="2026-01-01T00:00:00Z",
        model="vit_b",
        weights="random:0",
        optimizations=("bf16",),
        batch_size=2,
        image_size=1024,
        dtype="bfloat16",
        device=device,
        device_name="NVIDIA H200" if device == "cuda" else "cpu",
        versions={"torch": "2.12.1"},
        warmup_iterations=1,
        timed_iterations=3,
        phases_ns={"load": 5_000_000, "steady": 60_000_000},
        latency_ns=(20_000_000, 21_000_000, 19_000_000),
        peak_memory_bytes=3 << 30 if device == "cuda" else None,
        command="profiler-kit capture",
        git_commit=None,
    )


def gpu_trace() -> TraceBuilder:
    """Two regions in one; kernels of 600, 300 and 100 us: 1,000 us busy of 1,200."""
    trace = TraceBuilder()
    trace.region("timed region", 0, 500)
    trace.region("image encoder", 10, 200)
    trace.region("mask decoder", 300, 100)
    trace.operator("aten::linear", 20, 50)
    for number, (at, start, dur, name) in enumerate(
        [(30, 100, 600, "gemm"), (40, 700, 300, "softmax"), (310, 1200, 100, "upsample")], 1
    ):
        trace.launch(number, at)
        trace.kernel(number, start, dur, name=name)
    return trace


def host_trace() -> TraceBuilder:
    trace = TraceBuilder()
    trace.region("image encoder", 0, 800)
    trace.region("mask decoder", 800, 200)
    trace.operator("aten::linear", 10, 700)
    trace.operator("aten::addmm", 20, 600)
    trace.operator("aten::sigmoid", 820, 100)
    return trace


def snapshot() -> bytes:
    """One segment, one allocation of 2 MiB inside a region, freed again."""
    mib = 1 << 20

    def event(action: str, addr: int, size: int, time_us: int) -> dict[str, object]:
        frames = [{"filename": "train.py", "line": 7, "name": "step"}]
        return {"action": action, "addr": addr, "size": size, "stream": 0, "time_us": time_us, "frames": frames}

    history = [
        event("segment_alloc", 4096, 20 * mib, 1000),
        event("alloc", 4096, 2 * mib, 1010),
        event("free_requested", 4096, 2 * mib, 1020),
        event("free_completed", 4096, 2 * mib, 1020),
    ]
    segment = {
        "device": 0, "address": 4096, "total_size": 20 * mib, "allocated_size": 0, "active_size": 0,
        "requested_size": 0, "stream": 0, "segment_type": "large", "segment_pool_id": (0, 0),
        "is_expandable": False, "frames": [],
        "blocks": [{"address": 4096, "size": 20 * mib, "requested_size": 0, "state": "inactive", "frames": []}],
    }  # fmt: skip
    marks = [
        {"stage": stage, "name": "image encoder", "device": 0, "time_us": time_us}
        for stage, time_us in (("START", 1005), ("END", 1030))
    ]
    whole = {"segments": [segment], "device_traces": [history], "allocator_settings": {}, "external_annotations": marks}
    return pickle.dumps(whole)


def layers() -> LayerFile:
    """A model with a windowed and a global block at batch 1 and 2, two iterations."""
    rows = []
    for batch in (1, 2):
        for iteration in (0, 1):
            for layer, kind, variant, parent, millis in (
                ("(model)", "Sam", "", "", 30),
                ("blocks.0", "Block", "window 14", "(model)", 10),
                ("blocks.1", "Block", "global", "(model)", 20),
            ):
                nanos = millis * 1_000_000 * batch * 9 // 10 if batch > 1 else millis * 1_000_000
                rows.append((layer, kind, variant, parent, batch, iteration, 0, nanos, nanos, nanos, nanos))
    calls = pd.DataFrame(rows, columns=list(LAYER_CALLS.columns)).astype(
        {name: dtype for name, dtype in LAYER_CALLS.dtypes().items() if dtype != "object"}
    )
    forwards = pd.DataFrame(
        [(batch, iteration, 30_000_000 * batch) for batch in (1, 2) for iteration in (0, 1)],
        columns=list(FORWARD_CALLS.columns),
    )
    return LayerFile(calls, forwards)


def make_runs(root: Path) -> Path:
    """gpu (everything), host (trace only), bare.json.gz, and three broken files."""
    gpu, host = root / "gpu", root / "host"
    gpu.mkdir(parents=True)
    host.mkdir()
    record("gpu").write(gpu)
    gpu_trace().write(gpu / "trace.json.gz")
    (gpu / "memory.pickle").write_bytes(snapshot())
    write_layers(gpu / "layers.parquet", layers())
    write_requests(gpu / "requests.parquet", rows_of(served()))
    record("host", device="cpu").write(host)
    host_trace().write(host / "trace.json.gz")
    gpu_trace().write(root / "bare.json.gz")
    broken = root / "broken"
    broken.mkdir()
    (broken / "run.json").write_text("{")
    (broken / "trace.json.gz").write_bytes(b"not gzip")
    (broken / "memory.pickle").write_bytes(b"not a pickle")
    (broken / "layers.parquet").write_bytes(b"not parquet")
    (broken / "requests.parquet").write_bytes(b"not parquet")
    return root


def make_job(root: Path) -> Path:
    """Two ranks of one job in a folder: rank 1 computes 100 us longer, so that rank 0 waits 100 us for it."""
    folder = root / "job"
    folder.mkdir(parents=True)
    for rank, computes in ((0, 200), (1, 300)):
        trace = TraceBuilder()
        trace.region("step", 0, 100)
        trace.launch(1, 10)
        trace.kernel(1, 100, computes, name="gemm")
        trace.launch(2, 20)
        collective = "ncclDevKernel_AllReduce_Sum_f32_RING_LL(x)"
        trace.kernel(2, 100 + computes, 350 - computes, name=collective, stream=9)
        trace.write(folder / f"rank{rank}.json.gz")
    return folder


class Address(str):
    """Where a server answers; pid: its process. link: the address that it printed, with the token."""

    pid = 0
    link = ""

    @property
    def token(self) -> str:
        """What its link ends in."""
        return self.link.rpartition("token=")[2]


@contextlib.contextmanager
def serving(root: Path, *options: str, first: str = "") -> Iterator[Address]:
    """Run `profiler-kit serve` on a free port; gives the address, which listens. first: code that it begins with."""
    code = f"{first}\nfrom profiler_kit.cli import main\nmain()"
    command = [sys.executable, "-c", code, "serve", str(root), "--no-browser", *options]
    environment = {**os.environ, "PYTHONWARNINGS": "default"}
    with subprocess.Popen(command, cwd=CHECKOUT, env=environment, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        try:
            printed = [process.stdout.readline().split()[-1:] for _ in range(2)]
            assert printed[1], "the server ended"
            url = Address(printed[1][0].partition("/?")[0])
            url.pid, url.link = process.pid, printed[1][0]
            connection = http.client.HTTPConnection(urlparse(url).netloc, timeout=PATIENCE_S)
            connection.request("GET", "/_stcore/health")
            assert connection.getresponse().read() == b"ok"
            connection.close()
            yield url
        finally:
            process.terminate()
