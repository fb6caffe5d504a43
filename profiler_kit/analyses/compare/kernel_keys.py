"""Tell by their names which regions and operators of two traces are the same, and what sort of work a kernel is."""

from __future__ import annotations

import re
from functools import lru_cache
from typing import Final

from profiler_kit.attribute.gpu_work import rule_of_name
from profiler_kit.load.trace.categories import COMPILED_REGION

_ADDRESS: Final = re.compile(r"0x[0-9a-fA-F]{4,}")
_GRAPH_HASH: Final = re.compile(r"(CompiledFxGraph) [0-9a-z]{20,}")
_GRAPH_NUMBER: Final = re.compile(rf"({COMPILED_REGION}): \d+(?:/\d+)*")


@lru_cache(maxsize=65_536)
def host_key(name: str) -> str:
    """The name of a region or an operator without what torch.compile changes each time: hashes, numbers, addresses."""
    text = _GRAPH_NUMBER.sub(r"\1", _GRAPH_HASH.sub(r"\1", name))
    return _ADDRESS.sub("0x…", text)


COMMUNICATION: Final = "communication"
# First match wins; names as cuBLAS, cuDNN, CUTLASS, FlashAttention, Triton and PyTorch spell them.
_KINDS: Final = (
    (
        "memory copies",
        re.compile(r"^Mem(cpy|set)|^__amd_rocclr_(copy|fill)|^(Memory_?)?Copy_?(Host|Device)", re.IGNORECASE),
    ),
    ("attention", re.compile(r"flash|fmha|attention|attn_fwd|attn_bwd|sdpa", re.IGNORECASE)),
    ("convolutions", re.compile(r"conv(?!ert)|fprop|dgrad|wgrad|winograd|nchwToNhwc|nhwcToNchw", re.IGNORECASE)),
    ("compiled (Triton)", re.compile(r"^triton_")),
    ("matrix products", re.compile(r"gemm|gemv|nvjet|matmul|cutlass|splitK|Cijk_|dot_kernel", re.IGNORECASE)),
    ("softmax and norms", re.compile(r"softmax|norm", re.IGNORECASE)),
    ("elementwise", re.compile(r"elementwise|^Cat|copy|gelu|relu|index|scatter|gather", re.IGNORECASE)),
    ("reductions", re.compile(r"reduce|scan|sort|topk", re.IGNORECASE)),
)


@lru_cache(maxsize=65_536)
def kernel_kind(name: str) -> str:
    """What sort of work a GPU event is, told by its name: "matrix products", "elementwise", ..., "other"."""
    if rule_of_name(name):
        return COMMUNICATION
    text = name.removeprefix("void ")
    return next((kind for kind, pattern in _KINDS if pattern.search(text)), "other")
