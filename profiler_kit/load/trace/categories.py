"""What each event category means to us.

The names are Kineto's (libkineto/include/ActivityType.h). A category is handled (HANDLED says how), left out on
purpose (IGNORED says why), or unknown: then `profiler-kit doctor` names it.
"""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType
from typing import Final, Literal

Role = Literal["gpu", "launch", "operator", "region", "stack", "flow", "memory", "ignored", "unknown"]

KERNEL: Final = "kernel"
MEMCPY: Final = "gpu_memcpy"
MEMSET: Final = "gpu_memset"
MTIA_KERNEL: Final = "mtia_ccp_events"
GPU_WORK: Final = frozenset({KERNEL, MEMCPY, MEMSET, MTIA_KERNEL})
REGION: Final = "user_annotation"
REGION_ON_GPU: Final = "gpu_user_annotation"
OPERATOR: Final = "cpu_op"
STACK: Final = "python_function"
MEMORY: Final = "cpu_instant_event"
COMPILED_REGION: Final = "Torch-Compiled Region"  # begins the name of a call of what torch.compile made

HANDLED: Final[Mapping[str, Role]] = MappingProxyType(
    {
        # GPU work. ROCm, XPU and PrivateUse1 back ends write Kineto's own three names.
        KERNEL: "gpu",
        MEMCPY: "gpu",
        MEMSET: "gpu",
        MTIA_KERNEL: "gpu",  # what runs on an MTIA device
        # Calls on the host that put work on a device; they share its correlation id.
        "cuda_runtime": "launch",  # ROCm's HIP calls too
        "cuda_driver": "launch",
        "xpu_runtime": "launch",
        "xpu_driver": "launch",
        "mtia_runtime": "launch",
        "privateuse1_runtime": "launch",
        "privateuse1_driver": "launch",
        "glow_runtime": "launch",
        "hpu_op": "launch",  # "HPU host side runtime event"
        OPERATOR: "operator",
        REGION: "region",
        STACK: "stack",
        "ac2g": "flow",  # launch to GPU work
        "fwdbwd": "flow",  # operator to its backward
        MEMORY: "memory",  # `[memory]`: one allocation or release
    }
)

IGNORED: Final[Mapping[str, str]] = MappingProxyType(
    {
        "": "metadata (names of processes and threads) and marks of iterations",
        REGION_ON_GPU: "an echo of a region on the device: widened, gaps included, one id only",
        "Trace": "one span over the whole recording",
        "overhead": "time of the profiler itself (buffer flushes, lazy loading), not of the program",
        "cuda_sync": "waiting, not work",
        "xpu_sync": "waiting, not work",
        "cuda_event": "a moment (cudaEventRecord), not work",
        "external_correlation": "ids that operators and launches carry themselves",
        "collective_comm": "the collective seen from its library, beside the kernels that do the work",
        "cuda_profiler_range": "counters over a range, not work",
        "xpu_scope_profiler": "counters over a range, not work",
        "hardware_counters": "counters, not work",
        "mtia_counters": "counters, not work",
        "mtia_insight": "remarks about the device, not work",
        "critical_path": "arrows that HolisticTraceAnalysis drew into the trace",
        "mtia_workloadd": "the device's own daemon, beside the work it starts",
    }
)

# Kineto before 2021 wrote these; the names since are Kineto's own (libkineto/include/ActivityType.h).
OLD_CATEGORIES: Final = {
    "Operator": "cpu_op",
    "Kernel": "kernel",
    "Memcpy": "gpu_memcpy",
    "Memset": "gpu_memset",
    "Runtime": "cuda_runtime",
    "PythonFunction": "python_function",
}
OLD_FLOWS: Final = {
    "async": "ac2g",
    "async_gpu": "ac2g",
    "async_cpu_to_gpu": "ac2g",
    "forward_backward": "fwdbwd",
}
STEP_PREFIX: Final = "ProfilerStep#"
# Arrows from an operator to its work on a device, of the legacy autograd profiler and of torch_npu.
DEVICE_ARROWS: Final = frozenset({"cpu_to_cuda", "cpu_to_xpu", "cpu_to_privateuse1", "async_npu"})
SPANS: Final = frozenset({"X", "B", "E"})  # phases that are read as spans of time
ASYNCHRONOUS: Final = frozenset({"b", "n", "e", "S", "T", "p", "F"})
ASYNCHRONOUS_HALVES: Final = frozenset({"b", "e"})  # of GPU work they are read as spans too
HALVES: Final = frozenset({"B", "E", *ASYNCHRONOUS_HALVES})

_LAUNCH_SUFFIXES: Final = ("_runtime", "_driver")


def is_gpu_work(category: str) -> bool:
    """Kernels, copies and sets; `cuda_sync` is waiting and `gpu_user_annotation` an echo of a region."""
    return category in GPU_WORK


def is_launch(category: str) -> bool:
    """Runtime and driver calls, those of a back end Kineto does not know (gcu_runtime) included."""
    return role_of(category) == "launch"


def current(category: str) -> str:
    """What Kineto calls a category today."""
    return OLD_CATEGORIES.get(category) or OLD_FLOWS.get(category, category)


def is_half(category: str, phase: str) -> bool:
    """Whether an event is the begin or the end of what is read as a span."""
    return phase in HALVES and (phase not in ASYNCHRONOUS_HALVES or is_gpu_work(current(category)))


def role_of_events(category: str, phase: str) -> tuple[Role, str | None]:
    """What events of that category and phase are to us, and why they are ignored or not known."""
    if phase in ASYNCHRONOUS and not is_half(category, phase):
        return "ignored", "asynchronous spans, which no thread holds"
    if category in DEVICE_ARROWS:
        return "flow", None
    return role_of(category), IGNORED.get(category)


def role_of(category: str) -> Role:
    """What events of that category are to us; any other `*_runtime` and `*_driver` counts as a launch."""
    known = HANDLED.get(category)
    if known is not None:
        return known
    if category in IGNORED:
        return "ignored"
    return "launch" if category.endswith(_LAUNCH_SUFFIXES) else "unknown"
