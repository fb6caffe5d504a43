"""utilization, idle, operators, launches, sequences, copies and overlap: JSON, tables, one-line errors."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from profiler_kit.analyses.gpu.communication import COMMUNICATION_OVERLAP
from profiler_kit.analyses.gpu.copies import COPY_TOTALS
from profiler_kit.analyses.gpu.idle import IDLE_TOTALS
from profiler_kit.analyses.gpu.launches import LAUNCH_TOTALS, QUEUE_TOTALS
from profiler_kit.analyses.gpu.operators import MODULE_WORK, OPERATOR_KERNELS, OPERATOR_WORK, SHAPE_WORK
from profiler_kit.analyses.gpu.sequences import KERNEL_SEQUENCES
from profiler_kit.analyses.gpu.utilization import REGION_UTILIZATION
from profiler_kit.schema import Schema
from tests.builders import TraceBuilder
from tests.cli.run import profiler_kit

GOLDEN = Path(__file__).parents[1] / "golden" / "streams_graph.json.gz"


@pytest.fixture(scope="module")
def small(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A linear of two kernels under a region and a module, a copy and an all-reduce."""
    trace = TraceBuilder()
    trace.region("step", 0, 50)
    trace.operator("aten::linear", 0, 30, **{"Input Dims": [[8, 4]]})
    trace.span("python_function", "nn.Module: Linear_0", 0, 40)
    for correlation, name in enumerate(("gemm", "bias"), start=1):
        trace.launch(correlation, correlation)
        trace.kernel(correlation, 10 * correlation, 8, name=name)
    trace.kernel(3, 24, 10, name="ncclDevKernel_AllReduce", stream=9)
    event = trace.kernel(None, 60, 4, name="Memcpy HtoD (Pinned -> Device)")
    event["cat"] = "gpu_memcpy"
    event["args"]["bytes"] = 4096
    return trace.write(tmp_path_factory.mktemp("t") / "t.json")


@pytest.mark.parametrize(
    ("arguments", "schema", "first"),
    [
        (["utilization"], REGION_UTILIZATION, {"path": ["step"], "verdict": "mixed", "busy_ns": 16_000}),
        (["idle"], IDLE_TOTALS, {"cause": "other", "idle_ns": 32_000, "gaps": 1, "stream": 7}),
        (["idle", "--scope", "all"], IDLE_TOTALS, {"cause": "kernel wait", "idle_ns": 28_000, "device": None}),
        (["operators"], OPERATOR_WORK, {"name": "aten::linear", "gpu_events": 2, "gpu_ns": 16_000}),
        (["operators", "--by", "shape"], SHAPE_WORK, {"name": "aten::linear", "input_dims": [[8, 4]]}),
        (["operators", "--by", "kernel"], OPERATOR_KERNELS, {"operator": "(unlinked)", "sum_ns": 10_000}),
        (["operators", "--by", "module"], MODULE_WORK, {"path": ["Linear_0"], "sum_ns": 16_000}),
        (["sequences", "--length", "2"], KERNEL_SEQUENCES, {"kernels": ["gemm", "bias"], "count": 1, "gap_ns": 2_000}),
        (["sequences", "--length", "0"], KERNEL_SEQUENCES, {"kernels": ["gemm", "bias"], "length": 2}),
        (["copies"], COPY_TOTALS, {"kind": "HtoD", "source": "Pinned", "size_bytes": 4096, "bytes_per_s": 1.024e9}),
        (["overlap"], COMMUNICATION_OVERLAP, {"communication_ns": 10_000, "overlap_ns": 4_000, "share": 0.4}),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, list) else "",
)
def test_json_has_the_columns_of_the_schema(small: Path, arguments: list[str], schema: Schema, first: dict) -> None:
    name, *options = arguments
    done = profiler_kit(name, small, *options, "--json")
    assert (done.code, done.err) == (0, "")
    rows = json.loads(done.out)
    assert list(rows[0]) == list(schema.columns)
    assert {key: rows[0][key] for key in first} == first
    table = profiler_kit(name, small, *options)
    assert (table.code, table.err) == (0, "")
    assert len([line for line in table.out.splitlines() if line.strip()]) == len(rows) + 3  # title, head, rule


def test_launches_gives_calls_and_queues(small: Path) -> None:
    done = profiler_kit("launches", small, "--json")
    found = json.loads(done.out)
    assert list(found) == ["launches", "queue"]
    assert list(found["launches"][0]) == list(LAUNCH_TOTALS.columns)
    assert list(found["queue"][0]) == list(QUEUE_TOTALS.columns)
    assert (found["launches"][0]["launches"], found["queue"][0]["max_length"]) == (2, 2)
    table = profiler_kit("launches", small)
    assert table.code == 0 and "cudaLaunchKernel" in table.out and "queued GPU events" in table.out


@pytest.mark.parametrize("name", ["utilization", "idle", "operators", "launches", "sequences", "copies", "overlap"])
def test_a_trace_without_gpu_events_gives_empty_tables(tmp_path: Path, name: str) -> None:
    trace = TraceBuilder()
    trace.launch(1, 0)
    path = trace.write(tmp_path / "t.json")
    done = profiler_kit(name, path, "--json")
    assert (done.code, done.err) == (0, "")
    assert json.loads(done.out) == ({"launches": [], "queue": []} if name == "launches" else [])
    assert profiler_kit(name, path).code == 0


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["idle", "--scope", "gpu"], "--scope gpu: expected one of stream, device, all. Try: --scope stream"),
        (
            ["idle", "--kernel-wait-us", "-1"],
            "--kernel-wait-us -1.0: expected microseconds, 0 or more. Try: --kernel-wait-us 30",
        ),
        (["operators", "--by", "color"], "--by color: expected one of name, shape, kernel, module. Try: --by name"),
        (
            ["operators", "--captures", "nowhere"],
            "nowhere: no such file, expected a trace with captures of CUDA graphs, or a folder of them. "
            "Look at --captures.",
        ),
        (["operators", "--top", "0"], "--top 0: expected a whole number, 1 or more. Try: --top 30"),
        (["regions", "--top", "0"], "--top 0: expected a whole number, 1 or more. Try: --top 30"),
        (["launches", "--slow-us", "nan"], "--slow-us nan: expected microseconds, 0 or more. Try: --slow-us 50"),
        (
            ["sequences", "--length", "1"],
            "sequence length 1: expected 2 or more. --length 0 (None in Python) takes all that one call of an operator "
            "launched.",
        ),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, list) else "",
)
def test_errors_are_one_line(arguments: list[str], message: str) -> None:
    name, *options = arguments
    done = profiler_kit(name, GOLDEN, *options)
    assert (done.code, done.out, done.err) == (1, "", f"profiler-kit: {message}\n")


def test_the_first_regions_alone_can_be_printed() -> None:
    title, _, head, _, *rows = profiler_kit("regions", GOLDEN, "--top", "1").out.rstrip().splitlines()
    assert ", 1 of " in title and head.startswith("region") and len(rows) == 1


def test_ranks_of_a_folder_and_what_other_commands_say_of_it(small: Path, tmp_path: Path) -> None:
    for rank in (0, 1):
        (tmp_path / f"rank{rank}.json").write_bytes(small.read_bytes())
    done = profiler_kit("ranks", tmp_path, "--json")
    assert [(row["rank"], row["collectives"], row["wait_ns"]) for row in json.loads(done.out)["ranks"]] == [
        (0, 1, 0),
        (1, 1, 0),
    ]
    assert "arrived last" in profiler_kit("ranks", tmp_path / "rank0.json", tmp_path / "rank1.json").out
    refused = profiler_kit("summary", tmp_path)
    assert (refused.code, refused.err) == (
        1,
        f"profiler-kit: {tmp_path}: this folder holds 2 traces, expected one. Name one of them "
        f"({tmp_path / 'rank0.json'}), or set them side by side: profiler-kit ranks {tmp_path}\n",
    )
