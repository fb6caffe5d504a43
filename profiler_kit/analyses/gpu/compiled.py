"""What torch.compile left in a trace: its regions and recompiles, graph breaks, Triton kernels and their source."""

from __future__ import annotations

import re
from typing import Any, Final

import numpy as np
import numpy.typing as npt
import pandas as pd

from profiler_kit.analyses.gpu.operators import OPERATOR_WORK
from profiler_kit.attribute.frames import KERNEL_DETAILS, OPERATORS, REGION_INSTANCES
from profiler_kit.load.integers import I64
from profiler_kit.load.trace.categories import COMPILED_REGION
from profiler_kit.load.trace.columns import EventColumns, TextColumn
from profiler_kit.schema import Column, Schema

FILE: Final = "kernel_file"  # the argument of a Triton kernel's operator
_REGION: Final = re.compile(rf"{COMPILED_REGION}: (\d+)/(\d+)")
# torch 2.6 on: the compiling of a function is an operator, and a region right inside says of which
_COMPILING: Final = "entire_frame_compile"
_COMPILED: Final = re.compile(rf"{_COMPILING}_data: .*compile_id=(\d+)/(\d+)")
_RESUMED: Final = re.compile(r"(?:(.*)\(\d+\): )?torch_dynamo_resume_in_(.+)_at_(\d+)")

COMPILED_REGIONS: Final = Schema(
    "COMPILED_REGIONS",
    "version of a function that torch.compile compiled, as it numbers them",
    {
        "frame": Column("int64", "Number of the function, or of the part of one after a graph break.", unit="id"),
        "recompile": Column("int64", "How often it had been compiled before; above 0 this is a recompile."),
        "calls": Column("int64"),
        "host_ns": Column("int64"),
        "gpu_events": Column("int64", "GPU events launched in it.", show="room"),
        "gpu_ns": Column("int64", "Their durations added up."),
        "own_ns": Column("int64", "Host time without the compiled functions and the compiling inside it.", "host, own"),
        "compile_ns": Column("int64", "Host time of its compiling, where that was recorded.", "compiling"),
    },
)
GRAPH_BREAKS: Final = Schema(
    "GRAPH_BREAKS",
    "line at which torch.compile went back to Python (recorded with_stack), by file and line",
    {
        "file": Column("str", "File of the function."),
        "function": Column("str", "The function whose graph broke."),
        "line": Column("int64", "The line at which it continued."),
        "calls": Column("int64", "How often it continued there."),
        "host_ns": Column("int64", "Host time of the code that came after."),
    },
)
TRITON_KERNELS: Final = Schema(
    "TRITON_KERNELS",
    "Triton kernel and the file of its source, longest sum first",
    {
        "name": Column("str", "The kernel; torch.compile names it after the operators in it.", "kernel", unit="kernel"),
        "file": Column("str", "Where its source is, as torch.compile wrote it; empty where that was not recorded."),
        "called_from": Column(
            "str", "The Python function that launched it most, and its line (recorded with_stack).", "called from"
        ),
        "count": Column("int64"),
        "sum_ns": Column("int64"),
    },
)


def compiled_regions(work: pd.DataFrame, operators: pd.DataFrame, instances: pd.DataFrame) -> pd.DataFrame:
    """OPERATOR_WORK, OPERATORS, REGION_INSTANCES -> COMPILED_REGIONS. Empty in, empty out."""
    operators = OPERATORS.check(operators)
    names = operators["name"].cat.categories
    regions = {name: numbers for name in names if (numbers := _numbers(_REGION, name)) is not None}
    own = _without_nested(operators, operators["name"].isin([*regions, _COMPILING]).to_numpy())
    compiling = _compiling(operators[(operators["name"] == _COMPILING).to_numpy()], REGION_INSTANCES.check(instances))
    rows = []
    for row in OPERATOR_WORK.check(work).to_dict("records"):
        numbers = regions.get(row["name"])
        if numbers is not None:
            counts = (row[name] for name in ("calls", "host_ns", "nested_gpu_events", "nested_gpu_ns"))
            mine = int(own[(operators["name"] == row["name"]).to_numpy()].sum())
            rows.append((*numbers, *counts, mine, compiling.get(numbers, 0)))
    return COMPILED_REGIONS.of(sorted(rows))


def _numbers(pattern: re.Pattern[str], name: str) -> tuple[int, int] | None:
    found = pattern.fullmatch(name)
    return (int(found[1]), int(found[2])) if found else None


def _without_nested(operators: pd.DataFrame, counted: npt.NDArray[np.bool_]) -> I64:
    """Host time of each of the operators that count, less that of those right inside it that do too."""
    dur, parent = operators["dur_ns"].to_numpy(), operators["parent"].fillna(-1).to_numpy(dtype=np.int64)
    own: I64 = dur.copy()
    for row in np.flatnonzero(counted).tolist():
        above = parent[row]
        while above >= 0 and not counted[above]:
            above = parent[above]
        if above >= 0:
            own[above] -= dur[row]
    return own


def _compiling(calls: pd.DataFrame, instances: pd.DataFrame) -> dict[tuple[int, int], int]:
    """Host time of compiling by frame and recompile: each region that says these is of the last call before it."""
    found: dict[tuple[int, int], int] = {}
    instances = instances[instances["name"].str.startswith(_COMPILING).to_numpy(dtype=bool)]
    for name, thread, start in zip(*(instances[column] for column in ("name", "thread", "start_ns")), strict=True):
        numbers = _numbers(_COMPILED, name)
        if numbers is not None:
            mine = calls[(calls["thread"] == thread).to_numpy() & (calls["start_ns"] <= start).to_numpy()]
            found[numbers] = found.get(numbers, 0) + int(mine["dur_ns"].tail(1).sum())
    return found


def graph_breaks(columns: EventColumns) -> pd.DataFrame:
    """Calls of Python functions that TorchDynamo made to go on behind a graph break -> GRAPH_BREAKS."""
    found = {code: match for code, name in enumerate(columns.names) if (match := _RESUMED.fullmatch(name))}
    totals: dict[tuple[str, str, int], list[int]] = {}
    for code, match in found.items():
        mine = np.flatnonzero(columns.name == code)
        row = totals.setdefault((match[1] or "", match[2], int(match[3])), [0, 0])
        row[0] += len(mine)
        row[1] += int(columns.dur_ns[mine].sum())
    return GRAPH_BREAKS.of((*key, *totals[key]) for key in sorted(totals))


def triton_kernels(details: pd.DataFrame, files: TextColumn, site: pd.Series[Any]) -> pd.DataFrame:
    """KERNEL_DETAILS -> TRITON_KERNELS. files: the argument FILE of every event. site: where each was launched."""
    details = KERNEL_DETAILS.check(details)
    event = details["operator_event"].fillna(-1).to_numpy(dtype=np.int64)
    file = np.array([text.strip('"') for text in files.values] or [""], dtype=object)
    told = file[np.where(event >= 0, files.codes[np.maximum(event, 0)], 0)] if len(files.codes) else np.array([])
    frame = pd.DataFrame({"name": details["name"].astype(object), "file": told, "site": site.to_numpy()})
    frame["file"] = np.where(event >= 0, frame["file"], "")
    frame["dur"] = details["dur_ns"].to_numpy()
    frame = frame[(frame["file"] != "") | frame["name"].str.startswith("triton_")]
    if frame.empty:
        return TRITON_KERNELS.empty()
    grouped = frame.groupby(["name", "file"], sort=False)
    totals = grouped["dur"].agg(count="size", sum_ns="sum")
    totals["called_from"] = grouped["site"].agg(lambda sites: sites.value_counts().index[0])
    order = totals.reset_index().sort_values(["sum_ns", "name", "file"], ascending=[False, True, True])
    return TRITON_KERNELS.cast(order.reset_index(drop=True))
