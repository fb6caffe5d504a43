"""Progress of long work: a callback the library calls, a bar or lines the command line shows after two seconds."""

from __future__ import annotations

import contextlib
import sys
import time
from collections.abc import Iterator
from typing import TYPE_CHECKING, Final, Protocol

if TYPE_CHECKING:
    from rich.progress import Progress, TaskID

SHOW_AFTER_S: Final = 2.0
LINE_EVERY_S: Final = 15.0  # without a terminal


class Report(Protocol):
    """What long work calls as it goes: how much is done, out of how much, and what it is doing now."""

    def __call__(self, done: float, total: float, note: str = "") -> None: ...


def silent(done: float, total: float, note: str = "") -> None:
    """Report nothing."""


@contextlib.contextmanager
def progress_bar(what: str) -> Iterator[Report]:
    """Give a Report that shows on stderr how far the work is, once it has taken two seconds.

    Nothing is shown of shorter work. On a terminal it is a bar, for which rich is imported only when it is drawn.
    Elsewhere, in a log or a pipe, it is a line when what is being done changes, and one every 15 seconds.
    """
    bar = _Bar(what) if sys.stderr.isatty() else _Lines(what)
    try:
        yield bar.report
    finally:
        bar.close()


class _Lines:
    def __init__(self, what: str) -> None:
        self._what = what
        self._since = time.monotonic()
        self._shown: float | None = None
        self._note = ""

    def report(self, done: float, total: float, note: str = "") -> None:
        now = time.monotonic()
        if now - self._since < SHOW_AFTER_S:
            return
        if self._shown is None or note != self._note or now - self._shown >= LINE_EVERY_S:
            self._shown, self._note = now, note
            doing = f"{self._what}: {note}" if note else self._what
            share = f"{100 * done / total:.0f} %, " if total else ""
            print(f"{doing} ({share}{now - self._since:.0f} s so far)", file=sys.stderr, flush=True)

    def close(self) -> None:
        """Nothing is open."""


class _Bar:
    def __init__(self, what: str) -> None:
        self._what = what
        self._since = time.monotonic()
        self._bar: Progress | None = None
        self._task: TaskID | None = None

    def report(self, done: float, total: float, note: str = "") -> None:
        if self._bar is None:
            if time.monotonic() - self._since < SHOW_AFTER_S:
                return
            self._open()
        assert self._bar is not None and self._task is not None
        description = f"{self._what}: {note}" if note else self._what
        self._bar.update(self._task, completed=done, total=total, description=description)

    def _open(self) -> None:
        from rich.console import Console
        from rich.progress import BarColumn, Progress, TextColumn, TimeElapsedColumn, TimeRemainingColumn

        columns = (
            TextColumn("{task.description}"),
            BarColumn(),
            TextColumn("{task.percentage:>3.0f} %"),
            TimeElapsedColumn(),
            TextColumn("left"),
            TimeRemainingColumn(),
        )
        self._bar = Progress(*columns, console=Console(stderr=True), transient=True)
        self._task = self._bar.add_task(self._what, total=None)
        self._bar.start()

    def close(self) -> None:
        if self._bar is not None:
            self._bar.stop()


class Ticks:
    """Counts units of work for a Report, under a note that says what is being done."""

    def __init__(self, report: Report, total: int) -> None:
        self._report = report
        self._total = total
        self.done = 0
        self.note = ""

    def begin(self, note: str) -> None:
        """Say what is being done now."""
        self.show(self.done, note)

    def tick(self, count: int = 1) -> None:
        """So many units more are done."""
        self.show(self.done + count, self.note)

    def show(self, done: float, note: str) -> None:
        """Report `done` units in all, under that note."""
        self.done, self.note = int(done), note
        self._report(done, self._total, note)
