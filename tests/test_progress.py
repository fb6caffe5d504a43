"""Progress: nothing for short work, a bar on a terminal, lines in a log."""

from __future__ import annotations

import io
import sys

import pytest

from profiler_kit import progress
from profiler_kit.progress import progress_bar


class Clock:
    def __init__(self) -> None:
        self.now = 100.0

    def monotonic(self) -> float:
        return self.now


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    made = Clock()
    monkeypatch.setattr(progress, "time", made)
    return made


def test_without_a_terminal_a_line_a_phase_and_one_every_15_seconds(
    clock: Clock, capsys: pytest.CaptureFixture[str]
) -> None:
    with progress_bar("Recording") as report:
        for seconds, done, note in [
            (1.9, 1, "load"),  # too early
            (2.0, 2, "warm up"),
            (9.0, 3, "warm up"),
            (10.0, 4, "time"),
            (24.9, 5, "time"),
            (25.0, 6, "time"),
            (26.0, 7, ""),
        ]:
            clock.now = 100 + seconds
            report(done, 8, note)
    assert capsys.readouterr().err.splitlines() == [
        "Recording: warm up (25 %, 2 s so far)",
        "Recording: time (50 %, 10 s so far)",
        "Recording: time (75 %, 25 s so far)",
        "Recording (88 %, 26 s so far)",
    ]


def test_short_work_shows_nothing(clock: Clock, capsys: pytest.CaptureFixture[str]) -> None:
    with progress_bar("Reading") as report:
        report(1, 2)
        report(2, 2)
    assert capsys.readouterr() == ("", "")


def test_work_of_unknown_size(clock: Clock, capsys: pytest.CaptureFixture[str]) -> None:
    with progress_bar("Reading") as report:
        clock.now += 3
        report(5, 0)
    assert capsys.readouterr().err == "Reading (3 s so far)\n"


def test_on_a_terminal_a_bar_is_drawn_after_two_seconds(clock: Clock, monkeypatch: pytest.MonkeyPatch) -> None:
    class Terminal(io.StringIO):
        def isatty(self) -> bool:
            return True

    screen = Terminal()
    monkeypatch.setattr(sys, "stderr", screen)
    monkeypatch.setenv("TERM", "xterm")
    with progress_bar("Reading") as report:
        report(1, 4, "half")
        assert screen.getvalue() == ""
        clock.now += 3
        report(2, 4, "half")
    assert "Reading: half" in screen.getvalue() and "50 %" in screen.getvalue()
