"""Kernels by name, kind and stream, and where they were launched."""

from __future__ import annotations

from pathlib import Path
from typing import get_args

import pytest

from profiler_kit.analyses.gpu.kernels import By, in_group, kernel_groups
from profiler_kit.attribute.frames import GPU_EVENTS
from profiler_kit.trace import Trace, load_trace
from tests.builders import TraceBuilder


@pytest.fixture
def trace(tmp_path: Path) -> Trace:
    builder = TraceBuilder()
    builder.region("step", 0, 100)
    builder.span("python_function", "run.py(10): main", 0, 100)
    builder.span("python_function", "torch/nn/modules/linear.py(5): forward", 1, 60)
    builder.span("python_function", "nn.Module: Linear_3", 1, 60)
    builder.operator("aten::linear", 5, 30)
    for number, (at, dur, name, stream) in enumerate(
        [(10, 100, "sgemm", 7), (20, 300, "sgemm", 7), (70, 50, "elementwise_kernel", 8)], 1
    ):
        builder.launch(number, at)
        builder.kernel(number, 1000 * number, dur, name=name, stream=stream)
    builder.kernel(None, 10, 10, name="sgemm", stream=7)
    return load_trace(builder.write(tmp_path / "trace.json"))


def test_groups_by_name_kind_and_stream(trace: Trace) -> None:
    by_name = trace.kernel_groups("name")
    assert by_name["key"].tolist() == ["sgemm", "elementwise_kernel"]
    first = by_name.iloc[0]
    assert (first["count"], first["sum_ns"], first["median_ns"], first["min_ns"], first["max_ns"]) == (
        3, 410_000, 100_000.0, 10_000, 300_000,
    )  # fmt: skip
    assert trace.kernel_groups("kind")["key"].tolist() == ["matrix products", "elementwise"]
    assert trace.kernel_groups("stream")["key"].tolist() == ["GPU 0, stream 7", "GPU 0, stream 8"]


@pytest.mark.parametrize("by", get_args(By))
def test_groups_divide_the_events(trace: Trace, by: By) -> None:
    groups, events = trace.kernel_groups(by), trace.gpu_events()
    assert groups["sum_ns"].sum() == events["dur_ns"].sum() and groups["share"].sum() == pytest.approx(1)
    for key, count in zip(groups["key"], groups["count"], strict=True):
        assert in_group(events, by, key).sum() == count
    assert not in_group(events, by, "no such group").any()
    assert kernel_groups(GPU_EVENTS.empty(), by).empty


def test_a_launch_is_told_by_the_code_outside_torch(trace: Trace) -> None:
    origins = trace.kernel_origins("name", "sgemm")
    assert origins.to_dict("records") == [
        {
            "path": ("step",), "operator": "aten::linear", "module": "Linear", "site": "run.py(10): main",
            "call": "cudaLaunchKernel", "count": 2, "sum_ns": 400_000,
        },
        {
            "path": ("(unlinked)",), "operator": "", "module": "", "site": "", "call": "", "count": 1, "sum_ns": 10_000,
        },
    ]  # fmt: skip
