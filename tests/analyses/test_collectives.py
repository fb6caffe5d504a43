"""Collectives by message and group, and the bandwidths of nccl-tests by hand."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from profiler_kit.trace import load_trace
from tests.builders import TraceBuilder


def arguments(name: str, ranks: int, given: int, got: int, dtype: str = "BFloat16") -> dict[str, Any]:
    return {
        "Collective name": name,
        "Process Group Name": "1",
        "Process Group Ranks": str(list(range(ranks))),
        "Group size": ranks,
        "dtype": dtype,
        "In msg nelems": given,
        "Out msg nelems": got,
    }


def rows(tmp_path: Path, *kernels: tuple[float, dict[str, Any]]) -> list[dict[str, Any]]:
    trace = TraceBuilder()
    for number, (dur, args) in enumerate(kernels):
        trace.kernel(None, 100 * number, dur, name="ncclDevKernel_X")["args"].update(args)
    return load_trace(trace.write(tmp_path / "t.json")).table("collectives").records()


@pytest.mark.parametrize(
    ("name", "given", "got", "message", "factor"),
    [
        ("allreduce", 1000, 1000, 2000, 1.75),
        ("_allgather_base", 100, 800, 1600, 0.875),
        ("all_gather_into_tensor_coalesced", 100, 800, 1600, 0.875),
        ("_reduce_scatter_base", 800, 100, 1600, 0.875),
        ("all_to_allv", 800, 800, 1600, 0.875),
        ("broadcast", 50, 50, 100, 1),
        ("reduce", 50, 0, 100, 1),
        ("send", 50, 0, 100, 1),
        ("recv", 0, 50, 100, 1),
        ("gather", 10, 80, 160, 0.875),
        ("scatter", 80, 10, 160, 0.875),
    ],
)
def test_bandwidths_are_those_of_nccl_tests(
    tmp_path: Path, name: str, given: int, got: int, message: int, factor: float
) -> None:
    (row,) = rows(tmp_path, *((dur, arguments(name, 8, given, got)) for dur in (10, 20)))
    assert (row["collective"], row["ranks"], row["count"], row["message_bytes"]) == (name, 8, 2, message)
    assert row["algorithm_bytes_per_s"] == pytest.approx(message / 15e-6)
    assert row["bus_bytes_per_s"] == pytest.approx(message / 15e-6 * factor)
    assert row["best_bus_bytes_per_s"] == pytest.approx(message / 10e-6 * factor)
    assert row["peak_share"] is None  # of a GPU without a name


def test_what_was_not_recorded_is_left_open(tmp_path: Path) -> None:
    found = rows(
        tmp_path,
        (1, arguments("allreduce", 2, 10, 10, "Float")),
        (2, arguments("allreduce", 2, 10, 10, "Float")),
        (4, arguments("allreduce", 2, 20, 20, "Float")),
        (8, arguments("allreduce", 2, 10, 10, "Quaternion")),
        (16, arguments("barrier", 2, 0, 0)),
        (32, {}),
        (64, arguments("allreduce", 2, 10, 10) | {"Group size": "x", "In msg nelems": -5}),
    )
    shown = [(row["collective"], row["dtype"], row["count"], row["message_bytes"]) for row in found]
    assert shown == [
        ("allreduce", "BFloat16", 1, None),
        ("ncclDevKernel_X", "", 1, None),
        ("barrier", "BFloat16", 1, None),
        ("allreduce", "Quaternion", 1, None),
        ("allreduce", "Float", 1, 80),
        ("allreduce", "Float", 2, 40),
    ]
    assert sum(row["sum_ns"] for row in found) == 127_000


def test_a_kernel_without_arguments_has_those_of_the_operator_around_its_launch(tmp_path: Path) -> None:
    trace = TraceBuilder()
    trace.operator("record_param_comms", 0, 50, **arguments("allreduce", 2, 1000, 1000))
    trace.operator("nccl:all_reduce", 1, 40)
    trace.launch(1, 2)
    trace.kernel(1, 60, 10, name="ncclDevKernel_AllReduce")
    (row,) = load_trace(trace.write(tmp_path / "t.json")).table("collectives").records()
    assert (row["collective"], row["group"], row["bus_bytes_per_s"]) == ("allreduce", "1", pytest.approx(2e8))
