"""Long work in a thread of its own: its progress to show, a way to stop it, and its result for whoever asks."""

from __future__ import annotations

import contextlib
import ctypes
import sys
import threading
from collections.abc import Callable
from typing import Generic, TypeVar

from profiler_kit.errors import InputError, KitError
from profiler_kit.progress import Report

T = TypeVar("T")
_ARENA_MAX = -8  # M_ARENA_MAX of malloc.h


class Cancelled(KitError):
    """The work was stopped by the reader."""


class Job(Generic[T]):
    """One piece of work, begun when made. `share` is how much is done, 0 to 1; `note` what it is doing."""

    def __init__(self, what: str, work: Callable[[Report], T]) -> None:
        self.what, self.share, self.note = what, 0.0, ""
        self._work = work
        self._stop = threading.Event()
        self._ended = threading.Event()
        self._result: T | None = None
        self._error: Exception | None = None
        threading.Thread(target=self._run, name="load", daemon=True).start()

    def _run(self) -> None:
        try:
            self._result = self._work(self._report)
        except OSError as error:
            reason = error.strerror or str(error)
            self._error = InputError(f"{self.what}: changed or gone while it was read ({reason}). Reload the page.")
        except MemoryError:
            self._error = InputError(f"{self.what}: does not fit into memory. Try: profiler-kit export --time 0:100")
        except Exception as error:  # any at all: `result` raises it where the page can show it
            self._error = error
        finally:
            self._ended.set()
            give_back_memory()

    def _report(self, done: float, total: float, note: str = "") -> None:
        if self._stop.is_set():
            raise Cancelled(f"{self.what}: loading was cancelled.")
        self.share, self.note = (min(1.0, done / total) if total else 0.0), note

    def cancel(self) -> None:
        """Ask it to stop; it does at its next report, within milliseconds while it reads."""
        self._stop.set()

    @property
    def failed(self) -> bool:
        """It ended, and without a result."""
        return self._ended.is_set() and self._error is not None

    @property
    def given_up(self) -> bool:
        """It was asked to stop and holds no result, also while it is still on its way to stopping."""
        return self._stop.is_set() and (self._error is not None or not self._ended.is_set())

    def ended(self, within_s: float = 0.0) -> bool:
        """Whether it is over, after waiting that long at most."""
        return self._ended.wait(within_s)

    def result(self) -> T:
        """What came of it, when it is over; raises what it raised."""
        self._ended.wait()
        if self._error is not None:
            raise self._error.with_traceback(None)
        return self._result  # type: ignore[return-value]  # it ended without an error


def share_memory() -> None:
    """Have all threads allocate from two of glibc's arenas: by default every page, a thread of its own, may get another
    one, and what is free in one is of no use to the others. To be called before there are threads.
    """
    if sys.platform == "linux":
        with contextlib.suppress(OSError, AttributeError):
            ctypes.CDLL(None).mallopt(_ARENA_MAX, 2)


def give_back_memory() -> None:
    """Return freed memory to the system: what Arrow keeps, and what glibc does (of elsewhere, nothing is known)."""
    arrow = sys.modules.get("pyarrow")
    if arrow is not None:
        arrow.default_memory_pool().release_unused()
    if sys.platform == "linux":
        with contextlib.suppress(OSError, AttributeError):
            ctypes.CDLL(None).malloc_trim(0)
