"""What a trace holds of the GPU, whole, cut off at each stage of the file, and recorded without it."""

from __future__ import annotations

from pathlib import Path

import pytest

from profiler_kit.analyses.gpu.gpu_presence import Presence, what_ran
from profiler_kit.attribute.frames import GPU_EVENTS, LAUNCH_CALLS
from profiler_kit.trace import load_trace
from tests.app.samples import gpu_trace, host_trace
from tests.builders import TraceBuilder

SAMPLE = Path(__file__).parents[2] / "traces" / "h200-vit_b-eager-fp32" / "trace.json.gz"


def look(path: Path) -> Presence:
    trace = load_trace(path)
    truncated = trace.quality.truncated
    return what_ran(trace.gpu_events(), trace.launch_calls(), truncated=truncated, metadata=trace.metadata)


def test_a_whole_gpu_trace(tmp_path: Path) -> None:
    found = look(gpu_trace().write(tmp_path / "t.json"))
    assert (found.ran, found.gpu_events, found.launches, found.unanswered) == ("gpu", 3, 3, 0)


def test_a_host_trace(tmp_path: Path) -> None:
    assert look(host_trace().write(tmp_path / "t.json")) == Presence(0, 0, 0, False, ())


def test_calls_that_launch_nothing_prove_no_gpu(tmp_path: Path) -> None:
    builder = TraceBuilder()
    builder.launch(1, 0, name="cudaGetDeviceCount")
    builder.launch(2, 5, name="cudaDeviceSynchronize")
    assert look(builder.write(tmp_path / "t.json")).ran == "host"


@pytest.mark.parametrize("name", ["cudaLaunchKernel", "cuLaunchKernelEx", "cudaMemcpyAsync", "hipLaunchKernel"])
def test_launches_without_gpu_events(tmp_path: Path, name: str) -> None:
    builder = TraceBuilder()
    builder.launch(1, 0, name=name)
    assert look(builder.write(tmp_path / "t.json")).ran == "not recorded"


def test_cut_before_the_gpu_events(tmp_path: Path) -> None:
    builder = TraceBuilder()
    for number in (1, 2, 3):
        builder.launch(number, number)
    builder.kernel(1, 10, 5)
    builder.kernel(2, 20, 5)
    whole = builder.kineto()
    (tmp_path / "t.json").write_bytes(whole[: whole.index(b'"cat": "kernel"')])
    assert look(tmp_path / "t.json") == Presence(0, 3, 3, True, ())
    (tmp_path / "u.json").write_bytes(whole[: whole.rindex(b'"cat": "kernel"')])
    assert look(tmp_path / "u.json") == Presence(1, 3, 2, True, ())


@pytest.mark.skipif(not SAMPLE.is_file(), reason="the samples are not here")
def test_a_real_trace_cut_before_its_launch_calls_names_the_gpu(tmp_path: Path) -> None:
    (tmp_path / "t.json.gz").write_bytes(SAMPLE.read_bytes()[:200_000])
    found = look(tmp_path / "t.json.gz")
    assert (found.ran, found.launches, found.devices) == ("cut off", 0, ("NVIDIA H200",))


@pytest.mark.parametrize("listed", [None, {}, "x", [1], [{"name": None}], [{"id": 0}]])
def test_odd_device_lists(listed: object) -> None:
    metadata = {"deviceProperties": listed}
    found = what_ran(GPU_EVENTS.empty(), LAUNCH_CALLS.empty(), truncated=False, metadata=metadata)
    assert found.devices == ()
