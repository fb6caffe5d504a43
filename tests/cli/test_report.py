"""`profiler-kit report`: what it writes, and what it refuses to write over."""

from __future__ import annotations

from pathlib import Path

import pytest

from profiler_kit.cli.report import command as report
from profiler_kit.errors import InputError, OptionError
from tests.app.samples import make_runs
from tests.cli.run import profiler_kit


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_runs(tmp_path_factory.mktemp("runs") / "runs")


def test_a_page_is_written_and_its_size_said(root: Path, tmp_path: Path) -> None:
    done = profiler_kit("report", root / "gpu", root / "host", cwd=tmp_path)
    page = tmp_path / "report.html"
    assert (done.code, done.err) == (0, "")
    assert done.out == f"report.html: {page.stat().st_size / 1024:,.1f} KiB\n"
    assert page.read_text(encoding="utf-8").startswith("<!doctype html>")
    assert [file.name for file in tmp_path.iterdir()] == ["report.html"]


def test_markdown_is_printed_or_written(root: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    report([root / "gpu"], as_markdown=True)
    printed = capsys.readouterr().out
    assert printed.startswith("### gpu\n")
    report([root / "gpu"], tmp_path / "deep" / "r.md")
    assert (tmp_path / "deep" / "r.md").read_text(encoding="utf-8") == printed


def test_inputs_are_never_written_over(root: Path, tmp_path: Path) -> None:
    page = tmp_path / "trace.html"
    page.write_bytes((root / "bare.json.gz").read_bytes())
    before = page.read_bytes()
    with pytest.raises(OptionError) as refused:
        report([page], page)
    assert str(refused.value) == (
        f"-o {page}: this is one of the files to read, expected another name. Try: -o report.html"
    )
    linked = tmp_path / "run"
    linked.mkdir()
    (linked / "trace.json.gz").hardlink_to(page)
    with pytest.raises(OptionError, match="one of the files to read"):
        report([linked], page)
    assert page.read_bytes() == before
    trace = root / "gpu" / "trace.json.gz"
    with pytest.raises(OptionError, match=r"expected a name that ends in \.html or \.htm or \.md or \.markdown"):
        report([root / "gpu"], trace)
    assert trace.stat().st_size > 0


def test_what_is_broken_is_said_in_one_line_each(root: Path, tmp_path: Path) -> None:
    done = profiler_kit("report", root / "broken", "-o", tmp_path / "r.html")
    assert done.code == 1 and not (tmp_path / "r.html").exists()
    lines = done.err.splitlines()
    assert len(lines) == 6 and all(line.startswith("profiler-kit: ") for line in lines)
    assert f"{root / 'broken'}: nothing to report" in lines[-1]


def test_a_broken_run_beside_a_whole_one_is_stated(root: Path, tmp_path: Path) -> None:
    report([root / "broken", root / "gpu"], tmp_path / "r.html")
    text = (tmp_path / "r.html").read_text(encoding="utf-8")
    assert "broken/trace.json.gz:" in text and "Not compared: no trace in broken." in text


def test_where_nothing_can_be_written_is_said(root: Path, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("x")
    with pytest.raises(InputError, match="cannot make the folder"):
        report([root / "host"], tmp_path / "file" / "r.html")
    with pytest.raises(OptionError) as folder:
        report([root / "host"], tmp_path)
    assert str(folder.value) == (
        f"-o {tmp_path}: this is a folder, expected a file. Try: -o {tmp_path / 'report.html'}"
    )
    with pytest.raises(InputError, match="no such file"):
        report([tmp_path / "none"], tmp_path / "x.html")
