"""Run HolisticTraceAnalysis on our columns: a working `hta.trace_analysis.TraceAnalysis` of our traces.

HTA's own parser is not used. What it does to a trace, this module does to our columns: symbols become numbers,
launches and GPU events point at each other, host events and what they launched get the `ProfilerStep` they belong to,
and all ranks count from the first event. HTA's own filter then drops what was launched in the last step. Every method
of TraceAnalysis, critical path and stragglers included, runs on the result.
"""

from __future__ import annotations

import re
import warnings
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import msgspec
import numpy as np
import numpy.typing as npt
import pandas as pd

from profiler_kit.attribute.span_forest import ROOT, build_forest, outer_first
from profiler_kit.load.discover.jobs import Paths, left_out, load_each
from profiler_kit.load.integers import I64, MISSING
from profiler_kit.load.trace.categories import OPERATOR, REGION, is_gpu_work, is_launch
from profiler_kit.load.trace.chrome import ChromeTrace, find_events, read_chrome_trace
from profiler_kit.load.trace.columns import EventColumns
from profiler_kit.load.trace.decode import NOT_JSON
from profiler_kit.load.trace.decompress import Blocks
from profiler_kit.load.trace.event_text import copy_events, scan
from profiler_kit.progress import Report, silent
from profiler_kit.units import NS_PER_US

if TYPE_CHECKING:
    from hta.common.trace_symbol_table import TraceSymbolTable
    from hta.trace_analysis import TraceAnalysis


_NONE: Final = -1  # HTA's "no stream", "no correlation", "no step"
_GRID: Final = float(1 << 20)  # steps in a microsecond: what a float64 can hold of a trace of two hours
_STEP: Final = re.compile(r"ProfilerStep\s*#\s*(\d+)")  # as in HTA
_NCCL, _OLD_NCCL = "ncclDevKernel", "ncclKernel"
_PHASE: Final = re.compile(rb'"ph"\s*:\s*"(.)"')
_KEY_BYTES: Final = 16  # of a phase that two blocks share
# HTA's column -> the argument in the file and HTA's value where an event has none (its default_event_args.py).
_NUMBERS: Final[dict[str, tuple[str, float]]] = {
    "memory_bw_gbps": ("memory bandwidth (GB/s)", 0.0),
    "wait_on_stream": ("wait_on_stream", -1),
    "wait_on_cuda_event_record_corr_id": ("wait_on_cuda_event_record_corr_id", -1),
}
_OTHERS: Final[dict[str, tuple[str, object]]] = {
    "input_dims": ("Input Dims", "-1"),
    "input_type": ("Input type", "-1"),
    "input_strides": ("Input Strides", "-1"),
    "collective_name": ("Collective name", ""),
    "in_msg_nelems": ("In msg nelems", 0),
    "out_msg_nelems": ("Out msg nelems", 0),
    "msg_dtype": ("dtype", ""),
    "group_size": ("Group size", 0),
    "process_rank": ("Rank", -1),
    "in_split_size": ("In split size", "[]"),
    "out_split_size": ("Out split size", "[]"),
}
_HOST: Final = frozenset({OPERATOR, REGION, "python_function"})
_INTEGERS: Final = ("correlation", "bytes", "external_id", "python_id", "python_parent_id")


def hta_analysis(
    paths: Paths,
    *,
    include_last_profiler_step: bool = False,
    whole_microseconds: bool = False,
    all_columns: bool = False,
    report: Report = silent,
) -> TraceAnalysis:
    """HTA's TraceAnalysis of one or several ranks, each loaded by us.

    paths: {rank: trace}, a list of traces, a folder of them, or one trace; without a dict each trace says its rank
    (`distributedInfo`, or "rank3" in its name); a single one that says none is rank 0. include_last_profiler_step is
    HTA's. all_columns adds what HTA keeps and none of its methods reads: shapes, types and strides of inputs, the
    arguments of collectives.

    Events have HTA's numbers: their places in the file's `traceEvents`. Results equal HTA's wherever its parser loses
    nothing. Where it does, ours differ:

    - Times keep their nanoseconds. HTA rounds starts up and ends down to microseconds: of the 36,209 events of its
      own test trace `ns_resolution` 9,999 are left without a duration and 4,065 with a negative one, and
      get_frequent_cuda_kernel_sequences raises ValueError. Ours equal HTA's under HTA_DISABLE_NS_ROUNDING=1, but
      start + duration is the end to the last bit (times are multiples of 2**-20 us, a thousandth of a nanosecond),
      where floats put children beyond their parents. `whole_microseconds` rounds as HTA does, to compare with old
      numbers.
    - A step is the host's `ProfilerStep`. HTA also takes the GPU's echo of it, which starts later and reaches into
      the next step, and counts host events of that time to the wrong step.
    - Stream 0 is a stream (ROCm's default). HTA gives no step to what runs there.
    - Ends count from the first event, as starts do. HTA leaves them absolute, so include_last_profiler_step also
      kept what was launched after that step.
    - Operators are no kernels. HTA counts host events that name a stream (Triton's operators) as GPU time.
    - Stragglers are looked for among all NCCL kernels. HTA knows their names from before NCCL 2.19 only
      (`ncclKernel...`, not `ncclDevKernel...`) and raises ValueError.
    - Traces that HTA refuses (cut off, malformed) are loaded as far as they can be read.

    Of a folder that holds two ranks or more, whatever is not a rank of its own is left out with a warning.

    Raises InputError when a file is missing or empty, or its rank is not known or not its own; TraceFormatError when
    one is not a trace.
    """
    arguments = [argument for argument, _ in _NUMBERS.values()]
    arguments += [argument for argument, _ in _OTHERS.values()] if all_columns else []
    loaded, errors = load_each(paths, partial(read_chrome_trace, arguments=arguments, report=report))
    for error in errors:
        warnings.warn(left_out(error), stacklevel=2)
    with _quiet():
        return _analysis(loaded, include_last=include_last_profiler_step, whole=whole_microseconds)


@contextmanager
def _quiet() -> Iterator[None]:
    """Without what HTA's own use of pandas warns of."""
    with warnings.catch_warnings():
        for category in (FutureWarning, DeprecationWarning, pd.errors.PerformanceWarning):
            warnings.filterwarnings("ignore", category=category, module=r"hta\.")
        yield


def _analysis(loaded: Mapping[int, ChromeTrace], *, include_last: bool, whole: bool) -> TraceAnalysis:
    from hta.analyzers.straggler import find_stragglers_with_late_start_comm_kernels
    from hta.common.trace import Trace as HtaTrace
    from hta.common.trace import transform_correlation_to_index
    from hta.common.trace_parser import MetaDataKey, infer_gpu_type
    from hta.trace_analysis import TraceAnalysis

    class LoadedAnalysis(TraceAnalysis):  # type: ignore[misc]  # HTA gives it no types
        def __init__(self, trace: HtaTrace) -> None:
            self.t = trace

        def get_potential_stragglers(
            self,
            profiler_steps: list[int] | None = None,
            num_candidates: int = 2,
            visualize: bool = False,
            straggler_identification_impl: Callable[..., pd.Series[Any]] = find_stragglers_with_late_start_comm_kernels,
        ) -> list[int]:
            known = self.t.symbol_table
            self.t.symbol_table = _with_old_names(known)
            try:
                found: list[int] = super().get_potential_stragglers(
                    profiler_steps, num_candidates, visualize, straggler_identification_impl
                )
            finally:
                self.t.symbol_table = known
            return found

    class LoadedTrace(HtaTrace):  # type: ignore[misc]  # hta is not typed
        def get_raw_trace_for_one_rank(self, rank: int = 0) -> dict[str, Any]:
            return _raw_trace(Path(self.trace_files[rank]), least[rank])

    trace = LoadedTrace(trace_files={}, trace_dir="")
    trace.trace_files = {rank: str(file.path) for rank, file in loaded.items()}
    clock = _Clock.of(list(loaded.values()), whole=whole)
    least: dict[int, int] = {}  # number of an event
    for rank, file in loaded.items():
        kept, symbols, numbers = _kept(file.columns), trace.symbol_table, _numbers(file)
        least[rank] = int(numbers.min()) if len(numbers) else 0
        frame = _frame(file, kept, numbers[kept], clock, symbols)
        frame = transform_correlation_to_index(frame, symbols)
        partner = frame["index_correlation"].to_numpy(np.int64)
        frame["iteration"] = _steps(file.columns, kept, np.where(partner > 0, _rows(numbers)[partner], _NONE))
        trace.traces[rank] = frame
        trace.meta_data[rank] = {**file.metadata, "baseTimeNanoseconds": clock.base_ns}
        names = {file.columns.names[code]: 0 for code in np.unique(file.columns.name[kept]).tolist()}
        trace.meta_data[rank][str(MetaDataKey.DEVICE_TYPE)] = infer_gpu_type(file.metadata, names)
    trace.align_and_filter_trace(include_last)
    trace.min_ts = clock.first_us
    for rank, frame in trace.traces.items():
        trace.traces[rank] = frame.set_index("index", drop=False).rename_axis(None)
    trace.is_parsed = True
    return LoadedAnalysis(trace)


def _with_old_names(symbols: TraceSymbolTable) -> TraceSymbolTable:
    """The same numbers, with NCCL's kernels called as they were before 2.19, the only name HTA's stragglers know."""
    old = type(symbols)()
    for number, name in enumerate(symbols.get_sym_table()):
        old.add_symbols([f"{_OLD_NCCL}{name.removeprefix(_NCCL)}#{number}" if name.startswith(_NCCL) else name])
    return old


def _kept(columns: EventColumns) -> I64:
    """Rows that HTA keeps: all but those without a category and the profiler's own."""
    return np.flatnonzero(columns.of_category(lambda category: category not in ("", "Trace")))


@dataclass(frozen=True)
class _Clock:
    """HTA's time: microseconds since the first event of all ranks, which is first_us after base_ns."""

    base_ns: int
    first_ns: int
    whole: bool

    @staticmethod
    def of(files: Sequence[ChromeTrace], *, whole: bool) -> _Clock:
        """Ranks whose files count from different base times are put on one clock."""
        base_ns = min(_base_ns(file) for file in files)
        firsts = [
            int(file.columns.start_ns[kept].min()) + _base_ns(file) - base_ns
            for file in files
            if len(kept := _kept(file.columns))
        ]
        return _Clock(base_ns, min(firsts, default=0), whole)

    @property
    def first_us(self) -> float:
        """The first event on the files' own clock."""
        first = float(_us(np.array([self.first_ns]))[0])
        return float(np.ceil(first)) if self.whole else first

    def span(self, file: ChromeTrace, rows: I64) -> tuple[npt.NDArray[Any], npt.NDArray[Any]]:
        """Start and end of each event; integers where that says all, as HTA has them."""
        start = file.columns.start_ns[rows] + (_base_ns(file) - self.base_ns)
        dur = file.columns.dur_ns[rows]
        if self.whole:  # as HTA rounds: what it adds are floats
            begin = np.ceil(_us(start))
            end = np.floor(_us(start) + _us(dur))
            return (begin - self.first_us).astype(np.int64), end - self.first_us
        start = start - self.first_ns
        if not (start % NS_PER_US).any() and not (dur % NS_PER_US).any() and not self.first_ns % NS_PER_US:
            return start // NS_PER_US, (start + dur) / NS_PER_US
        return np.rint(start / NS_PER_US * _GRID) / _GRID, np.rint((start + dur) / NS_PER_US * _GRID) / _GRID


def _us(ns: I64) -> npt.NDArray[np.float64]:
    """Microseconds as a float parsed from the file's text has them."""
    return ns // NS_PER_US + ns % NS_PER_US / NS_PER_US


def _base_ns(file: ChromeTrace) -> int:
    base = file.metadata.get("baseTimeNanoseconds")
    return base if isinstance(base, int) else 0


def _numbers(file: ChromeTrace) -> I64:
    """HTA's number of each of our events: its place in traceEvents; one more where a 0, which means "its partner is not
    in the trace", would be the number of a partner.
    """
    columns, head = file.columns, b""
    if not len(columns):
        return np.zeros(0, dtype=np.int64)
    phases = bytearray()
    for block in find_events(file.path, iter(Blocks(file.path)))[1]:
        text = head + block
        last = 0
        for found in _PHASE.finditer(text):
            phases += found[1]
            last = found.end()
        head = text[max(last, len(text) - _KEY_BYTES) :]
    number = np.flatnonzero(np.frombuffer(bytes(phases), dtype=np.uint8) == ord("X"))
    quality = file.quality
    if len(number) != len(columns) or len(phases) != quality.events or quality.dropped_events:
        number = scan(file.path).spans.number  # something is unlike Kineto's layout
    first = columns.categories[columns.category[int(number.argmin())]]
    return number + int(number.min() == 0 and (is_launch(first) or is_gpu_work(first)))


def _rows(number: I64) -> I64:
    """Our row of each number."""
    rows = np.full(int(number.max(initial=0)) + 1, _NONE, dtype=np.int64)
    rows[number] = np.arange(len(number))
    return rows


def _frame(file: ChromeTrace, rows: I64, numbers: I64, clock: _Clock, symbols: TraceSymbolTable) -> pd.DataFrame:
    """The events as HTA's parser lays them out."""
    columns = file.columns
    start, end = clock.span(file, rows)
    pids, tids = zip(*columns.threads, strict=True) if columns.threads else ((), ())
    data: dict[str, npt.NDArray[Any]] = {
        "index": numbers,
        "cat": _symbols(symbols, columns.categories, columns.category[rows]),
        "name": _symbols(symbols, columns.names, columns.name[rows]),
        "pid": _ids(pids)[columns.thread[rows]],
        "tid": _ids(tids)[columns.thread[rows]],
        "ts": start,
        "dur": (end - start).astype(np.float64),
        "end": end,
        "stream": _stream(columns)[rows],
        **{name: _or_none(columns.integers[name][rows]) for name in _INTEGERS},
    }
    for name, (argument, absent) in {**_NUMBERS, **_OTHERS}.items():
        if argument in columns.extra:
            data[name] = _argument(columns, argument, absent, rows)
    return pd.DataFrame(data, index=pd.Index(data["index"]))


def _symbols(table: TraceSymbolTable, labels: Sequence[str], codes: npt.NDArray[np.integer[Any]]) -> I64:
    """HTA's number of each label; labels that nothing carries get none."""
    used = np.unique(codes).tolist()
    table.add_symbols([labels[code] for code in used])
    known = table.get_sym_id_map()
    numbers = np.zeros(len(labels), dtype=np.int64)
    for code in used:
        numbers[code] = known[labels[code]]
    return np.asarray(numbers[codes], dtype=np.int64)


def _ids(values: Sequence[int | str]) -> npt.NDArray[Any]:
    if all(isinstance(value, int) for value in values):
        return np.array(values, dtype=np.int64)
    return np.array(values, dtype=object)


def _stream(columns: EventColumns) -> I64:
    """The stream something runs on; none for host events, which name one too on ROCm and in Triton's operators."""
    host = columns.of_category(lambda category: category in _HOST or is_launch(category))
    return np.where(host, _NONE, _or_none(columns.integers["stream"]))


def _or_none(values: I64) -> I64:
    return np.where(values == MISSING, _NONE, values)


def _argument(columns: EventColumns, argument: str, absent: object, rows: I64) -> npt.NDArray[Any]:
    """One argument of each event, decoded once for all events that share it."""
    column = columns.extra[argument]
    values = [_decoded(text, absent) for text in column.values]
    if isinstance(absent, float | int):
        numbers = np.array([value if isinstance(value, float | int) else absent for value in values])
        return np.asarray(numbers[column.codes[rows]])
    table = np.empty(len(values), dtype=object)
    table[:] = values
    return np.asarray(table[column.codes[rows]])


def _decoded(text: str, absent: object) -> object:
    try:
        return msgspec.json.decode(text) if text else absent
    except NOT_JSON:
        return absent


def _steps(columns: EventColumns, rows: I64, partner: I64) -> I64:
    """The ProfilerStep each event belongs to, by its start on the host or by its launch; -1 where there is none.

    partner is the row of what launched it, _NONE when that is not known.
    """
    matched = [_STEP.match(name) for name in columns.names]
    number = np.array([int(found[1]) if found else _NONE for found in matched] or [_NONE], dtype=np.int64)
    region = columns.of_category(lambda category: category == REGION)
    step = np.flatnonzero(region & (number[columns.name] != _NONE))
    start, end = columns.start_ns[step], columns.start_ns[step] + columns.dur_ns[step]
    forest = build_forest(np.zeros(len(step), np.int64), start, end, outer_first(start, end, step))
    node = forest.innermost(np.zeros(len(columns), np.int64), columns.start_ns)
    at_start = np.full(len(columns), _NONE, dtype=np.int64)
    at_start[node != ROOT] = number[columns.name[step[forest.span[node[node != ROOT]]]]]
    on_gpu = _stream(columns)[rows] >= 0
    launched = at_start[np.maximum(partner, 0)]
    return np.where(on_gpu, np.where(partner >= 0, launched, _NONE), at_start[rows])


def _raw_trace(path: Path, least: int) -> dict[str, Any]:
    """The file as HTA's overlays need it: `traceEvents` in which event number N is the one our frames call N.

    least: the lowest number of an event in our frames.
    """
    found = scan(path)
    nothing = {"ph": "M", "name": "process_sort_index", "pid": 0, "tid": 0, "args": {"sort_index": 0}}
    events = [msgspec.json.decode(text) for text in copy_events(found, np.arange(found.total))]
    spans = (part.tolist() for part in (found.spans.number, found.spans.last, found.spans.dur_ns))
    for at, last, ns in zip(*spans, strict=True):
        if at != last:
            events[at], events[last] = {**events[at], "ph": "X", "dur": ns / 1000}, nothing
    before = [nothing] * (least - int(found.spans.number.min(initial=least)))
    return {**found.metadata, "traceEvents": [*before, *events]}
