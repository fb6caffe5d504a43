"""`profiler-kit demo` on vit_tiny: records, prints, and can stop before it serves."""

from __future__ import annotations

import dataclasses
import re
from pathlib import Path

import pytest
import torch

from profiler_kit import load_snapshot
from profiler_kit.cli import demo
from profiler_kit.formats.run_record import read_record
from tests.cli.run import profiler_kit


@pytest.mark.skipif(torch.cuda.is_available(), reason="shows what a machine without CUDA shows")
def test_the_peak_of_a_run_on_a_cpu_is_that_of_the_snapshot(tmp_path: Path) -> None:
    done = profiler_kit("demo", "--dir", tmp_path / "runs", "--model", "vit_tiny", "--no-serve")
    assert done.code == 0, done.err
    run = tmp_path / "runs" / "demo-cpu"
    (device,) = load_snapshot(run / "memory.pickle").summary()["devices"]
    shown = re.search(r"peak memory +([\d.]+) MiB \(CPU tensors, from the snapshot\)", done.out)
    assert shown is not None, done.out
    assert float(shown[1]) == round(device["peak_allocated_bytes"] / (1 << 20), 1)
    assert re.search(r"latency .* per image \(one batch of 1 image\)", done.out)
    assert read_record(run).peak_memory_bytes is None


def test_the_peak_that_torch_counted_comes_first() -> None:
    (sample,) = (Path(__file__).parents[2] / "traces").glob("*vit_b*eager*")
    record = dataclasses.replace(read_record(sample), peak_memory_bytes=None)
    assert demo._peak(record) == "–"
    assert demo._peak(dataclasses.replace(record, snapshot_peak_bytes=0)) == "0 B (CPU tensors, from the snapshot)"
    assert demo._peak(dataclasses.replace(record, peak_memory_bytes=3 << 30, snapshot_peak_bytes=1)) == "3.00 GiB"


def test_samples_in_words() -> None:
    assert demo._samples(1, 1) == "one batch of 1 image"
    assert demo._samples(10, 2) == "median of 10 batches of 2 images"


def test_a_servers_run_has_no_latency_of_batches(capsys: pytest.CaptureFixture[str]) -> None:
    (sample,) = (Path(__file__).parents[2] / "traces").glob("*-serve")
    demo._print_run(sample, regions=False)
    out = capsys.readouterr().out
    assert "peak memory" in out and "latency" not in out
