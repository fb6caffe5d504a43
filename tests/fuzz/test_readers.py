"""Both readers give the same of every file, however broken: events, repairs, counts, incidents, words.

`python -m tests.fuzz.test_readers 5000` compares that many files of each kind.
"""

from __future__ import annotations

import os
import sys
import tempfile
from pathlib import Path

import pytest

from tests.fuzz.hostile import ended, hostile
from tests.fuzz.mutations import mutate
from tests.fuzz.seeds import seeds
from tests.fuzz.values import rewritten
from tests.readers import HAVE_NATIVE, differences, read_by

FILES = int(os.environ.get("PROFILER_KIT_FUZZ_FILES", "100"))
ASKED = ("input_dims", "grid", "Ev Idx", "collective_name")


def compared(first: int, last: int, folder: Path) -> dict[str, list[str]]:
    """What differs, by file; nothing when all is well."""
    corpus = seeds()
    path = folder / "t.json"
    found = {}
    for number in range(first, last):
        for make in (mutate, rewritten, hostile, ended):
            path.write_bytes(make(number, corpus))
            asked = ASKED if number % 3 == 0 else ()
            unlike = differences(read_by("native", path, asked), read_by("python", path, asked))
            if unlike:
                found[f"{make.__name__} {number}"] = unlike
    return found


@pytest.mark.skipif(not HAVE_NATIVE, reason="no native reader here")
def test_both_readers_give_the_same_of_broken_files(tmp_path: Path) -> None:
    assert compared(0, FILES, tmp_path) == {}


if __name__ == "__main__":
    with tempfile.TemporaryDirectory() as scratch:
        first, last = 0, int(sys.argv[-1])
        if len(sys.argv) > 2:
            first = int(sys.argv[1])
        for name, unlike in compared(first, last, Path(scratch)).items():
            print(name, [line[:300] for line in unlike], flush=True)
