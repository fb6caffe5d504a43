"""summary, regions and kernels: the JSON of the contract, tables, exit codes and one-line errors."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from tests.builders import TraceBuilder
from tests.cli.run import profiler_kit

GOLDEN = Path(__file__).parents[1] / "golden" / "streams_graph.json.gz"
RECORD = "Record one with profiler_runner, or with torch.profiler's export_chrome_trace."


def test_summary_prints_the_json_of_the_contract() -> None:
    done = profiler_kit("summary", GOLDEN, "--json")
    assert (done.code, done.err) == (0, "")
    timeline = {
        "total_ns": 1_940_750,
        "busy_ns": 1_870_640,
        "idle_ns": 70_110,
        "computation_ns": 1_870_640,
        "communication_ns": 0,
        "exposed_communication_ns": 0,
        "memcpy_ns": 0,
        "exposed_memcpy_ns": 0,
    }
    assert json.loads(done.out) == {
        "trace": str(GOLDEN),
        "events": 137,
        "gpu_events": 11,
        "gpu_timeline": timeline,
        "devices": [{"device": 0, "process": "545", **timeline}],
        "quality": {
            "truncated": False,
            "repaired_events": 0,
            "dropped_events": 0,
            "unlinked_gpu_events": 0,
            "unattributed_gpu_events": 0,
            "untimed_gpu_events": 0,
            "impossible_durations": 0,
            "processes": 1,
            "likely_launches": 0,
        },
    }


def test_regions_prints_the_json_of_the_contract() -> None:
    done = profiler_kit("regions", GOLDEN, "--json")
    rows = json.loads(done.out)
    assert rows[0] == {
        "path": ["outer"],
        "instances": 1,
        "gpu_events": 4,
        "sum_ns": 2_367_306,
        "busy_ns": 1_160_405,
        "span_ns": 1_160_405,
        "self_sum_ns": 0,
        "host_ns": 2_471_376,
        "launches": 4,
    }
    assert sum(row["self_sum_ns"] for row in rows) == sum(
        row["sum_ns"] for row in json.loads(profiler_kit("kernels", GOLDEN, "--json").out)
    )


def test_kernels_prints_the_json_of_the_contract(tmp_path: Path) -> None:
    trace = TraceBuilder()
    trace.region("a", 0, 10)
    trace.launch(1, 1)
    trace.kernel(1, 20, 4)
    trace.kernel(1, 30, 2)
    trace.span("gpu_memset", "Memset", 40, 1)  # says neither stream nor device
    path = trace.write(tmp_path / "t.json")
    done = profiler_kit("kernels", path, "--json")
    gemm = {
        "name": "gemm",
        "stream": 7,
        "device": 0,
        "process": "100",
        "category": "kernel",
        "count": 2,
        "sum_ns": 6000,
    }
    memset = {
        "name": "Memset",
        "stream": None,
        "device": None,
        "process": "100",
        "category": "gpu_memset",
        "count": 1,
        "sum_ns": 1000,
    }
    assert json.loads(done.out) == [
        {**gemm, "mean_ns": 3000.0, "min_ns": 2000, "max_ns": 4000},
        {**memset, "mean_ns": 1000.0, "min_ns": 1000, "max_ns": 1000},
    ]
    inside = json.loads(profiler_kit("kernels", path, "--region", "a", "--json").out)
    assert [row["name"] for row in inside] == ["gemm"]


@pytest.mark.parametrize("command", ["summary", "regions", "kernels"])
def test_tables_name_the_file_and_carry_units(command: str) -> None:
    done = profiler_kit(command, GOLDEN)
    assert done.code == 0 and done.err == ""
    assert str(GOLDEN) in done.out.splitlines()[0]
    assert " ms" in done.out


def test_an_unknown_region_lists_the_known_ones() -> None:
    done = profiler_kit("kernels", GOLDEN, "--region", "encoder")
    assert (done.code, done.out) == (1, "")
    assert done.err == (
        f"profiler-kit: {GOLDEN}: no region 'encoder', found after, async tail, graph replay, outer, overlap, "
        "stream one, stream two. Give one of these names, or mark your code with `with region(name):` before "
        "recording.\n"
    )


def test_a_trace_cut_off_in_the_middle_is_loaded_and_says_so(tmp_path: Path) -> None:
    trace = TraceBuilder()
    for number in range(10):
        trace.region("step", 100 * number, 50)
        trace.launch(number, 100 * number)
        trace.kernel(number, 100 * number + 10, 5)
    whole = trace.kineto()
    path = tmp_path / "cut.json"
    path.write_bytes(whole[: whole.index(b'"ts": 700') + 8])
    done = profiler_kit("summary", path, "--json")
    assert done.code == 0
    assert json.loads(done.out)["quality"]["truncated"] is True
    assert json.loads(done.out)["gpu_events"] == 7
    said = "The file is cut off before its end. It holds 28 events up to that point."
    assert done.err == f"profiler-kit: {path}: {said}\n"


@pytest.mark.parametrize("command", ["summary", "regions", "kernels"])
def test_bad_input_is_one_line_and_exit_code_1(command: str, tmp_path: Path) -> None:
    missing = tmp_path / "none.json"
    done = profiler_kit(command, missing)
    assert (done.code, done.out) == (1, "")
    assert done.err == f"profiler-kit: {missing}: no such file, expected a chrome trace. {RECORD}\n"


def test_wrong_usage_is_exit_code_2() -> None:
    assert profiler_kit("summary").code == 2
    assert profiler_kit("summary", GOLDEN, "--nonsense").code == 2
    assert profiler_kit("nonsense").code == 2


def test_a_reader_that_goes_away_is_no_error() -> None:
    import subprocess
    import sys

    shell = f"'{sys.executable}' -m profiler_kit.cli regions '{GOLDEN}' --json | head -n 1"
    done = subprocess.run(["bash", "-o", "pipefail", "-c", shell], capture_output=True, text=True, check=False)
    assert done.stderr == ""


@pytest.mark.parametrize("command", ["summary", "regions", "kernels"])
def test_a_name_that_is_too_long_is_one_line(command: str) -> None:
    name = "x" * 300 + ".json"
    done = profiler_kit(command, name)
    assert (done.code, done.out) == (1, "")
    assert done.err == f"profiler-kit: {name}: cannot be read (File name too long), expected a chrome trace. {RECORD}\n"


def test_json_of_a_file_whose_name_is_no_utf_8(tmp_path: Path) -> None:
    odd = tmp_path / "t\udcff.json.gz"
    odd.write_bytes(GOLDEN.read_bytes())
    done = profiler_kit("summary", odd, "--json")
    assert (done.code, done.err) == (0, "")
    assert json.loads(done.out)["trace"] == str(odd)
