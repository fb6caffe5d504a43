"""Ladders in the report: the pictures and numbers of each, alone or after runs, and as Markdown."""

from __future__ import annotations

import dataclasses
import re
from pathlib import Path

import pytest
from typer.testing import CliRunner

from profiler_kit.cli import build_app
from profiler_kit.formats.ladder_record import Truth, read_ladder
from profiler_kit.render.report.markdown import ladder_markdown
from profiler_kit.render.report.page import report_page
from profiler_kit.units import NS_PER_S
from tests.app.samples import make_runs
from tests.ladders import a_ladder, write_ladder


def test_a_ladder_alone(tmp_path: Path) -> None:
    folder = write_ladder(tmp_path / "vit_b")
    page = report_page([], [(folder, read_ladder(folder))])
    assert "<h2>Ladder: vit_b</h2>" in page and "SAM vit_b (random:0), points, batch size 8, NVIDIA H200" in page
    assert page.count('src="data:image/png;base64,') == 1 and page.count('src="data:image/jpeg;base64,') == 1
    assert "img-src data:;" in page and not re.search(r'(?:src|href)="(?!data:|#)', page)
    for cell in ("400.0", "5.00", "0.9000", "oom: oom. --batch-size 8: too much", "Accuracy against speed", "Roofline"):
        assert cell in page, cell
    assert page.count("<circle") == 8  # four rows, in two plots
    with pytest.raises(ValueError, match="a run, a job or a ladder"):
        report_page([])


def test_a_students_ladder_has_its_accuracy_by_size_and_category(tmp_path: Path) -> None:
    record = a_ladder()
    truth = Truth(9, 0.9, 0.8, 0.9, 0.95, (3, 5, 1), {"cat": (4, 0.75)})
    rows = tuple(dataclasses.replace(row, truth=truth if row.status == "ok" else None) for row in record.rows)
    record = dataclasses.replace(record, rows=rows, setup=dataclasses.replace(record.setup, family="student"))
    folder = write_ladder(tmp_path / "students", record)
    page, text = report_page([], [(folder, record)]), ladder_markdown(folder, record)
    for cell in ("teacher", "small (3)", "medium (5)", "large (1)", "small, of it", "cat", "0.7500"):
        assert cell in page and cell in text, cell
    other = report_page([], [(folder, a_ladder())])
    assert "small, of it" not in other and ">cat<" not in other


def test_ladders_stand_after_runs(tmp_path: Path) -> None:
    root = make_runs(tmp_path / "runs")
    ladder = write_ladder(tmp_path / "<b>&")
    out = tmp_path / "report.html"
    done = CliRunner().invoke(build_app(), ["report", str(root / "gpu"), str(ladder), "-o", str(out)])
    assert done.exit_code == 0, done.output
    page = out.read_text()
    assert page.index('id="what"') < page.index('id="ladder0"') and "Ladder: &lt;b&gt;&amp;" in page
    assert '<a href="#ladder0">' in page and "<b>&" not in page


def test_as_markdown(tmp_path: Path) -> None:
    folder = write_ladder(tmp_path / "vit_b")
    text = ladder_markdown(folder, read_ladder(folder))
    assert "| `int8` | 400.0 | 5.00 | 20.00 | 5 | 800 | 0.9000 | faster |" in text
    assert "| `oom` | – | – | – | 0 | – | – | oom |" in text
    assert "- The fastest row is **int8**" in text and "- oom: oom. --batch-size 8: too much" in text
    done = CliRunner().invoke(build_app(), ["report", str(folder), "--markdown"])
    assert done.exit_code == 0 and done.stdout.startswith("### vit\\_b") and "| `bf16` |" in done.stdout


def test_slow_rows_keep_their_digits(tmp_path: Path) -> None:
    record = a_ladder()
    times = {"fp32": 100 * NS_PER_S, "bf16": 110 * NS_PER_S, "int8": 100_000 * NS_PER_S}
    rows = tuple(
        dataclasses.replace(row, latency_ns=(times.get(row.technique, NS_PER_S),) * len(row.latency_ns))
        for row in record.rows
    )
    record = dataclasses.replace(record, rows=rows)
    folder = write_ladder(tmp_path / "slow", record)
    text, page = ladder_markdown(folder, record), report_page([], [(folder, record)])
    assert "| `bf16` | 0.0727 | 0.91 |" in text and "| `int8` | 8.00e-05 | 0.001 |" in text
    assert "bf16: 0.0727 images/s" in page
