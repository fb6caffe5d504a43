"""The traces of one job's ranks, side by side: totals by rank, and collectives matched across ranks."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Final

import pandas as pd

from profiler_kit.analyses.ranks.ranks import RANK_KERNELS, collectives, communication_kernels, rank_totals
from profiler_kit.kept import kept
from profiler_kit.later import later
from profiler_kit.load.discover.jobs import Paths, left_out, load_each
from profiler_kit.progress import Report, silent
from profiler_kit.table import Filled, Value
from profiler_kit.trace import Trace, load_trace

_MOST_RANKS: Final = 1 << 20
_GROUP: Final = "process_group_name"


@dataclass(frozen=True, eq=False)
class Ranks:
    """The loaded trace of each rank, lowest rank first. problems: a line for each file that was left out, and why."""

    traces: Mapping[int, Trace]
    problems: tuple[str, ...] = ()

    @property
    def path(self) -> str:
        """The folder that the traces are in, or how many there are."""
        folders = {trace.path.parent for trace in self.traces.values()}
        return str(folders.pop()) if len(folders) == 1 else f"{len(self.traces)} ranks"

    @kept
    def collectives(self) -> pd.DataFrame:
        """RANK_COLLECTIVES: the kernels of each collective on its ranks, and who waited for whom."""
        kernels = [
            communication_kernels(trace.gpu_events(), rank, trace.base_ns, trace.events[_GROUP])
            for rank, trace in self.traces.items()
        ]
        return collectives(RANK_KERNELS.join(kernels))

    @kept
    def totals(self) -> pd.DataFrame:
        """RANK_TOTALS: one row per rank."""
        return rank_totals({rank: trace.gpu_events() for rank, trace in self.traces.items()}, self.collectives())

    def table(self, name: str, **options: Value) -> Filled:
        """A declared table, filled; see Trace.table."""
        filled: Filled = later("fill")(name, {"job": self}, **options)
        return filled


def load_ranks(
    paths: Paths, *, skip_broken: bool = False, communication: Sequence[str] = (), report: Report = silent
) -> Ranks:
    """Load the traces of several ranks.

    paths: {rank: trace}, a list of traces, or a folder that holds them (or run folders with one each). Without a dict
    each trace says its rank: `distributedInfo`, else "rank3" in the name of its file or folder.
    communication: see load_trace.
    skip_broken: leave out what is missing or cannot be read, and say so in `problems`. Of a folder that holds two ranks
    or more, whatever is no rank of its own is left out so: other files, a front end's trace, a rank's second trace.

    Raises InputError when there is none, one is missing, or a rank is not known or not its own; TraceFormatError when
    one is no trace.
    """
    load = partial(load_trace, arguments=[_GROUP], communication=communication, report=report)
    traces, errors = load_each(paths, load, skip_broken=skip_broken)
    return Ranks(traces, (*map(left_out, errors), *_missing(traces)))


def _missing(traces: Mapping[int, Trace]) -> list[str]:
    """A line that names the ranks of which there is no trace, where the traces say how many there are."""
    told = [trace.metadata.get("distributedInfo") for trace in traces.values()]
    sizes = [info.get("world_size") for info in told if isinstance(info, dict)]
    size = max((one for one in sizes if isinstance(one, int) and 0 < one <= _MOST_RANKS), default=0)
    missing = sorted(set(range(size)) - set(traces))
    if not missing:
        return []
    names = ", ".join(map(str, missing[:8])) + (" and more" if len(missing) > 8 else "")
    return [f"{len(missing)} of {size} ranks have no trace here: {names}. What they waited for is not known."]
