"""Read the `[memory]` events of a chrome trace together with its columns.

torch.profiler writes one per allocation and per free when profile_memory is on, of every device's allocator
(torch/csrc/profiler/collection.h, Result of kind Allocation).
"""

from __future__ import annotations

from array import array
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import numpy as np
import numpy.typing as npt

from profiler_kit.files import require_file
from profiler_kit.load.integers import I64, MISSING
from profiler_kit.load.trace.chrome import HINT, ChromeTrace, read_stream
from profiler_kit.load.trace.column_builder import ColumnBuilder, identity, text_to_ns, to_ns
from profiler_kit.load.trace.decode import Event
from profiler_kit.load.trace.split_events import EventStream
from profiler_kit.progress import Report, silent

NAME: Final = "[memory]"
KEYS: Final = ("Addr", "Bytes", "Total Allocated", "Total Reserved", "Device Type", "Device Id")
CPU_TYPE: Final = 0  # c10/core/DeviceType.h


@dataclass(frozen=True, eq=False)
class MemoryEvents:
    """One element per `[memory]` event, in file order.

    thread: index into the trace's threads. size_bytes: above 0 an allocation, below 0 a free. total_allocated,
    total_reserved: of the device after the event, as torch counted them; MISSING where the file does not say.
    """

    start_ns: I64
    thread: I64
    address: npt.NDArray[np.uint64]
    size_bytes: I64
    total_allocated: I64
    total_reserved: I64
    device_type: I64
    device_id: I64

    def __len__(self) -> int:
        return len(self.start_ns)


class MemoryBuilder(ColumnBuilder):
    """Keeps `[memory]` events as well as the columns."""

    def __init__(self) -> None:
        super().__init__(KEYS)
        self._rows = array("q")  # start_ns, thread, then the KEYS but the address
        self._addresses = array("Q")

    def _add_others(self, events: list[Event], *, exact: bool) -> None:
        super()._add_others(events, exact=exact)
        for event in events:
            if event.name == NAME and event.ph in ("i", "I"):
                self._add_memory(event, exact=exact)

    def _add_memory(self, event: Event, *, exact: bool) -> None:
        ns = text_to_ns(bytes(event.ts)) if exact else int(to_ns(np.array([event.ts], np.float64))[0])
        texts = [bytes(getattr(event.args, f"extra_{number}", b"")) for number in range(len(KEYS))]
        address, *values = [_integer(text) for text in texts]
        if ns is None or address is None or values[0] is None or not 0 <= address < 1 << 64:
            self.dropped += 1
            return
        thread = self.threads[identity(event.pid), identity(event.tid)]
        self._rows.extend((ns, thread, *(MISSING if value is None else value for value in values)))
        self._addresses.append(address)

    def memory(self) -> MemoryEvents:
        """What was kept."""
        table = np.array(self._rows, np.int64).reshape(-1, 1 + len(KEYS))
        start, thread, size, allocated, reserved, kind, device = (table[:, column] for column in range(len(KEYS) + 1))
        return MemoryEvents(
            start, thread, np.array(self._addresses, np.uint64), size, allocated, reserved, kind, device
        )


def _integer(text: bytes) -> int | None:
    """A JSON number, or one in quotes; None when it is not a number, or does not fit."""
    try:
        value = int(text.strip(b'" '))
    except ValueError:
        return None
    return value if -(1 << 63) < value < 1 << 64 else None


def read_memory_events(path: Path | str, *, report: Report = silent) -> tuple[ChromeTrace, MemoryEvents]:
    """Load a trace with its `[memory]` events; raises what read_chrome_trace raises."""
    file = require_file(path, "a chrome trace", HINT)
    events = EventStream(KEYS, KEYS)
    builder = events.builder = MemoryBuilder()
    trace = read_stream(file, events, report)
    return trace, builder.memory()
