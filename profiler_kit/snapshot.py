"""A loaded memory snapshot, and every question that can be asked of it."""

from __future__ import annotations

import itertools
import os
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple, TypedDict

import numpy as np
import numpy.typing as npt
import pandas as pd

from profiler_kit.analyses.memory import blocks as memory_blocks
from profiler_kit.analyses.memory import end_state
from profiler_kit.analyses.memory import fragmentation as memory_fragmentation
from profiler_kit.analyses.memory import groups as memory_groups
from profiler_kit.analyses.memory import history as memory_history
from profiler_kit.analyses.memory import leaks as memory_leaks
from profiler_kit.analyses.memory import live as memory_live
from profiler_kit.analyses.memory import oom as memory_oom
from profiler_kit.analyses.memory import regions as memory_regions
from profiler_kit.analyses.memory import replay as memory
from profiler_kit.analyses.memory import stats as memory_stats
from profiler_kit.analyses.memory.trace_memory import snapshot_of
from profiler_kit.errors import OptionError
from profiler_kit.finding import Finding
from profiler_kit.kept import kept, kept_for_good
from profiler_kit.later import Shown, later
from profiler_kit.load.snapshot.data import CPU, HOST, Frame, Recording, SnapshotData, StackTable
from profiler_kit.load.snapshot.reader import is_trace, load_snapshot_data
from profiler_kit.load.trace.memory_events import read_memory_events
from profiler_kit.progress import Report, silent
from profiler_kit.table import Filled, Value, records


class Failure(NamedTuple):
    """One row of MEMORY_OOM."""

    time_us: int
    requested_bytes: int
    device_free_bytes: int | None
    allocated_bytes: int | None
    reserved_bytes: int | None
    stack: int


class DeviceRow(TypedDict):
    """What `profiler-kit memory --json` says of one device.

    peak_bound: "", or "at least" where the peak of the run may be higher. oom: time_us, requested_bytes and
    device_free_bytes of each Failure. regions: the rows of MEMORY_REGIONS.
    """

    device: int
    device_type: str
    events: int
    peak_allocated_bytes: int
    peak_bound: str
    peak_time_us: int | None
    end_allocated_bytes: int
    reserved_bytes: int
    fragmentation: float
    history_truncated: bool
    history_followed: bool
    unmatched_frees: int
    left_out_blocks: int
    left_out_segments: int
    oom: list[dict[str, int | None]]
    regions: list[dict[str, Any]]


class Summary(TypedDict):
    """What `profiler-kit memory --json` prints."""

    devices: list[DeviceRow]


@dataclass(frozen=True, eq=False)
class Snapshot:
    """A loaded memory snapshot.

    events, blocks, segments, annotations: SNAPSHOT_EVENTS and so on. stacks[i] is a tuple of Frame, innermost first.
    settings: the allocator's settings as torch wrote them. State k of a device is the one after its k-th event; state
    0 is the one before the first. Every method that takes a device raises OptionError for an unknown one.

    What is derived is computed when first asked for, kept within a bound (profiler_kit.kept) and shared: never change
    a frame.
    """

    data: SnapshotData

    @property
    def path(self) -> str:
        return self.data.path

    @property
    def source(self) -> str:
        """ "cuda"; "torch.profiler" for a recording on a CPU (its device 0 is the CPU); "trace" for a chrome trace."""
        return self.data.recording.source

    def device_type(self, device: int) -> str:
        """ "cuda", "cpu", or "host" for pinned host memory."""
        if device == HOST:
            return "host"
        return "cpu" if device == CPU or self.source == "torch.profiler" else "cuda"

    def device_name(self, device: int, usual: str = "device") -> str:
        """How a heading names a device: "device 0", "CPU", "pinned host memory"."""
        return {"cpu": "CPU", "host": "pinned host memory"}.get(self.device_type(device), f"{usual} {device}")

    @property
    def block_devices(self) -> tuple[int, ...]:
        """Devices whose blocks can be replayed: the rules are those of CUDA's allocator, not of the host's."""
        return tuple(device for device in self.devices if device != HOST)

    @property
    def recording(self) -> Recording:
        return self.data.recording

    @property
    def events(self) -> pd.DataFrame:
        return self.data.events

    @property
    @kept_for_good
    def _believed(self) -> tuple[pd.DataFrame, pd.DataFrame, dict[int, end_state.Doubts]]:
        checked = self.block_devices if self.source == "cuda" else ()  # elsewhere addresses mean little
        blocks, segments, doubts = end_state.believed(self.data.blocks, self.data.segments, checked)
        if HOST in self.devices:
            blocks, doubts[HOST] = end_state.of_host(blocks, segments)
        return blocks, segments, doubts

    @property
    def blocks(self) -> pd.DataFrame:
        return self._believed[0]

    @property
    def segments(self) -> pd.DataFrame:
        return self._believed[1]

    def doubts(self, device: int) -> end_state.Doubts:
        """Impossible entries in the file's state of a device at the end; only `data` keeps them."""
        return self._believed[2].get(self.require_device(device), end_state.Doubts())

    @property
    def annotations(self) -> pd.DataFrame:
        return self.data.annotations

    @property
    def stacks(self) -> StackTable:
        return self.data.stacks

    @property
    def frames(self) -> tuple[Frame, ...]:
        return self.data.stacks.frames

    @property
    def settings(self) -> Mapping[str, object]:
        return self.data.settings

    @property
    def devices(self) -> tuple[int, ...]:
        return self.data.devices

    @property
    @kept_for_good
    def _completed(self) -> tuple[pd.DataFrame, dict[int, memory_history.Contradictions]]:
        checked = self.devices if self.source == "cuda" else ()  # only CUDA's allocator writes what it holds at the end
        return memory_history.complete(self.events, self.blocks, self.segments, checked)

    @property
    def history(self) -> pd.DataFrame:
        """The events as they are replayed, row by row those of `events`; see analyses.memory.history.complete."""
        return self._completed[0]

    def contradictions(self, device: int) -> memory_history.Contradictions:
        """Contradictions in the history of a device."""
        return self._completed[1].get(self.require_device(device), memory_history.Contradictions())

    @property
    @kept_for_good
    def _replays(self) -> dict[int, memory.Replay]:
        return {
            device: memory.replay(self.history, self.blocks, self.segments, self.allocations(), device)
            for device in self.devices
        }

    @property
    @kept_for_good
    def _regions(self) -> dict[int, memory_regions.Regions]:
        paths: dict[tuple[str, ...], tuple[str, ...]] = {}
        one_thread = memory_regions.of_one_thread(self.annotations)
        used = [device for device, one in self._replays.items() if one.followed]
        return {
            device: memory_regions.nest(
                memory_regions.counting_on(self.annotations, device, used, one_thread=one_thread),
                one.times_us if one.timed else one.times_us[:0],
                paths,
            )
            for device, one in self._replays.items()
        }

    def require_device(self, device: int) -> int:
        """Return `device`; raises OptionError when the snapshot does not know it."""
        if device not in self.devices:
            known = ", ".join("host" if one == HOST else str(one) for one in self.devices) or "none"
            raise OptionError(f"device {device}: not in {self.path}, found {known}. Choose one of these with --device.")
        return device

    def replay(self, device: int) -> memory.Replay:
        """The totals of one device after each of its events."""
        return self._replays[self.require_device(device)]

    @kept_for_good
    def allocations(self) -> pd.DataFrame:
        """MEMORY_ALLOCATIONS of all devices."""
        return memory.allocations(self.history, self.blocks, self.devices)

    @kept
    def timeline(self) -> pd.DataFrame:
        """MEMORY_TIMELINE of all devices."""
        return memory.timeline(list(self._replays.values()))

    def nested_regions(self, device: int) -> memory_regions.Regions:
        """The nested regions of one device."""
        return self._regions[self.require_device(device)]

    @kept
    def region_spans(self) -> pd.DataFrame:
        """MEMORY_REGION_SPANS: one row per opened region."""
        return memory_regions.region_spans(self._regions)

    @kept
    def regions(self) -> pd.DataFrame:
        """MEMORY_REGIONS: one row per device and region path; of devices with a known history, or that held nothing."""
        known = [one for one in self._replays.values() if one.followed or not one.reserved_bytes[-1]]
        bounds = {one.device: self._known(one.device) for one in known}
        return memory_regions.region_totals(known, self._regions, self.allocations(), bounds)

    @kept
    def oom(self) -> pd.DataFrame:
        """MEMORY_OOM: one row per allocation that failed."""
        return memory.out_of_memory(self.events, list(self._replays.values()))

    @kept
    def failures(self, device: int) -> list[Failure]:
        """The allocations that failed on one device, in order."""
        frame = self.oom()
        frame = frame[frame["device"] == self.require_device(device)]
        columns = [frame[name].tolist() for name in Failure._fields]
        return [Failure._make(None if one is pd.NA else one for one in row) for row in zip(*columns, strict=True)]

    @kept
    def live_at_peak(self, device: int) -> pd.DataFrame:
        """MEMORY_LIVE when the device's total was highest."""
        one = self.replay(device)
        return memory.live_at(one, self.allocations(), one.peak)

    @kept
    def live_at_end(self, device: int) -> pd.DataFrame:
        """MEMORY_LIVE when the snapshot was saved."""
        one = self.replay(device)
        return memory.live_at(one, self.allocations(), len(one.rows))

    @kept
    def stats(self, device: int) -> pd.DataFrame:
        """MEMORY_STATS: requested, allocated, active, reserved, pending frees, as torch.cuda.memory_stats has them."""
        one, known = self.replay(device), self._known(device)
        no_segments = bool(one.allocated_bytes.any()) and not one.reserved_bytes.any()
        if self.device_type(device) != "cuda" or self.source == "trace" or no_segments:
            return memory_stats.stats(one, None, None, known)
        blocks = self.block_replay(device)
        held = memory.active_blocks(self.blocks, device)
        pending = memory_stats.pending_free(one, blocks, self.events, self.allocations(), held, known)
        # a history that stopped before the snapshot was saved is told of its own end
        at_end = {} if self.contradictions(device).unheld else memory_stats.held_at_end(held)
        return memory_stats.stats(one, blocks, pending, known, at_end)

    @kept
    def _known(self, device: int) -> memory_stats.Known:
        """What the history of a device does not tell, so that its peaks are bounds."""
        one = self.replay(device)
        if not one.followed:
            return memory_stats.Known()
        kinds, missing = self.events["action"].iloc[one.rows], self.missing(device)
        waiting = memory.active_blocks(self.blocks, device)["state"] != memory.ACTIVE[0]
        return memory_stats.Known(
            cut=missing.truncated or missing.untold,
            by_request=self.contradictions(device).by_request > 0,
            unasked=bool((kinds == memory.FREE).any() or waiting.any()) and not (kinds == memory.REQUEST).any(),
            reserved_least=one.reserved_least,
        )

    @kept
    def missing(self, device: int) -> memory.Missing:
        """What the history of a device is known to lack."""
        return memory.missing_history(self.replay(device), self.allocations(), self.ring)

    @property
    def ring(self) -> memory.Ring:
        """The recorder's ring buffer, as far as the file says."""
        longest = self.recording.max_entries
        if self.source == "trace" or (self.source != "cuda" and longest is None):  # recorded by no ring
            return memory.Ring(overflowed=False)
        return memory.Ring.of(self.settings, longest)

    def peak_region(self, device: int) -> tuple[str, ...]:
        """Path of the innermost region open when the total was highest first; () when none was."""
        one = self.replay(device)
        if not len(one.times_us):
            return ()
        regions = self._regions[device]
        number = int(regions.path_at(one.times_us[[max(one.peak - 1, 0)]])[0])
        return regions.paths[number] if number >= 0 else ()

    def origin_us(self, device: int) -> int:
        """Unix time at which the device's history begins: its first event, or the start of a region around it.

        Regions that ended before the first event do not count: a ring buffer keeps more of them than of events.
        """
        one, regions = self.replay(device), self._regions[device]
        if not len(one.times_us):
            return int(regions.start_us.min()) if len(regions.start_us) else 0
        first = int(one.times_us[0])
        return int(regions.start_us[regions.end_us >= first].min(initial=first))

    @kept
    def summary(self, device: int | None = None) -> Summary:
        """What `profiler-kit memory --json` prints; of one device when it is given."""
        devices = self.devices if device is None else (self.require_device(device),)
        regions = self.regions()
        return {"devices": [self._device_row(one, regions) for one in devices]}

    def _device_row(self, device: int, regions: pd.DataFrame) -> DeviceRow:
        one, missing = self._replays[device], self.missing(device)
        return {
            "device": device,
            "device_type": self.device_type(device),
            "events": int((self.events["device"] == device).sum()),
            "peak_allocated_bytes": int(one.allocated_bytes[one.peak]),
            "peak_bound": self._known(device).requested,
            "peak_time_us": one.peak_time_us,
            "end_allocated_bytes": int(one.allocated_bytes[-1]),
            "reserved_bytes": int(one.reserved_bytes[-1]),
            "fragmentation": memory.fragmentation(self.blocks, self.segments, device),
            "history_truncated": missing.truncated,
            "history_followed": one.followed,
            "unmatched_frees": missing.unmatched_frees,
            "left_out_blocks": self.doubts(device).blocks,
            "left_out_segments": self.doubts(device).segments,
            "oom": [dict(itertools.islice(failed._asdict().items(), 3)) for failed in self.failures(device)],
            "regions": records(regions[regions["device"] == device].drop(columns="device")),
        }

    # ---- segments and blocks ----

    @kept_for_good
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
        return memory_blocks.replay_blocks(
            self.history, self.blocks, self.segments, self.allocations(), one, self.settings
        )

    @kept
    def segment_spans(self) -> pd.DataFrame:
        """MEMORY_SEGMENT_SPANS of all devices: every segment with the events that made and ended it."""
        frames = [self.block_replay(device).segments for device in self.block_devices]
        return memory_blocks.MEMORY_SEGMENT_SPANS.join(frames)

    @kept
    def block_spans(self) -> pd.DataFrame:
        """MEMORY_BLOCK_SPANS of all devices: every block, active or not, with the events that made and ended it."""
        frames = [self.block_replay(device).blocks for device in self.block_devices]
        return memory_blocks.MEMORY_BLOCK_SPANS.join(frames)

    @kept
    def fragmentation(self) -> pd.DataFrame:
        """MEMORY_FRAGMENTATION of all devices: active against reserved, the largest free block, over time."""
        return memory_fragmentation.fragmentation_timeline(
            [(self.replay(device), self.block_replay(device)) for device in self.block_devices]
        )

    @kept
    def fit(
        self, device: int, size_bytes: int, *, state: int | None = None, stream: int = 0
    ) -> memory_fragmentation.Fit:
        """What an allocation in the default pool would have found in a state; at the end unless one is given."""
        blocks = self.block_replay(device)
        moment = len(blocks.active_bytes) - 1 if state is None else state
        return memory_fragmentation.find(blocks, size_bytes, moment, stream=stream)

    @kept
    def fits(self, device: int, size_bytes: int, *, stream: int = 0) -> npt.NDArray[np.bool_]:
        """In which states an allocation in the default pool would have found a free block."""
        return memory_fragmentation.fits(self.block_replay(device), size_bytes, stream=stream)

    # ---- what is live ----

    @kept
    def live_by_region(self, device: int, *, state: int | None = None) -> pd.DataFrame:
        """MEMORY_LIVE_TREE by the region that allocated; at the peak unless a state is given."""
        one = self.replay(device)
        at = one.peak if state is None else state
        return memory_live.live_by_region(one, self.allocations(), self.nested_regions(device), at)

    @kept
    def live_by_layer(self, device: int, *, state: int | None = None) -> pd.DataFrame:
        """MEMORY_LIVE_TREE by the module that allocated; at the peak unless a state is given."""
        one = self.replay(device)
        return memory_live.live_by_layer(one, self.allocations(), self.stacks, one.peak if state is None else state)

    @kept
    def leaks(self, device: int) -> pd.DataFrame:
        """MEMORY_LEAKS: what was allocated in a region that closed and is live at the end."""
        one, regions = self.replay(device), self.nested_regions(device)
        return memory_leaks.leak_candidates(one, self.allocations(), regions, cut=self._known(device).cut)

    @kept
    def growth(self, device: int) -> pd.DataFrame:
        """MEMORY_GROWTH: how the total moves from instance to instance of the regions that repeat."""
        one, regions = self.replay(device), self.nested_regions(device)
        return memory_leaks.growth(one, regions, cut=self._known(device).cut)

    @kept
    def region_instances(self, device: int) -> pd.DataFrame:
        """MEMORY_REGION_INSTANCES: the total before, at its highest in, and after each opened region."""
        one, regions = self.replay(device), self.nested_regions(device)
        return memory_leaks.region_instances(one, regions, cut=self._known(device).cut)

    @kept
    def lifetimes(self) -> pd.DataFrame:
        """MEMORY_LIFETIMES of all devices: how long the allocations of each stack lived."""
        return memory_leaks.lifetimes(self.allocations())

    # ---- what the file says of allocations ----

    @kept
    def keys_said(self, device: int) -> list[memory_groups.By]:
        """What the file says of the allocations of one device: metadata, category, compile_context, annotation."""
        return memory_groups.keys_said(self.events, self.require_device(device))

    @kept
    def groups(self, device: int, by: memory_groups.By) -> pd.DataFrame:
        """MEMORY_GROUPS of one device: its allocations by stack, or by one of the keys that the file says."""
        return memory_groups.groups(self.replay(device), self.events, self.allocations(), self.stacks, by)

    @kept
    def said(self, device: int) -> tuple[list[list[tuple[memory_groups.By, str]]], npt.NDArray[np.int64]]:
        """What the file says of each allocation of one device: the different answers, and the number of each one's."""
        every = self.allocations()
        return memory_groups.said_of(self.events, every[every["device"] == device], self.keys_said(device))

    @kept
    def notes(self, device: int) -> pd.DataFrame:
        """MEMORY_NOTES of one device: annotations of allocations, and user-defined entries."""
        return memory_groups.notes(self.events, self.allocations(), self.require_device(device))

    # ---- out of memory ----

    @kept
    def oom_reports(self, device: int) -> list[memory_oom.OomReport]:
        """Each allocation that failed on one device, with the state of the allocator and what would have helped.

        Empty where the history cannot be followed: only `failures` are known then.
        """
        one = self.replay(device)
        if not one.followed:
            return []
        event = self.oom().loc[lambda frame: frame["device"] == device, "event"].to_numpy()
        places = zip(*(self.events[name].iloc[event].tolist() for name in ("stream", "pool")), strict=True)
        states = (one.rows.searchsorted(event) + 1).tolist()
        reports = []
        for state, (stream, pool), failed in zip(states, places, self.failures(device), strict=True):
            held = memory_live.held_at(one, self.allocations(), state)
            reports.append(
                memory_oom.explain(
                    one,
                    self.block_replay(device),
                    state,
                    requested=failed.requested_bytes,
                    device_free=failed.device_free_bytes,
                    stream=stream,
                    pool=pool,
                    before=int(held.loc[held["alloc_event"].isna(), "size_bytes"].sum()),
                )
            )
        return reports

    # ---- shown, and asked in SQL ----

    @kept
    def findings(self) -> list[Finding]:
        """What is worth saying about the snapshot: peaks, why it ran out, what stays behind, what is missing."""
        found: list[Finding] = later("findings_of_snapshot")(self)
        return found

    def sql(self, query: str) -> pd.DataFrame:
        """The result of one SELECT statement (DuckDB's SQL) over allocations, memory_regions, memory_blocks and others.

        `profiler-kit query SNAPSHOT --tables` lists them. Raises OptionError as Trace.sql does.
        """
        answer: pd.DataFrame = later("select")(query, later("sources")("snapshot", self))
        return answer

    def table(self, name: str, **options: Value) -> Filled:
        """A declared table, filled; see Trace.table."""
        filled: Filled = later("fill")(name, {"snapshot": self}, **options)
        return filled

    def html(self, title: str) -> str:
        """A page that shows the snapshot, in one file that needs no network."""
        page: str = later("memory_page")(self, title)
        return page

    def over_time(self, device: int | None = None) -> Shown:
        """Memory over time as a picture for a notebook; of the device that held most when none is given."""
        if device is None:
            device = max(self.devices, key=lambda one: int(self.replay(one).allocated_bytes.max()), default=0)
        card: Shown = later("memory_card")(self, device)
        return card

    def _repr_html_(self) -> str:
        """Its page, as a notebook shows it: offline, in a frame of its own."""
        name = os.fsencode(os.path.basename(self.path)).decode("utf-8", "replace")  # noqa: PTH119 - may hold any bytes
        instead = "Write it to a file with profiler-kit memory SNAPSHOT --html memory.html."
        framed: str = later("framed")(self.html(name), instead=instead)
        return framed


def load_snapshot(
    path: str | os.PathLike[str], *, memory_limit_bytes: int | None = None, report: Report = silent
) -> Snapshot:
    """Load a CUDA memory snapshot (or a CPU recording of `memory_runner`) without running anything it holds.

    A large one is kept in the cache, as load_trace does (profiler_kit.load.cache says where and how much).
    A chrome trace with `[memory]` events (profile_memory=True) loads too; its device -1 is the CPU.
    `memory_limit_bytes` replaces the address space granted to the reading process, 3 GiB at most by itself.

    Raises InputError when the file is missing or empty, SnapshotFormatError when it is not a snapshot, was refused, or
    is a trace without such events, TraceFormatError when it is a broken trace.
    """
    if is_trace(path):
        return Snapshot(snapshot_of(*read_memory_events(Path(path), report=report)))
    return Snapshot(load_snapshot_data(path, memory_limit_bytes=memory_limit_bytes, report=report))
