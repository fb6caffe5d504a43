"""A run recorded from inside a script: every file of it, or one line and nothing."""

from __future__ import annotations

import dataclasses
import gc
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch

from profiler_kit import load_run, record_run
from profiler_kit.capture.record_run import RunRecorder
from profiler_kit.errors import CaptureError, OptionError
from profiler_kit.findings.numbers import SNAPSHOT_PEAK, numbers
from profiler_kit.formats.run_record import read_record
from profiler_kit.load.discover.listing import run_list
from profiler_kit.load.discover.runs import find_runs
from profiler_kit.text import fmt_bytes

COUNTS = {"warmup": 1, "iterations": 2, "trace_batches": 2, "device": "cpu"}
BATCHES = 1 + 2 + 2 + 1  # one more for the memory


def net() -> torch.nn.Module:
    torch.manual_seed(0)
    return torch.nn.Sequential(torch.nn.Linear(8, 16), torch.nn.ReLU(), torch.nn.Linear(16, 4))


def test_a_training_loop_in_a_block(tmp_path: Path) -> None:
    model = net()
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    loader = [torch.full((3, 8), float(number)) for number in range(4)]
    seen: list[float] = []
    with record_run(tmp_path / "mine", model=model, batch_size=3, unit="rows", facts={"data": "made"}, **COUNTS) as run:
        for batch in run.steps(loader):
            seen.append(float(batch[0, 0]))
            model(batch).square().mean().backward()
            optimizer.step()
            optimizer.zero_grad()
        run.layers(model, lambda size: torch.ones(size, 8), (1, 4))
    assert seen == [0, 1, 2, 3, 0, 1] and gc.isenabled()  # round and round
    names = {"run.json", "trace.json.gz", "memory.pickle", "layers.parquet"}
    assert {path.name for path in (tmp_path / "mine").iterdir()} == names
    record = read_record(tmp_path / "mine")
    assert (record.name, record.model, record.dtype, record.device) == ("mine", "Sequential", "float32", "cpu")
    assert record.batch == "3 rows" and record.workload == {"unit": "rows", "data": "made"}
    assert record.warmup_iterations == 1 and record.timed_iterations == 2 == len(record.latency_ns)
    assert min(record.latency_ns) > 0 and record.phases_ns["steady"] >= sum(record.latency_ns)
    loaded = load_run(tmp_path / "mine")
    assert loaded.trace is not None and loaded.layers is not None
    regions = loaded.trace.regions()
    instances = dict(zip(regions["path"], regions["instances"], strict=True))
    assert instances["ProfilerStep", "timed region"] == 2  # neither the warm-up nor the timed ones
    assert sorted(set(loaded.layers.totals["batch_size"])) == [1, 4]


@pytest.mark.skipif(torch.cuda.is_available(), reason="the memory of a CPU is recorded where there is no CUDA")
def test_the_peak_of_a_cpu_run_is_one_number_on_every_page(tmp_path: Path) -> None:
    model = net()
    record_run(tmp_path / "mine", model=model, **COUNTS).run(lambda: model(torch.ones(512, 8)).sum().backward())
    record = read_record(tmp_path / "mine")
    run = load_run(tmp_path / "mine")
    assert run.snapshot is not None
    (device,) = run.snapshot.summary()["devices"]
    peak = device["peak_allocated_bytes"]
    assert peak >= 512 * (16 + 4) * 4 and not device["peak_bound"]
    assert (record.peak_memory_bytes, record.snapshot_peak_bytes) == (None, peak)
    assert run_list(find_runs(tmp_path))["peak_bytes"].tolist() == [peak]
    (shown,) = [number for number in numbers(run) if number.name == "Peak memory"]
    assert (shown.value, shown.meaning) == (fmt_bytes(peak), SNAPSHOT_PEAK)
    older = dataclasses.replace(record, snapshot_peak_bytes=None)
    older.write(tmp_path / "mine")  # as a run recorded before the field was there
    assert run_list(find_runs(tmp_path))["peak_bytes"].isna().all()
    assert shown in numbers(load_run(tmp_path / "mine"))


def test_a_loop_left_at_once_is_said_in_the_singular(tmp_path: Path) -> None:
    said = "the loop ended after 1 batch, expected 6 "
    with pytest.raises(CaptureError, match=said), record_run(tmp_path / "mine", **COUNTS) as run:
        for _ in run.steps():
            break


def test_a_function_is_called_as_often_as_is_needed(tmp_path: Path) -> None:
    model, calls = net(), []

    def step(batch: torch.Tensor, scale: float) -> torch.Tensor:
        calls.append(scale)
        out: torch.Tensor = model(batch) * scale
        return out

    runner = record_run(tmp_path / "mine", model=model, weights="random:0", optimizations=("bf16",), **COUNTS)
    assert isinstance(runner, RunRecorder)
    assert runner.run(step, torch.ones(2, 8), scale=2.0) == tmp_path / "mine"
    assert calls == [2.0] * BATCHES
    record = read_record(tmp_path / "mine")
    assert (record.weights, record.optimizations, record.batch) == ("random:0", ("bf16",), "1 image")
    record_run(tmp_path / "short", step, torch.ones(2, 8), scale=1.0)
    assert read_record(tmp_path / "short").model == "short" and read_record(tmp_path / "short").dtype == ""


def test_nothing_is_left_of_a_loop_that_ends_early_or_raises(tmp_path: Path) -> None:
    out = tmp_path / "runs" / "mine"
    with pytest.raises(CaptureError) as caught, record_run(out, **COUNTS) as run:
        for number, _ in enumerate(run.steps()):
            if number == 3:
                break
    assert str(caught.value) == (
        f"record_run {out}: the loop ended after 4 batches, expected 6 (1 of warm-up, 2 timed, 2 traced, 1 for "
        "memory). Nothing is written. Let the loop over steps() end by itself, or ask for fewer."
    )
    with pytest.raises(CaptureError) as caught, record_run(out, **COUNTS):
        pass
    assert str(caught.value) == f"record_run {out}: nothing ran, expected a loop over steps(). Nothing is written."
    for last in range(BATCHES):  # in every phase
        with pytest.raises(ZeroDivisionError), record_run(out, **COUNTS) as run:
            for number, _ in enumerate(run.steps()):
                assert number < last or 1 / 0
    assert list(tmp_path.iterdir()) == [] and gc.isenabled()
    with record_run(out, **COUNTS) as run:  # what recorded then is off again
        for _ in run.steps():
            torch.ones(2) + 1
    assert out.is_dir()


def test_data_that_runs_out(tmp_path: Path) -> None:
    def once() -> Iterator[int]:
        yield from range(2)

    with pytest.raises(CaptureError) as caught, record_run(tmp_path / "mine", **COUNTS) as run:
        for _ in run.steps(once()):
            pass
    assert str(caught.value) == (
        "record_run: steps() was given 2 batches, expected more, or data to go through again. Give it a list or a "
        "DataLoader, or ask for fewer iterations."
    )
    assert list(tmp_path.iterdir()) == []


def test_options_that_cannot_be_used(tmp_path: Path) -> None:
    out = tmp_path / "mine"
    for options, text in (
        ({"batch_size": 0}, "record_run: batch_size is 0, expected a whole number from 1."),
        ({"warmup": -1}, "record_run: warmup is -1, expected a whole number from 0."),
        ({"model": 3}, "record_run: model is a int, expected a torch.nn.Module."),
        ({"device": "tpu"}, "device: found 'tpu', expected cpu, cuda or cuda:N. Use --device cpu."),
    ):
        with pytest.raises(OptionError) as caught:
            record_run(out, **options)  # type: ignore[arg-type]
        assert str(caught.value) == text
    with pytest.raises(OptionError) as caught:
        record_run(out, batches=3)
    assert str(caught.value).startswith(
        "record_run: unknown option 'batches', expected one of model, name, batch_size, "
    )
    with pytest.raises(OptionError) as caught:
        record_run(out, 3)
    assert str(caught.value) == (
        "record_run: second argument is a int, expected the function to run. Give options by name."
    )
    out.mkdir()
    with pytest.raises(OptionError) as caught, record_run(out):
        pass
    assert str(caught.value) == f"{out}: this folder exists already. Choose another name, or add overwrite=True."


def test_a_recorder_is_good_for_one_block(tmp_path: Path) -> None:
    runner = record_run(tmp_path / "mine", **COUNTS)
    with pytest.raises(CaptureError) as caught:
        runner.steps()
    assert str(caught.value) == (
        "record_run: steps() called outside of its block, expected it once inside `with record_run(...)`."
    )
    with pytest.raises(CaptureError) as caught, runner as run:
        run.layers(net(), lambda size: torch.ones(size, 8))
    assert str(caught.value) == "record_run: layers() needs the model: `with record_run(..., model=net) as run:`."
    with pytest.raises(CaptureError) as caught, runner:
        pass
    assert str(caught.value) == "record_run: this recorder has been used, expected a new one for each block."
