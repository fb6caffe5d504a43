"""Each batch of requests in the trace: its region, its parts, what they ran on the GPU; in tables and in SQL."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pandas as pd

from profiler_kit.analyses.serving.batches import BATCHES, batches_of, request_parts
from profiler_kit.analyses.serving.requests import request_waterfall
from profiler_kit.attribute.frames import GPU_EVENTS, REGION_INSTANCES
from profiler_kit.run import load_run
from tests.cli.run import profiler_kit
from tests.serving.samples import served, served_run


def test_a_batch_in_the_trace(tmp_path: Path) -> None:
    run = load_run(served_run(tmp_path))
    assert run.served is not None and run.trace is not None
    (first,) = run.served.batches.to_dict("records")  # the request that hung up was in none
    batch = run.trace.region_instances()["name"].tolist().index("batch")
    # from 30 to 80 on the server's clock; on the GPU 40 to 65, 66 to 70 and 75 to 77
    assert first == {
        **{"batch": 0, "batch_size": 2, "queued": 0, "start_ns": 30, "model_ns": 50, "instance": batch},
        **{"gpu_events": 4, "gpu_busy_ns": 31, "gpu_idle_ns": 19},
    }
    assert run.served.parts.to_numpy().tolist() == [
        [0, "image encoder", 20, 25, 2],
        [0, "nms", 10, 4, 1],
        [0, "(rest)", 18, 2, 1],
    ]
    assert run.requests is not None
    each = request_parts(run.served).groupby("id")["dur_ns"].sum()
    assert each.tolist() == run.requests["latency_ns"].tolist()  # the stages and parts add up, to the nanosecond
    # a third, whose masks were known at 60: 29 ns after the batch began by the trace's clock, at its start 31
    early = run.requests.iloc[1:2].assign(id=7, gpu_ns=30, latency_ns=run.requests["latency_ns"][1] - 20)
    requests = pd.concat([run.requests, early], ignore_index=True)
    found = batches_of(requests, run.trace.region_instances(), run.trace.gpu_events())
    shares = found.shares[found.shares["id"] == 7]
    assert shares[["part", "host_ns", "gpu_busy_ns"]].to_numpy().tolist() == [
        ["image encoder", 20, 21],
        ["nms", 1, 0],
        ["(rest)", 9, 0],
    ]
    assert request_parts(found).groupby("id")["dur_ns"].sum()[7] == early["latency_ns"].iloc[0]
    assert request_parts(found).query("id < 7").equals(request_parts(run.served))
    found = profiler_kit(
        "query",
        tmp_path,
        "SELECT part, gpu_busy_ns FROM batch_parts JOIN requests USING (batch) WHERE id = 1",
        "--json",
    )
    assert [row["gpu_busy_ns"] for row in json.loads(found.out)] == [25, 4, 2], found.err
    assert "batch_parts" in profiler_kit("query", tmp_path, "--tables").out
    printed = profiler_kit("requests", tmp_path, "--by", "part", "--json")
    assert json.loads(printed.out)[1] == {
        **{"batch": 0, "part": "nms", "host_ns": 10, "gpu_busy_ns": 4, "gpu_events": 1}
    }


def test_requests_without_a_trace() -> None:
    requests = request_waterfall(served(), 0, *np.zeros((2, 0), np.int64))
    found = batches_of(requests, REGION_INSTANCES.empty(), GPU_EVENTS.empty())
    assert found.batches["batch"].tolist() == [0] and found.parts.empty
    assert found.batches["instance"].isna().all() and found.batches["gpu_idle_ns"].isna().all()
    nobody = batches_of(requests.iloc[2:], REGION_INSTANCES.empty(), GPU_EVENTS.empty())
    pd.testing.assert_frame_equal(nobody.batches, BATCHES.empty())
