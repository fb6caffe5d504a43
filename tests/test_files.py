"""Files: what may be read, and how little of a name a temporary file keeps."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from profiler_kit.errors import InputError
from profiler_kit.files import require_file, whole_file
from profiler_kit.load.snapshot.reader import is_snapshot, is_trace


def refused(path: str | Path) -> str:
    with pytest.raises(InputError) as caught:
        require_file(path, "a trace", "Record one.")
    return str(caught.value)


def test_what_is_no_regular_file_is_refused_without_opening_it(tmp_path: Path) -> None:
    pipe = tmp_path / "pipe"
    os.mkfifo(pipe)  # opening it would wait for a writer forever
    assert refused(pipe) == f"{pipe}: this is a pipe or a device, expected a trace in a file. Record one."
    assert not is_trace(pipe) and not is_snapshot(pipe)
    assert refused("/dev/zero") == "/dev/zero: this is a pipe or a device, expected a trace in a file. Record one."


def test_names_no_file_can_have_are_refused(tmp_path: Path) -> None:
    long = tmp_path / ("x" * 300)
    assert refused(long) == f"{long}: cannot be read (File name too long), expected a trace. Record one."
    with pytest.raises(ValueError) as python:
        Path("a\0b").stat()  # each Python has its own words for it
    assert refused("a\0b") == f"a\0b: cannot be read ({python.value}), expected a trace. Record one."


def test_a_name_as_long_as_the_file_system_allows_can_be_written(tmp_path: Path) -> None:
    for name in ("x" * 250 + ".json", "\N{LATIN SMALL LETTER E WITH ACUTE}" * 120 + ".json.gz"):
        with whole_file(tmp_path / name) as temporary:
            assert temporary.parent.name.startswith(".tmp-") and temporary.suffixes == (tmp_path / name).suffixes
            temporary.write_text("whole")
        assert (tmp_path / name).read_text() == "whole"
