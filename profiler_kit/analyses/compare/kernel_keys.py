"""Tell which kernels, regions and operators of two traces do the same work, by keys made from their names."""

from __future__ import annotations

import re
from functools import lru_cache
from typing import Final

from profiler_kit.attribute.gpu_work import rule_of_name
from profiler_kit.load.trace.categories import COMPILED_REGION

# Template arguments that say what an elementwise or reduction kernel computes.
_TELLING: Final = re.compile(
    r"[Ff]unctor|_kernel_cuda$|Ops$|CUDAKernelImpl$|^(?!gpu_)\w+_kernel_impl$|^launch_\w+|_cuda_kernel$"
)
_WRAPPERS: Final = re.compile(r"Kernel\d?$")  # cutlass::Kernel2<the kernel>
_TRITON_NUMBER: Final = re.compile(r"(?<=\w)_\d+$")
_ADDRESS: Final = re.compile(r"0x[0-9a-fA-F]{4,}")
_GRAPH_HASH: Final = re.compile(r"(CompiledFxGraph) [0-9a-z]{20,}")
_GRAPH_NUMBER: Final = re.compile(rf"({COMPILED_REGION}): \d+(?:/\d+)*")


@lru_cache(maxsize=65_536)
def kernel_key(name: str) -> str:
    """The name without what changes with the element type, the compiler or the order of compilation.

    Return type, namespaces, parameters and template arguments go; of these the functor stays, for it says what an
    elementwise kernel computes. Triton's running number goes. Names of library kernels (cuBLAS, cuDNN, NCCL) stay
    whole, element type and tile size included: they say which algorithm was chosen.

    `void at::native::elementwise_kernel<128, 2, at::native::gpu_kernel_impl_nocast<at::native::CUDAFunctor_add<float>
    >(...)>(int, ...)` reads `elementwise_kernel CUDAFunctor_add`, in bf16 too.
    """
    text = name.removeprefix("void ").replace("(anonymous namespace)::", "").strip()
    if text.startswith("triton_"):
        return _TRITON_NUMBER.sub("", text)
    if text.startswith("Mem"):  # Memcpy HtoD (Pinned -> Device)
        return text
    head, bracket, inner = text.partition("<")
    head = head.partition("(")[0].strip().rsplit("::", 1)[-1]
    words = [word.strip().rsplit("::", 1)[-1] for word in re.split(r"[<>(),{}&]", inner)] if bracket else []
    if _WRAPPERS.fullmatch(head) and words and words[0]:
        return words[0]
    telling = next((word for word in words if _TELLING.search(word)), "")
    return f"{head} {telling}".strip() or name


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
