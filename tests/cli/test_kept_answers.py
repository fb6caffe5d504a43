"""What `ranks` said of a folder is said again without computing it, as long as all that it came from is the same."""

from __future__ import annotations

import json
import os
from collections.abc import Callable
from pathlib import Path

import pytest

from profiler_kit.load import job_folder
from tests.builders import LONG_AFTER
from tests.cli.run import Finished, profiler_kit
from tests.cli.test_start import SLOW, imported_by
from tests.test_rank_store import put, trace_of

Change = Callable[[Path], object]


@pytest.fixture
def job(tmp_path: Path) -> Path:
    """Two nodes with a rank each, and a file that is no trace."""
    folder = tmp_path / "job"
    for rank in range(2):
        put(folder / f"node{rank}" / f"rank{rank}.json", trace_of(rank, 2))
    put(folder / "settings.json", b"[1]")
    for path in (*folder.iterdir(), folder):
        before = path.stat().st_mtime_ns - 60 * 10**9
        os.utime(path, ns=(before, before))
    return folder


def forget(job: Path) -> None:
    """Leave a mark in what is kept, which shows whether it is used."""
    for file in (Path(f"{job}.ranks") / "answers").iterdir():
        record = json.loads(file.read_text())
        record["said"] = [["note", "kept"], *record["said"]]
        file.write_text(json.dumps(record))


def again(job: Path, *words: str) -> tuple[Finished, bool]:
    """What the command says, and whether that was kept."""
    done = profiler_kit("ranks", job, *words)
    kept = "profiler-kit: kept\n"
    return Finished(done.code, done.out, done.err.removeprefix(kept)), done.err.startswith(kept)


@pytest.mark.parametrize("words", [(), ("--json",), ("--csv",), ("--by", "step", "--top", "1")], ids=" ".join)
def test_what_was_said_is_said_again(job: Path, words: tuple[str, ...]) -> None:
    first, kept = again(job, *words)
    assert not kept and first.code == 0 and "settings.json" in first.err
    forget(job)
    assert again(job, *words) == (first, True)
    more = (*words, "--communication", "gemm")
    assert not again(job, *more)[1] and again(job, *more)[0] == again(job, *more)[0]


def test_other_words_files_or_names_are_another_answer(job: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    settings = job.parent / "settings.toml"
    settings.write_text('communication = ["gemm"]')
    changes: list[Change] = [
        lambda job: put(job / "node0" / "rank0.json", trace_of(0, 2) + b" "),
        lambda job: put(job / "node2" / "rank2.json", trace_of(2, 3)),
        lambda job: (job / "node2" / "rank2.json").rename(job / "node2" / "rank2.json.old"),
        lambda job: (job / "settings.json").unlink(),
        lambda job: monkeypatch.setenv("PROFILER_KIT_SETTINGS", str(settings)),
    ]
    for change in (lambda job: None, *changes):
        change(job)
        for path in (*job.rglob("*"), job):
            os.utime(path, ns=(path.stat().st_mtime_ns - 10**10,) * 2) if path.is_dir() else None
        assert not again(job)[1]
        forget(job)
        assert again(job)[1]


def test_what_may_still_change_is_not_kept(job: Path) -> None:
    os.utime(job / "node0", (LONG_AFTER, LONG_AFTER))
    assert not again(job)[1]
    assert not (Path(f"{job}.ranks") / "answers").exists()


def test_what_is_damaged_or_would_be_obeyed_by_a_terminal_is_not_said(job: Path) -> None:
    first, _ = again(job)
    (file,) = (Path(f"{job}.ranks") / "answers").iterdir()
    record = json.loads(file.read_text())
    hostile = json.dumps({**record, "said": [["text", "\x1b[31mred"]]})
    for text in ("", "[]", "{}", json.dumps({"folder": str(job)}), json.dumps({**record, "folder": "/"}), hostile):
        file.write_text(text)
        assert again(job) == (first, False)


def test_a_job_of_the_same_name_elsewhere_and_a_store_that_was_chosen(job: Path, tmp_path: Path) -> None:
    store = tmp_path / "store"
    words = ("ranks", "job", "--store", str(store))
    first = profiler_kit(*words, cwd=tmp_path)
    assert len(list((store / "answers").iterdir())) == 1
    other = tmp_path / "other" / "job" / "rank0.json"
    put(other, trace_of(0, 1))
    assert profiler_kit(*words, cwd=other.parents[1]).out != first.out
    assert profiler_kit(*words, cwd=tmp_path) == first


def test_the_oldest_go(job: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(job_folder, "MOST_KEPT", 2)
    for count in range(4):
        job_folder.keep(str(job), [str(count)], str(job), job_folder.State("", True), [])
    assert len(list((job / "answers").iterdir())) == 2
    monkeypatch.setattr(job_folder, "MOST_BYTES", 1000)
    for count in range(4):
        job_folder.keep(str(job), [str(count)], str(job), job_folder.State("", True), [["text", "x" * 300 * count]])
        assert sum(file.stat().st_size for file in (job / "answers").iterdir()) <= 1000
    assert not job_folder._file(str(job), ["3"]).exists()  # one too large does not drive out the others
    assert job_folder._file(str(job), ["2"]).exists()


def test_saying_it_again_imports_nothing_slow(job: Path) -> None:
    again(job, "--json")
    modules = imported_by("ranks", str(job), "--json")
    assert [name for name in (*SLOW, "numpy", "msgspec", "profiler_kit.ranks") if name in modules] == []
