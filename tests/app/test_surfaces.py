"""What is worth saying about a run is said on its pages too, in the same words."""

from __future__ import annotations

import re
import shutil
from pathlib import Path

import pytest

from profiler_kit.finding import of_kind
from profiler_kit.findings.advice import NOTHING
from profiler_kit.run import load_run
from tests.app.test_pages import errors, show, text
from tests.findings.test_surfaces import RUNS

PAGES = ("overview", "regions", "layers", "memory", "doctor")


@pytest.fixture(params=RUNS, ids=lambda path: f"{path.parent.name}-{path.name}")
def path(request: pytest.FixtureRequest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """One sample, alone in the folder that is served."""
    path: Path = request.param
    shutil.copytree(path, tmp_path / path.name) if path.is_dir() else shutil.copy(path, tmp_path)
    monkeypatch.setenv("PROFILER_KIT_DIR", str(tmp_path))
    return path


def test_the_pages_say_what_the_command_line_says(path: Path) -> None:
    run = load_run(path)
    asked = PAGES if run.requests is None else (*PAGES, "requests")
    pages = {page: show(page, path.name) for page in asked}
    said = {page: plain("\n".join((text(test), *errors(test)))) for page, test in pages.items()}
    for one in run.findings:
        for sentence in (one.sentence, one.attempt):
            assert any(plain(sentence) in page for page in said.values()), f"{one.id}: {sentence}"
    if run.trace is not None and not of_kind(run.findings, "advice"):
        assert NOTHING in said["overview"]


def plain(marked: str) -> str:
    """Text without what makes it bold, spaces made one."""
    return re.sub(r"\s+", " ", marked.replace("**", "").replace("\\", "")).strip()
