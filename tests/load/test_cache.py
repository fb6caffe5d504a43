"""The cache: what it gives back equals a fresh load, and it is never used when it should not be."""

from __future__ import annotations

import dataclasses
import os
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from profiler_kit.errors import OptionError
from profiler_kit.load import cache as store
from profiler_kit.load.cache import NotOurs, Unpackable, read_file, write_file
from profiler_kit.load.integers import MISSING
from profiler_kit.load.trace import cached
from profiler_kit.load.trace.cached import TRACES, load_chrome_trace
from profiler_kit.load.trace.chrome import ChromeTrace, LoadQuality, read_chrome_trace
from profiler_kit.load.trace.columns import EventColumns
from profiler_kit.trace import load_trace
from tests.builders import LONG_AFTER, LONG_AGO, TraceBuilder, real_traces

STAMP = {"path": "t.json"}


def write_trace(trace: ChromeTrace, file: Path, stamp: dict[str, Any]) -> None:
    write_file(file, TRACES, stamp, trace)


def read_trace(file: Path, stamp: dict[str, Any], path: Path = Path("t.json")) -> ChromeTrace:
    return TRACES.unpack(read_file(file, TRACES, stamp), path)


def same(one: Any, other: Any) -> bool:
    """Equal in every value, type, dtype, shape and order."""
    if type(one) is not type(other):
        return False
    if isinstance(one, np.ndarray):
        return one.dtype == other.dtype and one.shape == other.shape and np.array_equal(one, other)
    if dataclasses.is_dataclass(one):
        return all(same(getattr(one, f.name), getattr(other, f.name)) for f in dataclasses.fields(one))
    if isinstance(one, dict):
        return len(one) == len(other) and all(
            same(a, b) and same(one[a], other[b]) for a, b in zip(one, other, strict=True)
        )
    if isinstance(one, list | tuple):
        return len(one) == len(other) and all(same(a, b) for a, b in zip(one, other, strict=True))
    return bool(one == other)


def a_trace(folder: Path, name: str = "t.json", kernels: int = 20) -> Path:
    trace = TraceBuilder()
    for number in range(kernels):
        trace.region(f"region {number % 3} ü", 100 * number, 50)
        trace.launch(number, 100 * number)
        trace.kernel(number, 100 * number + 10.125, 5.5)
    path = trace.write(folder / name)
    os.utime(path, (LONG_AGO, LONG_AGO))
    return path


@pytest.fixture
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """An empty cache for traces of any size."""
    folder = tmp_path / "cache"
    monkeypatch.setenv(store.FOLDER_VARIABLE, str(folder))
    monkeypatch.delenv(store.LIMIT_VARIABLE, raising=False)
    monkeypatch.setattr(cached, "SMALLEST_JSON_BYTES", 0)
    yield folder
    store.finish()


@pytest.fixture
def reads(monkeypatch: pytest.MonkeyPatch) -> list[Path]:
    """The files that were loaded from their JSON."""
    seen: list[Path] = []

    def read(path: Path, **options: Any) -> ChromeTrace:
        seen.append(path)
        return read_chrome_trace(path, **options)

    monkeypatch.setattr(cached, "read_chrome_trace", read)
    return seen


def entries(cache: Path) -> list[Path]:
    store.finish()
    return sorted(cache.iterdir()) if cache.is_dir() else []


def test_the_second_load_comes_from_the_cache_and_is_equal(tmp_path: Path, cache: Path, reads: list[Path]) -> None:
    path = a_trace(tmp_path)
    first = load_chrome_trace(path)
    second = load_chrome_trace(path)
    assert reads == [path]
    assert same(first, second)
    assert second.columns.start_ns.flags.writeable


@pytest.mark.parametrize("path", real_traces(), ids=lambda path: "/".join(path.parts[-2:]))
def test_every_real_capture_comes_back_equal(path: Path, tmp_path: Path) -> None:
    fresh = read_chrome_trace(path)
    write_trace(fresh, tmp_path / "x", STAMP)
    assert same(read_trace(tmp_path / "x", STAMP, path), fresh)


def test_text_columns_asked_for_are_kept(tmp_path: Path, cache: Path, reads: list[Path]) -> None:
    trace = TraceBuilder()
    trace.operator("aten::mm", 0, 5, **{"Input Dims": [[2, 3], [3, 4]]})
    trace.operator("aten::relu", 6, 5)
    path = trace.write(tmp_path / "t.json")
    os.utime(path, (LONG_AGO, LONG_AGO))
    plain = load_chrome_trace(path)
    shapes = load_chrome_trace(path, arguments=["Input Dims"])
    again = load_chrome_trace(path, arguments=["Input Dims"])
    assert len(reads) == 2 and len(entries(cache)) == 2
    assert same(again, shapes) and not same(plain, shapes)
    assert same(load_chrome_trace(path), plain)


INTEGERS = st.integers(-(1 << 63), (1 << 63) - 1) | st.just(MISSING) | st.integers(-3, 3)
KEYS = st.integers(-(1 << 63), 1 << 63) | st.text(max_size=5)
JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=3), inner, max_size=3),
    max_leaves=8,
)


@st.composite
def chrome_traces(draw: st.DrawFn) -> ChromeTrace:
    rows = draw(st.integers(0, 12))

    def array(dtype: type, values: st.SearchStrategy[int]) -> Any:
        return np.array(draw(st.lists(values, min_size=rows, max_size=rows)), dtype=dtype)

    flows = st.lists(st.tuples(INTEGERS, INTEGERS, INTEGERS), max_size=13)
    columns = EventColumns(
        name=array(np.int32, st.integers(0, 3)),
        category=array(np.int32, st.integers(0, 2)),
        thread=array(np.int32, st.integers(0, 1)),
        start_ns=array(np.int64, INTEGERS),
        dur_ns=array(np.int64, INTEGERS),
        integers={name: array(np.int64, INTEGERS) for name in draw(st.sets(st.text(max_size=4), max_size=3))},
        names=draw(st.lists(st.text(max_size=8), max_size=4)),
        categories=draw(st.lists(st.text(max_size=8), max_size=3)),
        threads=draw(st.lists(st.tuples(KEYS, KEYS), max_size=3)),
        launched=np.array(draw(st.lists(st.tuples(INTEGERS, INTEGERS), max_size=13)), np.int64).reshape(-1, 2),
        forward_flows=np.array(draw(flows), dtype=np.int64).reshape(-1, 3),
        backward_flows=np.array(draw(flows), dtype=np.int64).reshape(-1, 3),
        thread_names=draw(st.dictionaries(st.tuples(KEYS, KEYS), st.text(max_size=4), max_size=3)),
        process_labels=draw(st.dictionaries(KEYS, st.text(max_size=4), max_size=3)),
    )
    quality = LoadQuality(rows, draw(st.booleans()), draw(st.integers(0, 9)), draw(st.integers(0, 9)))
    return ChromeTrace(Path("t.json"), columns, draw(st.dictionaries(st.text(max_size=4), JSON, max_size=3)), quality)


@settings(max_examples=150)
@given(trace=chrome_traces())
def test_any_columns_come_back_equal(tmp_path_factory: Any, trace: ChromeTrace) -> None:
    file = tmp_path_factory.mktemp("any") / "x.trace"
    write_trace(trace, file, STAMP)
    assert same(read_trace(file, STAMP), trace)


@dataclasses.dataclass(frozen=True)
class More:
    """A record with columns of other kinds than a trace has today."""

    flags: Any
    sizes: Any
    deep: dict[str, tuple[Any, ...]]


MORE = store.Kind[More]("more", More, (), pack=lambda value: value, unpack=lambda value, _: value)


@pytest.mark.parametrize("mapped", [False, True])
def test_columns_added_later_are_carried_along(tmp_path: Path, mapped: bool) -> None:
    kind = dataclasses.replace(MORE, mapped=mapped)
    deep = {"a": (np.array([[1, 2, 3]], np.int16), "x", None), "b": (np.array([], np.uint64),)}
    value = More(np.array([True, False]), np.array([0.5, np.inf]), deep)
    write_file(tmp_path / "x", kind, STAMP, value)
    assert same(read_file(tmp_path / "x", kind, STAMP), value)
    for unknown, name in ((object(), "object"), (np.array([None]), "ndarray object"), ({1 << 70: 1}, "serialize ints")):
        with pytest.raises(Unpackable, match=name):
            write_file(tmp_path / "y", kind, STAMP, More(value.flags, unknown, {}))
    assert not (tmp_path / "y").exists()


def test_missing_integers_are_stored_in_as_few_bytes_as_hold_them(tmp_path: Path) -> None:
    """And mapped as they are stored; the smallest integer is a missing one in each width."""
    value = More(np.array([5, MISSING, -127]), np.broadcast_to(np.array(MISSING), 3), {})
    write_file(tmp_path / "x", MORE, STAMP, value)
    assert same(read_file(tmp_path / "x", MORE, STAMP), value)
    mapped = read_file(tmp_path / "x", MORE, STAMP, mapped=True)
    assert mapped.flags.dtype == np.int64 and mapped.sizes.dtype == np.int8 and mapped.sizes.tolist() == [-128] * 3
    assert not mapped.flags.flags.writeable and not mapped.flags.flags.owndata


def test_arrays_that_stay_in_the_file_may_be_written_to_and_outlive_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(store, "MAPPED_BYTES", 0)
    file = tmp_path / "x"
    value = More(np.arange(9000), np.array([0.5, 2.5]), {})
    write_file(file, MORE, STAMP, value)
    found, other = (read_file(file, MORE, STAMP) for _ in range(2))
    found.flags[4] = 7
    assert other.flags[4] == 4 and same(read_file(file, MORE, STAMP), value)
    (tmp_path / "new").write_bytes(b"another one, as a second process writes it")
    (tmp_path / "new").replace(file)
    file.unlink()
    assert found.flags[4] == 7 and same(other, value)


def test_what_is_written_to_frames_is_not_kept(
    tmp_path: Path, cache: Path, reads: list[Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Their numbers are the memory that a thread writes to the cache's file, whose checksum is known before."""
    write, edited = store.write_file, threading.Event()

    def late(file: Path, kind: Any, stamp: Any, value: Any, summed: Any) -> None:
        time.sleep(0.3)
        write(file, kind, stamp, value, lambda: (summed(), edited.wait(60)))

    path = a_trace(tmp_path)
    with monkeypatch.context() as patched:
        patched.setattr(store, "write_file", late)
        events = load_trace(path).events
        events["start_ns"] -= 100
        edited.set()
        store.finish()
    starts = (events["start_ns"] + 100).tolist()
    for _ in range(2):
        assert load_trace(path).events["start_ns"].tolist() == starts and len(reads) == 2
        store.finish()


def test_nobody_may_write_to_a_file_of_the_cache(tmp_path: Path, cache: Path) -> None:
    """Another process may have it mapped; it is replaced, touched and removed all the same."""
    path = a_trace(tmp_path)
    load_chrome_trace(path)
    (file,) = entries(cache)
    assert file.stat().st_mode & 0o377 == 0


def test_a_path_that_is_not_utf8_is_kept(tmp_path: Path, cache: Path, reads: list[Path]) -> None:
    path = a_trace(tmp_path, os.fsdecode(b"\xff\xfe.json"))
    assert same(load_chrome_trace(path), load_chrome_trace(path)) and len(reads) == 1


def test_a_changed_trace_is_loaded_anew(tmp_path: Path, cache: Path, reads: list[Path]) -> None:
    path = a_trace(tmp_path)
    load_chrome_trace(path)
    changed = path.read_bytes().replace(b"region 1", b"region 7")
    path.write_bytes(changed)  # the same size
    os.utime(path, (LONG_AGO, LONG_AGO))  # and the same time
    again = load_chrome_trace(path)
    assert len(reads) == 2 and "region 7 ü" in again.columns.names
    assert len(entries(cache)) == 1
    load_chrome_trace(path)
    assert len(reads) == 2


def test_a_trace_that_may_still_change_is_not_kept(tmp_path: Path, cache: Path) -> None:
    path = a_trace(tmp_path)
    os.utime(path, (LONG_AFTER, LONG_AFTER))  # a second write could leave size and time as they are
    load_chrome_trace(path)
    assert entries(cache) == []


def test_a_trace_that_changes_while_it_is_loaded_is_not_kept(
    tmp_path: Path, cache: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = a_trace(tmp_path)

    def read(file: Path, **options: Any) -> ChromeTrace:
        trace = read_chrome_trace(file, **options)
        path.write_bytes(path.read_bytes() + b"\n")
        os.utime(path, (LONG_AGO, LONG_AGO))
        return trace

    monkeypatch.setattr(cached, "read_chrome_trace", read)
    load_chrome_trace(path)
    assert entries(cache) == []


def test_another_loader_or_format_does_not_use_the_file(
    tmp_path: Path, cache: Path, reads: list[Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    path = a_trace(tmp_path)
    load_chrome_trace(path)
    store.finish()
    monkeypatch.setattr(store, "code_of", lambda _: "other")
    load_chrome_trace(path)
    store.finish()
    monkeypatch.setattr(store, "MAGIC", b"profiler_kit 999")
    load_chrome_trace(path)
    assert len(reads) == 3 and len(entries(cache)) == 1


@pytest.mark.parametrize("mapped_bytes", [0, store.MAPPED_BYTES])
def test_every_damaged_file_is_noticed(tmp_path: Path, mapped_bytes: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """Any one byte changed, or any end cut off."""
    monkeypatch.setattr(store, "MAPPED_BYTES", mapped_bytes)
    trace = read_chrome_trace(a_trace(tmp_path, kernels=2))
    file = tmp_path / "x.trace"
    write_trace(trace, file, STAMP)
    good = file.read_bytes()
    assert same(read_trace(file, STAMP, trace.path), trace)
    for at in range(0, len(good), 3):
        file.write_bytes(good[:at] + bytes([good[at] ^ (1 << at % 8)]) + good[at + 1 :])
        with pytest.raises(NotOurs):
            read_trace(file, STAMP)
    for size in [*range(0, len(good), 97), len(good) - 1]:
        file.write_bytes(good[:size])
        with pytest.raises(NotOurs):
            read_trace(file, STAMP)


@pytest.mark.parametrize("foreign", [b"", b"nonsense", b"PAR1" * 3, "parquet", "folder"])
def test_a_foreign_file_is_replaced(tmp_path: Path, cache: Path, reads: list[Path], foreign: bytes | str) -> None:
    path = a_trace(tmp_path)
    entry = cached.find_trace(TRACES, path)
    assert entry is not None
    cache.mkdir()
    if foreign == "folder":
        entry.file.mkdir()  # cannot be replaced: the trace loads all the same
    elif isinstance(foreign, bytes):
        entry.file.write_bytes(foreign)
    else:
        import pandas as pd

        pd.DataFrame({"a": [1]}).to_parquet(entry.file)
    fresh = load_chrome_trace(path)
    assert same(load_chrome_trace(path), fresh)
    assert len(reads) == (2 if foreign == "folder" else 1)


def test_a_cache_that_cannot_be_written_costs_nothing(
    tmp_path: Path, cache: Path, reads: list[Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    path = a_trace(tmp_path)
    blocker = tmp_path / "file"
    blocker.write_text("in the way")
    monkeypatch.setenv(store.FOLDER_VARIABLE, str(blocker / "cache"))
    assert len(load_chrome_trace(path).columns) == 60

    def full(*_: Any) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setenv(store.FOLDER_VARIABLE, str(cache))
    monkeypatch.setattr(store, "write_file", full)
    assert len(load_chrome_trace(path).columns) == 60
    assert entries(cache) == []


def test_the_environment_chooses_the_folder(tmp_path: Path, cache: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = a_trace(tmp_path)
    monkeypatch.setenv(store.FOLDER_VARIABLE, "")
    assert store.cache_folder() is None and cached.find_trace(TRACES, path) is None
    load_chrome_trace(path)
    assert entries(cache) == []
    monkeypatch.delenv(store.FOLDER_VARIABLE)
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "xdg"))
    assert store.cache_folder() == tmp_path / "xdg" / "profiler_kit"
    monkeypatch.setenv("XDG_CACHE_HOME", "relative")  # the specification says to ignore such a value
    monkeypatch.setenv("HOME", str(tmp_path))
    assert store.cache_folder() == tmp_path / ".cache" / "profiler_kit"


def test_small_traces_are_left_alone(tmp_path: Path, cache: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(cached, "SMALLEST_JSON_BYTES", 1 << 20)
    load_chrome_trace(a_trace(tmp_path))
    assert entries(cache) == []


def test_many_small_traces_are_kept_once_they_took_long(
    tmp_path: Path, cache: Path, reads: list[Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    paths = [a_trace(tmp_path, f"{number}.json") for number in range(3)]
    monkeypatch.setattr(cached, "SMALLEST_JSON_BYTES", 1 << 20)
    monkeypatch.setattr(cached, "SMALL_JSON_BYTES", 100)
    monkeypatch.setattr(cached, "MANY_SMALL_S", 1e-9)
    monkeypatch.setattr(cached, "_small_s", [0.0])
    first = [load_chrome_trace(path) for path in paths]
    assert len(entries(cache)) == 2  # the first one took no time yet
    again = [load_chrome_trace(path) for path in paths]
    assert all(map(same, first, again)) and reads == [*paths, paths[0]] and len(entries(cache)) == 3
    monkeypatch.setattr(cached, "SMALL_JSON_BYTES", 1 << 20)
    load_chrome_trace(paths[0])
    assert reads[-1] == paths[0] and len(reads) == 5


def test_the_files_not_used_for_longest_go_first(
    tmp_path: Path, cache: Path, reads: list[Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    paths = [a_trace(tmp_path, f"{number}.json") for number in range(3)]
    files = []
    for path in paths:
        load_chrome_trace(path)
        store.finish()
        entry = cached.find_trace(TRACES, path)
        assert entry is not None
        files.append(entry.file)
        os.utime(entry.file, (LONG_AGO + len(files), LONG_AGO + len(files)))
    mine = cache / "notes.parquet"
    mine.write_text("not a cache file")
    old = cache / f"{'0' * 32}.parquet"
    old.write_text("of an earlier version")
    batch = cache / f"{'1' * 32}.ranks" / "batch"  # a folder that counts with what is in it
    batch.mkdir(parents=True)
    (batch / "ranks.parquet").write_bytes(bytes(10 * files[0].stat().st_size))
    for one in (old, batch.parent):
        os.utime(one, (LONG_AGO, LONG_AGO))
    load_chrome_trace(paths[0])  # used: now it is the youngest
    size = files[0].stat().st_size
    store.make_room(cache, 2 * size + size // 2)
    assert entries(cache) == sorted([files[0], files[2], mine])
    monkeypatch.setenv(store.LIMIT_VARIABLE, f"{size // 2}B")
    load_chrome_trace(paths[1])  # larger than the whole cache may be
    assert entries(cache) == [mine]
    monkeypatch.setenv(store.LIMIT_VARIABLE, "0")
    assert cached.find_trace(TRACES, paths[1]) is None


@pytest.mark.parametrize(
    ("text", "size"), [("7", 7), ("5GB", 5 * 10**9), ("1.5 mb", 1_500_000), ("2T", 2 * 10**12), ("", 5 * 10**9)]
)
def test_limits_are_read(monkeypatch: pytest.MonkeyPatch, text: str, size: int) -> None:
    monkeypatch.setenv(store.LIMIT_VARIABLE, text)
    assert store.limit_bytes() == size


@pytest.mark.parametrize("text", ["-1", "5 apples", "GB", "1e9", "nan"])
def test_a_limit_that_is_no_size_is_one_line(monkeypatch: pytest.MonkeyPatch, text: str) -> None:
    monkeypatch.setenv(store.LIMIT_VARIABLE, text)
    with pytest.raises(OptionError) as caught:
        store.limit_bytes()
    assert str(caught.value) == (
        f"PROFILER_KIT_CACHE_LIMIT={text}: not a size, expected a number with KB, MB, GB or TB. "
        "Try: PROFILER_KIT_CACHE_LIMIT=5GB"
    )


def test_threads_and_processes_may_load_the_same_trace_at_once(tmp_path: Path, cache: Path) -> None:
    path = a_trace(tmp_path, kernels=300)
    code = (
        "import sys; from profiler_kit.load.trace import cached; cached.SMALLEST_JSON_BYTES = 0\n"
        "for _ in range(15): assert len(cached.load_chrome_trace(sys.argv[1]).columns) == 900\n"
    )
    others = [subprocess.Popen([sys.executable, "-c", code, str(path)], stderr=subprocess.PIPE) for _ in range(2)]
    found: list[int] = []

    def load() -> None:
        for _ in range(5):
            found.append(len(load_chrome_trace(path).columns))
            entry = cached.find_trace(TRACES, path)
            assert entry is not None
            entry.file.unlink(missing_ok=True)

    threads = [threading.Thread(target=load) for _ in range(3)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    for other in others:
        _, err = other.communicate(timeout=900)
        assert (other.returncode, err) == (0, b"")
    assert found == [900] * 15
    assert all(store._ENTRY.fullmatch(entry.name) for entry in entries(cache))


WRITE_AND_END = """
import sys
from profiler_kit.load import cache
from profiler_kit.load.trace import cached

cached.SMALLEST_JSON_BYTES = 0
cache.GRACE_S = float(sys.argv[2])
begun = cache._padded_bytes

def slowly(*given):
    for data in begun(*given):
        print("writing", flush=True)
        cache._ended.wait(float(sys.argv[3]))
        yield data

cache._padded_bytes = slowly
print(len(cached.load_chrome_trace(sys.argv[1]).columns), flush=True)
"""


@pytest.mark.parametrize(("grace_s", "piece_s", "kept"), [(600, 0.0, True), (0, 600.0, False)])
def test_a_process_that_ends_leaves_a_whole_file_or_none(
    grace_s: float, piece_s: float, kept: bool, tmp_path: Path, cache: Path
) -> None:
    path = a_trace(tmp_path)
    command = [sys.executable, "-c", WRITE_AND_END, str(path), str(grace_s), str(piece_s)]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    assert "60" in done.stdout and done.stderr == ""
    assert len([item for item in cache.rglob("*") if item.is_file()]) == kept
    assert same(load_chrome_trace(path), read_chrome_trace(path))


def test_a_second_load_waits_for_the_first_to_be_kept(
    tmp_path: Path, cache: Path, reads: list[Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    path, hold = a_trace(tmp_path), threading.Event()
    write = store.write_file
    monkeypatch.setattr(store, "write_file", lambda *given: hold.wait(900) and write(*given))
    first = load_chrome_trace(path)
    threading.Timer(0.05, hold.set).start()
    assert same(load_chrome_trace(path), first)
    assert reads == [path]
