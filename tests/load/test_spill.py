"""Spilling: the file equals a fresh load, and memory does not grow with the trace."""

from __future__ import annotations

import itertools
import os
import subprocess
import sys
from pathlib import Path

import pytest

from profiler_kit.errors import InputError, OptionError
from profiler_kit.load import cache as store
from profiler_kit.load.trace import cached
from profiler_kit.load.trace.cached import (
    free_memory_bytes,
    load_chrome_trace,
    needed_memory_bytes,
    spill_chrome_trace,
    spilled_trace,
)
from profiler_kit.load.trace.chrome import read_chrome_trace
from profiler_kit.sql import select, select_spilled
from profiler_kit.sql_arrow import SPILLED, sql_columns
from profiler_kit.tables import every_table
from profiler_kit.trace import load_trace
from tests.builders import LONG_AFTER, LONG_AGO, TraceBuilder, real_traces
from tests.load.test_cache import a_trace, entries, read_trace, same

pytestmark = pytest.mark.usefixtures("both_readers")

STAMP = {"path": "t.json"}


@pytest.fixture
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    folder = tmp_path / "cache"
    monkeypatch.setenv(store.FOLDER_VARIABLE, str(folder))
    monkeypatch.setattr(cached, "SMALLEST_JSON_BYTES", 0)
    return folder


@pytest.mark.parametrize(("path", "blocks"), list(zip(real_traces(), itertools.cycle([1, 64]), strict=False)))
def test_what_is_spilled_equals_a_fresh_load(
    path: Path, blocks: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("profiler_kit.load.trace.column_builder.NARROW_EVERY", blocks)
    monkeypatch.setattr("profiler_kit.load.trace.decompress.BLOCK_BYTES", 50_000)
    monkeypatch.setattr("profiler_kit.load.trace.split_events.BLOCK_BYTES", 50_000)
    monkeypatch.setattr(cached, "COMPACT_IDS", 100)
    fresh = read_chrome_trace(path, arguments=["input_dims"])
    empty = spill_chrome_trace(path, tmp_path / "x", STAMP, arguments=["input_dims"])
    assert same(read_trace(tmp_path / "x", STAMP, path), fresh)
    assert len(empty.columns) == 0 and empty.columns.names == fresh.columns.names


@pytest.mark.parametrize("path", real_traces()[:4], ids=lambda path: path.name)
def test_queries_answer_as_those_in_memory_do(path: Path, cache: Path) -> None:
    queries = [
        "SELECT * FROM events ORDER BY event",
        "SELECT category, count(*) AS n, sum(dur_ns) AS ns FROM events GROUP BY category ORDER BY category",
        "SELECT event, name, start_ns, end_ns, correlation, stream, device, bytes FROM gpu_events ORDER BY event",
        "SELECT event, name, category, thread, start_ns, correlation FROM launches ORDER BY event",
        "SELECT * FROM threads ORDER BY thread",
    ]
    trace = load_trace(path, cache=False)
    with spilled_trace(path) as spilled:
        for query in queries:
            assert select_spilled(query, spilled).equals(trace.sql(query)), query


def test_the_tables_are_as_documented(tmp_path: Path, cache: Path) -> None:
    with spilled_trace(a_trace(tmp_path)) as spilled:
        for name in SPILLED:
            found = select_spilled(f"DESCRIBE SELECT * FROM {name}", spilled)
            declared = sql_columns(every_table()[name], spilled=True)
            assert dict(zip(found["column_name"], found["column_type"], strict=True)) == {
                name: kind for name, (kind, _) in declared.items()
            }


def test_the_file_is_the_caches_and_serves_both(tmp_path: Path, cache: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = a_trace(tmp_path)
    with spilled_trace(path) as spilled:
        assert entries(cache) == [spilled.file]
    monkeypatch.setattr(cached, "read_chrome_trace", None)  # the JSON is not read again
    monkeypatch.setattr(cached, "spill_chrome_trace", None)
    with spilled_trace(path) as again:
        assert again.file == spilled.file and again.trace.path == path
    assert same(load_chrome_trace(path), read_chrome_trace(path))


def test_without_a_cache_the_file_is_gone_afterwards(
    tmp_path: Path, cache: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = a_trace(tmp_path)
    monkeypatch.setenv(store.FOLDER_VARIABLE, "")
    with spilled_trace(path) as spilled:
        assert select_spilled("SELECT count(*) AS n FROM events", spilled)["n"].tolist() == [60]
    assert not spilled.file.exists() and entries(cache) == []
    monkeypatch.setenv(store.FOLDER_VARIABLE, str(cache))
    os.utime(path, (LONG_AFTER, LONG_AFTER))  # it may still change: not for the cache
    with spilled_trace(path) as spilled:
        assert spilled.file.exists()
    assert not spilled.file.exists() and entries(cache) == []


def test_errors_within_the_block_are_not_swallowed(tmp_path: Path, cache: Path) -> None:
    path = a_trace(tmp_path)
    for _ in range(2):  # spilled, then from the cache
        with pytest.raises(FileNotFoundError, match=r"^mine$"), spilled_trace(path):
            raise FileNotFoundError("mine")


def test_no_room_is_one_line(tmp_path: Path, cache: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(*_: object, **__: object) -> None:
        raise OSError(28, "No space left on device")

    path = a_trace(tmp_path)
    monkeypatch.setattr(cached, "spill_chrome_trace", full)
    with pytest.raises(InputError) as caught, spilled_trace(path):
        pass
    assert str(caught.value) == (
        f"{path}: its events do not fit into {cache} (No space left on device), expected room for about a fifth of "
        "the JSON. Name another folder in PROFILER_KIT_CACHE."
    )
    assert entries(cache) == []


def test_only_the_tables_can_be_reached(tmp_path: Path, cache: Path) -> None:
    with spilled_trace(a_trace(tmp_path)) as spilled:
        for query in (
            f"SELECT * FROM read_parquet('{spilled.file}')",
            "SELECT * FROM read_text('/etc/hostname')",
            "SELECT * FROM '/etc/hostname.csv'",
            "SET memory_limit = '100GB'",
            "SELECT * FROM regions",
        ):
            with pytest.raises(OptionError, match=r"^SQL: "):
                select_spilled(query, spilled)


def test_hostile_names_of_arguments_and_files(tmp_path: Path, cache: Path) -> None:
    builder = TraceBuilder()
    builder.operator("it's quoted", 0, 5, **{"a 'b'": "x"})
    folder = tmp_path / "it's a folder"
    folder.mkdir()
    path = builder.write(folder / "t.json")
    os.utime(path, (LONG_AGO, LONG_AGO))
    with spilled_trace(path, arguments=["a 'b'"]) as spilled:
        row = select_spilled("SELECT * FROM events", spilled).iloc[0]
        assert (row["name"], row["a 'b'"]) == ("it's quoted", '"x"')


@pytest.mark.skipif(not Path("/proc/self/status").exists(), reason="needs Linux to say the peak of a process")
def test_memory_stays_where_it_is_however_large_the_trace(tmp_path: Path) -> None:
    def peak_mb(kernels: int) -> float:
        block = TraceBuilder()
        for number in range(200):
            block.operator("aten::mm", 10 * number, 5, **{"External id": number})
        whole = block.kineto()
        start = whole.index(b"[\n") + 2
        end = whole.rindex(b"\n  ],")
        path = tmp_path / f"{kernels}.json"
        with path.open("wb") as file:
            file.write(whole[:start] + b",\n".join([whole[start:end]] * (kernels // 200)) + whole[end:])
        code = (
            "import re, sys; from pathlib import Path; from profiler_kit.load.trace import cached, column_builder\n"
            "column_builder.NARROW_EVERY, cached.COMPACT_IDS = 4, 1 << 13  # both files have many of each\n"
            "cached.spill_chrome_trace(sys.argv[1], Path(sys.argv[2]), {})\n"
            "print(int(re.search(r'VmHWM:\\s+(\\d+)', Path('/proc/self/status').read_text())[1]) / 1e3)"
        )
        command = [sys.executable, "-c", code, str(path), str(tmp_path / "x.parquet")]
        return float(subprocess.run(command, capture_output=True, text=True, check=True).stdout)

    small, large = peak_mb(200_000), peak_mb(400_000)  # more than are kept in memory, both
    assert large < 200
    assert large < small + 10  # the columns of 200,000 events are more


def test_what_memory_a_trace_needs_is_guessed_from_its_size(tmp_path: Path) -> None:
    plain, packed = tmp_path / "a.json", tmp_path / "a.json.gz"
    plain.write_bytes(b"[" + b" " * 999)
    packed.write_bytes(b"\x1f\x8b" + b" " * 998)
    assert needed_memory_bytes(plain) == 1200
    assert needed_memory_bytes(packed) == 14 * 1200
    free = free_memory_bytes()
    assert free is None or free > 1 << 20


def test_selecting_from_no_tables_still_works() -> None:
    assert select("SELECT 1 AS a", {})["a"].tolist() == [1]
