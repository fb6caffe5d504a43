"""What Kineto's event categories mean to us (names: libkineto/include/ActivityType.h)."""

from __future__ import annotations

from typing import Final

KERNEL: Final = "kernel"
MEMCPY: Final = "gpu_memcpy"
MEMSET: Final = "gpu_memset"
GPU_WORK: Final = frozenset({KERNEL, MEMCPY, MEMSET})
REGION: Final = "user_annotation"
OPERATOR: Final = "cpu_op"
COMMUNICATION_PREFIXES: Final = ("nccl", "rccl")  # names of communication kernels, in any case


def is_gpu_work(category: str) -> bool:
    """Kernels, copies and sets; `cuda_sync` is waiting and `gpu_user_annotation` an echo of a region."""
    return category in GPU_WORK


def is_launch(category: str) -> bool:
    """Runtime and driver calls: cuda_runtime (ROCm's too), cuda_driver, xpu_runtime, privateuse1_driver, ..."""
    return category.endswith(("_runtime", "_driver"))
