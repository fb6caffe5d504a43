"""A table without rows says why, and what would record them: on every surface by one sentence."""

from __future__ import annotations

import html
import re
from pathlib import Path

import pytest
from markupsafe import escape

from profiler_kit import load_trace
from profiler_kit.findings.work import of_table
from profiler_kit.render.html import table_html
from profiler_kit.render.markdown import plain, table_markdown
from profiler_kit.tables import every_table
from profiler_kit.trace import Trace
from tests.builders import TraceBuilder
from tests.cli.run import profiler_kit

SCHEDULE = "with profiler_runner(path, wait=1, warmup=1, active=3) as prof: ...; prof.step()"


@pytest.fixture
def bare(tmp_path: Path) -> Trace:
    """One kernel under one operator, and nothing else."""
    builder = TraceBuilder()
    builder.operator("aten::mm", 0, 20)
    builder.launch(1, 5)
    builder.kernel(1, 10, 10, name="gemm")
    return load_trace(builder.write(tmp_path / "bare.json.gz"))


@pytest.mark.parametrize(
    ("table", "said"),
    [
        ("steps", "No iterations were recorded: there is no ProfilerStep, and no region that repeats. Try: with prof"),
        ("roofline_by_step", "No iterations were recorded: there is no ProfilerStep, and no region that repeats."),
        ("utilization", 'No regions were recorded. Try: with region("image encoder"): ...'),
        ("regions", 'No regions were recorded. Try: with region("image encoder"): ...'),
        ("module_work", "No nn.Module names were recorded. Try: profiler_runner(path, with_stack=True, with_modules="),
        ("shape_work", "No input shapes were recorded. Try: profiler_runner(path, record_shapes=True)"),
        ("python_tree", "No Python stacks were recorded. Try: profiler_runner(path, with_stack=True)"),
        ("collectives", "No kernel of this trace counts as communication. Try: --communication PATTERN"),
        ("kernel_sequences", "No operator launched so many kernels in a row. Try: --length 2"),
        ("replayed_graphs", "No CUDA graph was replayed."),
    ],
)  # fmt: skip
def test_why_a_table_is_empty(bare: Trace, table: str, said: str) -> None:
    found = of_table(bare.table(table))
    assert found is not None and found.line.startswith(said)


def test_the_command_says_it_below_the_title(bare: Trace) -> None:
    assert profiler_kit("steps", bare.path).out == (
        f"{bare.path}: iterations: none\n\nNo iterations were recorded: there is no ProfilerStep, and no region that "
        f"repeats. Try: {SCHEDULE}\n"
    )


def test_one_step_is_told_from_none(tmp_path: Path) -> None:
    builder = TraceBuilder()
    builder.region("ProfilerStep#3", 0, 100)
    builder.launch(1, 5)
    builder.kernel(1, 10, 10)
    trace = load_trace(builder.write(tmp_path / "one.json.gz"))
    found = of_table(trace.table("steps"))
    assert found is not None and found.line.startswith("One ProfilerStep was recorded: there is nothing to compare")


def test_without_a_gpu_that_is_why(tmp_path: Path) -> None:
    builder = TraceBuilder()
    builder.operator("aten::mm", 0, 20)
    trace = load_trace(builder.write(tmp_path / "host.json.gz"))
    said = {name: of_table(trace.table(name)) for name, table in every_table().items() if table.of == "trace"}
    lines = {name: one.line for name, one in said.items() if one is not None}
    for name in ("kernels", "idle", "utilization", "roofline_by_step", "collectives"):
        assert lines[name].startswith("No GPU in this run.")
    assert lines["steps"].startswith("No iterations") and lines["left_out"] == "Nothing was left out."


def test_a_report_says_what_is_missing_and_what_adds_it(bare: Trace, tmp_path: Path) -> None:
    page, pasted = tmp_path / "report.html", tmp_path / "report.md"
    assert profiler_kit("report", bare.path, "-o", page).code == 0
    assert profiler_kit("report", bare.path, "-o", pasted).code == 0
    notes = [html.unescape(note) for note in re.findall(r'<p class="note">([^<]*)</p>', page.read_text())]
    said = 'No regions were recorded. Try: with region("image encoder"): ...'
    assert notes[0] == said and plain(said) in pasted.read_text().splitlines()
    steps = of_table(bare.table("steps"))
    assert steps is not None
    assert f"Without rows: steps against the limits of the GPU, iterations. {steps.line}" in notes
    alone = [note for note in notes if note.startswith("Without rows: ") and " Try: " not in note]
    assert len(alone) == 1 and "CUDA graphs that are replayed" in alone[0]  # all of those that lack nothing


def test_an_empty_table_says_it_in_html_and_markdown(bare: Trace) -> None:
    filled = bare.table("steps")
    found = of_table(filled)
    assert found is not None
    assert table_html(filled) == f'<p class="note">{escape(found.line)}</p>'
    assert table_markdown(filled) == [plain(found.line)]
