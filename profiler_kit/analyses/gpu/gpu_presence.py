"""Tell whether a trace has GPU events and, if not, whether they were cut off, not recorded, or never there."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Container, Mapping
from dataclasses import dataclass
from typing import Final, Literal

import numpy as np
import pandas as pd

from profiler_kit.attribute.frames import GPU_EVENTS, LAUNCH_CALLS
from profiler_kit.load.trace.categories import role_of
from profiler_kit.load.trace.columns import EventColumns, Form

Ran = Literal["gpu", "without times", "cut off", "lost", "not recorded", "not read", "host"]

# Calls that put work on a device (cudaLaunchKernel, cuLaunchKernelEx, cudaGraphLaunch, hipMemcpyAsync,
# urEnqueueKernelLaunch, ...); others (cudaGetDeviceCount, cudaDeviceSynchronize) also run where nothing is launched.
_PUTS_WORK: Final = re.compile(r"launch|memcpy|memset", re.IGNORECASE)


@dataclass(frozen=True)
class Presence:
    """What ran, as far as the trace tells.

    gpu_events: kernels, copies and sets in the trace. launches: calls that put work on a GPU; unanswered: those of
    them without a GPU event. truncated: the file is cut off. devices: names of the GPUs the file's head lists. unread:
    spans that no analysis counts as anything, for want of a category that is known; where: their processes.
    left_out: further GPU events, whose time cannot be believed. dropped: events that could not be read.
    """

    gpu_events: int
    launches: int
    unanswered: int
    truncated: bool
    devices: tuple[str, ...]
    unread: int = 0
    where: tuple[str, ...] = ()
    form: Form = "kineto"
    left_out: int = 0
    dropped: int = 0

    @property
    def ran(self) -> Ran:
        """gpu: its events are there. without times: they are, but no time of theirs can be believed. cut off: none
        are, but the file ends early, and Kineto writes host events first, then launch calls, then GPU events, so that
        their absence says nothing; `launches` prove that there were some, `devices` make it likely. lost: there
        are launch calls, and events that could not be read. not recorded: a whole file with launch calls, but without
        what they launched. not read: without either, but with spans of
        unknown categories, so that nothing can be said. host: a whole file without any of these.
        """
        if self.gpu_events:
            return "gpu"
        if self.left_out:
            return "without times"
        if self.truncated:
            return "cut off"
        if self.launches and self.dropped:
            return "lost"
        return "not recorded" if self.launches else "not read" if self.unread else "host"


def what_ran(
    gpu_events: pd.DataFrame,
    launch_calls: pd.DataFrame,
    *,
    truncated: bool,
    metadata: Mapping[str, object],
    unread: tuple[int, tuple[str, ...]] = (0, ()),
    form: Form = "kineto",
    arrows: int = 0,
    left_out: int = 0,
    dropped: int = 0,
) -> Presence:
    """What a trace holds of the GPU, from its GPU_EVENTS and LAUNCH_CALLS, Quality.truncated and Trace.metadata, with
    its unread_spans, its form, how many arrows begin at an operator and end at a device (such an operator launches,
    where a form has no calls that do), how many of its GPU events were left out, and how many events dropped.

    Raises SchemaError when a column is missing or has another dtype.
    """
    gpu_events, launch_calls = GPU_EVENTS.check(gpu_events), LAUNCH_CALLS.check(launch_calls)
    putting = [name for name in launch_calls["name"].cat.categories if _PUTS_WORK.search(str(name))]
    calls = launch_calls[launch_calls["name"].isin(putting)]
    unanswered = int((calls["gpu_events"] == 0).sum())
    launches = len(calls) or arrows
    devices = _devices(metadata)
    return Presence(len(gpu_events), launches, unanswered, truncated, devices, *unread, form, left_out, dropped)


def unread_spans(columns: EventColumns, roles: Container[str] = ("", "unknown")) -> tuple[int, tuple[str, ...]]:
    """How many spans are of no known category, and the names of the processes that have most of them.

    roles: "" for those without a category, unknown for those of another.
    """
    threads = columns.thread[columns.of_category(lambda category: (category and role_of(category)) in roles)]
    found: Counter[str] = Counter()
    for thread, count in zip(*np.unique(threads, return_counts=True), strict=True):
        pid = columns.threads[thread][0]
        found[columns.process_names.get(pid) or columns.process_labels.get(pid) or str(pid)] += int(count)
    return len(threads), tuple(name for name, _ in found.most_common(4))


def _devices(metadata: Mapping[str, object]) -> tuple[str, ...]:
    listed = metadata.get("deviceProperties")
    found = [one.get("name") for one in listed if isinstance(one, dict)] if isinstance(listed, list) else []
    return tuple(str(name) for name in found if name)
