"""How far each operator is from what the GPU can do: its FLOPs and bytes (operator_models) against time and peaks."""

from __future__ import annotations

import dataclasses
import json
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final, Literal

import numpy as np
import numpy.typing as npt
import pandas as pd

from profiler_kit.analyses.gpu.categories import COPY, MATRIX, event_categories, owners
from profiler_kit.analyses.gpu.operator_models import OF_STEP, Call, Unrecorded, Work, model_of
from profiler_kit.analyses.gpu.operators import NO_LAUNCH, NO_OPERATOR
from profiler_kit.analyses.gpu.peaks import Peaks, peak_dtype
from profiler_kit.analyses.gpu.serving_labels import Served, served
from profiler_kit.attribute.frames import KERNEL_DETAILS
from profiler_kit.attribute.launch_context import codes_of
from profiler_kit.load.integers import I64
from profiler_kit.load.trace.columns import TextColumn
from profiler_kit.schema import Column, Schema

By = Literal["kernel", "module", "region", "step"]

ARGUMENTS: Final = ("input_dims", "input_type", "concrete_inputs")
COMPUTE, MEMORY = "compute", "memory"
NO_MODEL, NO_SHAPES, UNFIT, NO_DTYPE = "no model", "no shapes recorded", "shapes do not fit", "unknown dtype"
NO_LENGTHS, NO_NONZEROS = "no lengths recorded", "how sparse is not recorded"
_SPARSE: Final = re.compile(r"(cu|roc|hip)sparse::|rocsparse_")
LARGEST: Final = 1 << 62

_SHARE_MEANING: Final = (
    "The least time that the peaks allow for its FLOPs and bytes, as a share of its time; missing where the GPU or the "
    "dtype has no known peak."
)

ROOFLINE: Final = Schema(
    "ROOFLINE",
    "operator, shapes and dtypes, longest gpu_ns first; (no operator) and (unlinked) hold the rest by category",
    {
        "operator": Column("str", "A PyTorch operator; one with a model holds what it calls."),
        "shapes": Column("str", "Sizes of its arguments.", unit="json"),
        "dtypes": Column("str", "Dtypes of its arguments.", show="never", unit="json"),
        "category": Column("str", "The kind of work.", "work", show="room"),
        "count": Column(
            "int64", "Calls that launched something on the GPU; GPU events where there is no operator.", show="room"
        ),
        "flops": Column("Int64", "Floating-point operations of all calls.", "FLOP", show="room"),
        "bytes": Column("Int64", "Read and written by all calls, each operand once.", unit="bytes", show="room"),
        "gpu_ns": Column("int64"),
        "tflop_per_s": Column("float64", "FLOPs over time.", "TFLOP/s", unit="factor", show="room"),
        "tb_per_s": Column("float64", "Bytes over time.", "TB/s", unit="factor", show="room"),
        "flop_per_byte": Column("float64", "Arithmetic intensity.", "FLOP/byte", show="room", unit="factor"),
        "peak_share": Column("float64", _SHARE_MEANING, "of peak"),
        "bound": Column("str", "Which peak it is nearer to: compute or memory."),
        "modelled": Column("bool", "Whether its FLOPs or bytes are known.", show="room"),
        "why": Column("str", "Why it is not modelled, or what was assumed of what is not recorded.", show="room"),
    },
)

ROOFLINE_TOTALS: Final = Schema(
    "ROOFLINE_TOTALS",
    "kernel, module, region or step, longest gpu_ns first; a module or region holds those inside it",
    {
        "name": Column("str", "Kernel, nn.Module, region (outermost first) or number of the step.", unit="kernel"),
        "gpu_events": Column("int64", show="room"),
        "gpu_ns": Column("int64"),
        "modelled_ns": Column("int64", "The part of it whose operators have a model.", "modelled", of="gpu_ns"),
        "flops": Column(
            "Int64", "Floating-point operations, each call's with its longest kernel.", "FLOP", show="room"
        ),
        "bytes": Column("Int64", "Read and written, each call's with its longest kernel.", unit="bytes", show="room"),
        "mfu": Column("float64", "FLOPs over what the peak of their dtype allows in that time.", "MFU", unit="share"),
        "mbu": Column("float64", "Bytes over what the memory's peak allows in that time.", "MBU", unit="share"),
    },
)


@dataclass(frozen=True)
class Kind:
    """Calls of one operator with the same arguments. work: None where `why` says what is missing."""

    operator: str
    shapes: str
    dtypes: str
    work: Work | None
    why: str


@dataclass(frozen=True)
class Worked:
    """What each GPU event works on. kind: row of kinds. call: which call of it, -1 without an operator. carries:
    whether it is the longest of its call, which stands for it where work is to be put on kernels.
    """

    kinds: list[Kind]
    kind: I64
    call: I64
    category: pd.Categorical
    carries: npt.NDArray[np.bool_]


def work_of_events(
    operators: pd.DataFrame, details: pd.DataFrame, arguments: Mapping[str, TextColumn], copied: I64
) -> Worked:
    """OPERATORS, KERNEL_DETAILS -> what each GPU event works on.

    arguments: the columns ARGUMENTS of every event. copied: the bytes of each GPU event that is a copy, else below 0.
    """
    owner = owners(operators, details)
    category = event_categories(operators, details, owner)
    kind, kinds = _kinds(operators, owner, [arguments[name] for name in ARGUMENTS], details["path"])
    names = details["name"].cat
    sparse = np.array([bool(_SPARSE.search(name)) for name in names.categories] or [False])[names.codes.to_numpy()]
    for one in np.unique(kind[sparse & (owner >= 0)]).tolist():
        kinds[one] = dataclasses.replace(kinds[one], work=None, why=NO_NONZEROS)
    loose = np.flatnonzero(owner < 0)
    # what has no operator: a kind for each category with a launch and without; of copies the file has the size
    unlinked = details["launch_thread"].isna().to_numpy()[loose]
    for name, mine in ((NO_OPERATOR, loose[~unlinked]), (NO_LAUNCH, loose[unlinked])):
        for code in np.unique(category.codes[mine]).tolist():
            these = mine[category.codes[mine] == code]
            size = copied[these]
            known = category.categories[code] == COPY and bool((size >= 0).all())
            kind[these] = len(kinds)
            work = Work(0, float(size.sum()) / len(these)) if known else None
            kinds.append(Kind(name, "", "", work, "" if known else NO_MODEL))
    call = owner.copy()
    replayed = np.flatnonzero(details["captured"].to_numpy() & (owner >= 0))
    if len(replayed):  # of a captured operator each replay is a call
        pair = owner[replayed] * (len(replayed) + 1)
        pair += np.unique(details["launch"].to_numpy(dtype=np.int64, na_value=-1)[replayed], return_inverse=True)[1]
        call[replayed] = len(operators) + np.unique(pair, return_inverse=True)[1]
    return Worked(kinds, kind, call, category, _longest(call, details["dur_ns"].to_numpy()))


def _kinds(
    operators: pd.DataFrame, owner: I64, texts: Sequence[TextColumn], paths: pd.Series[Any]
) -> tuple[I64, list[Kind]]:
    """The kind of each GPU event with an operator, and the kinds: one for each name, arguments and, where the model
    asks for it, step that differ.
    """
    kind = np.full(len(owner), -1, dtype=np.int64)
    owned = np.flatnonzero(owner >= 0)
    if not len(owned):
        return kind, []
    event = operators["event"].to_numpy()[owner[owned]]
    names = list(operators["name"].cat.categories)
    steps: list[Served | None] = [None]  # before that of each path: where no step is asked for
    steps += [next(filter(None, map(served, reversed(path))), None) for path in paths.cat.categories]
    asks = np.array([name in OF_STEP for name in names], dtype=bool)
    codes = [codes_of(operators["name"])[owner[owned]], *(text.codes[event].astype(np.int64) for text in texts)]
    codes.append(np.where(asks[codes[0]], paths.cat.codes.to_numpy(dtype=np.int64)[owned] + 1, 0))
    key = np.zeros(len(owned), dtype=np.int64)
    for code in codes:  # one number for each combination; numbering anew keeps it below the number of rows
        key = np.unique(key * (int(code.max()) + 1) + code, return_inverse=True)[1]
    _, first, kind[owned] = np.unique(key, return_index=True, return_inverse=True)
    found = []
    for row in first.tolist():
        values = [text.values[code[row]] for text, code in zip(texts, codes[1:-1], strict=True)]
        found.append(_kind(names[codes[0][row]], *values, step=steps[codes[-1][row]]))
    return kind, found


def _kind(operator: str, shapes: str, dtypes: str, values: str, *, step: Served | None) -> Kind:
    model, work, why = model_of(operator), None, NO_MODEL
    if model is not None:
        why = NO_SHAPES
        if shapes:
            work, why = _work(Call(operator, _list(shapes), _list(dtypes), _list(values), step), model)
    return Kind(operator, shapes, dtypes, work, why)


def _work(call: Call, model: Any) -> tuple[Work | None, str]:
    try:
        work = model(call)
        size = work.bytes
    except Unrecorded:
        return None, NO_LENGTHS
    except (ArithmeticError, AttributeError, LookupError, TypeError, ValueError):
        return None, UNFIT
    if size is None and not work.flops:
        return None, NO_DTYPE
    if max(work.flops or 0, size or 0) >= LARGEST or min(work.flops or 0, size or 0) < 0:
        return None, UNFIT
    return work, work.assumed if size is not None else NO_DTYPE


def _list(text: str) -> list[Any]:
    """A list as the file has it; empty where it is none."""
    try:
        found = json.loads(text) if text else []
    except (ValueError, RecursionError):
        return []
    return found if isinstance(found, list) else []


def _longest(call: I64, dur_ns: I64) -> npt.NDArray[np.bool_]:
    """Whether each event is the longest of its call, the first of equal ones."""
    order = np.lexsort((-np.arange(len(call)), dur_ns, call))
    ends = np.append(call[order][1:] != call[order][:-1], True)[: len(order)]
    longest = np.zeros(len(call), dtype=bool)
    longest[order[ends]] = True
    return longest & (call >= 0)


def roofline(details: pd.DataFrame, worked: Worked, peaks: Peaks | None) -> pd.DataFrame:
    """KERNEL_DETAILS and what its events work on -> ROOFLINE. Empty in, empty out.

    gpu_ns adds up to the sum over all GPU events.
    """
    details = KERNEL_DETAILS.check(details)
    kind, count = worked.kind, len(worked.kinds)
    if not count:
        return ROOFLINE.empty()
    dur, rows = details["dur_ns"].to_numpy(), np.arange(len(kind))
    gpu_ns = np.zeros(count, dtype=np.int64)
    np.add.at(gpu_ns, kind, dur)
    loose = worked.call < 0
    calls = np.bincount(kind[worked.carries | loose], minlength=count)
    order = np.lexsort((dur, kind))
    longest = rows[order][np.append(kind[order][1:] != kind[order][:-1], True)]  # event of each kind
    table = _peak_columns(worked, longest, details, peaks)
    table["gpu_ns"], table["count"] = gpu_ns, calls
    for name in ("flops", "bytes", "least_flop_ns", "least_byte_ns"):
        table[name] = table[name] * calls
    # calls that differ in arguments which are not shown
    keys = ["operator", "shapes", "dtypes", "category", "modelled", "why"]
    sums = table.groupby(keys, sort=False)[["count", "gpu_ns"]].sum()
    floats = ["flops", "bytes", "least_flop_ns", "least_byte_ns"]
    sums = sums.join(table.groupby(keys, sort=False)[floats].sum(min_count=1)).reset_index()
    found = _rates(sums).sort_values(["gpu_ns", *keys], ascending=[False, *[True] * len(keys)], ignore_index=True)
    return ROOFLINE.check(found)


def roofline_of(details: pd.DataFrame, worked: Worked, peaks: Peaks | None, row: int) -> pd.DataFrame:
    """ROOFLINE of one operator call alone: that of the GPU event in that row. Empty where the event has no operator."""
    call = int(worked.call[row])
    if call < 0:
        return ROOFLINE.empty()
    mine = np.flatnonzero(worked.call == call)
    only = np.zeros(len(mine), dtype=np.int64)
    alone = Worked([worked.kinds[worked.kind[row]]], only, only, worked.category[mine], worked.carries[mine])
    return roofline(details.iloc[mine].reset_index(drop=True), alone, peaks)


def _peak_columns(worked: Worked, longest: I64, details: pd.DataFrame, peaks: Peaks | None) -> pd.DataFrame:
    """One row per kind: its texts, FLOPs and bytes of one call, and the least time that the peaks allow for them."""
    labels, names = list(worked.category.categories), list(details["name"].cat.categories)
    code, name = worked.category.codes[longest].tolist(), details["name"].cat.codes.to_numpy()[longest].tolist()
    rows = []
    for kind, category, kernel in zip(worked.kinds, code, name, strict=True):
        flops = size = least_flop = least_byte = np.nan
        if kind.work is not None:
            flops = np.nan if kind.work.flops is None else float(kind.work.flops)
            size = np.nan if kind.work.bytes is None else float(kind.work.bytes)
        if peaks is not None and kind.work is not None:
            matrix = labels[category] in MATRIX
            rate = peaks.tflop_per_s.get(peak_dtype(kind.work.dtype, names[kernel]) if matrix else "fp32")
            if not flops > 0:  # none, or not known: then what the bytes take is all that can be said
                least_flop = 0.0
            elif rate:
                least_flop = flops / rate / 1e3
            least_byte = size / peaks.tb_per_s / 1e3
        modelled = kind.work is not None
        texts = (kind.operator, kind.shapes, kind.dtypes, labels[category], modelled, kind.why)
        rows.append((*texts, flops, size, least_flop, least_byte))
    columns = ["operator", "shapes", "dtypes", "category", "modelled", "why"]
    return pd.DataFrame(rows, columns=[*columns, "flops", "bytes", "least_flop_ns", "least_byte_ns"])


def _rates(sums: pd.DataFrame) -> pd.DataFrame:
    gpu_ns = sums["gpu_ns"].where(sums["gpu_ns"] > 0).astype("float64")
    flop_ns, byte_ns = sums["least_flop_ns"], sums["least_byte_ns"]
    known = flop_ns.notna() & byte_ns.notna()
    least = flop_ns.where(flop_ns >= byte_ns, byte_ns).where(known)
    bound = np.where(flop_ns >= byte_ns, COMPUTE, MEMORY)
    return sums.assign(
        tflop_per_s=sums["flops"] / gpu_ns / 1e3,
        tb_per_s=sums["bytes"] / gpu_ns / 1e3,
        flop_per_byte=sums["flops"] / sums["bytes"].where(sums["bytes"] > 0),
        peak_share=least / gpu_ns,
        bound=np.where(known & (least > 0), bound, ""),
        flops=_whole(sums["flops"]),
        bytes=_whole(sums["bytes"]),
        modelled=sums["modelled"].astype(bool),
    )


def _whole(values: pd.Series[float]) -> pd.Series[Any]:
    return values.where(values < LARGEST).round().astype("Int64")


def roofline_totals(
    details: pd.DataFrame, worked: Worked, peaks: Peaks | None, by: By, steps: pd.Series[Any]
) -> pd.DataFrame:
    """KERNEL_DETAILS and what its events work on -> ROOFLINE_TOTALS. steps: the step of each GPU event, if it has one.

    Empty in, empty out.
    """
    details = KERNEL_DETAILS.check(details)
    if details.empty:
        return ROOFLINE_TOTALS.empty()
    kind, rows = worked.kind, np.arange(len(details))
    longest = np.zeros(len(worked.kinds), dtype=np.int64)
    order = np.argsort(details["dur_ns"].to_numpy(), kind="stable")
    longest[kind[order]] = rows[order]
    table = _peak_columns(worked, longest, details, peaks)
    carries = worked.carries | (worked.call < 0)
    dur = details["dur_ns"].to_numpy()
    values = {"gpu_events": np.ones(len(details)), "gpu_ns": dur}
    values["modelled_ns"] = np.where(table["modelled"].to_numpy(dtype=bool)[kind], dur, 0)
    for name in ("flops", "bytes", "least_flop_ns", "least_byte_ns"):
        values[name] = np.where(carries, table[name].to_numpy()[kind], 0.0)
    frame = pd.DataFrame({name: np.nan_to_num(value) for name, value in values.items()})
    if by in ("module", "region"):
        column = details["modules" if by == "module" else "path"]
        sums = _by_path(frame, column)
    else:
        names = details["name"].cat if by == "kernel" else steps.astype("Int64").astype("category").cat
        sums = frame.groupby(names.codes.to_numpy()).sum()
        sums = sums[sums.index >= 0]  # -1: in no step
        sums.index = names.categories[sums.index].astype(str)
    if sums.empty:
        return ROOFLINE_TOTALS.empty()
    gpu_ns = sums["gpu_ns"].where(sums["gpu_ns"] > 0)
    least = sums["least_flop_ns"], sums["least_byte_ns"]
    mfu, mbu = ((ns / gpu_ns).where(ns > 0) if peaks is not None else ns * np.nan for ns in least)
    totals = sums.assign(name=sums.index, mfu=mfu, mbu=mbu).reset_index(drop=True)
    totals[["flops", "bytes"]] = totals[["flops", "bytes"]].apply(_whole)
    totals = totals.astype({"gpu_events": "int64", "gpu_ns": "int64", "modelled_ns": "int64", "name": "object"})
    return ROOFLINE_TOTALS.check(totals.sort_values(["gpu_ns", "name"], ascending=[False, True], ignore_index=True))


def _by_path(frame: pd.DataFrame, paths: pd.Series[Any]) -> pd.DataFrame:
    """Sums for each path and all that are inside it."""
    own = frame.groupby(paths.cat.codes.to_numpy()).sum()
    rows: dict[str, Any] = {}
    for code, row in zip(own.index.tolist(), own.to_numpy(), strict=True):
        path = paths.cat.categories[code]
        for depth in range(1, len(path) + 1):
            name = " > ".join(path[:depth])
            rows[name] = rows[name] + row if name in rows else row
    return pd.DataFrame.from_dict(rows, orient="index", columns=own.columns)
