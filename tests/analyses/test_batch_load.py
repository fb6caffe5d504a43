"""GPU work of a batch against its latency without the profiler."""

from __future__ import annotations

from pathlib import Path

import pytest

from profiler_kit.analyses.gpu.batch_load import batch_load
from profiler_kit.analyses.gpu.regions import REGION_TOTALS
from profiler_kit.formats.run_record import read_record
from profiler_kit.trace import Trace, load_trace
from tests.builders import TraceBuilder

SAMPLES = Path(__file__).parents[2] / "traces"


def two_batches(tmp_path: Path, name: str) -> Trace:
    """Two batches of 300 us with 100 us of GPU work each; a copy of 50 us before each in a step around it."""
    builder = TraceBuilder()
    for number, start in enumerate((0, 400)):
        builder.region(f"ProfilerStep#{number}", start, 390)
        builder.region(name, start + 80, 300)
        builder.launch(3 * number, start + 10)
        builder.kernel(3 * number, start + 20, 50)
        for other in (1, 2):  # two streams at once count once
            builder.launch(3 * number + other, start + 90)
            builder.kernel(3 * number + other, start + 100, 100, stream=other)
    return load_trace(builder.write(tmp_path / "t.json"))


def test_the_batch_is_what_the_latency_times(tmp_path: Path) -> None:
    found = batch_load(two_batches(tmp_path, "timed region").regions(), [190_000, 200_000, 900_000])
    assert found is not None
    assert (found.region, found.batches, found.gpu_ns, found.latency_ns) == ("timed region", 2, 100_000, 200_000)
    assert found.busy_share == 0.5


def test_without_a_timed_region_the_batch_is_a_step(tmp_path: Path) -> None:
    found = batch_load(two_batches(tmp_path, "work").regions(), [200_000])
    assert found is not None and (found.region, found.gpu_ns) == ("ProfilerStep", 150_000)


def test_more_work_than_latency_is_all_of_it(tmp_path: Path) -> None:
    found = batch_load(two_batches(tmp_path, "timed region").regions(), [60_000])
    assert found is not None and found.busy_share == 1.0


def test_nothing_to_say(tmp_path: Path) -> None:
    regions = two_batches(tmp_path, "timed region").regions()
    assert batch_load(regions, []) is None
    assert batch_load(regions, [0]) is None
    assert batch_load(REGION_TOTALS.empty(), [1_000]) is None


@pytest.mark.skipif(not SAMPLES.is_dir(), reason="the samples are not here")
@pytest.mark.parametrize(
    ("run", "recorded", "unrecorded"), [("h200-vit_b-bf16-compile", 0.61, 0.81), ("h200-vit_b-eager-fp32", 0.84, 0.95)]
)
def test_recording_slows_the_host(run: str, recorded: float, unrecorded: float) -> None:
    trace = load_trace(SAMPLES / run / "trace.json.gz")
    time = trace.summary()["gpu_timeline"]
    found = batch_load(trace.regions(), read_record(SAMPLES / run).latency_ns)
    assert time["busy_ns"] / time["total_ns"] == pytest.approx(recorded, abs=0.005)
    assert found is not None and found.busy_share == pytest.approx(unrecorded, abs=0.005)
