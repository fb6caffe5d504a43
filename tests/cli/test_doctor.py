"""`profiler-kit doctor`: the report and its JSON, on good, broken and foreign files."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import get_args

import pytest

from profiler_kit.analyses.gpu.quality import Key
from profiler_kit.findings.quality import WORDS
from profiler_kit.load.trace import native
from tests.builders import TraceBuilder
from tests.cli.run import profiler_kit

GOLDEN = Path(__file__).parents[1] / "golden" / "streams_graph.json.gz"
RECORD = "Record one with profiler_runner, or with torch.profiler's export_chrome_trace."


def test_the_json_of_a_good_trace() -> None:
    done = profiler_kit("doctor", GOLDEN, "--json")
    assert (done.code, done.err) == (0, "")
    found = json.loads(done.out)
    assert list(found) == ["trace", "reader", "file", "recording", "contents", "quality", "findings", "categories"]
    assert found["reader"] == native.found()
    assert found["file"] == {
        "size_bytes": GOLDEN.stat().st_size,
        "text_bytes": 28395,
        "compressed": True,
        "packing": "gzip",
        "encoding": "utf-8",
        "layout": "kineto",
        "bare_list": False,
    }
    assert found["recording"] == {
        "torch": None,
        "versions": {"cuda_runtime_version": 13000, "cuda_driver_version": 13000, "cupti_version": 130001},
        "devices": ["NVIDIA H200", "NVIDIA H200"],
        "distributed": None,
        "options": {
            "record_shapes": True,
            "with_stack": False,
            "profile_memory": False,
            "with_modules": False,
            "with_flops": False,
        },
    }
    assert found["contents"] == {
        "events": 137,
        "base_ns": 1790857026000000000,
        "start_ns": found["contents"]["start_ns"],
        "span_ns": found["contents"]["span_ns"],
        "steps": 0,
        "regions": 7,
        "host_threads": 1,
        "streams": 3,
        "gpu_events": 11,
        "communication": [],
        "processes": 1,
        "linked_by": "correlation",
    }
    assert found["quality"] == {"truncated": False, "repaired_events": 0, "dropped_events": 0, "incidents": []}
    assert [finding["key"] for finding in found["findings"]] == ["no steps", "no stacks", "no modules", "no memory"]
    assert found["findings"][1] == {
        "key": "no stacks",
        "severity": "missing",
        "count": 0,
        "of": 0,
        "names": [],
        "largest_ns": 0,
        "found": "no Python stacks",
        "affects": "which line of code called an operator",
        "next_time": "profiler_runner(path, with_stack=True)",
    }
    assert sum(row["events"] for row in found["categories"]) == 137
    assert found["categories"][3] == {"category": "kernel", "phase": "X", "events": 11, "role": "gpu", "why": None}


def test_the_report_names_the_file_and_aligns() -> None:
    done = profiler_kit("doctor", GOLDEN)
    assert (done.code, done.err) == (0, "")
    lines = done.out.splitlines()
    assert lines[0] == str(GOLDEN)
    assert lines[1] == "  file           Kineto's layout, gzip 3.0 KiB of 27.7 KiB"
    assert lines[2] == "  recorded with  CUDA runtime 13.0, CUDA driver 13.0, CUPTI 130001"
    assert "  contents       137 events, 11 of them on GPUs; host threads: 1, streams: 3, regions: 7" in lines
    assert "Whole: all 137 events could be read; 4 things were not recorded." in lines
    assert "             next time: profiler_runner(path, with_stack=True)" in lines


def test_a_run_folder_says_its_torch_and_has_its_snapshot_for_memory(tmp_path: Path) -> None:
    samples = Path(__file__).parents[2] / "traces" / "h200-vit_b-eager-fp32"
    run = tmp_path / "run"
    run.mkdir()
    for name in ("run.json", "trace.json.gz"):
        shutil.copy(samples / name, run / name)
    without = json.loads(profiler_kit("doctor", run, "--json").out)
    assert without["trace"] == str(run / "trace.json.gz")
    assert without["recording"]["torch"].startswith("2.")
    assert "no memory" in [finding["key"] for finding in without["findings"]]
    (run / "memory.pickle").touch()
    found = json.loads(profiler_kit("doctor", run, "--json").out)
    assert "no memory" not in [finding["key"] for finding in found["findings"]]


def broken_trace() -> bytes:
    trace = TraceBuilder()
    for number in range(6):
        trace.region("step", 100 * number, 50)
        trace.launch(number, 100 * number)
        trace.kernel(number, 100 * number + 10, 5)
    trace.span("quantum_op", "q", 1, 1)
    data = trace.kineto().replace(b'"step"', b'"st"ep"', 1).replace(b'"ph": "s"', b'"ph": s', 1)
    return data[: data.rindex(b'"args"')]


def test_a_broken_trace_is_findings_and_not_an_error(tmp_path: Path) -> None:
    path = tmp_path / "broken.json"
    path.write_bytes(broken_trace())
    done = profiler_kit("doctor", path, "--json")
    assert (done.code, done.err) == (0, "")
    found = json.loads(done.out)
    assert [f["key"] for f in found["findings"] if f["severity"] == "lost"] == ["truncated", "dropped", "repaired"]
    assert found["findings"][2]["found"] == "events that were malformed JSON and were repaired: 1"
    data = path.read_bytes()
    places = [(incident["kind"], incident["offset"]) for incident in found["quality"]["incidents"]]
    assert places == [
        ("repaired", data.index(b"{", data.index(b'"traceEvents"'))),
        ("dropped", data.rindex(b"{", 0, data.index(b'"ph": s'))),
        ("cut off", data.rindex(b"{")),
    ]
    report = profiler_kit("doctor", path)
    assert report.code == 0
    assert f"  {places[0][1]:>5}  repaired: {{ " in report.out
    assert f"  {places[2][1]:>5,}  the file ends in this event: {{ " in report.out
    assert "  lost     The file is cut off before its end.\n" in report.out


def test_an_unknown_category_is_named(tmp_path: Path) -> None:
    trace = TraceBuilder()
    trace.span("quantum_op", "q", 1, 1)
    done = profiler_kit("doctor", trace.write(tmp_path / "t.json"))
    assert "  lost     Events of unknown categories: 1 ('quantum_op').\n" in done.out


def test_what_is_no_trace_is_one_line_and_exit_code_1(tmp_path: Path) -> None:
    snapshot = tmp_path / "m.pickle"
    snapshot.write_bytes(b"\x80\x04}.")
    done = profiler_kit("doctor", snapshot)
    assert (done.code, done.out) == (1, "")
    assert done.err == (
        f"profiler-kit: {snapshot}: found a pickle (a CUDA memory snapshot?), "
        f"expected a chrome trace: {{'traceEvents': [...]}}. Open it with: profiler-kit memory FILE\n"
    )
    done = profiler_kit("doctor", tmp_path)
    assert (done.code, done.err) == (
        1,
        f"profiler-kit: {tmp_path}: this folder holds no trace, expected a run folder with trace.json.gz. "
        "Name the trace file itself.\n",
    )
    snapshot.rename(tmp_path / "memory.pickle")
    done = profiler_kit("doctor", tmp_path)
    assert (done.code, done.err) == (
        1,
        f"profiler-kit: {tmp_path}: this folder holds memory.pickle, a memory snapshot, expected a run folder with "
        f"trace.json.gz. Try: profiler-kit memory {tmp_path}\n",
    )


@pytest.mark.parametrize("key", get_args(Key))
def test_every_finding_has_its_words(key: str) -> None:
    found, affects, _ = WORDS[key]
    assert found and affects
    assert found.format(count=1, of=2, names="n", largest="1 ns")
    assert set(WORDS) == set(get_args(Key))
