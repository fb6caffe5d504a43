"""Measure one trace for a comparison: times and counts per region, kernel and operator.

The samples of a row are its sums in each round: a ProfilerStep, or one instance of a region that encloses
everything. In a trace without rounds they are its instances, or its calls.
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any, Final

import numpy as np
import numpy.typing as npt
import pandas as pd

from profiler_kit.analyses.compare.kernel_keys import host_key
from profiler_kit.analyses.gpu.intervals import added, covered_by_group, with_ancestors
from profiler_kit.attribute.frames import GPU_EVENTS, OPERATORS, REGION_INSTANCES
from profiler_kit.load.integers import I64

Path = tuple[str, ...]

NOTCH: Final = 1.57
FEW: Final = 4  # samples from which on quartiles say more than the range
STEP: Final = "ProfilerStep"


@dataclass(frozen=True)
class Measured:
    """One row of one trace.

    samples: ns in each round where it ran, of each instance, or of each call. scale: what multiplies their median to
    what is compared. count: how often it ran, per round where samples are. sum_ns: over the whole trace (its rounds).
    added: whether that is what is compared, in place of the median. names: of kernels and operators, what the trace
    calls those that are compared as one, the longest time first.
    """

    samples: npt.NDArray[np.float64]
    scale: float
    count: float
    sum_ns: int
    calls: int
    added: bool = False
    names: tuple[str, ...] = ()

    @cached_property
    def value_ns(self) -> float:
        """What is compared: per round, per instance, or the sum of all calls."""
        return float(self.sum_ns) if self.added else float(np.median(self.samples)) * self.scale

    @property
    def mean_ns(self) -> float:
        """Of one call or instance."""
        return self.sum_ns / self.calls

    @cached_property
    def notch_ns(self) -> float | None:
        """Half the width of the notch around value_ns; None for a single sample."""
        n = len(self.samples)
        if n < 2:
            return None
        low, high = np.percentile(self.samples, (25, 75) if n >= FEW else (0, 100))
        return NOTCH * float(high - low) / math.sqrt(n) * self.scale


@dataclass(frozen=True)
class Side:
    """One trace, its regions' paths made comparable.

    Instances are parts where regions straddle (Trace.region_parts): rows of one event. work: the category of each GPU
    event. is_round: which instances are rounds; rounds: how many. unit: the round of each instance, counted from 0, or
    -1.
    """

    gpu_events: pd.DataFrame
    instances: pd.DataFrame
    operators: pd.DataFrame
    work: pd.Categorical
    paths: list[Path]
    path: I64  # of each instance, an index of paths
    is_round: npt.NDArray[np.bool_]
    unit: I64
    rounds: int

    @staticmethod
    def of(gpu_events: pd.DataFrame, instances: pd.DataFrame, operators: pd.DataFrame, work: pd.Categorical) -> Side:
        """Take GPU_EVENTS, REGION_INSTANCES and OPERATORS of one trace; its ProfilerSteps are the rounds.

        instances: the parts of regions where these straddle; the column `instance` of events and of operators is a row
        of it. work: the category of each GPU event (analyses.gpu.categories).
        """
        GPU_EVENTS.check(gpu_events)
        OPERATORS.check(operators)
        REGION_INSTANCES.check(instances)
        paths, path = _renamed(instances, lambda path: tuple(map(host_key, path)))
        is_step = instances["step"].notna().to_numpy()
        unit, rounds = _rounds_of(instances, is_step)
        return Side(gpu_events, instances, operators, work, paths, path, is_step, unit, rounds)

    def without_steps(self) -> Side:
        """The same without rounds, and paths without ProfilerStep, which the other side lacks."""
        paths, path = _renamed(self.instances, lambda path: tuple(host_key(name) for name in path if name != STEP))
        never = np.zeros(len(path), dtype=bool)
        unit = np.full(len(path), -1)
        return dataclasses.replace(self, paths=paths, path=path, is_round=never, unit=unit, rounds=0)

    def in_rounds(self, name: str) -> Side:
        """The same with the instances of an outermost region as rounds."""
        codes = [code for code, path in enumerate(self.paths) if path == (name,)]
        is_round = np.isin(self.path, codes)
        unit, rounds = _rounds_of(self.instances, is_round)
        return dataclasses.replace(self, is_round=is_round, unit=unit, rounds=rounds)

    def repeated(self) -> dict[str, int]:
        """Outermost regions that were opened twice or more, on one thread, with their time on the host."""
        start, end = self._instance_times()
        thread, event = (self.instances[name].to_numpy() for name in ("thread", "event"))
        found = {}
        for code, path in enumerate(self.paths):
            rows = np.flatnonzero(self.path == code) if len(path) == 1 else np.zeros(0, np.int64)
            if len(set(event[rows].tolist())) > 1 and len(set(thread[rows].tolist())) == 1:
                found[path[0]] = int((end - start)[rows].sum())
        return found

    def wall(self) -> dict[Path, Measured]:
        """Each round's time on the host; without rounds from the first start to the last end, host and GPU."""
        start, end = self._instance_times()
        if self.rounds:
            took = added(self.unit[self.is_round], (end - start)[self.is_round], self.rounds)
            return {("round",): _sums(took, 1.0, 1.0, self.rounds)}
        times = [(start, end)] if len(start) else []
        for frame in (self.gpu_events, self.operators):
            begin = frame["start_ns"].to_numpy(np.int64)
            times += [(begin, begin + frame["dur_ns"].to_numpy(np.int64))] if len(frame) else []
        if not times:
            return {}
        whole = max(int(end.max()) for _, end in times) - min(int(start.min()) for start, _ in times)
        return {("trace",): _sums(np.array([whole]), 1.0, 1.0, 1)}

    def busy(self) -> dict[Path, Measured]:
        """Union of the GPU events, over all streams and devices."""
        start, end, unit = self._event_times()
        if not len(start):
            return {}
        groups = max(self.rounds, 1)
        inside = unit >= 0 if self.rounds else np.ones(len(start), dtype=bool)
        group = unit[inside] if self.rounds else np.zeros(len(start), dtype=np.int64)
        busy = covered_by_group(group, start[inside], end[inside], groups)
        return {("GPU busy",): _sums(busy, 1.0, len(group) / groups, max(len(group), 1))}

    def region_busy(self) -> dict[Path, Measured]:
        """Union of what each region launched, nested regions included, over all streams."""
        instance, event = self._launched()
        start, end, _ = self._event_times()
        group, groups = self._groups()
        return self._regions(covered_by_group(group[instance], start[event], end[event], groups))

    def region_host(self) -> dict[Path, Measured]:
        """Time on the regions' own threads."""
        start, end = self._instance_times()
        group, groups = self._groups()
        return self._regions(added(group, end - start, groups))

    def events_by(self, key: Callable[[str], str]) -> dict[Path, Measured]:
        """GPU time by what `key` makes of an event's name; of a trace with rounds what was launched inside them."""
        names = self.gpu_events["name"].cat
        _, _, unit = self._event_times()
        dur = self.gpu_events["dur_ns"].to_numpy(np.int64)
        return self._by_name(names.categories, key, names.codes.to_numpy(), dur, unit)

    def work_time(self) -> dict[Path, Measured]:
        """GPU time by category of work; of a trace with rounds what was launched inside them."""
        _, _, unit = self._event_times()
        dur = self.gpu_events["dur_ns"].to_numpy(np.int64)
        return self._by_name(self.work.categories, str, np.asarray(self.work.codes), dur, unit)

    def operator_time(self) -> dict[Path, Measured]:
        """Self time on the host by operator; of a trace with rounds what ran inside them."""
        names = self.operators["name"].cat
        unit = self._unit_of(self.operators)
        self_ns = self.operators["self_ns"].to_numpy(np.int64)
        return self._by_name(names.categories, host_key, names.codes.to_numpy(), self_ns, unit)

    def _groups(self) -> tuple[I64, int]:
        """What each instance is a part of: its path in its round, or just itself."""
        count = max(self.rounds, 1)
        # one group per (path, round); an instance outside all rounds is a group of its own, with its other parts there
        alone = len(self.paths) * count + self._whole()
        return np.where(self.unit >= 0, self.path * count + self.unit, alone), len(self.paths) * count + len(self.path)

    def _whole(self) -> I64:
        """A number for each instance, the same for the parts of one that share a path."""
        both = np.column_stack((self.path, self.instances["event"].to_numpy(np.int64)))
        codes: I64 = np.unique(both, axis=0, return_inverse=True)[1].reshape(-1)
        return codes

    def _regions(self, values: I64) -> dict[Path, Measured]:
        """Values per group to samples per path. A path that is opened inside rounds and outside counts inside."""
        group, _ = self._groups()
        whole = self._whole()
        found: dict[Path, Measured] = {}
        # rows of the instances of each path: sorted by path, cut where the path changes
        order = np.argsort(self.path, kind="stable")
        opened = np.bincount(self.path, minlength=len(self.paths))
        for path, rows in zip(self.paths, np.split(order, np.cumsum(opened))[: len(self.paths)], strict=True):
            inside = rows[self.unit[rows] >= 0]
            if not path or not len(rows):
                continue
            ran = np.unique(group[inside if len(inside) else rows])
            if len(inside):
                calls = len(np.unique(whole[inside]))
                found[path] = _sums(values[ran], len(ran) / self.rounds, calls / self.rounds, calls)
            else:
                found[path] = _sums(values[ran], 1.0, float(len(ran)), len(ran))
        return found

    def _by_name(
        self, names: Iterable[Any], key: Callable[[str], str], code: npt.NDArray[Any], dur: I64, unit: I64
    ) -> dict[Path, Measured]:
        """Measure what `key` makes of each name; code: which of `names` each row has."""
        texts = list(map(str, names))
        known: dict[str, int] = {}
        # code of a name -> number of its key
        table = np.array([known.setdefault(key(text), len(known)) for text in texts], dtype=np.int64)
        inside = unit >= 0 if self.rounds else np.ones(len(dur), dtype=bool)
        if not inside.any():
            return {}
        code, dur = code[inside], dur[inside]
        number = table[code]
        calls = np.bincount(number, minlength=len(known))
        # of each key the names that ran, the longest time first
        named: list[list[str]] = [[] for _ in known]
        took, ran = added(code, dur, len(texts)), np.bincount(code, minlength=len(texts)) > 0
        for name in np.argsort(-took, kind="stable").tolist():
            if ran[name]:
                named[table[name]].append(texts[name])
        if self.rounds:
            # a table of key by round, laid out flat: the sum in each cell, and whether anything ran there
            cell = number * self.rounds + unit[inside]
            sums = added(cell, dur, len(known) * self.rounds).reshape(len(known), self.rounds)
            ran = np.bincount(cell, minlength=sums.size).reshape(sums.shape) > 0
            rounds = self.rounds
            rows = [
                _sums(sums[row][ran[row]], ran[row].sum() / rounds, calls[row] / rounds, int(calls[row]))
                for row in np.flatnonzero(calls)
            ]
        else:
            order = np.argsort(number, kind="stable")
            parts = np.split(dur[order], np.cumsum(calls))
            rows = [_calls(parts[row]) for row in np.flatnonzero(calls)]
        keys = [(key, named[row]) for key, row in known.items() if calls[row]]
        return {
            (key,): dataclasses.replace(row, names=tuple(texts)) for (key, texts), row in zip(keys, rows, strict=True)
        }

    def _event_times(self) -> tuple[I64, I64, I64]:
        """Start, end and round (or -1) of each GPU event."""
        start = self.gpu_events["start_ns"].to_numpy(np.int64)
        return start, start + self.gpu_events["dur_ns"].to_numpy(np.int64), self._unit_of(self.gpu_events)

    def _unit_of(self, frame: pd.DataFrame) -> I64:
        """The round of each row, or -1."""
        instance = frame["instance"].fillna(-1).to_numpy(np.int64)
        unit: I64 = np.append(self.unit, -1)[instance]  # -1, no instance, picks the last entry
        return unit

    def _instance_times(self) -> tuple[I64, I64]:
        return self.instances["start_ns"].to_numpy(np.int64), self.instances["end_ns"].to_numpy(np.int64)

    def _launched(self) -> tuple[I64, I64]:
        """Pairs of a region instance and a GPU event launched in it, the outer ones included."""
        instance = self.gpu_events["instance"].fillna(-1).to_numpy(np.int64)
        parent = self.instances["parent"].fillna(-1).to_numpy(np.int64)
        return with_ancestors(instance, parent)


def _rounds_of(instances: pd.DataFrame, is_round: npt.NDArray[np.bool_]) -> tuple[I64, int]:
    """The round that each instance is, or is nested in, -1 outside of all; and how many there are."""
    unit = np.full(len(instances), -1, dtype=np.int64)
    events, unit[is_round] = np.unique(instances["event"].to_numpy()[is_round], return_inverse=True)
    parent = instances["parent"].fillna(-1).to_numpy(np.int64)
    above = parent
    while (above >= 0).any():
        # take over the round of the ancestor; where that has none, try the next one above
        unit = np.where((above >= 0) & (unit < 0), unit[above], unit)
        above = np.where((above >= 0) & (unit < 0), parent[above], -1)
    return unit, len(events)


def _renamed(instances: pd.DataFrame, rename: Callable[[Path], Path]) -> tuple[list[Path], I64]:
    """The distinct paths after renaming, and the one of each instance."""
    codes: dict[Path, int] = {}
    categories: Sequence[Path] = list(instances["path"].cat.categories)
    table = [codes.setdefault(rename(path), len(codes)) for path in categories]
    return list(codes), np.array([*table, 0], dtype=np.int64)[instances["path"].cat.codes.to_numpy()]


def measured(samples: Sequence[int], parts: int = 1) -> Measured:
    """A row of samples in ns taken elsewhere, such as latencies; each divided by `parts`."""
    values = np.array(samples, dtype=np.int64)
    return Measured(values / parts, 1.0, 1.0, int(values.sum()) // parts, len(values))


def _sums(values: I64, scale: float, count: float, calls: int) -> Measured:
    return Measured(values.astype(np.float64), float(scale), float(count), int(values.sum()), calls)


def _calls(durations: I64) -> Measured:
    """Compared by the sum of the calls; its noise is that of one call, by chance of n."""
    total, median = int(durations.sum()), float(np.median(durations))
    scale = total / median if median else float(len(durations))
    return Measured(durations.astype(np.float64), scale, float(len(durations)), total, len(durations), added=True)
