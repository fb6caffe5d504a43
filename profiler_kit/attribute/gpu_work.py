"""What a GPU event does: it communicates, copies, sets memory or computes.

Communication is told by what the trace says first: the arguments of a collective on the kernel, its launch or the
operator that launched it, or that operator's name; then by the kernel's own name. Users may add names
(profiler_kit.settings). A copy or a set of memory is never communication, whoever launched it.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from functools import lru_cache
from typing import Any, Final

import numpy as np
import numpy.typing as npt

from profiler_kit.attribute.span_forest import ROOT, build_forest, nesting_rank
from profiler_kit.errors import OptionError
from profiler_kit.load.integers import I64, MISSING, Mask
from profiler_kit.load.trace.categories import KERNEL, MEMCPY, MEMSET, MTIA_KERNEL, OPERATOR
from profiler_kit.load.trace.columns import EventColumns

NOT: Final = 0  # no communication
ARGUMENTS, BY_OPERATOR, OF_USER = "collective arguments", "operator", "user's name"
# A reduction over these stays on one device.
_LOCAL: Final = (
    *("warp", "wave", "block", "lane", "quad", "simd", "thread", "cta", "tile", "cluster"),
    *("subgroup", "simdgroup", "threadgroup"),
)
# Kernels of communication libraries, by the qualified name of their function: without "void", template and parameters.
NAMES: Final[Mapping[str, re.Pattern[str]]] = {
    "NCCL, RCCL": re.compile(r"^(nccl|rccl)", re.IGNORECASE),
    "MSCCL": re.compile(r"msccl", re.IGNORECASE),
    "NVSHMEM": re.compile(r"(nv|roc|mori_|(^|\W|_)i)shmem", re.IGNORECASE),
    "DeepEP": re.compile(r"(^|\W)deep_ep(?![a-z])"),
    "MORI, pplx": re.compile(r"(^|\W)(mori|pplx)::|(^|\W)Ep(Dispatch|Combine)"),
    "HCCL": re.compile(r"(^|\W)(hccl|hcom)(?![a-z])", re.IGNORECASE),
    "oneCCL": re.compile(r"oneccl|^ccl_|(^|\W)ccl::", re.IGNORECASE),
    "UCC, Gloo": re.compile(r"(^|\W)(ucc|gloo)(_|::)"),
    # MCCL, XCCL and others named alike, Cambricon's and Baidu's
    "other libraries": re.compile(r"(^|\W)([a-z]{1,4}ccl|cncl|CNCL|bkcl|BKCL|flagcx)(?![a-z])"),
    "multimem": re.compile(r"(^|\W)multimem_"),
    "custom all-reduce": re.compile(r"cross_device_reduce|quick_?reduce|userbuffers_", re.IGNORECASE),
    # one and two shot, FlashInfer's and TensorRT-LLM's fusions; "small_reduce" is none
    "named after a collective": re.compile(
        "".join(f"(?<!{one})(?<!{one}_)" for one in _LOCAL)
        + r"((?-i:(?<![a-z])a|A(?=l)|(?<![A-Z])A)ll_?(reduce|gather|to_?all|2all)|reduce_?scatter|"
        r"(?<![a-z])a2a(?![a-z]))",
        re.IGNORECASE,
    ),
    "symmetric memory": re.compile(r"(^|\W)c10d::symmetric_memory::"),
}
# Operators whose own kernels communicate; those of an operator called inside (aten::copy_ of a bucket) do not.
_OPERATORS: Final = re.compile(
    r"record_param_comms$|(c10d|_?c10d_functional|symm_mem|_C_custom_ar)::|([a-z]*ccl|ucc|gloo|mpi):(?!:)|"
    r"(?!aten::)\w+::\w*(all_?reduce|all_?gather|reduce_?scatter|all_?to_?all)"
)
_COMPUTES: Final = re.compile(r"matmul|gemm|_mm(_|$)")  # symm_mem::fused_all_gather_matmul starts products itself
_FUSED: Final = re.compile(r"triton_\w+_fused_")  # TorchInductor names a kernel after the operators around it
LONGEST: Final = 1 << 14  # letters of a name in which a function is looked for; symbols of C++ end long before
_PIECE: Final = 1 << 17  # events
_LENGTH: Final = re.compile(r"[0-9]{1,4}")  # of the next part of a symbol's name
_ANONYMOUS: Final = re.compile(r"\(anonymous namespace\)::")
# Copies and sets that the trace calls kernels (ROCm's blit kernels, MTIA's requests), or the other way round.
_COPIES: Final = re.compile(
    r"^__amd_rocclr_copy|^Memcpy|^(memory_?)?copy_?(host|device)_?to_?(host|device)", re.IGNORECASE
)
_REQUESTS: Final = re.compile(r"^dma(?![a-z])", re.IGNORECASE)
_SETS: Final = re.compile(r"^__amd_rocclr_fill|^Fill_?Buffer|^Memset", re.IGNORECASE)


@lru_cache(maxsize=65_536)
def rule_of_name(name: str) -> str:
    """The rule of NAMES by which a kernel of that name communicates; "" when none says so."""
    text = _ANONYMOUS.sub("", name[:LONGEST].removeprefix("void ").lstrip())
    if _FUSED.match(text):
        return ""
    function = _unmangled(text) if text.startswith("_Z") else re.split(r"[<(\[ ]", text, maxsplit=1)[0]
    return next((rule for rule, pattern in NAMES.items() if pattern.search(function)), "")


def _unmangled(symbol: str) -> str:
    """The qualified name of a function by its symbol (_ZN7deep_ep9intranode8dispatchE...), up to the first template."""
    found: list[str] = []
    at = len(symbol) - len(symbol.removeprefix("_Z").lstrip("NLKVr"))
    while length := _LENGTH.match(symbol, at):
        at = length.end() + int(length[0])
        found.append(symbol[length.end() : at])
    return "::".join(found) or symbol


def compiled(patterns: Sequence[str]) -> tuple[re.Pattern[str], ...]:
    """Names that a user takes for communication; raises OptionError when one is not a regular expression."""
    found = []
    for pattern in patterns:
        try:
            found.append(re.compile(pattern, re.IGNORECASE))
        except re.error as error:
            raise OptionError(
                f"--communication {pattern!r}: {error}, expected a part of a kernel's or an operator's name, as a "
                f"regular expression. Try: --communication {re.escape(pattern)!r}"
            ) from None
    return tuple(found)


def categories_of(columns: EventColumns, gpu: I64) -> tuple[I64, list[str]]:
    """The category of each GPU event as an index of the list: the file's, or what its name says is a copy or a set."""
    labels = [*columns.categories, MEMCPY, MEMSET]
    category = columns.category[gpu].astype(np.int64)
    work = columns.of_category(lambda one: one in (KERNEL, MEMCPY, MTIA_KERNEL))
    mtia = columns.of_category(lambda one: one == MTIA_KERNEL)
    copy, fill = len(labels) - 2, len(labels) - 1
    says = np.array([_copies_or_sets(name) for name in columns.names] or [0])[columns.name[gpu]]
    for bit, (of_kind, code) in enumerate(((work, copy), (mtia, copy), (work, fill))):
        category[(says >> bit & 1 > 0) & of_kind[gpu]] = code
    return category, labels


@lru_cache(maxsize=65_536)
def _copies_or_sets(name: str) -> int:
    """Bits that say whether a name is that of a copy, of a request that copies (MTIA's), of a set of memory."""
    return sum(bool(one.search(name)) << bit for bit, one in enumerate((_COPIES, _REQUESTS, _SETS)))


def communication_of(
    columns: EventColumns, gpu: I64, launch: I64, kernel: Mask, users: Sequence[re.Pattern[str]]
) -> tuple[I64, list[str]]:
    """Why each GPU event communicates, as an index of the list of rules; NOT where it does not.

    launch: its launch, negative where there is none. kernel: whether it is a kernel, not a copy or a set.
    """
    rules = ["", ARGUMENTS, BY_OPERATOR, *NAMES, OF_USER]
    number = {rule: code for code, rule in enumerate(rules)}
    codes = np.array([number[rule_of_name(name)] for name in columns.names] or [0], dtype=np.int64)
    for code, name in enumerate(columns.names if users else []):
        if not codes[code] and any(pattern.search(name) for pattern in users):
            codes[code] = number[OF_USER]
    rule = codes[columns.name[gpu]]
    linked = np.flatnonzero(launch >= 0)
    says, operator_says = _by_operator(columns, launch[linked], users)
    rule[linked[operator_says]] = number[BY_OPERATOR]
    collective = columns.integers["collective"] != MISSING
    said = collective[gpu]
    said[linked] |= collective[launch[linked]] | says
    rule[said] = number[ARGUMENTS]
    rule[~kernel] = NOT
    return rule, rules


def _by_operator(columns: EventColumns, launch: I64, users: Sequence[re.Pattern[str]]) -> tuple[Mask, Mask]:
    """Whether the innermost operator open at each launch carries the arguments of a collective, and whether its name
    is one of communication.
    """
    by_name = _coded(columns.name, [communicates(name, users) for name in columns.names])
    collective = columns.integers["collective"] != MISSING
    nothing = np.zeros(len(launch), dtype=bool)
    operator = columns.of_category(lambda category: category == OPERATOR)
    telling = np.flatnonzero(operator & (by_name | collective))
    if not len(telling) or not len(launch):
        return nothing, nothing
    # only operators that begin inside a telling one can be the innermost there: nest these alone
    thread, start, end = columns.thread.astype(np.int64), columns.start_ns, columns.start_ns + columns.dur_ns
    outer = build_forest(thread[telling], start[telling], end[telling], nesting_rank(columns, telling))
    every = np.flatnonzero(operator)
    pieces = np.array_split(every, 1 + len(every) // _PIECE)  # all at once take as much memory as they are long
    inside = np.concatenate([piece[outer.innermost(thread[piece], start[piece]) != ROOT] for piece in pieces])
    if not len(inside):
        return nothing, nothing
    forest = build_forest(thread[inside], start[inside], end[inside], nesting_rank(columns, inside))
    node = forest.innermost(thread[launch], start[launch])
    event = inside[forest.span[node]]
    open_there = node != ROOT
    return open_there & collective[event], open_there & by_name[event]


def communicates(operator: str, users: Sequence[re.Pattern[str]] = ()) -> bool:
    """Whether the kernels of an operator of that name communicate."""
    return _is_communication(operator) or any(pattern.search(operator) for pattern in users)


@lru_cache(maxsize=65_536)
def _is_communication(operator: str) -> bool:
    return _OPERATORS.match(operator) is not None and _COMPUTES.search(operator) is None


def _coded(codes: npt.NDArray[np.integer[Any]], flags: Sequence[bool]) -> Mask:
    """The flag of each code."""
    coded: Mask = np.array([*flags] or [False], dtype=bool)[codes]
    return coded
