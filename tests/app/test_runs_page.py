"""The page of runs: what is listed, which run a visit begins with, and files from outside the folder."""

from __future__ import annotations

import dataclasses
import errno
import gc
import os
import shutil
import threading
import weakref
from pathlib import Path
from typing import Any

import pytest
import streamlit as st
from streamlit.testing.v1 import AppTest

from app import cache, outside
from app.parts import run_parts, tables, widgets
from app.parts.tables import row_now
from profiler_kit.analyses.compare.partner import best_partner
from profiler_kit.errors import InputError, OptionError, RunFormatError
from profiler_kit.formats.layer_file import write_layers
from profiler_kit.formats.notes_file import MOST_LETTERS, add_note, read_notes
from profiler_kit.load.discover.listing import health, job_listed, recorded_at, run_list
from profiler_kit.load.discover.runs import RunFolder, find_run, find_runs
from profiler_kit.run import load_run
from profiler_kit.tables import every_table
from profiler_kit.trace import load_trace
from tests.app.dashboard import dashboard
from tests.app.samples import gpu_trace, layers, make_job, make_runs, record, snapshot


@pytest.fixture
def root(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("PROFILER_KIT_DIR", str(tmp_path / "traces"))
    monkeypatch.delenv("PROFILER_KIT_TOKEN", raising=False)
    monkeypatch.setattr(outside, "_opened", {})
    monkeypatch.setattr(outside, "_dropped", [])
    return make_runs(tmp_path / "traces")


def visit(**address: str) -> AppTest:
    test = dashboard()
    for name, value in address.items():
        test.query_params[name] = value
    test.run()
    assert not test.exception, [e.value for e in test.exception]
    return test


def title(test: AppTest) -> str:
    return test.title[0].value.replace("\\", "")


def test_runs_are_listed_newest_first_with_what_is_known_of_them(root: Path) -> None:
    for age, name in enumerate(("bare.json.gz", "broken/trace.json.gz")):
        os.utime(root / name, (2_000_000_000 - 100 * age,) * 2)
    for name in ("memory.pickle", "layers.parquet", "requests.parquet", "run.json"):
        os.utime(root / "broken" / name, (1_000_000_000,) * 2)
    test = visit()
    assert test.title[0].value == "Runs"
    shown = test.dataframe[0].value
    assert shown["run"].tolist() == ["bare.json.gz", "broken", "gpu", "host"]
    assert shown["recorded"].tolist()[1:3] == ["2033-05-18 03:31", "2026-01-01 00:00"]
    assert shown["model"].tolist() == ["–", "–", "vit_b", "vit_b"]
    assert shown["holds"].tolist()[2] == "trace, memory, layers, requests"
    assert shown["health"].tolist() == [
        "whole",
        "run.json broken; trace broken; memory broken; layers broken; requests broken",
        "whole",
        "whole",
    ]
    assert shown["latency_ns"].tolist()[2] == 20 and shown["rate"].tolist()[2] == 100  # ms
    found = visit(q="vit_b cpu").dataframe[0].value
    assert found["run"].tolist() == ["host"]
    assert "No run matches the search." in [one.value for one in visit(q="zebra").caption]


def test_the_ranks_of_a_job_are_one_row_that_opens_them(root: Path) -> None:
    folder = make_job(root)
    (folder / "rank2.json.gz").write_bytes((folder / "rank1.json.gz").read_bytes()[:-20])
    os.utime(folder / "rank1.json.gz", (2_000_000_000,) * 2)
    os.utime(folder / "rank2.json.gz", (1_000_000_000,) * 2)
    test = visit()
    row = next(row for _, row in test.dataframe[0].value.iterrows() if row["run"] == "job")
    said = [row[name] for name in ("recorded", "holds", "health")]
    assert said == ["2033-05-18 03:33", "3 ranks", "1 of 3: trace cut off"]
    every = visit(**{"runs-each_rank": "true"}).dataframe[0].value["run"].tolist()
    assert every[:4] == ["job", *(f"job/rank{rank}.json.gz" for rank in range(3))]
    assert len(every) == 3 + len(test.dataframe[0].value)
    keys = run_list(cache.runs())["key"].tolist()
    assert [job_listed(key) for key in keys if "job" in key] == ["job"]
    test.session_state["picked-runs"] = ([], [], keys.index("job:job"), keys)
    test.run()
    assert title(test) == "Ranks" and test.query_params["job"] in ("job", ["job"]) and not test.exception
    assert test.query_params["run"] in ("job/rank0.json.gz", ["job/rank0.json.gz"])


def test_a_run_in_the_address_or_the_only_one_is_shown_at_once(root: Path) -> None:
    assert visit(run="host").title[0].value == "host"
    for name in ("gpu", "host", "broken"):
        shutil.rmtree(root / name)
    test = visit()
    assert title(test) == "bare.json.gz"
    test.query_params.clear()
    test.switch_page("app_pages/runs.py").run()  # asked for by its link: it is not left again
    assert test.title[0].value == "Runs" and not test.exception


def test_a_page_without_a_run_takes_the_newest_that_is_whole(root: Path) -> None:
    os.utime(root / "broken" / "trace.json.gz", (2_000_000_000,) * 2)
    os.utime(root / "bare.json.gz", (1_900_000_000,) * 2)
    test = dashboard()
    test.switch_page("app_pages/doctor.py").run()
    assert test.session_state["run"] == "bare.json.gz"
    assert test.sidebar.selectbox[0].options[2].startswith("gpu · vit_b · bf16 · NVIDIA H200 · 20.000 ms")


@pytest.mark.parametrize(
    ("name", "data", "said"),
    [
        ("a.json", b'{"traceEvents": []}\n', "whole"),
        ("a.json", b'{"traceEvents": [{"a":', "trace cut off"),
        ("a.json", b"", "trace empty"),
        ("a.json", b"<html>", "trace broken"),
        ("a.pickle", b"\x80\x04}.", "whole"),
        ("a.pickle", b"\x80\x04}", "memory cut off"),
        ("a.pickle", b"hello.", "memory broken"),
    ],
)
def test_health_is_told_by_the_beginning_and_the_end(tmp_path: Path, name: str, data: bytes, said: str) -> None:
    (tmp_path / name).write_bytes(data)
    os.utime(tmp_path / name, (1_000_000_000,) * 2)
    (run,) = find_runs(tmp_path)
    assert health(run) == said
    assert run_list([run])["recorded"].tolist() == ["2001-09-09 01:46"]


def test_a_packed_file_is_whole_where_it_can_be_unpacked_to_its_end(tmp_path: Path) -> None:
    whole = gpu_trace().write(tmp_path / "a.json.gz").read_bytes()
    (run,) = find_runs(tmp_path)
    assert health(run) == "whole"
    (tmp_path / "a.json.gz").write_bytes(whole[:-40])
    assert health(run) == "trace cut off"


def test_the_key_of_a_run_is_its_folder_whatever_the_file_in_it_is_called(tmp_path: Path) -> None:
    (tmp_path / "one").mkdir()
    for name in ("worker.pt.trace.json", "worker.pt.trace.json.gz"):
        file = gpu_trace().write(tmp_path / "one" / name)
        assert [run.key for run in find_runs(tmp_path)] == ["one"]
        found = find_run(tmp_path, "one")
        assert found is not None and found.trace == file
        assert find_run(tmp_path, f"one/{name}") is not None  # an older link
        file.unlink()
    for name in ("rank0.json", "rank1.json"):
        gpu_trace().write(tmp_path / "one" / name)
    assert [run.key for run in find_runs(tmp_path)] == ["one/rank0.json", "one/rank1.json"]
    assert find_run(tmp_path, "one") is None


def test_files_are_opened_from_elsewhere_only_with_the_token(
    root: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    test = visit()
    assert "Only with the token: this server was started with --no-token." in [one.value for one in test.caption]
    assert [box.label for box in test.text_input] == ["Search runs"]
    monkeypatch.setenv("PROFILER_KIT_TOKEN", "secret")
    elsewhere = gpu_trace().write(tmp_path / "else where.json.gz")
    test = visit()
    test.text_input(key="open-path").set_value(str(elsewhere)).run()
    assert title(test) == f"opened:{elsewhere}" and not test.error
    key = test.session_state["run"]
    assert key == f"opened:{tmp_path}/else%20where.json.gz" and cache.find(key) is not None
    assert cache.find(f"opened:{root}/bare.json.gz") is None  # there, and yet not opened by anybody
    assert cache.runs()[0].key == key


@pytest.mark.parametrize(
    ("path", "said"),
    [
        ("traces", "traces: a relative path, expected an absolute one. Try: {here}/traces"),
        ("{root}", "{root}: found 4 runs, expected one. Try: profiler-kit serve {root}"),
        (
            "{root}/no",
            "{root}/no: no such file, expected a run folder, a chrome trace, a memory snapshot or a layers.parquet. "
            "Record one with: profiler-kit capture --out DIR",
        ),
    ],
)
def test_a_path_that_is_no_run_is_one_line(root: Path, path: str, said: str) -> None:
    with pytest.raises(InputError) as error:
        outside.by_path(path.format(root=root))
    assert str(error.value) == said.format(root=root, here=Path.cwd())


def test_dropped_files_are_kept_up_to_a_size_and_told_by_what_they_hold(
    root: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write_layers(tmp_path / "l.parquet", layers())
    trace = gpu_trace().write(tmp_path / "t.json.gz").read_bytes()
    kinds = {"../memory é.bin": snapshot(), "layers": (tmp_path / "l.parquet").read_bytes(), ".t": trace}
    found = {name: outside.find(outside.drop(name, data)) for name, data in kinds.items()}
    held = {
        name: run and [part for part in ("trace", "memory", "layers") if getattr(run, part)]
        for name, run in found.items()
    }
    assert held == {"../memory é.bin": ["memory"], "layers": ["layers"], ".t": ["trace"]}
    assert all(run and run.path.is_relative_to(outside._home[0]) for run in found.values())
    monkeypatch.setattr(outside, "MOST_BYTES", len(trace))
    newest = outside.drop("u.json.gz", trace)
    assert [run.key for run in outside.every()] == [newest]  # the others are gone
    with pytest.raises(InputError, match="at most"):
        outside.drop("v.json.gz", trace + b" ")
    shutil.rmtree(outside._home[0])  # as systems do with files for some days
    assert outside.find(outside.drop("w.json.gz", trace)) is not None
    monkeypatch.setattr(Path, "write_bytes", full)
    with pytest.raises(InputError) as caught:
        outside.drop("x.json.gz", trace)
    said = "x.json.gz: not kept (No space left on device), expected room for it. Open it by its path."
    assert str(caught.value) == said


def full(path: Path, data: bytes) -> int:
    raise OSError(errno.ENOSPC, "No space left on device")


def test_a_click_is_on_the_row_that_was_seen_also_when_another_run_has_come_meanwhile() -> None:
    seen, now = ["b", "a"], ["c", "b", "a"]
    assert [row_now(row, seen, now) for row in (0, 1, 2, None)] == [1, 2, None, None]
    assert row_now(1, seen, ["c", "b"]) is None  # it is gone
    assert row_now(1, ["same", "same"], ["same", "same"]) == 1


def test_a_picked_row_stays_the_same_run_however_often_the_page_is_drawn(monkeypatch: pytest.MonkeyPatch) -> None:
    """The browser goes on to say the number that was clicked, also of a table with another row above."""
    monkeypatch.setattr(tables.st, "session_state", {})
    monkeypatch.setattr(tables.st, "dataframe", lambda *_, **__: {"selection": {"rows": [1], "cells": []}})
    monkeypatch.setattr(tables.widgets, "csv", lambda *_: None)
    filled = every_table()["runs"].holding(run_list([]))

    def drawn(names: list[str]) -> int | None:
        return tables.pick_row(filled, "runs", names=names, param="")

    assert [drawn(names) for names in (["a", "b"], ["new", "a", "b"], ["new", "a", "b"])] == [1, 2, 2]


def folder(tmp_path: Path, name: str, day: int, *parts: str, device: str = "cuda", **changed: object) -> RunFolder:
    said = dataclasses.replace(record(name, device=device), created=f"2026-01-{day:02}T00:00:00Z", **changed)  # type: ignore[arg-type]
    files = {part: tmp_path / part if part in parts else None for part in ("trace", "memory", "layers", "masks")}
    return RunFolder(name, tmp_path, said, problem=None, **files)


def test_a_run_is_compared_with_the_one_that_is_most_like_it(tmp_path: Path) -> None:
    mine = folder(tmp_path, "mine", 10, "trace", "memory")
    cpu = folder(tmp_path, "cpu", 10, "trace", "memory", device="cpu")
    model = folder(tmp_path, "other model", 10, "trace", "memory", model="vit_h")
    batch = folder(tmp_path, "other batch", 10, "trace", "memory", batch_size=8)
    bare = folder(tmp_path, "trace only", 10, "trace")
    far, near = folder(tmp_path, "far", 1, "trace", "memory"), folder(tmp_path, "near", 12, "trace", "memory")
    task = folder(tmp_path, "other task", 10, "trace", "memory", workload={"spec": "mine.py:workload"})
    broken = RunFolder("broken", tmp_path, None, tmp_path, tmp_path, None, None, "no record")
    unrelated = [model, cpu, task, broken, folder(tmp_path, "holds nothing of it", 10, "layers")]
    ranked = [near, far, bare, batch]
    for number, best in enumerate(ranked):
        assert best_partner(mine, [*unrelated, *reversed(ranked[number:])], recorded_at) is best, best.key
    assert best_partner(mine, unrelated, recorded_at) is None
    assert best_partner(broken, [dataclasses.replace(broken, key="another")], recorded_at) is None
    snapshots = [folder(tmp_path, name, 10, part) for name, part in (("a", "trace"), ("b", "memory"))]
    assert best_partner(folder(tmp_path, "only memory", 10, "memory"), snapshots, recorded_at) is snapshots[1]


def test_notes_are_kept_in_the_run_folder_with_what_they_are_about(
    root: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PROFILER_KIT_TOKEN", "secret")
    test = dashboard()
    test.switch_page("app_pages/kernels.py")
    test.query_params["run"], test.query_params["kernel"] = "gpu", "softmax"
    test.run()
    test.sidebar.text_area(key="note").set_value("*slow* since Monday").run()
    next(one for one in test.sidebar.button if one.label == "Keep it").click().run()
    assert not test.exception and test.session_state["note"] == ""
    (note,) = read_notes(root / "gpu")
    assert (note.text, note.page, note.at) == ("*slow* since Monday", "kernels", {"kernel": "softmax"})
    assert [one.value for one in test.sidebar.markdown] == ["\\*slow\\* since Monday"]
    links = [one.proto.query_string for one in test.get("page_link") if one.proto.label == "Show"]
    assert links == ["run=gpu&kernel=softmax"]
    load_run(root / "gpu").report().save(tmp_path / "report.html")
    report = (tmp_path / "report.html").read_text(encoding="utf-8")
    assert "*slow* since Monday (kernels · kernel softmax · " in report
    next(one for one in test.sidebar.button if one.label == "Remove").click().run()
    assert not test.exception and read_notes(root / "gpu") == ()
    assert [run.key for run in find_runs(root)] == ["bare.json.gz", "broken", "gpu", "host"]


def test_a_broken_file_of_notes_is_one_line_on_every_surface(root: Path) -> None:
    (root / "gpu" / "notes.json").write_text('{"notes": [{"text": 3}]}')
    said = f"{root}/gpu/notes.json: Expected `str`, got `int` - at `$.notes[0].text`, expected the notes of a run. "
    said += "Rename it to go on without its notes."
    test = visit(run="gpu")
    assert [one.value.replace("\\", "") for one in test.error] == [said]
    (root / "gpu" / "notes.json").write_text('{"notes": [], "format": 9}')
    with pytest.raises(RunFormatError, match="format 9, expected 1 or less"):
        read_notes(root / "gpu")


def test_notes_have_a_bound(tmp_path: Path) -> None:
    add_note(tmp_path, "x" * MOST_LETTERS)
    with pytest.raises(OptionError, match="expected at most 500 of 4000 letters each"):
        add_note(tmp_path, "x" * (MOST_LETTERS + 1))


def test_a_page_that_was_left_keeps_no_trace_alive(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A session holds what its buttons would hand out for minutes after the page is closed."""
    held: list[Any] = []
    monkeypatch.setattr(st, "download_button", lambda label, data, *_, **__: held.append(data))
    trace = load_trace(root / "bare.json.gz")
    gone = weakref.ref(trace)
    widgets.csv(every_table()["kernels"].of_source(trace), "key")
    del trace
    gc.collect()
    assert gone() is None and held[0]().startswith("name,stream,device,")


def test_a_first_visit_has_three_steps_that_can_be_taken_away(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(run_parts, "_toured", threading.Event())
    test = visit()
    steps = [one.value.partition("  \n")[0] for one in test.markdown]
    assert steps == ["**1. Pick a run**", "**2. Read its Overview**", "**3. Look closer**"]
    next(one for one in test.button if one.label == "Got it").click().run()
    assert not test.exception and not test.markdown and not visit().markdown
    assert any(one.value.startswith("Runs\\: what there is below the folder") for one in test.sidebar.caption)
