"""layers.parquet: what is written comes back; files that are something else are named in one line."""

from __future__ import annotations

from pathlib import Path

import pandas as pd
import pytest

from profiler_kit.errors import InputError, RunFormatError
from profiler_kit.formats.layer_file import LayerFile, read_layers, write_layers
from tests.analyses.test_layers import TWO_BATCHES, forwards_of

KIND = "a layers.parquet of profiler-kit. Record one with: profiler-kit layers --out DIR"
HINT = f"expected {KIND}"


def message(path: Path) -> str:
    with pytest.raises(InputError) as caught:
        read_layers(path)
    return str(caught.value)


@pytest.mark.parametrize("inside", [False, True])
def test_what_is_written_comes_back(tmp_path: Path, inside: bool) -> None:
    path = tmp_path / "layers.parquet"
    written = LayerFile(TWO_BATCHES, forwards_of((1, 0, 5), (2, 0, 6)), ("a note",))
    write_layers(path, written)
    found = read_layers(tmp_path if inside else path)
    pd.testing.assert_frame_equal(found.calls, written.calls)
    pd.testing.assert_frame_equal(found.forwards, written.forwards)
    assert found.notes == ("a note",)
    assert [p.name for p in tmp_path.iterdir()] == ["layers.parquet"]


def test_a_parquet_file_of_another_writer_has_no_forwards(tmp_path: Path) -> None:
    path = tmp_path / "layers.parquet"
    TWO_BATCHES.to_parquet(path)
    found = read_layers(path)
    pd.testing.assert_frame_equal(found.calls, TWO_BATCHES)
    assert found.forwards.empty and found.notes == ()


def test_files_that_are_something_else(tmp_path: Path) -> None:
    path = tmp_path / "layers.parquet"
    assert message(path) == f"{path}: no such file, expected {KIND}"
    assert message(tmp_path) == f"{path}: no such file, expected {KIND}"
    path.write_bytes(b"")
    assert message(path) == f"{path}: the file is empty (0 bytes), expected {KIND}"
    path.write_text("no parquet file")
    assert message(path) == f"{path}: not a Parquet file that can be read, {HINT}"
    TWO_BATCHES[["layer", "type"]].to_parquet(path)
    assert message(path) == f"{path}: column 'variant' is missing, found ['layer', 'type'], {HINT}"
    TWO_BATCHES.assign(host_ns="x").to_parquet(path)
    with pytest.raises(RunFormatError) as caught:
        read_layers(path)
    text = str(caught.value)
    assert text.startswith(f"{path}: a column holds something else (") and text.endswith(f"), {HINT}")
