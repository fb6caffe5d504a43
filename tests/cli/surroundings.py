"""What a process does to its own descriptors and limits before all else. Without pytest, whose import takes longer."""

from __future__ import annotations

import os
import resource
import sys


def close_output() -> None:
    os.close(1)


def close_errors() -> None:
    os.close(2)


def close_everything() -> None:
    os.closerange(0, 3)


def fill_output() -> None:
    os.dup2(os.open("/dev/full", os.O_WRONLY), 1)


def fill_errors() -> None:
    os.dup2(os.open("/dev/full", os.O_WRONLY), 2)


def leave_output() -> None:
    """As `head -1` does, at once."""
    reads, writes = os.pipe()
    os.close(reads)
    os.dup2(writes, 1)


def speak_ascii() -> None:
    for stream in (sys.stdout, sys.stderr):
        stream.reconfigure(encoding="ascii", errors="strict")  # type: ignore[union-attr]


def small_files() -> None:
    resource.setrlimit(resource.RLIMIT_FSIZE, (8 * 1024, 8 * 1024))
