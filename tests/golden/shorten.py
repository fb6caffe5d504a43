"""Make a capture say nothing of the machine it was made on: paths in it become relative to packages.

python tests/golden/shorten.py FILE_OR_RUN_FOLDER ...

Frames of a memory snapshot, and the `traceName` of a chrome trace. Only for files you made yourself: unpickling a
snapshot this way runs what is in it.
"""

import gzip
import pickle
import re
import sys
from pathlib import Path

_PACKAGES = re.compile(r".*/(?:site-packages|dist-packages|site)/")
_STANDARD = re.compile(r".*/lib/(python3\.\d+/)")
_PROJECT = re.compile(r".*/(?=(?:profiler_kit|tests|benchmarks)/)")


def shorten(path: Path) -> None:
    """Rewrite a .pickle, a .json.gz, or those of a folder."""
    if path.is_dir():
        for name in ("memory.pickle", "memory_trace.json.gz", "graph_trace.json.gz", "trace.json.gz"):
            if (path / name).is_file():
                shorten(path / name)
    elif path.suffix == ".pickle":
        with path.open("rb") as handle:
            snapshot = pickle.load(handle)
        _frames(snapshot, set())
        with path.open("wb") as handle:
            pickle.dump(snapshot, handle, protocol=pickle.HIGHEST_PROTOCOL)
    else:
        text = gzip.decompress(path.read_bytes())
        text = re.sub(rb'("traceName": ")[^"]*/', rb"\1", text)
        path.write_bytes(gzip.compress(text, 9, mtime=0))


def _frames(value: object, seen: set[int]) -> None:
    """Shorten the file names of all frames in place: lists that several events share stay shared."""
    if id(value) in seen:
        return
    seen.add(id(value))
    if isinstance(value, dict):
        if isinstance(value.get("filename"), str):
            value["filename"] = _short(value["filename"])
        for item in value.values():
            _frames(item, seen)
    elif isinstance(value, list):
        for item in value:
            _frames(item, seen)


def _short(name: str) -> str:
    for pattern, kept in ((_PACKAGES, ""), (_STANDARD, r"\1"), (_PROJECT, "")):
        name = pattern.sub(kept, name)
    return name


if __name__ == "__main__":
    for argument in sys.argv[1:]:
        shorten(Path(argument))
