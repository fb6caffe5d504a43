"""Work on a device: which one, waiting for it, timing a block on it, giving its memory back."""

from __future__ import annotations

import contextlib
import gc
from collections.abc import Iterator
from time import perf_counter_ns

import torch

from profiler_kit.capture.environment import resolve_device
from profiler_kit.units import ms_to_ns


def choose_device(text: str | None) -> torch.device:
    """The device called `text`; None is the GPU when there is one, else the CPU."""
    return resolve_device(text if text is not None else "cuda" if torch.cuda.is_available() else "cpu")


def synchronize(device: torch.device) -> None:
    """Wait for the device; a CPU has nothing to wait for."""
    if device.type == "cuda":
        torch.cuda.synchronize(device)


def is_out_of_memory(error: BaseException) -> bool:
    """Whether torch could not get memory, on a GPU or on the CPU."""
    if isinstance(error, torch.OutOfMemoryError):
        return True
    return isinstance(error, RuntimeError) and "DefaultCPUAllocator" in str(error)


def free_memory(device: torch.device) -> None:
    """Give memory that nothing refers to any more back to the device."""
    gc.collect()
    if device.type == "cuda":
        with torch.cuda.device(device):
            torch.cuda.empty_cache()


class Stopwatch:
    """Times a block of work on a device: CUDA events on its current stream, perf_counter on a CPU."""

    def __init__(self, device: torch.device) -> None:
        self._device = device
        self._start: torch.cuda.Event | None = None
        self._since_ns = perf_counter_ns()
        if device.type == "cuda":
            self._start = torch.cuda.Event(enable_timing=True)
            self._start.record(torch.cuda.current_stream(device))

    def stop_ns(self) -> int:
        """Nanoseconds since the start; waits for the device after the end was marked."""
        if self._start is None:
            return perf_counter_ns() - self._since_ns
        end = torch.cuda.Event(enable_timing=True)
        end.record(torch.cuda.current_stream(self._device))
        end.synchronize()
        return ms_to_ns(self._start.elapsed_time(end))


@contextlib.contextmanager
def no_garbage_collection() -> Iterator[None]:
    """Collect now and not again until the block ends, as timeit does: one full pass takes 45 to 80 ms here."""
    enabled = gc.isenabled()
    gc.collect()
    gc.disable()
    try:
        yield
    finally:
        if enabled:
            gc.enable()
