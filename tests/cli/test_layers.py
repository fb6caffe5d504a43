"""`profiler-kit layers`: measures, writes, and shows what was recorded."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path

import pytest
import typer
from typer.testing import CliRunner

from profiler_kit.analyses.layers.totals import LAYER_COVERAGE, LAYER_TOTALS
from profiler_kit.cli import layers
from profiler_kit.errors import InputError, KitError, OptionError
from profiler_kit.formats.layer_file import LayerFile, write_layers
from tests.analyses.test_layers import TWO_BATCHES, forwards_of

QUICK = ["--model", "vit_tiny", "--device", "cpu", "--warmup", "0", "--iterations", "2"]


def run(arguments: Sequence[str]) -> str:
    app = typer.Typer()
    app.command()(layers.command)
    result = CliRunner().invoke(app, list(arguments))
    if result.exception is not None:
        raise result.exception
    return result.stdout


def refused(kind: type[KitError], *arguments: str) -> str:
    with pytest.raises(kind) as caught:
        run(arguments)
    return str(caught.value)


def test_measured_written_and_shown_again(tmp_path: Path) -> None:
    measured = json.loads(run([*QUICK, "--batch-sizes", "1,2", "--out", str(tmp_path / "new"), "--json"]))
    assert list(measured) == ["layers", "explained", "notes"]
    assert all(list(row) == list(LAYER_TOTALS.columns) for row in measured["layers"])
    assert all(list(row) == list(LAYER_COVERAGE.columns) for row in measured["explained"])
    assert [row["batch_size"] for row in measured["explained"]] == [1, 2]
    path = tmp_path / "new" / "layers.parquet"
    for recorded in (path, path.parent):
        assert json.loads(run([str(recorded), "--json"])) == measured


def test_table_of_a_recorded_file(tmp_path: Path) -> None:
    path = tmp_path / "x.parquet"
    write_layers(path, LayerFile(TWO_BATCHES, forwards_of((1, 0, 600), (2, 0, 800)), ("batch size 4 did not fit",)))
    lines = [line for line in run([str(path), "--depth", "1"]).splitlines() if line.strip() and line[0] != "─"]
    cells = [[cell.strip() for cell in line.split("   ") if cell.strip()] for line in lines]
    names = "layer,batch,per item,of forward,efficiency,class,variant,median,depth,iterations,calls,25 %,75 %,self"
    assert lines[0] == "2 of 3 layers"
    assert cells[1] == names.split(",")
    assert cells[2][:8] == ["(model)", "1", "600 ns", "100.0 %", "1.00", "(MODEL)", "–", "0.60 µs"]
    assert cells[2][10:] == ["1", "0.50 µs", "0.70 µs", "300 ns"]
    assert cells[5][:2] == ["a", "2"] and cells[5][3:7:3] == ["60.0 %", "window 14"] and cells[5][5] == "A"
    assert lines[6:8] == [
        "--depth 2 shows all layers, and so does --json.",
        "How much of the forward the layers explain",
    ]
    assert [cells[8][n] for n in (0, 4, 6, 7)] == ["batch", "of forward", "leaves of forward", "overhead"]
    assert [cells[9][n] for n in (0, 4, 6, 7)] == ["1", "50.0 %", "16.7 %", "+0.0 %"]
    assert [cells[10][n] for n in (0, 4, 6, 7)] == ["2", "75.0 %", "37.5 %", "+25.0 %"]
    assert lines[11:] == [
        "note: batch size 4 did not fit",
    ]


def test_compile_is_left_out_and_said_so() -> None:
    measured = json.loads(run([*QUICK, "--batch-sizes", "1", "--optimizations", "bf16,compile", "--json"]))
    assert measured["notes"] == [
        "layers: timed without compile (with bf16), because a compiled model shows no layers inside"
    ]


def test_options_that_cannot_be_used(tmp_path: Path) -> None:
    for text, part in {"0": "0", "1,x": "x", "": ""}.items():
        assert refused(OptionError, *QUICK, "--batch-sizes", text) == (
            f"--batch-sizes {text!r}: found {part!r}, expected whole numbers from 1 to 1024 separated by commas. "
            "Try 1,2,4,8."
        )
    assert refused(OptionError, *QUICK, "--depth", "-1") == "--depth -1: expected 0 or more."
    there = tmp_path / "layers.parquet"
    there.write_text("mine")
    assert refused(OptionError, *QUICK, "--out", str(tmp_path)) == (
        f"--out {tmp_path}: {there} exists already. Choose another --out, or add --overwrite."
    )
    assert there.read_text() == "mine"
    assert refused(OptionError, str(there), "--out", "x.parquet") == (
        f"--out x.parquet: {there} is shown, not measured, so there is nothing to write."
    )


def test_a_run_that_is_not_there(tmp_path: Path) -> None:
    missing = tmp_path / "nowhere"
    assert refused(InputError, str(missing)) == (
        f"{missing}: no such file, expected a layers.parquet of profiler-kit. Record one with: "
        "profiler-kit layers --out DIR"
    )


def test_a_place_that_cannot_be_written_is_refused_before_measuring(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def measured(*_: object, **__: object) -> LayerFile:
        raise AssertionError("measured in vain")

    monkeypatch.setattr("profiler_kit.workload.capture.measure_layers", measured)
    file = tmp_path / "file"
    file.touch()
    for out in (file, file / "deep" / "x.parquet"):
        text = refused(OptionError, *QUICK, "--batch-sizes", "1", "--out", str(out))
        assert text == f"{out}: {file} is a file, expected a folder. Choose another name."
