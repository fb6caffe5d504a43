"""Blocks that are scanned in other threads give what the decoder gives, wherever cuts were guessed wrong."""

from __future__ import annotations

import threading
from pathlib import Path

import pytest

from profiler_kit.load.trace import chrome, scan_ahead
from profiler_kit.load.trace.chrome import read_chrome_trace
from profiler_kit.load.trace.native import Scanner
from tests.builders import real_traces
from tests.fuzz.mutations import mutate
from tests.fuzz.seeds import seeds
from tests.fuzz.values import rewritten
from tests.readers import HAVE_NATIVE, differences, read_by

pytestmark = pytest.mark.skipif(not HAVE_NATIVE, reason="no native reader here")
ASKED = ("input_dims", "grid", "collective_name")
SPAN = '{"ph":"X","cat":"%s","name":"%s","pid":%d,"tid":1,"ts":%s,"dur":2,"args":{"%s":1}}'


@pytest.fixture(autouse=True)
def small_blocks(monkeypatch: pytest.MonkeyPatch) -> None:
    """Small files are scanned ahead too, in many chunks."""
    monkeypatch.setattr(chrome, "AHEAD_BYTES", -1)
    monkeypatch.setattr(chrome, "_cores", lambda: chrome.SCAN_AHEAD_CORES)
    for module in ("decompress", "split_events"):
        monkeypatch.setattr(f"profiler_kit.load.trace.{module}.BLOCK_BYTES", 600)
    monkeypatch.setattr(scan_ahead, "CHUNK_BYTES", 1500)


@pytest.mark.parametrize("path", real_traces()[:2], ids=lambda path: path.name)
def test_captures_are_the_same(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for module in ("decompress", "split_events"):
        monkeypatch.setattr(f"profiler_kit.load.trace.{module}.BLOCK_BYTES", 30_000)
    assert differences(read_by("native", path, ASKED), read_by("python", path, ASKED)) == []


def test_broken_files_are_the_same(tmp_path: Path) -> None:
    corpus, path = seeds(), tmp_path / "t.json"
    found = {}
    for number in range(25):
        for make in (mutate, rewritten):
            path.write_bytes(make(number, corpus))
            found[number] = differences(read_by("native", path, ASKED), read_by("python", path, ASKED))
    assert not any(found.values()), found


@pytest.mark.parametrize("bad", [(), (0,), (40,), (99,), range(0, 100, 7), range(30, 60)], ids=str)
@pytest.mark.parametrize("large", [0, 50, 200])
def test_what_a_thread_leaves_is_taken_in_its_place(bad: tuple[int, ...], large: int, tmp_path: Path) -> None:
    """Malformed names, new names and arguments, and times that become too large for a float."""
    events = [
        SPAN % (f"c{n % 3}", f"n{n // 10}" + '"' * (n in bad), n % 5, f"{(n >= large) * (1 << 51) + n}.0625", key)
        for n, key in enumerate(["device", "stream", "grid", "correlation"] * 25)
    ]
    path = tmp_path / "t.json"
    path.write_text('{"traceEvents":[' + ",\n".join(events) + '],"x":[{"a":1},{"b":2},{"c":3}]}')
    native = read_by("native", path, ASKED)
    assert not isinstance(native, str) and native.quality.repaired_events == len(bad)
    assert differences(native, read_by("python", path, ASKED)) == []


def test_threads_end_with_the_load(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "t.json"
    path.write_text("[" + ",\n".join([SPAN % ("a", "b", 1, 5, "device")] * 300) + "]")
    before = threading.active_count()

    def report(done: float, total: float, note: str = "") -> None:
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        read_chrome_trace(path, report=report)
    assert threading.active_count() == before

    def fail(self: Scanner, block: bytes) -> list[bytes]:
        raise MemoryError

    monkeypatch.setattr(Scanner, "take", fail)
    with pytest.raises(MemoryError):
        read_chrome_trace(path)
    assert threading.active_count() == before
