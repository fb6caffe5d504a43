"""export: options, the line and the JSON it prints, one-line errors, and the memory of a run folder."""

from __future__ import annotations

import gzip
import json
import shutil
from pathlib import Path

import pytest

from profiler_kit.cli.export import parse_time
from profiler_kit.errors import OptionError
from tests.builders import TraceBuilder
from tests.cli.run import profiler_kit
from tests.snapshots import T0, alloc, snapshot
from tests.snapshots import write as write_snapshot

GOLDEN = Path(__file__).parents[1] / "golden" / "streams_graph.json.gz"
EXPECTED = "expected START:END after the trace's first event, in ms or with a unit: 10:25, 900us:1.5ms, 2s:."


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("10:25", (10_000_000, 25_000_000)),
        ("0.5:1.25", (500_000, 1_250_000)),
        ("900us:1.5ms", (900_000, 1_500_000)),
        ("2s:", (2_000_000_000, None)),
        (":7ns", (0, 7)),
        (" 1 ms : 2 ms ", (1_000_000, 2_000_000)),
        ("0.000000001s:4ns", (1, 4)),
    ],
)
def test_times_are_exact_nanoseconds(text: str, expected: tuple[int, int | None]) -> None:
    assert parse_time(text) == expected


@pytest.mark.parametrize("text", ["", "10", "a:b", "1:2:3", "-1:5", "1m:2m", "1e3:2e3", "nan:inf", "1:٣", "9e99:"])
def test_what_is_no_stretch_of_time_is_refused(text: str) -> None:
    with pytest.raises(OptionError) as error:
        parse_time(text)
    assert str(error.value) == f"--time {text!r}: not a stretch of time, {EXPECTED}"


@pytest.mark.parametrize("text", ["5:5", "6:5", "1s:1ms"])
def test_an_end_before_the_start_is_refused(text: str) -> None:
    with pytest.raises(OptionError) as error:
        parse_time(text)
    assert str(error.value) == f"--time {text!r}: the end is not after the start, {EXPECTED}"


def test_a_region_becomes_a_trace_of_its_own(tmp_path: Path) -> None:
    out = tmp_path / "new folder" / "outer.json.gz"
    done = profiler_kit("export", GOLDEN, "-o", out, "--region", "outer", "--with-counters")
    assert (done.code, done.err) == (0, "")
    line = f"{out}: outer (instance 0 of 1), 3.189 ms, 30 events (5 on GPUs), 45 added, {out.stat().st_size / 1024:.1f}"
    assert done.out == f"{line} KiB\n"
    regions = json.loads(profiler_kit("regions", out, "--json").out)
    before = json.loads(profiler_kit("regions", GOLDEN, "--json").out)
    assert [row for row in regions if row["path"][0] == "outer"] == [row for row in before if row["path"][0] == "outer"]


def test_the_json_says_what_was_written(tmp_path: Path) -> None:
    out = tmp_path / "all.json"
    done = profiler_kit("export", GOLDEN, "--output", out, "--json")
    assert json.loads(done.out) == {
        "path": str(out),
        "label": "whole trace",
        "start_ns": 4308375001308571,
        "end_ns": 4308375005684431,
        "events": 45,
        "gpu_events": 11,
        "added_events": 3 + 3 * 2 + 10,  # a process, 3 streams, 10 slices
        "memory_samples": 0,
        "size_bytes": out.stat().st_size,
    }
    assert len(json.loads(out.read_bytes())["traceEvents"]) == 137 - 10 + 19  # 10 arrows have one end only


def test_a_run_folder_brings_its_memory(tmp_path: Path) -> None:
    trace = TraceBuilder()
    start_us = T0 - 1_700_000_000_000_000
    trace.region("step", start_us, 100)
    trace.launch(1, start_us + 1)
    trace.kernel(1, start_us + 10, 5)
    trace.write(tmp_path / "trace.json.gz")
    write_snapshot(tmp_path / "memory.pickle", snapshot([alloc(20, 0x2000, 1024)]))
    out = tmp_path / "window.json.gz"
    done = profiler_kit("export", tmp_path, "-o", out, "--with-counters")
    assert (done.code, done.err) == (0, "")
    events = json.loads(gzip.decompress(out.read_bytes()))["traceEvents"]
    memory = [e["args"] for e in events if e["name"] == "memory"]
    assert memory == [{"allocated (bytes)": 1024}, {"reserved (bytes)": 0}]  # what was held before is not known
    write_snapshot(tmp_path / "memory.pickle", snapshot([alloc(9_000_000, 0x2000, 1024)]))
    done = profiler_kit("export", tmp_path, "-o", out, "--with-counters")
    assert (done.code, done.err) == (
        0,
        f"profiler-kit: no memory counters: {tmp_path / 'memory.pickle'} was recorded at another time than this "
        "window\n",
    )
    (tmp_path / "memory.pickle").write_bytes(b"junk")
    done = profiler_kit("export", tmp_path, "-o", out, "--with-counters")
    assert done.code == 0
    assert done.err.startswith(f"profiler-kit: no memory counters: {tmp_path / 'memory.pickle'}: ")
    assert done.err.count("\n") == 1


def test_bad_options_are_one_line_and_exit_code_1(tmp_path: Path) -> None:
    source = Path(shutil.copy(GOLDEN, tmp_path / "t.json.gz"))
    out = tmp_path / "out.json"
    for options, message in (
        (("--instance", "1"), "--instance 1: of which region? Name one with --region."),
        (("--time", "soon"), f"--time 'soon': not a stretch of time, {EXPECTED}"),
        (("--stream", "3"), f"--stream 3: not in {source}, found 7, 14, 18. Choose one of these."),
        (
            ("--region", "outer", "--instance", "-1"),
            f"--instance -1: region 'outer' has 1 in {source}, expected 0 to 0.",
        ),
    ):
        done = profiler_kit("export", source, "-o", out, *options)
        assert (done.code, done.out, done.err) == (1, "", f"profiler-kit: {message}\n")
    assert [path.name for path in tmp_path.iterdir()] == ["t.json.gz"]


def test_without_an_output_it_is_wrong_usage() -> None:
    assert profiler_kit("export", GOLDEN).code == 2


def test_a_snapshot_of_another_time_is_refused(tmp_path: Path) -> None:
    memory = write_snapshot(tmp_path / "m.pickle", snapshot([alloc(20, 0x2000, 1024)]))
    out = tmp_path / "out.json"
    done = profiler_kit("export", GOLDEN, "-o", out, "--with-memory", memory)
    assert done.code == 1 and not out.exists()
    assert done.err == (
        f"profiler-kit: {memory}: recorded at another time than {GOLDEN} (whole trace), expected the memory snapshot "
        "of that time. Record both at once: memory_runner inside profiler_runner.\n"
    )
