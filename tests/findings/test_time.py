"""Where the time went, in words: the sentences of GPU and host runs, idle time, and what the layers explain."""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path

import pandas as pd
import pytest

from profiler_kit.analyses.gpu.gpu_presence import Presence
from profiler_kit.analyses.gpu.regions import deepest, innermost
from profiler_kit.analyses.layers.totals import LAYER_TOTALS
from profiler_kit.finding import of_kind
from profiler_kit.findings.layers import coverage as coverage_of
from profiler_kit.findings.time import bound_by, gpus, headline, idle_causes, idle_regions, missing_gpu, why_idle
from profiler_kit.run import Layers, Run, load_run
from profiler_kit.trace import load_trace
from tests.app.samples import gpu_trace, host_trace, record
from tests.builders import TraceBuilder
from tests.readers import READERS, reader
from tests.serving.samples import two_requests


def run_of(builder: TraceBuilder, folder: Path, *latency_ns: int) -> Run:
    run = Run.holding(folder, load_trace(builder.write(folder / "trace.json")))
    return dataclasses.replace(run, record=dataclasses.replace(record("a"), latency_ns=latency_ns))


def said(run: Run) -> str:
    found = headline(run)
    assert found is not None
    return found.sentence


@pytest.mark.parametrize("regions", [True, False])
def test_kernels_that_took_no_time_have_no_share_of_it(regions: bool, tmp_path: Path) -> None:
    trace = TraceBuilder()
    for number, name in enumerate(("ampere_sgemm_128", "other")):
        if regions:
            trace.region("forward", 10 * number, 8)
        trace.launch(number + 1, 10 * number + 1)
        trace.kernel(number + 1, 10 * number + 3, 0, name=name)
    run = Run.holding(tmp_path, load_trace(trace.write(tmp_path / "trace.json")))
    assert said(run).startswith("The GPU was busy 0 % of the recorded 10.00 µs. It was idle")
    assert bound_by(run) is None
    assert run.trace is not None and run.trace.findings()


def test_the_headline_goes_down_to_the_region_that_matters(tmp_path: Path) -> None:
    found = headline(run_of(gpu_trace(), tmp_path))
    assert found is not None and found.where == ("timed region", "image encoder")
    assert found.sentence == (
        "The GPU was busy 83 % of the recorded 1.200 ms; 90 % of its work came from image encoder."
    )
    assert [text for text, bold in found.pieces if bold] == ["83 %", "90 %", "image encoder"]
    assert said(run_of(gpu_trace(), tmp_path, 1_050_000)) == (
        "The GPU works 1.000 ms of each 1.050 ms batch: 95 % busy without the profiler, 83 % while recorded because "
        "recording slows the host; 90 % of its work came from image encoder."
    )
    assert said(run_of(host_trace(), tmp_path)) == (
        "No GPU in this run. image encoder took 80 % of the time in regions; the longest operator is aten::addmm, "
        "75 % of operator time."
    )


def test_a_starved_gpu_is_said_so(tmp_path: Path) -> None:
    builder = TraceBuilder()
    for number in (1, 2):
        builder.launch(number, number)
        builder.kernel(number, 100 * number, 10)
    assert said(run_of(builder, tmp_path)) == (
        "The GPU was busy 18 % of the recorded 110.00 µs; 100 % of its work is matrix products. It was idle for "
        "90.00 µs, some of it because of the recording: look at launches and copies first."
    )


def test_idle_time_has_one_definition_in_every_sentence(tmp_path: Path) -> None:
    """Of causes it adds up to all of it; of a region it is that of the table `utilization`."""
    run = run_of(gpu_trace(), tmp_path)
    assert run.trace is not None
    causes = idle_causes(run)
    assert sum(causes.values()) == run.trace.summary()["gpu_timeline"]["idle_ns"] == 200_000
    table = run.trace.utilization()
    idle = dict(zip(table["path"], table["idle_ns"], strict=True))
    assert [(path, ns) for path, ns, _ in idle_regions(run)] == sorted(
        ((path, idle[path]) for path in idle if len(path) == 2 and idle[path]), key=lambda row: -row[1]
    )
    why, bound = why_idle(run), bound_by(run)
    assert why is not None and bound is not None
    assert why.sentence == (
        "The GPU was idle for 200.00 µs while recorded: other 100 %. Longest in mask decoder (200.00 µs)."
    )
    assert bound.sentence == (
        "image encoder accounts for 90 % of the GPU's work and is GPU-bound (a GPU works on it 91 % of the time, "
        "and is idle 9 %); "
        "the GPU is idle longest in mask decoder (200.00 µs), which is GPU-bound (a GPU works on it 10 % of the "
        "time, on other work 70 %, and is idle 20 %)."
    )


def test_a_gap_that_is_of_no_region_is_not_taken_for_one_of_a_region(tmp_path: Path) -> None:
    builder = TraceBuilder()
    for number, start in enumerate((0, 5_000), 1):
        builder.region("batch", start, 100)
        builder.launch(number, start + 20)
        builder.kernel(number, start + 50, 50)
    found = why_idle(run_of(builder, tmp_path))
    assert found is not None and found.sentence == (
        "The GPU was idle for 4.950 ms while recorded: host-bound 100 %. The longest gap took 4.950 ms; of the "
        "innermost regions, batch was idle longest (100.00 µs)."
    )


def test_a_region_is_open_before_the_first_work_of_a_gpu_which_is_no_idle_time(tmp_path: Path) -> None:
    builder = TraceBuilder()
    builder.region("batch", 0, 1000)
    for number, start in enumerate((900, 960), 1):
        builder.launch(number, start - 10)
        builder.kernel(number, start, 40)
    found = why_idle(run_of(builder, tmp_path))
    assert found is not None and found.sentence == (
        "The GPU was idle for 20.00 µs while recorded: host-bound 100 %. While nothing ran, including before the "
        "first GPU event and after the last, batch was open longest (920.00 µs)."
    )
    builder.region("load", 0, 890)
    bound = bound_by(run_of(builder, tmp_path))
    assert bound is not None and bound.sentence == (
        "batch accounts for 100 % of the GPU's work and is host-bound (a GPU works on it 8 % of the time, and is "
        "idle 92 %); "
        "nothing ran longest while load was open (890.00 µs), which launched no GPU work (a GPU works on it 0 % of "
        "the time, and is idle 100 %)."
    )


def test_time_without_a_request_is_told_apart_in_every_sentence(tmp_path: Path) -> None:
    two_requests(tmp_path)
    run = load_run(tmp_path)
    assert said(run) == (
        "The GPU was busy 6 % of the recorded 310.00 µs, 40 % of the 50.00 µs in which the server had a request; 100 % "
        "of its work came from serve. It was idle for 30.00 µs of that, some of it because of the recording: look at "
        "launches and copies first."
    )
    assert run.trace is not None
    causes = idle_causes(run)
    assert causes == {
        **{"host-bound": 20_000, "synchronization-bound": 10_000, "kernel wait": 0, "other": 0, "no request": 260_000}
    }
    assert sum(causes.values()) == run.trace.summary()["gpu_timeline"]["idle_ns"]
    why, bound = why_idle(run), bound_by(run)
    assert why is not None and why.sentence == (
        "The GPU was idle for 290.00 µs while recorded: host-bound 7 %, synchronization-bound 3 %, no request 90 %. "
        "While nothing ran, including before the first GPU event and after the last, serve was open longest (55.00 µs)."
    )
    assert bound is not None and bound.sentence == (
        "serve accounts for 100 % of the GPU's work and is host-bound (a GPU works on it 5 % of the time, and is "
        "idle 14 %; the server has no request 81 %)."
    )
    advice = {one.id: one for one in of_kind(run.findings, "advice")}
    # one gap, of which the requests make three parts
    assert advice["host-bound"].sentence.startswith("1 of 1 gaps between GPU events end with a launch that came late, ")
    gains = {name: one.gain for name, one in advice.items() if one.gain is not None}
    assert {name: (gain.amount, gain.share) for name, gain in gains.items()} == {
        "host-bound": (20_000, 0.4),
        "synchronization-bound": (10_000, 0.2),
        "one-kernel": (20_000, 0.4),
    }
    assert gains["host-bound"].each == "the 50.00 µs with requests"


def test_without_gpu_events_it_is_said_why() -> None:
    found = [
        missing_gpu(presence).sentence
        for presence in (
            Presence(0, 1_414, 1_414, True, ()),
            Presence(0, 0, 0, True, ("NVIDIA H200",)),
            Presence(0, 0, 0, True, ()),
            Presence(0, 1, 1, False, ()),
            Presence(0, 0, 0, False, ("NVIDIA H200",)),
        )
    ]
    assert found == [
        "The trace is cut off before its GPU events (1,414 calls launch GPU work): only the host side is shown.",
        "The trace is cut off before its GPU events (it was recorded on a machine with NVIDIA H200): only the host "
        "side is shown.",
        "The trace is cut off before any GPU event; the profiler writes them last.",
        "GPU work was launched (1 call launches it), but the GPU was not recorded: only the host side is shown.",
        "No GPU in this run.",
    ]


def test_the_deepest_region_that_holds_most() -> None:
    paths = [("step",), ("step", "a"), ("step", "b"), ("step", "a", "x"), ("(no region)",), ("step", "overlaps")]
    assert deepest(paths, [100, 60, 40, 20, 300, 120]) == (("step", "a"), 60)  # more than the step: counted twice
    assert deepest([], []) == ((), 0)
    assert innermost(paths, [100, 60, 40, 20, 300, 120]) == [(("step", "b"), 40), (("step", "a", "x"), 20)]


@pytest.mark.parametrize(
    ("share", "overhead", "spread", "words"),
    [
        (0.982, 0.02, 0.01, "The layers explain at least 98.2 % of the forward run without hooks (batch 1); the spread "
         "of its samples (1.0 %) is smaller, so the rest ran outside every layer. The hooks cost 2.0 % at most."),
        (1.003, -0.009, 0.05, "The layers explain all of the forward run without hooks, within the spread of its "
         "samples (5.0 %). The hooks cost no more than that spread."),
        (0.695, 0.0, 0.4, "How much of the forward the layers explain is unknown: without hooks its time varies too "
         "much (spread 40 %)."),
    ],
)  # fmt: skip
def test_noise_is_called_noise(share: float, overhead: float, spread: float, words: str) -> None:
    row = {"batch_size": 1, "forward_ns": 1e6, "hooked_ns": 1e6, "layers_ns": 1e6, "share": share, "leaves_ns": 1e6}
    coverage = pd.DataFrame([{**row, "leaves_share": share, "overhead": overhead}])
    found = coverage_of(Layers(LAYER_TOTALS.empty(), coverage, spread, ()))
    assert found is not None and found.sentence == words
    assert found.attempt == ("More --iterations or --warmup." if spread > 0.25 else "")


def test_work_of_no_device_is_no_other_gpu(tmp_path: Path) -> None:
    """A device of -1 is none: beside one with a number it is not counted as a GPU."""
    trace = TraceBuilder()
    for number, device in ((1, 0), (2, -1)):
        trace.launch(number, 10 * number)
        trace.kernel(number, 10 * number + 2, 4, device=device)
    run = run_of(trace, tmp_path)
    assert run.trace is not None
    assert [one["device"] for one in gpus(run.trace)] == [0]
    assert [one["device"] for one in run.trace.summary()["devices"]] == [None, 0]
    assert said(run).startswith("The GPU was busy 57 % of the recorded 14.00 µs")


@pytest.mark.parametrize("readers", READERS)
def test_gpu_events_that_cannot_be_read_were_recorded(readers: str, tmp_path: Path) -> None:
    """A second list of events in one file."""
    host, gpu = TraceBuilder(), TraceBuilder()
    host.launch(1, 10)
    gpu.kernel(1, 12, 4)
    path = tmp_path / "trace.json"
    path.write_text(f'{{"traceEvents": {json.dumps(host.events)}, "x": 1, "traceEvents": {json.dumps(gpu.events)}}}')
    with reader(readers):
        found = missing_gpu(load_trace(path).presence)
    assert (found.id, found.sentence) == (
        "gpu-events-lost",
        "GPU work was launched (1 call launches it), but none of its events was read: "
        "1 event of the file could not be.",
    )
