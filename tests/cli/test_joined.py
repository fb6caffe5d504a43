"""regions --memory: GPU time and memory of one region in one table, on one clock."""

from __future__ import annotations

import json
from pathlib import Path

from tests.cli.run import profiler_kit

GOLDEN = Path(__file__).parents[1] / "golden"
TRACE, SNAPSHOT = GOLDEN / "joined_h200.json.gz", GOLDEN / "joined_h200.pickle"


def test_the_table_holds_both_and_says_how_far_the_clocks_agree() -> None:
    done = profiler_kit("regions", TRACE, "--memory", SNAPSHOT)
    assert done.code == 0
    row = "    image encoder         0           2        1,178   36.981 ms   36.981 ms    2.31 GiB   32.98 GiB"
    assert row in done.out
    assert done.out.endswith(
        f"{TRACE.name} and {SNAPSHOT.name} were recorded at the same time; their clocks differ by 3.1 µs (median of "
        f"28 region "
        "boundaries; p99 30.9 µs, at most 38.5 µs).\n"
    )


def test_a_run_folder_brings_the_trace_of_its_snapshot(tmp_path: Path) -> None:
    (tmp_path / "memory_trace.json.gz").write_bytes(TRACE.read_bytes())
    (tmp_path / "memory.pickle").write_bytes(SNAPSHOT.read_bytes())
    (tmp_path / "trace.json.gz").write_bytes((GOLDEN / "streams_graph.json.gz").read_bytes())
    done = profiler_kit("regions", tmp_path, "--memory", tmp_path, "--json")
    assert done.code == 0
    found = json.loads(done.out)
    assert found["clock"]["readings"] == 28
    assert found["regions"][3] == {
        "device": 0,
        "path": ["ProfilerStep", "timed region", "image encoder"],
        "instances": 2,
        "gpu_events": 1_178,
        "sum_ns": 36_980_914,
        "busy_ns": 36_980_914,
        "peak_bytes": 2_479_435_016,
        "allocated_bytes": 35_408_988_192,
        "net_bytes": 8_388_608,
    }
    other = profiler_kit("regions", GOLDEN / "streams_graph.json.gz", "--memory", tmp_path)
    assert other.code == 1 and other.err.startswith(f"profiler-kit: {tmp_path / 'memory.pickle'}: recorded ")
