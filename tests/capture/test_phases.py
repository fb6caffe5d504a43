"""What a latency is of: nothing of the batch's own copy."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from profiler_kit.capture import phases
from profiler_kit.capture.phases import Phases, drive


class Clock:
    """A device whose copies take 1,000 ns and are done in the background, and whose batches take 50."""

    def __init__(self) -> None:
        self.now_ns = self.free_ns = 0

    def copy(self, number: int) -> int:
        self.free_ns = max(self.free_ns, self.now_ns) + 1000
        return number

    def wait(self, _device: torch.device) -> None:
        self.now_ns = max(self.now_ns, self.free_ns)

    def run(self, _batch: int) -> None:
        self.free_ns = max(self.free_ns, self.now_ns) + 50

    def stopwatch(self, device: torch.device) -> Stopwatch:
        return Stopwatch(self, device)


class Stopwatch:
    def __init__(self, clock: Clock, device: torch.device) -> None:
        self.clock, self.device, self.since_ns = clock, device, clock.now_ns

    def stop_ns(self) -> int:
        self.clock.wait(self.device)
        return self.clock.now_ns - self.since_ns


def test_the_copy_of_a_batch_is_in_no_latency(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    clock = Clock()
    monkeypatch.setattr(phases, "synchronize", clock.wait)
    monkeypatch.setattr(phases, "Stopwatch", clock.stopwatch)
    run = Phases(torch.device("cpu"))
    drive(run.first(clock.copy, compiles=False), clock.run)
    drive(run.warm_up(clock.copy, 2), clock.run)
    drive(run.timed(clock.copy, 3), clock.run)
    assert run.first_ns == 50 and run.latency_ns == [50] * 3
