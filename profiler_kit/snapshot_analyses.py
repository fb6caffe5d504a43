"""The analyses of a loaded snapshot beyond its replay and regions: its frames in, one frame per question out."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping
from functools import cached_property
from typing import TYPE_CHECKING

from profiler_kit.analyses.memory import blocks as memory_blocks
from profiler_kit.analyses.memory import fragmentation as memory_fragmentation
from profiler_kit.analyses.memory import leaks as memory_leaks
from profiler_kit.analyses.memory import live as memory_live
from profiler_kit.analyses.memory import oom as memory_oom
from profiler_kit.analyses.memory.blocks import MEMORY_BLOCK_SPANS, MEMORY_SEGMENT_SPANS
from profiler_kit.errors import OptionError
from profiler_kit.load.snapshot.frames import StackTable
from profiler_kit.schema import Schema

if TYPE_CHECKING:
    import numpy as np
    import numpy.typing as npt
    import pandas as pd

    from profiler_kit.analyses.memory.regions import Regions
    from profiler_kit.analyses.memory.replay import Replay


class SnapshotAnalyses(ABC):
    """What can be asked of a snapshot that offers its frames, replays and regions.

    State k of a device is what holds after its k-th event, 0 what held before the first. Every method that takes a
    device raises OptionError for one that the snapshot does not know.
    """

    @property
    @abstractmethod
    def path(self) -> str:
        """The file."""

    @property
    @abstractmethod
    def source(self) -> str:
        """Who recorded it; "trace" for the `[memory]` events of a chrome trace."""

    @property
    @abstractmethod
    def events(self) -> pd.DataFrame:
        """SNAPSHOT_EVENTS."""

    @property
    @abstractmethod
    def blocks(self) -> pd.DataFrame:
        """SNAPSHOT_BLOCKS."""

    @property
    @abstractmethod
    def segments(self) -> pd.DataFrame:
        """SNAPSHOT_SEGMENTS."""

    @property
    @abstractmethod
    def stacks(self) -> StackTable:
        """Stacks by number."""

    @property
    @abstractmethod
    def settings(self) -> Mapping[str, object]:
        """The allocator's settings."""

    @property
    @abstractmethod
    def devices(self) -> tuple[int, ...]:
        """Every device the file mentions."""

    @abstractmethod
    def allocations(self) -> pd.DataFrame:
        """MEMORY_ALLOCATIONS of all devices."""

    @abstractmethod
    def regions(self) -> pd.DataFrame:
        """MEMORY_REGIONS of all devices."""

    @abstractmethod
    def live_at_peak(self, device: int) -> pd.DataFrame:
        """MEMORY_LIVE of one device when its total was highest."""

    @abstractmethod
    def oom(self) -> pd.DataFrame:
        """MEMORY_OOM of all devices."""

    @abstractmethod
    def replay(self, device: int) -> Replay:
        """The totals of one device after each of its events."""

    @abstractmethod
    def nested_regions(self, device: int) -> Regions:
        """The nested regions of one device."""

    # ---- segments and blocks ----

    @cached_property
    def _block_replays(self) -> dict[int, memory_blocks.BlockReplay]:
        return {}

    def block_replay(self, device: int) -> memory_blocks.BlockReplay:
        """The segments and blocks of one device in each state; computed when first asked for.

        Raises OptionError for the memory of a trace, which does not say where its segments are.
        """
        one = self.replay(device)
        if self.source == "trace":
            raise OptionError(
                f"{self.path}: a trace's [memory] events do not say where segments and blocks are, so that "
                "fragmentation is unknown. Record a memory snapshot with profiler_kit.memory_runner."
            )
        if device not in self._block_replays:
            self._block_replays[device] = memory_blocks.replay_blocks(
                self.events, self.blocks, self.segments, self.allocations(), one, self.settings
            )
        return self._block_replays[device]

    def segment_spans(self) -> pd.DataFrame:
        """MEMORY_SEGMENT_SPANS of all devices: every segment with the events that made and ended it."""
        return _concat([self.block_replay(device).segments for device in self.devices], MEMORY_SEGMENT_SPANS)

    def block_spans(self) -> pd.DataFrame:
        """MEMORY_BLOCK_SPANS of all devices: every block, active or not, with the events that made and ended it."""
        return _concat([self.block_replay(device).blocks for device in self.devices], MEMORY_BLOCK_SPANS)

    def fragmentation(self) -> pd.DataFrame:
        """MEMORY_FRAGMENTATION of all devices: active against reserved, the largest free block, over time."""
        return memory_fragmentation.fragmentation_timeline(
            [(self.replay(device), self.block_replay(device)) for device in self.devices]
        )

    def fit(
        self, device: int, size_bytes: int, *, state: int | None = None, stream: int = 0
    ) -> memory_fragmentation.Fit:
        """What an allocation in the default pool would have found in a state; at the end unless one is given."""
        blocks = self.block_replay(device)
        moment = len(blocks.active_bytes) - 1 if state is None else state
        return memory_fragmentation.find(blocks, size_bytes, moment, stream=stream)

    def fits(self, device: int, size_bytes: int, *, stream: int = 0) -> npt.NDArray[np.bool_]:
        """In which states an allocation in the default pool would have found a free block."""
        return memory_fragmentation.fits(self.block_replay(device), size_bytes, stream=stream)

    # ---- what is live ----

    def live_by_region(self, device: int, *, state: int | None = None) -> pd.DataFrame:
        """MEMORY_LIVE_TREE by the region that allocated; at the peak unless a state is given."""
        one = self.replay(device)
        at = one.peak if state is None else state
        return memory_live.live_by_region(one, self.allocations(), self.nested_regions(device), at)

    def live_by_layer(self, device: int, *, state: int | None = None) -> pd.DataFrame:
        """MEMORY_LIVE_TREE by the module that allocated; at the peak unless a state is given."""
        one = self.replay(device)
        return memory_live.live_by_layer(one, self.allocations(), self.stacks, one.peak if state is None else state)

    def leaks(self, device: int) -> pd.DataFrame:
        """MEMORY_LEAKS: what was allocated in a region that closed and is live at the end."""
        return memory_leaks.leak_candidates(self.replay(device), self.allocations(), self.nested_regions(device))

    def growth(self, device: int) -> pd.DataFrame:
        """MEMORY_GROWTH: how the total moves from instance to instance of the regions that repeat."""
        return memory_leaks.growth(self.replay(device), self.nested_regions(device))

    def region_instances(self, device: int) -> pd.DataFrame:
        """MEMORY_REGION_INSTANCES: the total before, at its highest in, and after each opened region."""
        return memory_leaks.region_instances(self.replay(device), self.nested_regions(device))

    def lifetimes(self) -> pd.DataFrame:
        """MEMORY_LIFETIMES of all devices: how long the allocations of each stack lived."""
        return memory_leaks.lifetimes(self.allocations())

    # ---- out of memory ----

    def oom_reports(self, device: int) -> list[memory_oom.OomReport]:
        """Each allocation that failed on one device, with the state of the allocator and what would have helped."""
        one = self.replay(device)
        frame = self.oom()
        frame = frame[frame["device"] == device]
        if not len(frame):
            return []
        known = frame["device_free_bytes"].notna().tolist()
        free = frame["device_free_bytes"].fillna(0).astype("int64").tolist()
        streams = self.events["stream"].to_numpy()[frame["event"].to_numpy()].tolist()
        states = (one.rows.searchsorted(frame["event"].to_numpy()) + 1).tolist()
        reports = []
        for number, (state, requested) in enumerate(zip(states, frame["requested_bytes"].tolist(), strict=True)):
            held = memory_live.held_at(one, self.allocations(), state)
            reports.append(
                memory_oom.explain(
                    one,
                    self.block_replay(device),
                    state,
                    requested=requested,
                    device_free=free[number] if known[number] else None,
                    stream=streams[number],
                    before=int(held.loc[held["alloc_event"].isna(), "size_bytes"].sum()),
                )
            )
        return reports


def _concat(frames: list[pd.DataFrame], schema: Schema) -> pd.DataFrame:
    import pandas as pd

    return pd.concat(frames, ignore_index=True) if frames else schema.empty()
