"""Tell whether a trace has GPU events and, if not, whether they were cut off, not recorded, or never there."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final, Literal

import pandas as pd

from profiler_kit.attribute.frames import GPU_EVENTS, LAUNCH_CALLS

Ran = Literal["gpu", "cut off", "not recorded", "host"]

# Calls that put work on a device (cudaLaunchKernel, cuLaunchKernelEx, cudaGraphLaunch, hipMemcpyAsync,
# urEnqueueKernelLaunch, ...); others (cudaGetDeviceCount, cudaDeviceSynchronize) also run where nothing is launched.
_PUTS_WORK: Final = re.compile(r"launch|memcpy|memset", re.IGNORECASE)


@dataclass(frozen=True)
class Presence:
    """What ran, as far as the trace tells.

    gpu_events: kernels, copies and sets in the trace. launches: calls that put work on a GPU; unanswered: those of
    them without a GPU event. truncated: the file is cut off. devices: names of the GPUs the file's head lists.
    """

    gpu_events: int
    launches: int
    unanswered: int
    truncated: bool
    devices: tuple[str, ...]

    @property
    def ran(self) -> Ran:
        """gpu: its events are there. cut off: none are, but the file ends early, and Kineto writes host events first,
        then launch calls, then GPU events, so that their absence says nothing; `launches` prove that there were some,
        `devices` make it likely. not recorded: a whole file with launch calls, but without what they launched.
        host: a whole file without either.
        """
        if self.gpu_events:
            return "gpu"
        if self.truncated:
            return "cut off"
        return "not recorded" if self.launches else "host"


def what_ran(
    gpu_events: pd.DataFrame, launch_calls: pd.DataFrame, *, truncated: bool, metadata: Mapping[str, object]
) -> Presence:
    """What a trace holds of the GPU, from its GPU_EVENTS and LAUNCH_CALLS, Quality.truncated and Trace.metadata.

    Raises SchemaError when a column is missing or has another dtype.
    """
    gpu_events, launch_calls = GPU_EVENTS.check(gpu_events), LAUNCH_CALLS.check(launch_calls)
    putting = [name for name in launch_calls["name"].cat.categories if _PUTS_WORK.search(str(name))]
    calls = launch_calls[launch_calls["name"].isin(putting)]
    unanswered = int((calls["gpu_events"] == 0).sum())
    return Presence(len(gpu_events), len(calls), unanswered, truncated, _devices(metadata))


def _devices(metadata: Mapping[str, object]) -> tuple[str, ...]:
    listed = metadata.get("deviceProperties")
    found = [one.get("name") for one in listed if isinstance(one, dict)] if isinstance(listed, list) else []
    return tuple(str(name) for name in found if name)
