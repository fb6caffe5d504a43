from __future__ import annotations

import dataclasses
import os
import time
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest

from profiler_kit.load import cache as store
from profiler_kit.load.snapshot import reader
from profiler_kit.load.snapshot.data import SnapshotData
from profiler_kit.load.snapshot.reader import SNAPSHOTS, load_snapshot_data, read_snapshot
from tests import snapshots as s

GOLDEN = s.ROOT / "tests" / "golden" / "memory_train_h200.pickle"


@pytest.fixture
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    folder = tmp_path / "cache"
    monkeypatch.setenv(store.FOLDER_VARIABLE, str(folder))
    monkeypatch.setattr(reader, "SMALLEST_BYTES", 0)
    monkeypatch.setattr(store, "SETTLED_NS", -(10**12))  # a file just written will do
    return folder


def copy(tmp_path: Path) -> Path:
    path = tmp_path / "m.pickle"
    path.write_bytes(GOLDEN.read_bytes())
    return path


def assert_same(a: SnapshotData, b: SnapshotData) -> None:
    for name in ("events", "blocks", "segments", "annotations"):
        pd.testing.assert_frame_equal(getattr(a, name), getattr(b, name))
    assert (a.path, a.settings, a.devices) == (b.path, b.settings, b.devices)
    assert vars(a.recording) == vars(b.recording)
    assert a.stacks.frames == b.stacks.frames
    assert np.array_equal(a.stacks.ends, b.stacks.ends)
    assert np.array_equal(a.stacks.frame_numbers, b.stacks.frame_numbers)


def never(*_: object, **__: object) -> None:
    raise AssertionError("the pickle is read again")


def test_the_second_load_comes_from_the_cache(cache: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = copy(tmp_path)
    load_snapshot_data(path)
    store.finish()
    assert len(list(cache.glob("*.snapshot"))) == 1
    fresh = read_snapshot(path)
    monkeypatch.setattr(reader, "_read_columns", never)
    assert_same(load_snapshot_data(path), fresh)


def test_what_is_written_to_frames_is_not_kept(cache: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write = store.write_file

    def late(*arguments: Any) -> None:
        time.sleep(0.3)
        write(*arguments)

    monkeypatch.setattr(store, "write_file", late)
    path = copy(tmp_path)
    events = load_snapshot_data(path).events
    events["size_bytes"] += 1
    store.finish()
    assert_same(load_snapshot_data(path), read_snapshot(path))


def test_a_snapshot_that_changed_is_read_again(cache: Path, tmp_path: Path) -> None:
    path = copy(tmp_path)
    load_snapshot_data(path)
    s.write(path, s.snapshot([s.alloc(1, 0x1000, 77)]))
    assert load_snapshot_data(path).events["size_bytes"].tolist() == [77]


@pytest.mark.parametrize("keep", [0, 4, 0.5, 0.99])
def test_a_broken_cache_file_is_read_around_and_replaced(cache: Path, tmp_path: Path, keep: float) -> None:
    path = copy(tmp_path)
    load_snapshot_data(path)
    store.finish()
    (entry,) = cache.glob("*.snapshot")
    whole = entry.read_bytes()
    entry.unlink()
    entry.write_bytes(whole[: int(keep if keep > 1 else keep * len(whole))])
    assert_same(load_snapshot_data(path), read_snapshot(path))
    store.finish()
    assert entry.stat().st_size == len(whole)


def test_columns_that_do_not_fit_are_not_believed(cache: Path, tmp_path: Path) -> None:
    """What a cache file says is checked as what the reading process says."""
    path = copy(tmp_path)
    load_snapshot_data(path)
    entry = store.find(SNAPSHOTS, path)
    assert entry is not None
    store.finish()
    parts = store.read_file(entry.file, SNAPSHOTS, entry.stamp)
    wrong = np.full(len(parts.columns["event.stack"]), 10**6, np.int32)
    parts = dataclasses.replace(parts, columns={**parts.columns, "event.stack": wrong})
    entry.file.unlink()
    store.write_file(entry.file, SNAPSHOTS, entry.stamp, (parts, read_snapshot(path)))
    assert_same(load_snapshot_data(path), read_snapshot(path))


def test_small_young_and_switched_off_are_not_kept(
    cache: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = copy(tmp_path)
    monkeypatch.setattr(store, "SETTLED_NS", 10**12)
    load_snapshot_data(path)
    monkeypatch.setattr(store, "SETTLED_NS", -(10**12))
    monkeypatch.setattr(reader, "SMALLEST_BYTES", 10**6)
    load_snapshot_data(path)
    monkeypatch.setattr(reader, "SMALLEST_BYTES", 0)
    monkeypatch.setenv(store.FOLDER_VARIABLE, "")
    load_snapshot_data(path)
    assert not cache.exists()


def test_a_cache_that_cannot_be_written_does_no_harm(cache: Path, tmp_path: Path) -> None:
    cache.write_text("a file where the folder should be")
    assert len(load_snapshot_data(copy(tmp_path)).events) == 227
    assert os.path.getsize(cache) > 0  # noqa: PTH202
