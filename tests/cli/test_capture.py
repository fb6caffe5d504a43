"""`profiler-kit capture` on vit_tiny: a whole run folder, or one line and nothing."""

from __future__ import annotations

import json
import sys
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pytest
import torch
import typer
from PIL import Image
from typer.testing import CliRunner

from profiler_kit import load_snapshot, load_trace
from profiler_kit.cli import capture
from profiler_kit.errors import CheckpointError, InputError, KitError, OptionError, WorkloadError
from profiler_kit.formats.layer_file import read_layers
from profiler_kit.formats.run_record import read_record
from profiler_kit.models.sam.workload import SamWorkload

QUICK = ["--model", "vit_tiny", "--device", "cpu", "--warmup", "1", "--iterations", "2", "--trace-batches", "1"]


def run(arguments: Sequence[str]) -> str:
    """Run the command; gives stdout, raises what it raised."""
    app = typer.Typer()
    app.command()(capture.command)
    result = CliRunner().invoke(app, list(arguments))
    if result.exception is not None:
        raise result.exception
    assert result.exit_code == 0
    return result.stdout


def refused(kind: type[KitError], *arguments: str) -> str:
    with pytest.raises(kind) as caught:
        run([*QUICK, *arguments])
    text = str(caught.value)
    assert "\n" not in text
    return text


def test_a_run_folder_with_everything_in_it(tmp_path: Path) -> None:
    out = tmp_path / "run"
    printed = run([*QUICK, "--batch-size", "2", "--layers", "1,2", "--trace-batches", "2", "--out", str(out)])
    names = {"run.json", "trace.json.gz", "memory.pickle", "layers.parquet", "masks.json"}
    assert {path.name for path in out.iterdir()} == names
    assert [path.name for path in tmp_path.iterdir()] == ["run"]

    record = read_record(out)
    assert (record.name, record.model, record.weights, record.optimizations) == ("run", "vit_tiny", "random:0", ())
    assert (record.batch_size, record.image_size, record.dtype, record.device) == (2, 256, "float32", "cpu")
    assert record.workload == {
        "spec": SamWorkload.spec, "unit": "images", "images": "generated:0", "prompts": "centers",
    }  # fmt: skip
    assert record.warmup_iterations == 1 and record.timed_iterations == 2 == len(record.latency_ns)
    assert list(record.phases_ns) == ["load", "compile_cold", "warmup", "steady"]
    assert record.phases_ns["compile_cold"] == 0 and record.phases_ns["steady"] >= sum(record.latency_ns)
    assert record.peak_memory_bytes is None
    assert printed.startswith("vit_tiny eager float32, batch size 2, ")
    assert printed.endswith(f"written to {out}\n")

    regions = load_trace(out / "trace.json.gz").regions()
    instances = dict(zip(regions["path"], regions["instances"], strict=True))
    assert instances["ProfilerStep",] == 2  # the warm-up and the timed iterations are not in the trace
    assert instances["ProfilerStep", "data transfer"] == 2
    assert instances["ProfilerStep", "timed region", "image encoder"] == 2
    assert instances["ProfilerStep", "timed region", "mask decoder"] == 4
    names_in_snapshot = {name for name in load_snapshot(out / "memory.pickle").annotations["name"]}
    assert {"data transfer", "timed region", "image encoder", "postprocess"} <= names_in_snapshot
    layers = read_layers(out)
    assert sorted(set(layers.calls["batch_size"])) == [1, 2] and len(layers.forwards) == 4
    noise = "masks: those of the first image only; the weights are random, so the masks are noise"
    assert record.notes == (noise,)
    assert len(json.loads((out / "masks.json").read_text())["images"]) == 1


def test_photographs_get_a_grid_and_the_run_says_so(tmp_path: Path) -> None:
    folder = tmp_path / "photographs"
    folder.mkdir()
    Image.fromarray(np.random.default_rng(0).integers(0, 255, (60, 90, 3), dtype=np.uint8)).save(folder / "a.png")
    out = tmp_path / "run"
    run([*QUICK, "--images", str(folder), "--optimizations", "bf16", "--out", str(out)])
    record = read_record(out)
    assert (
        record.workload["images"] == folder.as_posix()
        and record.dtype == "bfloat16"
        and record.optimizations == ("bf16",)
    )
    assert record.notes[0] == "prompts: no object masks are known for the images, a grid of 4 x 4 points instead"
    assert not (out / "layers.parquet").exists()
    assert len(json.loads((out / "masks.json").read_text())["annotations"]) == 16


def test_without_pycocotools_there_are_no_masks(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "pycocotools", None)
    monkeypatch.setitem(sys.modules, "pycocotools.mask", None)
    out = tmp_path / "run"
    run([*QUICK, "--out", str(out)])
    assert not (out / "masks.json").exists()
    assert read_record(out).notes == ("masks: not written, pycocotools is not installed",)


def test_a_name_of_its_own_when_none_is_given(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    run(QUICK)
    (made,) = (tmp_path / "traces").iterdir()
    assert made.name.startswith("vit_tiny-eager-cpu-2")


@pytest.mark.parametrize(
    ("arguments", "text"),
    [
        (["--batch-size", "0"], "--batch-size 0: expected 1 to 1024."),
        (["--warmup", "-1"], "--warmup -1: expected 0 or more."),
        (["--iterations", "0"], "--iterations 0: expected 1 or more."),
        (["--trace-batches", "0"], "--trace-batches 0: expected 1 or more."),
        (["--scenes", "0"], "--scenes 0: expected 1 or more."),
        (
            ["--scenes", "2", "--images", "x"],
            "--scenes and --images: found both; choose one of them, --scenes generates images.",
        ),
        (
            ["--model", "vit_x"],
            "--model vit_x: no such model, expected one of vit_tiny, vit_small, vit_b, vit_l, vit_h, or a SAM 2.1 such "
            "as sam2_large.",
        ),
        (["--prompts", "x"], "--prompts x: not known, expected centers, boxes or grid:N with N from 1 to 64."),
        (
            ["--layers", "1,x"],
            "--layers '1,x': found 'x', expected whole numbers from 1 to 1024 separated by commas. Try 1,2,4,8.",
        ),
        (["--device", "tpu"], "device: found 'tpu', expected cpu, cuda or cuda:N. Use --device cpu."),
    ],
)
def test_options_that_cannot_be_used(tmp_path: Path, arguments: list[str], text: str) -> None:
    assert refused(OptionError, *arguments, "--out", str(tmp_path / "run")) == text
    assert list(tmp_path.iterdir()) == []


def test_files_that_cannot_be_used_leave_nothing_behind(tmp_path: Path) -> None:
    out, wrong = tmp_path / "run", tmp_path / "wrong.pth"
    torch.save({"image_encoder.pos_embed": torch.zeros(1, 2, 2, 1280)}, wrong)
    assert refused(CheckpointError, "--checkpoint", str(wrong), "--out", str(out)) == (
        f"{wrong}: holds vit_h: embedding width 1280, expected vit_tiny. Try --model vit_h."
    )
    nowhere = tmp_path / "nowhere"
    assert refused(InputError, "--images", str(nowhere), "--out", str(out)) == (
        f"{nowhere}: no such folder, expected a folder of JPEG or PNG files. Leave --images out to generate some."
    )
    assert [path.name for path in tmp_path.iterdir()] == ["wrong.pth"]


def test_a_capture_that_fails_leaves_no_folder_of_runs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)  # an empty ./traces would hide the samples from `serve`
    refused(InputError, "--images", "/nope")
    assert list(tmp_path.iterdir()) == []
    refused(CheckpointError, "--checkpoint", "/nope.pth")
    assert list(tmp_path.iterdir()) == []


def test_an_existing_folder_is_not_touched(tmp_path: Path) -> None:
    (tmp_path / "keep").write_text("me")
    assert refused(OptionError, "--out", str(tmp_path)) == (
        f"{tmp_path}: this folder exists already. Choose another name, or add --overwrite."
    )
    assert [path.name for path in tmp_path.iterdir()] == ["keep"]


def test_out_of_memory_says_what_to_try(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(*_: object) -> None:
        torch.empty(1 << 60, dtype=torch.uint8)  # more than any machine has: torch's own error

    monkeypatch.setattr(SamWorkload, "step", full)
    assert refused(WorkloadError, "--batch-size", "2", "--out", str(tmp_path / "run")) == (
        "--batch-size 2: vit_tiny ran out of memory on cpu, expected a run that fits. Try a smaller --batch-size, "
        "a smaller --model or --optimizations bf16."
    )
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("seed", [-1, 1 << 63])
def test_a_seed_no_generator_takes(seed: int, tmp_path: Path) -> None:
    text = refused(OptionError, "--seed", str(seed), "--out", str(tmp_path / "run"))
    assert text == f"--seed {seed}: expected 0 to 9223372036854775807."
    assert list(tmp_path.iterdir()) == []


def test_a_place_where_no_folder_can_be_made() -> None:
    text = refused(OptionError, "--out", "/proc/run")
    assert text == "/proc/run: the folder cannot be made (No such file or directory). Choose another name."
