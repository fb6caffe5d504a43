"""What kind of work a GPU event is: told by the operator that it belongs to, else by its kernel's name."""

from __future__ import annotations

import re
from collections.abc import Sequence
from functools import lru_cache
from typing import Final

import numpy as np
import pandas as pd

import profiler_kit.analyses.gpu.library_models  # noqa: F401  # registers its models
from profiler_kit.analyses.gpu.intervals import covered_ns
from profiler_kit.analyses.gpu.operator_models import WHOLE
from profiler_kit.attribute.frames import GPU_EVENTS, categorical_of
from profiler_kit.attribute.gpu_work import communicates
from profiler_kit.attribute.launch_context import codes_of
from profiler_kit.load.integers import I64
from profiler_kit.load.trace.categories import COMPILED_REGION, MEMCPY
from profiler_kit.schema import Column, Schema

COMMUNICATION, COPY, OTHER = "communication", "copy", "other"
BACKWARD: Final = re.compile(r"backward|bwd|fmha_cutlassB", re.IGNORECASE)
ATTENTION, ATTENTION_BACKWARD = "attention", "attention backward"

CATEGORY_TOTALS: Final = Schema(
    "CATEGORY_TOTALS",
    "category of work, longest first",
    {
        "category": Column(
            "str",
            "Decided by the operator that launched it, or by the kernel's name if the operator does not say.",
            "work",
        ),
        "gpu_events": Column("int64", "Kernels, memory copies and memory sets of the category."),
        "sum_ns": Column("int64"),
        "busy_ns": Column("int64"),
    },
)

# Operators by the name without namespace and trailing underscore, the first that matches.
_OPERATORS: Final = (
    (ATTENTION, r"attention|flash_attn|fmha|FlashAttn|FusedAttn|mha_(varlen_)?(fwd|bwd)|^flash_(fwd|bwd)$|sdpa|"
     r"kvcache_mla|mla_decode"),
    ("convolution", r"convolution|conv\d?d|^_?conv_|ConvBias|slow_conv|conv_depthwise|unfold|col2im|im2col"),
    ("matrix product", r"^_?(add|badd|addb)?(mm|bmm|mv|dot|vdot|matmul|linear|einsum|addmm_activation)$|"
     r"[Gg]emm|^gmm$|matmul|_mm$|_linear$|scaled_mm|grouped_mm|weight_int\dpack_mm|^(linear|mm|matmul)_backward$|marlin|fused_experts|fused_moe"),
    ("reduction", r"^(linalg_)?(vector_|matrix_)?norm$|^linalg_\w*norm$"),
    ("norm", r"(batch|layer|group|instance|rms)_?norm|_norm(_backward)?$|^norm|RMSNorm|LayerNorm"),
    (COPY, r"^_?(to_)?copy|^clone$|^contiguous$|^cat$|^stack$|^_local_scalar_dense$|^item$|^_foreach_copy"),
    ("reduction", r"^(nan)?(sum|mean)$|^(a|arg)?(max|min)$|^(all|any|prod|std|var|std_mean|var_mean|logsumexp|aminmax|"
     r"cumsum|cumprod|count_nonzero|bincount|histc)$|softmax|nll_loss|cross_entropy|^_foreach_norm|_loss"),
    ("elementwise", r"^_?(add|sub|mul|div|rsub|pow|exp|log|log1p|sqrt|rsqrt|neg|abs|sin|cos|tanh|erf|sigmoid|relu|silu|"
     r"gelu|elu|mish|hardswish|leaky_relu|threshold|clamp|clamp_min|clamp_max|where|maximum|minimum|reciprocal|square|floor|"
     r"ceil|round|sign|eq|ne|lt|le|gt|ge|remainder|fmod|fill|zero|masked_fill|dropout|native_dropout|lerp|addcmul|"
     r"addcdiv|isnan|bernoulli|uniform|normal|logical_\w+|bitwise_\w+)(_backward|_scalar|_)*$|^_foreach_|silu_and_mul|"
     r"^_?fused_(adam|adamw|sgd)|^_amp_|rotary|RoPE"),
)  # fmt: skip
# Kernels by what their name holds, the first that matches.
_KERNELS: Final = (
    (COMMUNICATION, r"^nccl|rccl"),
    (ATTENTION, r"fmha|flash_(fwd|bwd)|flash::|flash_attn|attn_fwd|attn_bwd|AttentionKernel|paged_attention|"
     r"attention_kernel|unified_attention|mha_(fwd|bwd)|aiter::.*fmha"),
    ("convolution", r"conv2d|convolve|conv_depthwise|_fprop|_dgrad|_wgrad|winograd|igemm_(fwd|bwd|wrw)|implicit_gemm|"
     r"cudnn.*(fprop|dgrad|wgrad)|MIOpenConv|im2col|causal_conv1d"),
    ("matrix product", r"gemm|gemv|^Cijk_|nvjet|cublas|cutlass.*Gemm|matmul|splitKreduce|triton_(tem|mm)|_mm_kernel"),
    ("norm", r"(layer|batch|group|instance|rms)_?norm|bn_fw|bn_bw|LayerNorm|RMSNorm"),
    (COPY, r"^Memcpy|CatArray|copy_kernel|__amd_rocclr_copy|nchwToNhwc|nhwcToNchw"),
    ("reduction", r"reduce_kernel|softmax|triton_(red|per)_|_reduce|cub::.*Reduce|Scan"),
    ("elementwise", r"elementwise|triton_poi_|multi_tensor_apply|distribution_|fused_dropout|act_and_mul|rotary"),
)  # fmt: skip
MATRIX: Final = frozenset(("matrix product", ATTENTION, ATTENTION_BACKWARD, "convolution"))
_FUSED: Final = re.compile(r"triton_(poi|red|per|for)_fused")  # pointwise, reductions, several of them
_NAMED: Final = {
    kind: [(category, re.compile(pattern)) for category, pattern in rules]
    for kind, rules in (("operator", _OPERATORS), ("kernel", _KERNELS))
}


@lru_cache(maxsize=65_536)
def category_of(name: str, kind: str) -> str:
    """The category that the name of an operator or of a kernel tells; OTHER where it tells none."""
    if kind == "operator" and communicates(name):
        return COMMUNICATION
    short = name.rpartition("::")[2].removesuffix("_") if kind == "operator" else name
    rules = _NAMED[kind]
    if _FUSED.match(name):  # its name lists all that is in its part of the graph: what it only copies for, too
        rules = [rule for rule in rules if rule[0] not in MATRIX]
    found = next((category for category, pattern in rules if pattern.search(short)), OTHER)
    return ATTENTION_BACKWARD if found == ATTENTION and BACKWARD.search(name) else found


def owners(operators: pd.DataFrame, details: pd.DataFrame) -> I64:
    """The row of OPERATORS that each GPU event's work belongs to; -1 where no operator was open.

    From the outside in: the first one with a model for all that it calls, else the first one that launches something
    itself, unless a call right inside it has such a model (TraceLens's rule) or it is a whole compiled function.
    """
    count = len(operators)
    innermost = np.full(len(details), -1, dtype=np.int64)
    if not count:
        return innermost
    row_of = np.full(int(operators["event"].max()) + 1, -1, dtype=np.int64)
    row_of[operators["event"].to_numpy()] = np.arange(count)
    inside = details["operator_event"].notna().to_numpy()
    innermost[inside] = row_of[details["operator_event"][inside].to_numpy(dtype=np.int64)]
    parent = operators["parent"].fillna(-1).to_numpy(dtype=np.int64)
    depth, names = operators["depth"].to_numpy(), operators["name"].cat
    modelled = np.array([name in WHOLE for name in names.categories] or [False])[names.codes.to_numpy()]
    launches = np.bincount(innermost[inside], minlength=count) > 0
    levels = [np.flatnonzero(depth == level) for level in range(int(depth.max()) + 1)]
    works = launches.copy()  # it, or a call inside
    for level in reversed(levels[1:]):
        works[parent[level[works[level]]]] = True
    calls_modelled = np.zeros(count, dtype=bool)
    calls_modelled[parent[modelled & works & (parent >= 0)]] = True
    compiled = np.array([name.startswith(COMPILED_REGION) for name in names.categories] or [False])[
        names.codes.to_numpy()
    ]
    stops = modelled | (launches & ~calls_modelled & ~compiled)
    owner = np.where(stops, np.arange(count), -1)
    for level in levels[1:]:  # what a call is in was decided the level before
        above = owner[parent[level]]
        owner[level] = np.where(above >= 0, above, owner[level])
    found = np.where(innermost >= 0, owner[innermost], -1)
    return np.where(found >= 0, found, innermost)


def event_categories(operators: pd.DataFrame, details: pd.DataFrame, owner: I64) -> pd.Categorical:
    """The category of each GPU event, given the operator that it belongs to."""
    labels: dict[str, int] = {}

    def code(names: Sequence[str], kind: str) -> I64:
        return np.array([labels.setdefault(category_of(name, kind), len(labels)) for name in names] or [0], np.int64)

    other, communication = labels.setdefault(OTHER, 0), labels.setdefault(COMMUNICATION, 1)
    copy = labels.setdefault(COPY, 2)
    found = code(list(details["name"].cat.categories), "kernel")[codes_of(details["name"])]
    found[(details["category"] == MEMCPY).to_numpy()] = copy
    owned = owner >= 0
    if owned.any():
        of_operator = code(list(operators["name"].cat.categories), "operator")[codes_of(operators["name"])][owner]
        found = np.where(owned & (of_operator != other), of_operator, found)
    said = details["communication"].notna().to_numpy()
    # what a name alone calls communication is, where the trace itself knows better, not
    found[~said & (found == communication)] = other
    found[said] = communication
    return categorical_of(found, pd.Index([*labels], dtype=object))


def categories(events: pd.DataFrame, found: pd.Categorical) -> pd.DataFrame:
    """GPU_EVENTS and the category of each -> CATEGORY_TOTALS. The sums add up to those of all GPU events.

    Empty in, empty out.
    """
    details = GPU_EVENTS.check(events)
    start, dur, rows = details["start_ns"].to_numpy(), details["dur_ns"].to_numpy(), []
    for code, label in enumerate(found.categories):
        mine = np.flatnonzero(found.codes == code)
        if len(mine):
            rows.append((label, len(mine), int(dur[mine].sum()), covered_ns(start[mine], start[mine] + dur[mine])))
    totals = CATEGORY_TOTALS.of(rows)
    return totals.sort_values(["sum_ns", "category"], ascending=[False, True], ignore_index=True)
