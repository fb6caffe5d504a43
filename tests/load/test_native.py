"""The native reader: when it is used, when it is not, what it leaves to the decoder."""

from __future__ import annotations

import json
import runpy
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from packaging.tags import parse_tag, sys_tags

from profiler_kit.errors import OptionError
from profiler_kit.load.integers import MISSING
from profiler_kit.load.trace import native
from profiler_kit.load.trace.chrome import read_chrome_trace
from profiler_kit.load.trace.native import Scanner, build, scanner_for
from profiler_kit.load.trace.split_events import EventStream
from tests.builders import TraceBuilder, real_traces
from tests.readers import HAVE_NATIVE, READERS, differences, read_by, reader

needs_native = pytest.mark.skipif(not HAVE_NATIVE, reason=native.found())
SPAN = '{"ph":"X","name":"a","ts":1,"dur":2}'
QUICK = (*build.FLAGS, "-O0")  # what is tried is not how fast it is


@needs_native
@pytest.mark.parametrize("path", real_traces(), ids=lambda path: "/".join(path.parts[-2:]))
def test_captures_are_the_same_and_need_no_decoder(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    asked = ("input_dims", "grid", "collective_name")
    alone = read_by("python", path, asked)
    taken: list[bool] = []
    take = Scanner.take
    monkeypatch.setattr(Scanner, "take", lambda self, block: _noted(taken, take(self, block)))
    assert differences(read_by("native", path, asked), alone) == []
    assert taken and all(taken)


def _noted(taken: list[bool], metadata: list[bytes] | None) -> list[bytes] | None:
    taken.append(metadata is not None)
    return metadata


def taken(events: str, *, exact: bool = False) -> bool:
    scanner = scanner_for((), (), 0)
    assert scanner is not None
    scanner.exact = exact
    return scanner.take(f"[{events}]".encode("utf-8", "surrogateescape")) is not None


@needs_native
@pytest.mark.parametrize(
    "member",
    [
        '"x":[1 2]', '"x":[1,]', '"x":{"a":1,}', '"x":{1:2}', '"x":-', '"x":01', '"x":1.', '"x":1e400', '"x":nan',
        '"x":"\\ud800"', '"x":"\\u12"', '"x":"\t"', '"n\\u0061me":"b"', '"name":"\udcff"', '"name":1', '"ph":2',
        '"ts":"1 "', '"ts":1e3', '"dur":9e99', '"dur":8796093022208', '"pid":1.5', '"pid":true', '"id":null',
        '"args":{"correlation":"01"}', '"args":{"correlation":1e0}', '"args":{"stream":"0b1_0"}',
        '"name":null,"ts":1.0625', '"pid":null,"ts":1712195495519689',
        '"args":{"name":1}', '"args":{"labels":"\udcff"}', '"args":{"c\\u006f":1}',
    ],
)  # fmt: skip
def test_what_it_is_not_sure_of_is_the_decoders(member: str) -> None:
    assert not taken(SPAN.replace("}", f",{member}}}"))
    assert taken(SPAN)


@needs_native
@pytest.mark.parametrize(
    "member",
    [
        '"x":[1, {"a": [null, true, -0.5e-10]}, "\\u00e9"]', '"x":"\udcff"', '"id":"any"', '"pid":"Spans"',
        '"args":{"stream":"0x1f"}', '"args":{"stream":"stream 7"}', '"args":{"correlation":"7\\u0020\\""}',
        '"args":{"correlation":""}', '"args":{"correlation":18446744073709551615}', '"args":{"Python id":null}',
        '"args":{"external id":7, "Collective name":"allreduce"}',
        '"name":"é \\u00e9 \\n \\ud83d\\ude00"', '"ts":12.3456', '"dur":0.0005',
        '"name":null', '"cat":null', '"pid":null', '"ts":"1"', '"ts":null', '"dur":"2"', '"dur":-1', '"dur":-0.0005',
        '"dur":null', '"ph":"B"', '"ph":"XX"', '"ph":null', '"args":null', '"args":[1]', '"args":{"correlation":"1"}',
        '"args":{"correlation":7.9}', '"args":{"correlation":null}',
    ],
)  # fmt: skip
def test_what_is_well_formed_is_taken(member: str) -> None:
    assert taken(SPAN.replace("}", f",{member}}}"))


@needs_native
@pytest.mark.parametrize(
    "ends",
    [
        "", ',"name":"b"', ',"cat":"kernel"', ',"pid":3', ',"tid":"2"', ',"ts":7', ',"ts":null', ',"dur":"9"',
        ',"ph":"i"', ',"id":4,"id":"x"', ',"args":{"stream":5},"args":{"device":1}', ',"x":{"ts":8}', ',"ts":1.0625',
        ',"dur":-1', ',"ts":8796093022208.125', ',"ph":"s","cat":"ac2g","id":5',
        ',"ph":"f","cat":"fwdbwd","id":6,"pid":9',
    ],
)  # fmt: skip
def test_events_that_begin_alike_may_go_on_otherwise(ends: str, tmp_path: Path) -> None:
    head = '{"ph":"X","cat":"cpu_op","name":"a","pid":1,"tid":2,"ts":%d.250,"dur":%d'
    arrow = '{"ph":"s","id":%d,"pid":1,"tid":%d,"ts":3,"cat":"fwdbwd","name":"fwdbwd"}'
    events = [head % (at, at % 3) + (ends if at % 4 == 2 else "") + "}" for at in range(1, 9)]
    events += [arrow % (at, at // 2) for at in range(6)]
    path = tmp_path / "t.json"
    path.write_text(f'{{"traceEvents": [{",".join(events)}]}}')
    assert taken(",".join(events[:1] * 2 + events[-2:]))
    assert differences(read_by("native", path), read_by("python", path)) == []


@needs_native
def test_a_block_that_is_left_leaves_nothing_behind() -> None:
    scanner = scanner_for(("input_dims",), ("Input Dims",), 0)
    assert scanner is not None
    one = '{"ph":"X","cat":"%s","name":"%s","pid":%d,"tid":1,"ts":1,"dur":2,"args":{"Input Dims":[%d],"device":0}}'
    flows = '{"ph":"s","cat":"ac2g","id":1,"ts":1},{"ph":"s","cat":"fwdbwd","id":1,"ts":1,"pid":9,"tid":9}'
    many = ",".join(one % (f"c{number}", f"n{number}", number, number) for number in range(2000))  # tables grow
    first, last = one % ("a", "b", 0, 1), one % ("c", "d", 2, 3)
    assert scanner.take(f"[{first}]".encode()) == []
    assert scanner.take(f"[{many},{flows},{{]".encode()) is None
    assert scanner.takes(f"[{many},{flows}]".encode()) and not scanner.takes(f"[{many},]".encode())
    assert scanner.take(f"[{last}]".encode()) == []
    stream = EventStream(("input_dims",), ("Input Dims",), scanner)
    stream.finish()
    columns = stream.builder.columns()
    assert (columns.names, columns.categories, columns.threads) == (["b", "d"], ["a", "c"], [(0, 1), (2, 1)])
    assert columns.name.tolist() == columns.category.tolist() == columns.thread.tolist() == [0, 1]
    assert columns.extra["input_dims"].values == ["", "[1]", "[3]"]
    assert len(columns.launched) == len(columns.forward_flows) == 0
    assert columns.integers["device"].tolist() == [0, 0] and (columns.integers["stream"] == MISSING).all()


@pytest.mark.parametrize("name", READERS)
def test_integers_are_kept_whatever_the_category(name: str, tmp_path: Path) -> None:
    trace = TraceBuilder()
    for category in ("cpu_op", "python_function", "kernel", "cuda_runtime", "odd"):
        trace.span(category, "x", 0, 1, stream=3, device=2, bytes=7, **{"Python id": 5, "Sequence number": 4})
    with reader(name):
        integers = read_chrome_trace(trace.write(tmp_path / "t.json")).columns.integers
    found = {column: values.tolist() for column, values in integers.items() if (values != MISSING).any()}
    expected = {"stream": 3, "device": 2, "bytes": 7, "python_id": 5, "sequence_number": 4}
    assert found == {column: [value] * 5 for column, value in expected.items()}


@pytest.mark.parametrize("name", READERS)
def test_a_thread_in_quotes_is_the_same_thread(name: str, tmp_path: Path) -> None:
    events = [
        {"ph": "M", "name": "thread_name", "pid": "7", "tid": 1, "args": {"name": "main"}},
        *({"ph": "X", "name": "a", "ts": 1, "dur": 1, "pid": 7, "tid": tid} for tid in (1, "1", "Spans", "01", "-0")),
    ]
    path = tmp_path / "t.json"
    path.write_text(json.dumps(events))
    with reader(name):
        columns = read_chrome_trace(path).columns
    assert columns.threads == [(7, 1), (7, "Spans"), (7, "01"), (7, "-0")]
    assert columns.thread_names == {(7, 1): "main"}


@pytest.mark.parametrize("name", READERS)
@pytest.mark.parametrize(
    ("us", "ns"),
    [("8796093022208.001", 8796093022208001), ("1712195495519689.047", 1712195495519689047), ("-5.5", -5500),
     ("1712195495519689.0475", 1712195495519689048), ("4611686018427387.903", (1 << 62) - 1), ("0.0005", 0)],
)  # fmt: skip
def test_times_are_exact(name: str, us: str, ns: int, tmp_path: Path) -> None:
    path = tmp_path / "t.json"
    path.write_text(f'[{{"ph":"X","name":"a","ts":{us},"dur":0.001}}]')
    with reader(name):
        columns = read_chrome_trace(path).columns
    assert (columns.start_ns.tolist(), columns.dur_ns.tolist()) == ([ns], [1])


@pytest.mark.parametrize("name", READERS)
@pytest.mark.parametrize(
    ("events", "starts"),
    [
        ('{"ph":"B","name":"a","ts":1712195495519689.047},{"ph":"E","ts":1712195495519690}', [1712195495519689047]),
        ('{"ph":"s","cat":"fwdbwd","id":1,"ts":1712195495519689.047},{"ph":"X","ts":1,"dur":1}', [1000]),
        ('{"ph":"X","ts":999.0015,"dur":1},{"ph":"i","ts":1712195495519689}', [999002]),
        ('{"ph":"X","ts":999.0015,"dur":1},{"ph":"X","ts":1712195495519689,"dur":1}', [999002, 1712195495519689000]),
        ('{"ph":"X","ts":999.0015,"dur":1}', [999001]),  # as a float, whose fraction is rounded on its own
    ],
)
def test_a_large_time_of_any_event_makes_all_of_its_block_exact(
    name: str, events: str, starts: list[int], tmp_path: Path
) -> None:
    path = tmp_path / "t.json"
    path.write_text(f"[{events}]")
    with reader(name):
        columns = read_chrome_trace(path).columns
    assert columns.start_ns.tolist() == starts
    assert columns.forward_flows[:, 2].tolist() == [1712195495519689047] * len(columns.forward_flows)


def test_another_reader_than_these_is_refused() -> None:
    with reader("fast"), pytest.raises(OptionError) as error:
        native.found()
    assert str(error.value) == (
        "PROFILER_KIT_READER=fast: not a reader, expected native or python. Try: PROFILER_KIT_READER=python"
    )


def _found_with(library: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    monkeypatch.delenv(native.VARIABLE, raising=False)
    monkeypatch.setattr(build, "LIBRARY", library)
    native._opened.cache_clear()
    try:
        return native.found()
    finally:
        monkeypatch.undo()
        native._opened.cache_clear()


def test_no_library_a_foreign_and_a_stale_one_are_not_used(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    library = tmp_path / "scan.so"
    assert _found_with(library, monkeypatch) == "Python, because the native one is not compiled"
    library.write_bytes(b"\x7fELF of another machine")
    assert _found_with(library, monkeypatch) == "Python, because the native one does not fit this machine"
    if build.compiler() is not None:
        stale = [*build.compiler(), *QUICK, '-DSOURCE="0"', str(build.COMPILED[0]), "-o", str(library), "-lm"]
        subprocess.run(stale, check=True)
        assert _found_with(library, monkeypatch) == "Python, because the native one was compiled from another source"


def test_without_a_compiler_the_build_says_so_and_leaves_no_library(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    library = tmp_path / "scan.so"
    library.write_bytes(b"old")
    monkeypatch.setattr(build, "LIBRARY", library)
    monkeypatch.setenv("CC", "no-such-compiler")
    assert build.build() == "no C compiler (cc) was found"
    assert not library.exists()
    failing = f"{sys.executable} -c import(sys)"
    monkeypatch.setenv("CC", failing)
    assert build.build().startswith(f"{sys.executable} failed: ")
    assert not library.exists() and list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("reason", ["", "no C compiler (cc) was found"])
def test_the_tag_of_the_wheel_says_what_is_in_it(reason: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """A library for this platform and any Python; or none, for all platforms."""
    root = str(Path(__file__).parents[2])
    hook = runpy.run_path(f"{root}/hatch_build.py")["NativeReader"](root, {}, None, None, "", "wheel")
    monkeypatch.setattr(runpy, "run_path", lambda _: {"build": lambda: reason})
    data: dict[str, Any] = {"pure_python": True}
    hook.initialize("standard", data)
    if reason:
        assert data == {"pure_python": True}
    else:
        assert not data["pure_python"]
        assert parse_tag(data["tag"]) <= set(sys_tags())
        assert data["tag"].startswith("py3-none-") and not data["tag"].endswith("-any")


def test_on_macos_the_library_is_for_what_the_tag_of_the_wheel_says() -> None:
    assert build.flags("linux-aarch64") == build.FLAGS
    assert build.flags("macosx-11.0-arm64") == (*build.FLAGS, "-mmacosx-version-min=11.0", "-arch", "arm64")
    assert build.flags("macosx-10.9-universal2")[-4:] == ("-arch", "x86_64", "-arch", "arm64")


@pytest.mark.skipif(build.compiler() is None, reason="no C compiler")
def test_with_a_compiler_the_library_is_built(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(build, "LIBRARY", tmp_path / "scan.so")
    monkeypatch.setattr(build, "FLAGS", QUICK)
    assert build.build() == ""
    assert _found_with(tmp_path / "scan.so", monkeypatch) == "native"


@needs_native
def test_rows_are_spilled_and_joined_in_order() -> None:
    scanner = scanner_for((), (), 0)
    assert scanner is not None
    scanner.most_rows = 3
    stream = EventStream((), (), scanner)
    for number in range(10):
        odd = ',"args":{"correlation":"4"}' if number % 4 == 3 else ""
        assert stream.decode(f'[{{"ph":"X","name":"n{number % 3}","ts":{number},"dur":{number}{odd}}}]'.encode())
    stream.finish()
    columns = stream.builder.columns()
    assert columns.start_ns.tolist() == columns.dur_ns.tolist() == list(range(0, 10_000, 1000))
    assert columns.integers["correlation"].tolist() == [4 if number % 4 == 3 else MISSING for number in range(10)]
    assert [columns.names[code] for code in columns.name] == [f"n{number % 3}" for number in range(10)]
    assert columns.start_ns.dtype == columns.integers["correlation"].dtype == np.int64
