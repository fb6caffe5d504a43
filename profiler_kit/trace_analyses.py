"""The analyses of a loaded trace beyond regions and kernels: its frames in, one frame per question out."""

from __future__ import annotations

from abc import ABC, abstractmethod
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from profiler_kit.analyses.gpu.batch_load import BatchLoad
from profiler_kit.analyses.gpu.call_sites import call_sites
from profiler_kit.analyses.gpu.copies import copies, copy_rate, copy_totals
from profiler_kit.analyses.gpu.idle import KERNEL_WAIT_BELOW_NS, Scope, idle_gaps, idle_totals
from profiler_kit.analyses.gpu.kernel_groups import By, in_group, kernel_groups, kernel_origins
from profiler_kit.analyses.gpu.launches import DELAYED_FROM_NS, SLOW_FROM_NS, launch_details, launch_totals
from profiler_kit.analyses.gpu.operator_work import module_work, operator_kernels, operator_work, shape_work
from profiler_kit.analyses.gpu.overlap import communication_overlap
from profiler_kit.analyses.gpu.queue import FULL_AT, queue_length, queue_totals
from profiler_kit.analyses.gpu.sequences import kernel_sequences
from profiler_kit.analyses.gpu.utilization import region_utilization
from profiler_kit.errors import OptionError
from profiler_kit.findings.advice import Advice, advise, advise_host
from profiler_kit.load.trace.columns import EventColumns
from profiler_kit.load.trace.events import MISSING


class TraceAnalyses(ABC):
    """What can be asked of a trace that offers its frames; each answer is computed anew."""

    @property
    @abstractmethod
    def path(self) -> Path:
        """The file."""

    @property
    @abstractmethod
    def columns(self) -> EventColumns:
        """The events as numpy arrays."""

    @property
    @abstractmethod
    def events(self) -> pd.DataFrame:
        """EVENTS."""

    @property
    @abstractmethod
    def metadata(self) -> dict[str, Any]:
        """Every key of the file beside `traceEvents`."""

    @abstractmethod
    def gpu_events(self) -> pd.DataFrame:
        """GPU_EVENTS."""

    @abstractmethod
    def kernel_details(self) -> pd.DataFrame:
        """KERNEL_DETAILS."""

    @abstractmethod
    def region_instances(self) -> pd.DataFrame:
        """REGION_INSTANCES."""

    @abstractmethod
    def launch_calls(self) -> pd.DataFrame:
        """LAUNCH_CALLS."""

    @abstractmethod
    def operators(self) -> pd.DataFrame:
        """OPERATORS."""

    def operator_work(self) -> pd.DataFrame:
        """OPERATOR_WORK: one row per operator name, with host time and the GPU work it launched."""
        return operator_work(self.operators(), self.kernel_details())

    def operator_kernels(self) -> pd.DataFrame:
        """OPERATOR_KERNELS: one row per operator, GPU event name, stream and device."""
        return operator_kernels(self.kernel_details())

    def module_work(self) -> pd.DataFrame:
        """MODULE_WORK: GPU work by path of nn.Modules."""
        return module_work(self.kernel_details())

    def shape_work(self) -> pd.DataFrame:
        """SHAPE_WORK: one row per operator name and input shapes.

        Raises OptionError when the trace was loaded without its shapes.
        """
        if "input_dims" not in self.events:
            raise OptionError(
                f"{self.path}: found no input shapes in the loaded columns, want 'input_dims'. "
                "Load with load_trace(path, arguments=['input_dims'])."
            )
        return shape_work(self.operators(), self.kernel_details(), self.events["input_dims"])

    def idle_gaps(self, *, scope: Scope = "stream", kernel_wait_below_ns: int = KERNEL_WAIT_BELOW_NS) -> pd.DataFrame:
        """IDLE_GAPS: one row per stretch in which nothing ran on a stream, on a device, or anywhere, and its cause."""
        return idle_gaps(
            self.kernel_details(), self.launch_calls(), scope=scope, kernel_wait_below_ns=kernel_wait_below_ns
        )

    def idle(self, *, scope: Scope = "stream", kernel_wait_below_ns: int = KERNEL_WAIT_BELOW_NS) -> pd.DataFrame:
        """IDLE_TOTALS: idle time by stream (or device, or of all devices together) and cause."""
        return idle_totals(self.idle_gaps(scope=scope, kernel_wait_below_ns=kernel_wait_below_ns))

    def utilization(self, *, kernel_wait_below_ns: int = KERNEL_WAIT_BELOW_NS) -> pd.DataFrame:
        """REGION_UTILIZATION: one row per region path, with the verdict on what bounds it."""
        return region_utilization(
            self.kernel_details(),
            self.region_instances(),
            self.launch_calls(),
            kernel_wait_below_ns=kernel_wait_below_ns,
        )

    def queue_length(self) -> pd.DataFrame:
        """QUEUE_LENGTH: how many launched GPU events had not begun, by stream, over time."""
        return queue_length(self.kernel_details())

    def queue(self, *, full_at: int = FULL_AT) -> pd.DataFrame:
        """QUEUE_TOTALS: one row per stream."""
        return queue_totals(self.queue_length(), full_at=full_at)

    def launch_details(self) -> pd.DataFrame:
        """LAUNCH_DETAILS: one row per call that launched GPU events."""
        return launch_details(self.launch_calls(), self.kernel_details())

    def launches(self, *, slow_from_ns: int = SLOW_FROM_NS, delayed_from_ns: int = DELAYED_FROM_NS) -> pd.DataFrame:
        """LAUNCH_TOTALS: one row per name of a call, with short kernels, slow calls and late starts counted."""
        return launch_totals(self.launch_details(), slow_from_ns=slow_from_ns, delayed_from_ns=delayed_from_ns)

    def communication_overlap(self) -> pd.DataFrame:
        """COMMUNICATION_OVERLAP: one row per device."""
        return communication_overlap(self.gpu_events())

    def copies(self) -> pd.DataFrame:
        """COPIES: one row per memory copy and memory set."""
        size = self.columns.integers["bytes"]
        missing = size == MISSING
        return copies(self.gpu_events(), pd.Series(pd.arrays.IntegerArray(np.where(missing, 0, size), missing)))

    def copy_totals(self) -> pd.DataFrame:
        """COPY_TOTALS: one row per device, kind, source and target."""
        return copy_totals(self.copies())

    def copy_rate(self) -> pd.DataFrame:
        """COPY_RATE: bandwidth of each kind of copy over time."""
        return copy_rate(self.copies())

    def kernel_sequences(self, *, length: int | None = 3, operator: str | None = None) -> pd.DataFrame:
        """KERNEL_SEQUENCES: which GPU events follow one another under one operator, most frequent first."""
        return kernel_sequences(self.kernel_details(), length=length, operator=operator)

    def kernel_groups(self, by: By = "name") -> pd.DataFrame:
        """KERNEL_GROUPS: durations by name, by kind of work, or by stream."""
        return kernel_groups(self.gpu_events(), by)

    def kernel_origins(self, by: By, key: str) -> pd.DataFrame:
        """KERNEL_ORIGINS: in which regions, operators, modules and Python functions one such group was launched."""
        details = self.kernel_details()
        mine = details[in_group(self.gpu_events(), by, key)].reset_index(drop=True)
        linked = mine[mine["launch"].notna()]
        names, name = self.columns.names, self.columns.name
        thread, time = (linked[column].to_numpy(dtype=np.int64) for column in ("launch_thread", "launch_start_ns"))
        call = pd.Series([names[name[row]] for row in linked["launch"].tolist()], linked.index, dtype=object)
        site = pd.Series(call_sites(self.columns, thread, time), linked.index, dtype=object)
        return kernel_origins(mine, call.reindex(mine.index, fill_value=""), site.reindex(mine.index, fill_value=""))

    def advice(self, load: BatchLoad | None = None) -> list[Advice]:
        """What is most worth fixing, the cause that could give back most first; see analyses.advice.advise.

        load: how busy the GPU is without the profiler (analyses.batch_load), where the run tells.
        """
        if self.gpu_events().empty:
            return advise_host(self.operators())
        devices = self.metadata.get("deviceProperties")
        first = devices[0] if isinstance(devices, list) and devices and isinstance(devices[0], dict) else {}
        major = first.get("computeMajor")
        return advise(
            self.kernel_details(),
            self.launch_calls(),
            self.copies(),
            self.operators(),
            steps=int(self.region_instances()["step"].nunique()),
            load=load,
            compute_major=major if isinstance(major, int) else None,
        )
