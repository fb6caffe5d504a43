"""`profiler-kit ladder`: shows a recorded ladder, marks what is below --min-miou, and measures one on vit_tiny."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Sequence
from pathlib import Path

import pytest
import typer
from typer.testing import CliRunner

from profiler_kit.cli import ladder
from profiler_kit.errors import OptionError, ThresholdError
from profiler_kit.formats.ladder_record import RESULTS, LadderRecord, write_record
from tests.ladders import a_ladder


def run(arguments: Sequence[str]) -> tuple[str, BaseException | None]:
    app = typer.Typer()
    app.command()(ladder.command)
    result = CliRunner().invoke(app, list(arguments))
    return result.stdout, result.exception


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    write_record(tmp_path / RESULTS, a_ladder())
    return tmp_path


def test_the_table(folder: Path) -> None:
    printed, error = run([str(folder)])
    assert error is None
    head, _, *rows = [line for line in printed.splitlines() if line.strip()][1:]
    names = [name.strip() for name in head.split("   ") if name.strip()]
    cells = [
        dict(zip(names, (cell.strip() for cell in row.split("   ") if cell.strip()), strict=False)) for row in rows
    ]
    assert printed.startswith("SAM vit_b (random:0), points, batch size 8, NVIDIA H200: rows of the ladder\n")
    drawn, _ = run([str(folder), "--png", str(folder / "new" / "w.png")])
    assert drawn == printed and (folder / "new" / "w.png").read_bytes().startswith(b"\x89PNG")
    told = ("technique", "img/s", "× fp32", "median", "n", "25 %", "75 %", "peak memory", "mIoU", "mIoU with fp32")
    assert [cells[0][name] for name in told] == [
        *("fp32", "80", "1.00", "100.000 ms", "5", "90.000 ms", "100.000 ms", "3.91 GiB", "0.8000", "1.0000"),
    ]
    assert [cells[1][name] for name in told] == [
        *("bf16", "160.0", "2.00", "50.000 ms", "5", "45.000 ms", "50.000 ms", "1.95 GiB", "0.7900", "0.9900"),
    ]
    assert len(set(names)) == len(names)  # no two columns have one heading
    assert "p99" not in names  # of five samples there is none
    assert "oom: oom. --batch-size 8: too much" in printed
    assert printed.splitlines()[-1].startswith("Weights are random: ")


def test_json_has_the_raw_samples_and_no_nan(folder: Path) -> None:
    printed, _ = run([str(folder), "--json"])
    found = json.loads(printed, parse_constant=lambda name: pytest.fail(f"{name} is not JSON"))
    assert found["rows"][1]["latency_ns"] == [40_000_000, 45_000_000, 50_000_000, 50_000_000, 60_000_000]
    assert found["rows"][1]["technique"] == "bf16" and found["rows"][1]["speedup"] == 2
    assert found["findings"][0]["sentence"].startswith("The fastest row is int8: 400.0 images/s, 5.00 times the")
    assert found["rows"][-1]["images_per_s"] is None and found["setup"]["weights"] == "random:0"


def test_a_row_below_the_accuracy_asked_for_fails_the_command(folder: Path) -> None:
    _, error = run([str(folder), "--min-miou", "0.9"])
    assert error is None
    printed, error = run([str(folder), "--min-miou", "0.995"])
    assert isinstance(error, ThresholdError) and "fp32" in printed
    assert str(error) == (
        "--min-miou 0.995: mean IoU with the baseline's masks is lower for bf16 0.9900, compile 0.9850, int8 0.9000. "
        "Leave out the optimization that costs it, or ask for less."
    )
    write_record(folder / RESULTS, marked(0.95))
    printed, error = run([str(folder)])
    assert isinstance(error, ThresholdError) and str(error).startswith("--min-miou 0.95: ")
    assert "Masks agree less with those of fp32 than --min-miou 0.95 asks for: int8." in printed


def marked(least: float) -> LadderRecord:
    return dataclasses.replace(a_ladder(), min_miou=least)


def test_what_is_shown_is_not_measured(folder: Path) -> None:
    _, error = run([str(folder), "--out", "x"])
    assert isinstance(error, OptionError)
    assert str(error) == f"--out x: {folder} is shown, not measured, so there is nothing to write."
