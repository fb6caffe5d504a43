"""Find what is live at one moment, by region and by layer."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Final

import numpy as np
import pandas as pd

from profiler_kit.analyses.memory.regions import NO_REGION, Regions
from profiler_kit.analyses.memory.replay import Bools, Ints, Replay
from profiler_kit.analyses.memory.stack_names import HasFrame, place
from profiler_kit.load.snapshot.data import StackTable
from profiler_kit.schema import Column, Schema

MEMORY_LIVE_TREE: Final = Schema(
    "MEMORY_LIVE_TREE",
    "region that holds memory at one moment, and for those around it",
    {
        "device": Column("int64"),
        "path": Column("path", "The regions that were open at the allocation, outermost first."),
        "count": Column("int64", "Live allocations made inside it and inside those below it.", "allocations", "room"),
        "size_bytes": Column("int64", "What these hold; the rows of depth 1 add up to all that is live."),
        "self_bytes": Column("int64", "Of it, allocated in this one and in none below it.", show="room"),
        "share": Column("float64", "Of all that is live at that moment."),
    },
)

MEMORY_LIVE_LAYERS: Final = Schema(
    "MEMORY_LIVE_LAYERS",
    "layer that holds memory at one moment, and for those around it",
    dict(MEMORY_LIVE_TREE.columns)
    | {"path": Column("path", "The modules whose calls were open at the allocation, outermost first.", "layer")},
)


BEFORE: Final = ("(before the recording)",)
NO_LAYER: Final = ("(no layer)",)
MODULE: Final = "nn.Module: "  # how torch.profiler names the frame of a module's call
_CALL: Final = "_call_impl"  # torch/nn/modules/module.py: the frame around every module's forward

Path = tuple[str, ...]


def held_at(one: Replay, allocations: pd.DataFrame, state: int) -> pd.DataFrame:
    """MEMORY_ALLOCATIONS of a device that hold memory in one state (0: before the first event)."""
    moment = int(one.rows[state - 1]) if state else -1
    alloc = allocations["alloc_event"].fillna(-1).to_numpy(np.int64)
    free = allocations["free_event"].fillna(np.iinfo(np.int64).max).to_numpy(np.int64)
    alive: Bools = (allocations["device"].to_numpy() == one.device) & (alloc <= moment) & (free > moment)
    found: pd.DataFrame = allocations[alive]
    return found


def region_of(allocations: pd.DataFrame, regions: Regions) -> Ints:
    """Number of the innermost region each allocation was made in; -1 outside all, -2 before the history."""
    before = allocations["alloc_us"].isna().to_numpy()
    inside = regions.path_at(allocations["alloc_us"].fillna(0).to_numpy(np.int64))
    return np.where(before, -2, inside)


def live_by_region(one: Replay, allocations: pd.DataFrame, regions: Regions, state: int) -> pd.DataFrame:
    """MEMORY_LIVE_TREE by the region each allocation was made in."""
    held = held_at(one, allocations, state)
    names = [*regions.paths, BEFORE, NO_REGION]  # -2, -1
    paths = [names[number] for number in region_of(held, regions).tolist()]
    return live_tree(one.device, paths, held["size_bytes"].tolist())


def live_by_layer(one: Replay, allocations: pd.DataFrame, stacks: StackTable, state: int) -> pd.DataFrame:
    """MEMORY_LIVE_TREE by the module whose call made each allocation; see `layer_path` for how it is named."""
    held = held_at(one, allocations, state)
    known: dict[int, Path] = {}
    paths = []
    for stack, before in zip(held["stack"].tolist(), held["alloc_event"].isna().tolist(), strict=True):
        if stack not in known:
            known[stack] = layer_path(stacks[stack]) or NO_LAYER
        paths.append(BEFORE if before and known[stack] == NO_LAYER else known[stack])
    return live_tree(one.device, paths, held["size_bytes"].tolist())


def layer_path(frames: Sequence[HasFrame]) -> Path:
    """The modules whose calls a stack is inside of, outermost first; () for none.

    `frames` is innermost first. A CPU recording names module instances (`Linear_0`). A CUDA stack knows files and
    lines only: a module is then named by the file of its forward and the line that called it, `linear.py at
    mlp.py:31`, so that modules called by one line (the blocks of a loop) cannot be told apart.
    """
    named = [frame.name.removeprefix(MODULE) for frame in frames if frame.name.startswith(MODULE)]
    if named:
        return tuple(reversed(named))
    python = [frame for frame in frames if frame.filename.endswith(".py")]
    found = []
    for number, frame in enumerate(python):
        if frame.name == "forward" and number + 1 < len(python) and _is_call(python[number + 1]):
            caller = next((one for one in python[number + 1 :] if not _is_call(one)), None)
            where = f" at {place(_file(caller), caller.line)}" if caller else ""
            found.append(f"{_file(frame)}{where}")
    return tuple(reversed(found))


def _is_call(frame: HasFrame) -> bool:
    return frame.name.endswith(_CALL) and frame.filename.endswith("nn/modules/module.py")


def _file(frame: HasFrame) -> str:
    return frame.filename.replace("\\", "/").rsplit("/", 1)[-1]


def live_tree(device: int, paths: Iterable[Path], sizes: Iterable[int]) -> pd.DataFrame:
    """MEMORY_LIVE_TREE of allocations with a path each: a parent before its children, most bytes first."""
    sums: dict[Path, list[int]] = {}  # count, bytes below it, bytes of its own
    total = 0
    for path, size in zip(paths, sizes, strict=True):
        total += size
        for depth in range(1, len(path) + 1):
            row = sums.setdefault(path[:depth], [0, 0, 0])
            row[0] += 1
            row[1] += size
        sums[path][2] += size
    rank = {path: (-row[1], path[-1]) for path, row in sums.items()}
    order = sorted(sums, key=lambda path: [rank[path[:depth]] for depth in range(1, len(path) + 1)])
    frame = pd.DataFrame(
        {
            "device": np.full(len(order), device, np.int64),
            "path": np.fromiter(order, dtype=object, count=len(order)),
            "count": np.array([sums[path][0] for path in order], np.int64),
            "size_bytes": np.array([sums[path][1] for path in order], np.int64),
            "self_bytes": np.array([sums[path][2] for path in order], np.int64),
            "share": np.array([sums[path][1] / max(total, 1) for path in order], np.float64),
        }
    )
    return MEMORY_LIVE_TREE.check(frame)
