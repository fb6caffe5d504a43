"""What objects show of themselves in a notebook: whole markup, no network, hostile names harmless."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
from markupsafe import escape

from profiler_kit import load_run, load_snapshot, load_trace
from profiler_kit.errors import OptionError
from profiler_kit.findings.no_rows import no_rows
from profiler_kit.formats.run_record import read_record
from profiler_kit.load.discover.runs import find_run
from tests.app.samples import host_trace, make_runs
from tests.render.test_report import EVIL, Page, TraceBuilder


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_runs(tmp_path_factory.mktemp("cards") / "runs")


def test_every_object_shows_itself_and_loads_nothing(root: Path) -> None:
    run, other = load_run(root / "gpu"), load_run(root / "host")
    assert run.trace is not None and run.snapshot is not None
    folder = find_run(root, "gpu")
    for shown, text in (
        (run, "5 % busy"),
        (run.trace, "image encoder"),
        (run.trace.timeline(), "Stream 7"),
        (run.layers, "Block · global"),
        (run.snapshot.over_time(), "peak 2.0 MiB"),
        (run.compared_with(other), "image encoder"),
        (read_record(root / "gpu"), "NVIDIA H200"),
        (folder, "Holds: trace, memory, layers."),
    ):
        html = shown._repr_html_()  # type: ignore[union-attr]
        page = Page(html)
        assert page.says(text), repr(shown)
        assert page.loads == [] and page.handlers == [] and "script" not in page.tags
        assert len(html) < 100_000


def test_names_cannot_break_out_of_a_cell(tmp_path: Path) -> None:
    trace = TraceBuilder()
    trace.region(EVIL, 0, 100)
    trace.operator(EVIL, 1, 50)
    page = Page(load_trace(trace.write(tmp_path / "t.json"))._repr_html_())
    assert "img" not in page.tags and "script" not in page.tags


def test_a_report_shows_itself_in_a_frame_and_can_be_saved(root: Path, tmp_path: Path) -> None:
    report = load_run(root / "gpu").report(load_run(root / "host"))
    assert repr(report) == "ReportPage(gpu, host)"
    assert report._repr_html_().startswith("<iframe srcdoc=")
    report.save(tmp_path / "r.html")
    assert (tmp_path / "r.html").read_text(encoding="utf-8").startswith("<!doctype html>")
    assert report.markdown().startswith("### gpu → host\n")


def test_what_cannot_be_compared_is_said(root: Path) -> None:
    memory = load_run(root / "gpu" / "memory.pickle")
    with pytest.raises(OptionError) as wrong:
        memory.compared_with(load_run(root / "gpu"))
    assert str(wrong.value).startswith(
        f"{root / 'gpu' / 'memory.pickle'}: no trace to compare, expected two runs with one"
    )
    with pytest.raises(OptionError, match="device 3: not in"):
        load_snapshot(root / "gpu" / "memory.pickle").over_time(3)


def test_an_empty_table_says_in_a_notebook_why_it_is_empty(tmp_path: Path) -> None:
    empty = load_trace(host_trace().write(tmp_path / "host.json")).table("kernels")
    said = no_rows(empty)
    assert said is not None and escape(said.line) in empty._repr_html_()


def test_a_notebook_that_is_not_trusted_gets_no_names_without_their_boxes(root: Path) -> None:
    """JupyterLab takes style, svg and iframe away then, and keeps the text in svg."""
    for shown in (load_run(root / "gpu"), load_trace(root / "gpu" / "trace.json.gz").table("call_tree")):
        html = shown._repr_html_()
        frame = re.search(
            r'<iframe srcdoc="([^"]*)" sandbox="" width="100%" height="\d+" frameborder="0"></iframe>', html
        )
        assert frame is not None and "image encoder" in frame[1]
        assert 'class="icicle"' not in html.replace(frame[0], "")
        assert 'class="trust"' in html and ".pk-card .trust { display: none; }" in html
