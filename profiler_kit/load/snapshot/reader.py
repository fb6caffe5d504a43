"""Load a CUDA memory snapshot without trusting it, and once: from the cache when it has been read before.

Unpickling runs whatever the file asks for, so no unpickler of Python runs in this process. What torch writes is read by
native.py, which knows no opcode that names code. Anything else, or all where that was not compiled, is read by
`unpickle_child.py` in a process of its own, with an unpickler that refuses every global, under limits of address space
and processor time. Both give plain columns. SnapshotBuilder checks them, whether they are read or from the cache.
"""

from __future__ import annotations

import contextlib
import json
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Final

import numpy as np

from profiler_kit.errors import OptionError, SnapshotFormatError
from profiler_kit.files import PACKED, require_file
from profiler_kit.load import cache
from profiler_kit.load.file_kinds import LOOK_BYTES, kind_of
from profiler_kit.load.snapshot import native
from profiler_kit.load.snapshot.containers import TEXT, Pickle, begins_as_json, open_pickle
from profiler_kit.load.snapshot.data import HINT, WANTED, Array, SnapshotBuilder, SnapshotData
from profiler_kit.load.snapshot.unpickle_child import CUT_OFF, NO_PICKLE, OTHER
from profiler_kit.load.trace.decompress import first_bytes
from profiler_kit.progress import Report, silent

SNAPSHOT_SUFFIXES: Final = tuple(plain + packed for plain in (".pickle", ".pkl") for packed in ("", *PACKED))
MEMORY_LIMIT_BYTES: Final = 3 << 30
LEAST_MEMORY_BYTES: Final = 256 << 20
MEMORY_PER_FILE_BYTE: Final = 16  # measured: 6.5 bytes resident per byte of a real or generated pickle
BYTES_PER_CPU_SECOND: Final = 4 << 20  # measured: 60 MB a second
LEAST_MEMORY_PER_BYTE: Final = 6  # of the pickle: one that unpacks to more is not read
CHILD: Final = Path(__file__).with_name("unpickle_child.py")
_PICKLE: Final = b"\x80"  # how every pickle since protocol 2 begins
SMALLEST_BYTES: Final = 8 << 20  # below, a load takes some quarter of a second (benchmarks/snapshot.py): not kept


@dataclass(frozen=True)
class _Parts:
    """What the reading process handed back: the head as JSON, which may hold integers of any size, and the columns."""

    head: str
    columns: dict[str, Array]


SNAPSHOTS: Final = cache.Kind[tuple[_Parts, SnapshotData]](
    "snapshot",
    _Parts,
    ("load/snapshot/*.py", "load/trace/native/*.py", "load/trace/native/*.[ch]"),
    pack=lambda both: both[0],
    unpack=lambda parts, file: (parts, _build(file, parts)),
)


def load_snapshot_data(
    path: str | os.PathLike[str], *, memory_limit_bytes: int | None = None, report: Report = silent
) -> SnapshotData:
    """What read_snapshot gives, from the cache when it can; a large snapshot is kept there afterwards.

    Raises what read_snapshot raises, and OptionError when PROFILER_KIT_CACHE_LIMIT is not a size.
    """
    file = require_file(path, WANTED, HINT)
    entry = cache.find(SNAPSHOTS, file)
    if entry is not None and entry.stamp["size"] < SMALLEST_BYTES:
        entry = None
    with _out_of_memory(file):
        _, data = cache.load(entry, lambda: _read(file, memory_limit_bytes, report))
    if entry is not None:
        cache.seal(entry.file)  # the frames are the memory that is kept: what is written to them must not come back
    report(1.0, 1.0, "read")
    return data


def read_snapshot(
    path: str | os.PathLike[str], *, memory_limit_bytes: int | None = None, report: Report = silent
) -> SnapshotData:
    """Read a snapshot of torch 2.1 to 2.13, limited in memory, and in time if a child process does.

    Reading gets 256 MiB and 16 bytes for each byte of the file, at most 3 GiB; `memory_limit_bytes` sets another
    amount.

    Raises InputError when the file is missing or empty; SnapshotFormatError when it is not a snapshot, is cut off, asks
    for code, or takes more memory or time than it gets; OptionError when the limit is too small to start with.
    """
    file = require_file(path, WANTED, HINT)
    with _out_of_memory(file):
        _, data = _read(file, memory_limit_bytes, report)
    report(1.0, 1.0, "read")
    return data


@contextlib.contextmanager
def _out_of_memory(file: Path) -> Iterator[None]:
    """Makes one line of this process's own MemoryError, which a limit of the system or a full machine brings about."""
    try:
        yield
    except MemoryError:
        raise SnapshotFormatError(
            f"{file}: reading it takes more memory than this process is given, expected {WANTED}. "
            "Free some memory or raise the limit (ulimit -v, or that of the container)."
        ) from None


def _read(file: Path, memory_limit_bytes: int | None, report: Report) -> tuple[_Parts, SnapshotData]:
    parts = _Parts(*_read_columns(file, memory_limit_bytes, report))
    report(0.95, 1.0, "building tables")
    return parts, _build(file, parts)


def _build(file: Path, parts: _Parts) -> SnapshotData:
    return SnapshotBuilder(file, json.loads(parts.head), parts.columns).build()


def _read_columns(target: Path, memory_limit_bytes: int | None, report: Report) -> tuple[str, dict[str, Array]]:
    """What the child hands back; raises as read_snapshot does."""
    if memory_limit_bytes is not None and memory_limit_bytes < LEAST_MEMORY_BYTES:
        raise OptionError(
            f"memory limit: {memory_limit_bytes >> 20} MiB is too little to read a snapshot, "
            f"expected at least {LEAST_MEMORY_BYTES >> 20} MiB."
        )
    with open_pickle(target, (memory_limit_bytes or MEMORY_LIMIT_BYTES) // LEAST_MEMORY_PER_BYTE) as pickle:
        usual = min(LEAST_MEMORY_BYTES + MEMORY_PER_FILE_BYTE * pickle.size, MEMORY_LIMIT_BYTES)
        space = usual if memory_limit_bytes is None else memory_limit_bytes
        found = native.read_columns(pickle.handle, space)
        return _Child(target, pickle, space).read(report) if found is None else found


def is_trace(path: str | os.PathLike[str]) -> bool:
    """Whether a file begins as a chrome trace does, packed or not; False for one that cannot be read."""
    return begins_as_json(_beginning(path, 1024))


def is_snapshot(path: str | os.PathLike[str]) -> bool:
    """Whether a file begins as a pickle or torch.save's zip does, packed or not, or is called one and is not JSON."""
    head = _beginning(path, LOOK_BYTES)
    kind = kind_of(head)
    if head.startswith(_PICKLE) or (kind is not None and kind.name == "torch_save"):
        return True
    return os.fspath(path).lower().endswith(SNAPSHOT_SUFFIXES) and not begins_as_json(head)


def _beginning(path: str | os.PathLike[str], size: int) -> bytes:
    """The first bytes, unpacked; none of what cannot be read, and of a pipe, which would wait for a writer."""
    try:
        return first_bytes(Path(path), size) if Path(path).is_file() else b""
    except (OSError, ValueError):
        return b""


class _Child:
    """One reading of a pickle in a child process."""

    def __init__(self, path: Path, pickle: Pickle, space: int) -> None:
        self._path = path
        self._pickle = pickle
        self._size = pickle.size
        self._space = space
        self._cpu_s = max(1, -(-self._size // BYTES_PER_CPU_SECOND))
        self._result: tuple[str, dict[str, Array]] | None = None
        self._error: str | None = None
        self._overflow = False
        self._full = False  # this process has no memory for what comes

    def read(self, report: Report) -> tuple[str, dict[str, Array]]:
        limits = [str(value) for value in (self._space, self._cpu_s, self._size)]
        deadline = time.monotonic() + 900 + 100 * self._cpu_s  # only what hangs gets there, however busy the machine
        handle = self._pickle.handle
        with subprocess.Popen(
            [sys.executable, "-I", "-S", str(CHILD), *limits],
            stdin=handle,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
        ) as process:
            assert process.stdout is not None
            reader = threading.Thread(target=self._receive_all, args=(process.stdout,), daemon=True)
            reader.start()
            try:
                while reader.is_alive() and time.monotonic() < deadline:
                    reader.join(0.1)
                    # The child reads through our open file, so that our offset in it is how far it has come.
                    report(0.6 * os.lseek(handle.fileno(), 0, os.SEEK_CUR) / self._size, 1.0, "unpickling")
            finally:
                if reader.is_alive() or self._overflow or self._full:
                    process.kill()
                reader.join()
            code = process.wait()
        if self._full:
            raise MemoryError
        return self._outcome(code)

    def _receive_all(self, stream: IO[bytes]) -> None:
        try:
            self._receive(stream)
        except MemoryError:
            self._full = True

    def _receive(self, stream: IO[bytes]) -> None:
        length = int.from_bytes(stream.read(8), "little")
        if not 0 < length <= 64 * self._size + (1 << 20):
            self._overflow = length > 0
            return
        text = stream.read(length)
        if len(text) < length:
            return
        head = json.loads(text)
        columns: dict[str, Array] = {}
        left = 64 * self._size + (1 << 20)
        for name, code, items in head.get("columns", ()):
            left -= items * native.DTYPES[code].itemsize
            if items < 0 or left < 0:
                self._overflow = True
                return
            columns[name] = column = np.empty(items, native.DTYPES[code])
            if items and stream.readinto(column.data.cast("B")) < column.nbytes:  # type: ignore[attr-defined]  # a file has it
                return
        self._result = text.decode(), columns
        self._error = head.get("error")

    def _outcome(self, code: int) -> tuple[str, dict[str, Array]]:
        if code == 0 and self._result is not None:
            if self._error is None:
                return self._result
            if self._pickle.text and self._error.startswith((NO_PICKLE, CUT_OFF)):
                raise SnapshotFormatError(f"{self._path}: {TEXT}")
            if self._pickle.torch_save and self._error.startswith(OTHER):
                self._error = f"this is a checkpoint of torch.save ({self._error})"
            trusted = "If you trust it, raise the limit with --memory-limit."
            hint = trusted if "MiB of memory" in self._error else HINT
            raise SnapshotFormatError(f"{self._path}: {self._error}. {hint}")
        if code == -getattr(signal, "SIGXCPU", 24):
            why = f"reading it took more than {self._cpu_s} s of processor time"
        elif self._overflow:
            why = "it grows without limit when read"
        else:
            why = f"reading it ended the reading process ({_ending(code)}) within {self._space >> 20} MiB of memory"
        raise SnapshotFormatError(f"{self._path}: {why}, expected {WANTED}. {HINT}")


def _ending(code: int) -> str:
    named = {-one: one.name for one in signal.Signals}
    return f"exit code {code}" if code >= 0 else named.get(code, f"signal {-code}")
