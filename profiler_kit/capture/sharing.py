"""Share one torch profile between a profiler_runner and a memory_runner.

torch runs one profiler at a time. On a machine without CUDA both runners record through it, so the one that starts
first, the owner, starts a profile and the other one, a guest, joins it. A guest notes when it came and went, and
writes its file once the profile has ended: only then can torch say what was recorded.
"""

from __future__ import annotations

import contextlib
import time
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from threading import Lock
from typing import Final

from torch.profiler import ProfilerActivity

from profiler_kit.capture.torch_profile import TorchProfile, foreign_profiler, start_profile, stop_profile
from profiler_kit.errors import CaptureError, StartError

Window = tuple[int, int]  # Unix ns, both ends included

_FLAGS: Final = ("record_shapes", "with_stack", "profile_memory", "with_modules", "all_threads")
_LOCK: Final = Lock()
_session: Session | None = None  # the one at work


@dataclass(frozen=True, kw_only=True)
class Needs:
    """What a runner needs of the profile it records through; the names are those of torch.profiler.profile."""

    activities: frozenset[ProfilerActivity] = frozenset()
    record_shapes: bool = False
    with_stack: bool = False
    profile_memory: bool = False
    with_modules: bool = False
    all_threads: bool = False
    scheduled: bool = False

    def __or__(self, other: Needs) -> Needs:
        """What serves both; the schedule is the left one's."""
        return Needs(
            activities=self.activities | other.activities,
            scheduled=self.scheduled,
            **{flag: getattr(self, flag) or getattr(other, flag) for flag in _FLAGS},
        )

    def missing(self, recording: TorchProfile) -> list[str]:
        """What a running profile lacks of these."""
        lacks = [flag for flag in _FLAGS if getattr(self, flag) and not getattr(recording, flag)]
        return lacks + sorted(f"ProfilerActivity.{a.name}" for a in self.activities - recording.activities)


class Session:
    """A torch profile at work, the runner that started it and those that share it."""

    def __init__(self, who: str, kind: str, *, scheduled: bool) -> None:
        self.who = who
        self.kind = kind
        self.at_work = {kind: who}  # at most one runner of a kind at a time
        self.ended = False
        self._scheduled = scheduled
        self._profile: TorchProfile | None = None
        self._writers: list[Callable[[], object]] = []

    @property
    def profile(self) -> TorchProfile:
        """The profile; it can be read and exported once the session has ended."""
        assert self._profile is not None, "start first"
        return self._profile

    def start(self, make: Callable[[], TorchProfile]) -> None:
        recording = make()
        start_profile(recording)
        self._profile = recording

    def join(self, who: str, kind: str, needs: Needs) -> bool:
        """Let a runner of the other kind take part. False when one of its kind is at work already.

        Raises StartError when the profile was not started with what it needs.
        """
        if self._profile is None or kind in self.at_work:
            return False
        if self._scheduled or needs.scheduled:
            raise StartError(
                f"{who}: without CUDA it shares the torch profile of {self.who}, and a shared profile has no schedule. "
                "Leave wait, warmup, active and repeat out, or record one after the other."
            )
        missing = needs.missing(self._profile)
        if missing:
            raise StartError(
                f"{who}: without CUDA it shares the torch profile of {self.who}, which runs without "
                f"{', '.join(missing)}. Swap the two: put this {kind} outside."
            )
        self.at_work[kind] = who
        return True

    def leave(self, kind: str, write: Callable[[], object]) -> None:
        """End a runner's part; `write` is called when the profile has ended, in the order of leaving.

        Raises CaptureError when the profile has ended already: then a part of the recording is missing.
        """
        with _LOCK:
            who = self.at_work.pop(kind)
            if not self.ended:
                self._writers.append(write)
                return
        raise CaptureError(
            f"{who}: {self.who}, whose torch profile it shares, ended first, nothing is written. End this one first."
        )

    def close(self) -> None:
        """Stop the profile, let another one start, and write every file, also when one of them fails."""
        try:
            stop_profile(self.profile)
        finally:
            _forget(self)
            with contextlib.ExitStack() as files:
                for write in reversed(self._writers):
                    files.callback(write)


def open_session(who: str, kind: str, make: Callable[[], TorchProfile], *, scheduled: bool = False) -> Session:
    """Start the profile that `make` makes, for `who`.

    Raises StartError when a profiler is at work: ours or any other of torch, in any thread, also while it warms up
    under its schedule. What is running is not touched.
    """
    global _session
    with _LOCK:
        other = foreign_profiler() if _session is None else _session.at_work.get(kind, _session.who)
        if other is not None:
            raise StartError(
                f"{who}: {other} is already recording, expected no profiler around it: torch runs one at a time. "
                "Leave one of the two out, or mark the inner part with profiler_kit.region."
            )
        session = _session = Session(who, kind, scheduled=scheduled)
    try:
        session.start(make)
    except BaseException:
        _forget(session)
        raise
    return session


def join_session(who: str, kind: str, needs: Needs) -> Session | None:
    """The session at work, which `who` now takes part in; None when there is none, or none to take part in."""
    with _LOCK:
        return _session if _session is not None and _session.join(who, kind, needs) else None


def all_needs(own: Needs, others: Iterable[Needs]) -> Needs:
    """What serves a runner and those inside it."""
    for other in others:
        own |= other
    return own


def now_ns() -> int:
    """The time as the profiler tells it, apart from what is recorded just before and just after.

    Kineto's clock agrees with the system's to some 0.3 microseconds; waiting on both sides keeps them apart.
    """
    _wait()
    now = time.time_ns()
    _wait()
    return now


def _wait() -> None:
    since = time.perf_counter_ns()
    while time.perf_counter_ns() - since < 5_000:
        pass


def _forget(session: Session) -> None:
    global _session
    with _LOCK:
        _session = None
        session.ended = True
