"""Load a snapshot once: a path in, the same SnapshotData out, from a cache file when it has been read before.

The file holds what the reading process handed back, one list a column, and is checked like that (SnapshotBuilder).
Where it is, how long it is used and how much is kept: store.py.
"""

from __future__ import annotations

import contextlib
import json
import os
import time
from typing import Any, Final

import numpy as np

from profiler_kit.errors import KitError
from profiler_kit.files import require_file, whole_file
from profiler_kit.load.cache import store
from profiler_kit.load.snapshot.frames import HINT, WANTED, Array, SnapshotBuilder, SnapshotData
from profiler_kit.load.snapshot.reader import read_columns
from profiler_kit.progress import Report, silent

SMALLEST_BYTES: Final = 8 << 20  # below, a load takes some quarter of a second (by benchmarks/snapshot.py)
_KEY: Final = b"profiler_kit.snapshot"
_VERSION: Final = 1
_CODES: Final = {"int8": "b", "int32": "i", "int64": "q", "uint64": "Q"}


class NotOurs(Exception):
    """The file is not what was written for this snapshot."""


def load_snapshot_data(
    path: str | os.PathLike[str], *, memory_limit_bytes: int | None = None, report: Report = silent
) -> SnapshotData:
    """What read_snapshot gives, from the cache when it can; a large snapshot is kept there afterwards.

    Raises what read_snapshot raises, and OptionError when PROFILER_KIT_CACHE_LIMIT is no size.
    """
    file = require_file(path, WANTED, HINT)
    entry = store.find_entry(file, smallest=SMALLEST_BYTES)
    if entry is not None:
        with contextlib.suppress(NotOurs, OSError, KitError):
            head, columns = _read(entry)
            data = SnapshotBuilder(file, head, columns).build()
            with contextlib.suppress(OSError):
                os.utime(entry.file)  # used last now
            report(1.0, 1.0, "read")
            return data
    began_ns = time.time_ns()
    head, columns = read_columns(file, memory_limit_bytes=memory_limit_bytes, report=report)
    report(0.95, 1.0, "building tables")
    data = SnapshotBuilder(file, head, columns).build()
    settled = entry is not None and entry.stamp["mtime_ns"] < began_ns - store.SETTLED_NS
    if entry is not None and settled and store.find_entry(file, smallest=SMALLEST_BYTES) == entry:
        _keep(entry, head, columns)
    report(1.0, 1.0, "read")
    return data


def _keep(entry: store.Entry, head: dict[str, Any], columns: dict[str, Array]) -> None:
    """Write the cache file, whole or not at all, and make room for it; without it where that cannot be done."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    lists = {}
    for name, column in columns.items():
        offsets = pa.array([0, len(column)], pa.int64())
        lists[name] = pa.LargeListArray.from_arrays(offsets, pa.array(column))
    note = json.dumps({"version": _VERSION, "stamp": entry.stamp, "head": head}).encode()
    table = pa.table(lists).replace_schema_metadata({_KEY: note})
    with contextlib.suppress(OSError, KitError, pa.ArrowException), store.WRITING:
        entry.file.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
        with whole_file(entry.file) as temporary:
            pq.write_table(table, temporary, compression="zstd", compression_level=1, use_dictionary=False)
        store.make_room(entry.file.parent, store.limit_bytes())


def _read(entry: store.Entry) -> tuple[dict[str, Any], dict[str, Array]]:
    """The head and the columns of a cache file; raises NotOurs when it is another snapshot's or broken."""
    if not entry.file.is_file():
        raise NotOurs
    import pyarrow as pa
    import pyarrow.parquet as pq

    try:
        table = pq.read_table(entry.file, memory_map=False)
        note = json.loads((table.schema.metadata or {})[_KEY])
        if note["version"] != _VERSION or note["stamp"] != entry.stamp:
            raise NotOurs
        columns = {}
        for name, code, items in note["head"]["columns"]:
            column = table[name].combine_chunks().flatten().to_numpy()
            if _CODES.get(str(column.dtype)) != code or len(column) != items or column.ndim != 1:
                raise NotOurs
            columns[name] = np.ascontiguousarray(column)
        return note["head"], columns
    except (pa.ArrowException, KeyError, TypeError, ValueError, AttributeError) as error:
        raise NotOurs from error
