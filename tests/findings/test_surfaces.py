"""A finding is one sentence on every surface, and what it names as evidence is in the tables."""

from __future__ import annotations

import gzip
import html
import json
import re
from pathlib import Path
from typing import Any

import pytest

from profiler_kit.finding import Finding, of_kind
from profiler_kit.findings import memory
from profiler_kit.findings.advice import NOTHING
from profiler_kit.findings.devices import holds_memory
from profiler_kit.findings.out_of_memory import out_of_memory
from profiler_kit.render.memory_page.pack import pack
from profiler_kit.render.report.markdown import ADVICE, report_markdown
from profiler_kit.render.report.page import report_page
from profiler_kit.run import Run, load_run
from tests.cli.run import profiler_kit
from tests.snapshots import captures

ROOT = Path(__file__).parents[2]
RUNS = [
    *(path for path in sorted((ROOT / "traces").iterdir()) if (path / "trace.json.gz").is_file()),
    *sorted((ROOT / "tests/golden").glob("*.json.gz")),
    *sorted((ROOT / "tests/golden/ddp").glob("*rank0*")),
    *(path for path in captures() if "golden" in str(path) or "oom" in path.name),
]


@pytest.fixture(scope="module", params=RUNS, ids=lambda path: f"{path.parent.name}-{path.name}")
def run(request: pytest.FixtureRequest) -> Run:
    return load_run(request.param)


def words(text: str) -> str:
    """The text of HTML or Markdown without its marks, spaces made one."""
    text = html.unescape(re.sub(r"<[^>]+>", "", text)).replace("**", "")
    return re.sub(r"\s+", " ", re.sub(r"\\(.)", r"\1", text)).strip()


def test_every_surface_says_the_same(run: Run) -> None:
    found = run.findings
    assert len({one.id for one in found}) == len(found)
    printed = profiler_kit("advice", run.path)
    assert (printed.code, printed.err) == (0, "")
    assert json.loads(profiler_kit("advice", run.path, "--json").out) == [one.to_json() for one in found]
    page, brief = words(report_page([run])), words(report_markdown([run]))
    rest = of_kind(found, "advice")[ADVICE:]
    for one in found:
        sentence = re.sub(r"\s+", " ", one.sentence)
        assert one.sentence in printed.out, one.id
        assert sentence in page, one.id
        assert sentence in brief or one in rest, one.id
        for text in (one.attempt, one.title):
            assert text in printed.out and words(text) in page, one.id
    if run.trace is not None and not of_kind(found, "advice"):
        assert NOTHING in printed.out and NOTHING in page


def test_the_memory_command_and_page_explain_as_the_report_does(run: Run) -> None:
    if run.snapshot is None:
        pytest.skip("no memory")
    printed = profiler_kit("memory", run.path)
    packed = unpacked(pack(run.snapshot, "m", None))
    for device in packed["devices"]:
        number = device["device"]
        failed = out_of_memory(run.snapshot, number)
        assert [one["why"] for one in device["ooms"]] == [one.sentence for one in failed]
        texts = [one["text"] for one in device["notices"]]
        used = next(holds_memory(row) for row in run.snapshot.summary(number)["devices"])
        for one in memory.of_device(run.snapshot, number)[1:]:
            assert any(text.startswith(one.line) for text in texts)
            assert one.sentence in printed.out or not used
    out = json.loads(profiler_kit("memory", run.path, "--oom", "--json").out)
    for row in out["devices"]:
        lines = [report["lines"] for report in row["oom_reports"]]
        failed = out_of_memory(run.snapshot, row["device"])
        assert lines == [[one.line, *one.details] for one in failed]


def unpacked(data: bytes) -> dict[str, Any]:
    """The JSON head of what a memory page holds."""
    data = gzip.decompress(data)
    head: dict[str, Any] = json.loads(data[4 : 4 + int.from_bytes(data[:4], "little")])
    return head


def test_evidence_is_in_the_tables(run: Run) -> None:
    for one in run.findings:
        if one.evidence is not None:
            check(run, one)


def check(run: Run, one: Finding) -> None:
    assert one.evidence is not None
    frame = run.table(one.evidence.table, **one.evidence.options).frame
    assert len(frame), one.id
    for column, values in one.evidence.rows.items():
        held = [tuple(value) if isinstance(value, list) else value for value in frame[column]]
        assert set(values) & set(held), f"{one.id}: {column}"
        frame = frame[[value in values for value in held]]
    assert len(frame), one.id
