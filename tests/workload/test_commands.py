"""The examples that are no SAM, through every command: captured, timed layer by layer, laddered, studied and shown."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch
import typer
from typer.testing import CliRunner

from profiler_kit import load_run
from profiler_kit.cli import capture, ladder, layers, study
from profiler_kit.errors import KitError, OptionError, WorkloadError
from profiler_kit.findings.records import what_ran
from profiler_kit.formats.ladder_file import ladder_rows
from profiler_kit.formats.ladder_record import BASELINE, read_ladder
from profiler_kit.formats.run_record import read_record
from profiler_kit.formats.study_file import read_study
from profiler_kit.render.ladder_style import ladder_facts, study_model
from profiler_kit.workload.ladder_plan import LadderOptions, make_ladder_plan
from profiler_kit.workload.protocol import load_workload
from profiler_kit.workload.row import run_row
from tests.workload.rows import row_here

EXAMPLES = Path(__file__).parents[2] / "notebooks" / "workloads"
RESNET, TRANSFORMER = f"{EXAMPLES / 'resnet.py'}:small", f"{EXAMPLES / 'transformer.py'}:workload"
QUICK = ["--device", "cpu", "--warmup", "0", "--iterations", "2"]
COMMANDS = {"capture": capture, "layers": layers, "ladder": ladder, "study": study}


def run(command: str, *arguments: object) -> str:
    """Run the command; gives stdout, raises what it raised."""
    app = typer.Typer()
    app.command()(COMMANDS[command].command)
    result = CliRunner().invoke(app, [str(argument) for argument in arguments])
    if result.exception is not None:
        raise result.exception
    return result.stdout


def refused(kind: type[KitError], command: str, *arguments: object) -> str:
    with pytest.raises(kind) as caught:
        run(command, *arguments)
    return str(caught.value)


def test_a_resnet_is_captured_and_shown(tmp_path: Path) -> None:
    out = tmp_path / "run"
    more = ("--batch-size", "2", "--trace-batches", "1", "--optimizations", "bf16,channels_last", "--layers", "1,2")
    printed = run("capture", RESNET, *QUICK, *more, "--out", out)
    assert {path.name for path in out.iterdir()} == {"run.json", "trace.json.gz", "memory.pickle", "layers.parquet"}
    record = read_record(out)
    assert (record.model, record.weights, record.dtype) == ("resnet18", "random:0", "bfloat16")
    assert record.workload == {"spec": RESNET, "unit": "images"} and record.image_size == 64
    written = json.loads((out / "run.json").read_text())
    assert written["workload"] == {"spec": RESNET, "unit": "images"} and "images" not in written
    assert printed.startswith("resnet18 bf16 + channels_last bfloat16, batch size 2, ")
    assert what_ran(record).startswith("resnet18 · bf16 · channels_last · bfloat16 · batch 2 · 64 px · ")
    loaded = load_run(out)
    assert loaded.trace is not None and loaded.layers is not None
    paths = set(loaded.trace.regions()["path"])
    assert {("ProfilerStep", "data transfer"), ("ProfilerStep", "timed region")} <= paths
    assert {"(model)", "layer1.0.conv1", "fc"} <= set(loaded.layers.totals["layer"])
    assert "resnet18 · bf16" in loaded.report()._repr_html_()


def test_layers_of_a_transformer(tmp_path: Path) -> None:
    measured = json.loads(run("layers", TRANSFORMER, *QUICK, "--batch-sizes", "1,2", "--json", "--out", tmp_path))
    assert {"(model)", "encoder.layers.3.linear2", "head"} <= {row["layer"] for row in measured["layers"]}
    assert json.loads(run("layers", tmp_path, "--json")) == measured


@pytest.mark.usefixtures("low_ceilings")
def test_a_ladder_of_a_transformer(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("profiler_kit.workload.ladder._process", row_here)
    out = tmp_path / "ladder"
    printed = run("ladder", TRANSFORMER, *QUICK, "--batch-size", "2", "--rows", "bf16", "--out", out, "--traces")
    assert printed.startswith("transformer (random:0), batch size 2, ")
    lines = [line.split() for line in printed.splitlines() if line.strip()]
    assert lines[1][:4] == ["technique", "sequences/s", "×", "fp32"]
    assert "relative error" in printed and printed.count("cosine with fp32") == 1
    record = read_ladder(out)
    fp32, bf16 = record.rows
    assert (record.setup.workload, record.setup.family, record.setup.unit) == (TRANSFORMER, "", "sequences")
    assert fp32.scores == {"relative_error": 0.0, "cosine": 1.0} and fp32.work is not None and fp32.work.flop > 0
    assert 0 < (bf16.scores["relative_error"] or 0) < 0.05 and 0.999 < (bf16.scores["cosine"] or 0) < 1
    frame = ladder_rows(record)
    assert frame["agreement"].tolist() == frame["cosine"].tolist() and frame["baseline_miou"].isna().all()
    assert ladder_facts(record)[1].startswith("median of 2 batches; torch ")
    assert run("ladder", out).startswith(printed.partition("written to")[0].rstrip())
    traced = read_record(out / "rows" / "bf16")
    assert traced.batch == "2 sequences" and traced.workload["spec"] == TRANSFORMER


def test_studies_of_a_resnet(tmp_path: Path) -> None:
    more = ("--batch-sizes", "1,2", "--image-sizes", "64,80", "--study", "components,batching,image-size,table")
    printed = run("study", RESNET, *QUICK, *more, "--no-compile", "--out", tmp_path)
    assert printed.startswith("resnet18 (random:0), as published, ") and "img/s" in printed
    samples = read_study(tmp_path).samples
    labels = {name: list(dict.fromkeys(s.label for s in samples if s.study == name)) for name in
              ("components", "batching", "table")}  # fmt: skip
    assert labels["components"][:3] == ["whole forward", "conv1", "bn1"] and "fc" in labels["components"]
    assert labels["batching"] == ["sequential", "batched"] and labels["table"] == ["fp32", "bf16", "fp16"]
    assert [s.image_size for s in samples if s.study == "image-size"] == [64, 64, 80, 80]


def test_options_of_sam_are_no_options_of_another_workload(tmp_path: Path) -> None:
    for command, option in (
        ("capture", ("--model", "vit_b")),
        ("layers", ("--prompts", "boxes")),
        ("ladder", ("--num-images", "3")),
        ("study", ("--checkpoint", "x.pth")),
    ):
        assert refused(OptionError, command, RESNET, *option, "--out", tmp_path / "new") == (
            f"{' '.join(option)}: an option of Segment Anything, found with {RESNET}. Leave it out."
        )
    assert refused(OptionError, "ladder", RESNET, "--min-miou", "0.9", "--device", "cpu") == (
        "--min-miou 0.9: resnet18 makes no masks to compare. Leave it out."
    )
    assert refused(OptionError, "study", TRANSFORMER, *QUICK, "--study", "image-size", "--image-sizes", "64") == (
        f"--study image-size: {TRANSFORMER} has no at_image_size(side). Choose other studies."
    )
    assert refused(OptionError, "capture", TRANSFORMER, "--optimizations", "channels_last") == (
        "--optimizations channels_last: 'channels_last' is not known, expected names from tf32, bf16, fp16, int8, fp8, "
        "cuda_graphs, compile, compile_max, compile_graphs separated by commas."
    )
    assert list(tmp_path.iterdir()) == []


def test_a_step_that_fails_is_one_line_and_leaves_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    Path("mine.py").write_text(
        "import torch\n"
        "def model(device): return torch.nn.Linear(3, 2)\n"
        "def batch(size, device): return torch.randn(size, 3)\n"
        "def step(model, batch):\n"
        "    if len(batch) > 2: torch.empty(1 << 60, dtype=torch.uint8)\n"
        "    return {'n': 1}\n"
    )
    expected = "expected a tensor, or a list, tuple, dict or dataclass of tensors."
    assert refused(WorkloadError, "capture", "mine.py", *QUICK, "--out", "run") == (
        f"mine.py: step(model, batch) returned dict, {expected}"
    )
    assert refused(WorkloadError, "capture", "mine.py", *QUICK, "--out", "run", "--batch-size", "4") == (
        "--batch-size 4: mine ran out of memory on cpu, expected a run that fits. Try a smaller --batch-size, a "
        "smaller model or --optimizations bf16."
    )
    assert [path.name for path in tmp_path.iterdir() if path.name != "__pycache__"] == ["mine.py"]
    plan = make_ladder_plan(load_workload("mine.py"), LadderOptions(device="cpu", out=tmp_path / "ladder"))
    row = run_row(plan.row_plan(BASELINE, ""))
    assert (row.status, row.error) == ("failed", f"mine.py: step(model, batch) returned dict, {expected}")


def test_the_batch_that_fits_is_found_for_any_workload(tmp_path: Path) -> None:
    path = tmp_path / "mine.py"
    path.write_text(
        "import torch\n"
        "def model(device): return torch.nn.Linear(3, 2)\n"
        "def batch(size, device): return torch.randn(size, 3)\n"
        "def step(model, batch):\n"
        "    if len(batch) > 2: torch.empty(1 << 60, dtype=torch.uint8)\n"
        "    return model(batch)\n"
    )
    plan = make_ladder_plan(
        load_workload(str(path)), LadderOptions(device="cpu", batch_size=9, out=tmp_path / "ladder")
    )
    row = run_row(plan.row_plan("bf16", "bf16"))
    assert (row.status, row.fitted_batch_size) == ("oom", 2)
    assert row.error == (
        "--batch-size 9: mine (bf16) ran out of memory on cpu, a batch of 2 fitted (found by halving). "
        "Try --batch-size 2."
    )


def test_a_default_ladder_has_what_applies(tmp_path: Path) -> None:
    transformer = load_workload(TRANSFORMER)
    names = {name for row in transformer.ladder(torch.device("cuda", 0)) for name in row.optimizations}
    assert names == {"tf32", "bf16", "cuda_graphs", "compile", "compile_graphs", "compile_max", "int8", "fp8"}
    plan = make_ladder_plan(transformer, LadderOptions(device="cpu", out=tmp_path / "ladder"))
    assert plan.rows == (("fp32", ""), ("bf16", "bf16"), ("compile", "compile")) and plan.steps == ("fp32", "compile")


def test_records_from_before_workloads_are_still_read() -> None:
    samples = Path(__file__).parents[2] / "traces"
    record = read_record(samples / "h200-vit_b-eager-fp32")
    assert record.workload == {"images": "generated:0", "prompts": "centers"} and record.batch == "2 images of 1024 px"
    old = read_ladder(samples / "h200-vit_b-ladder")
    assert (old.setup.family, old.setup.workload, old.setup.unit) == ("SAM", "", "images")
    rows = ladder_rows(old)
    assert rows["agreement"].equals(rows["baseline_miou"]) and rows["cosine"].isna().all()
    assert study_model(read_study(samples / "h200-vit_b-study")) == "SAM vit_b (random:0)"
