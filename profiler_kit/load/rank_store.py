"""Keep what was read of the ranks of a job, so that a thousand of them answer at once.

One folder for each batch of some 64 ranks; in it a Parquet file (zstd) for each table: `ranks`, a row for each file of
the job with what it is or why it could not be read, and the tables of what was in them, whose rows bear the number of
their file. A batch counts once its folder has its name and its `ranks`, which comes last: it is there whole or not at
all, and a killed ingest loses only what it had not finished. Nothing is changed in place. A newer row on a file
replaces the older one; a batch of which all rows were replaced is removed.

A row group holds the rows of many ranks: with one for each rank (of 27 collectives) reading takes 30 times as long.
"""

from __future__ import annotations

import contextlib
import functools
import hashlib
import io
import os
import re
import shutil
import tempfile
import time
import uuid
import weakref
from collections.abc import Iterable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Final

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from profiler_kit.errors import InputError, KitError, OutputError
from profiler_kit.files import folder_beside
from profiler_kit.load import cache
from profiler_kit.load.discover.rank_sources import file_system, holds_a_job, is_address, reached
from profiler_kit.load.job_folder import STORE_SUFFIX

RANKS: Final = "ranks"
BATCH_RANKS: Final = 64
KEEP_OTHERS_S: Final = 3600  # what another version or with other names of communication wrote may be in use so long
_BATCH: Final = re.compile(r"([0-9a-f]{16})-([0-9a-f]{16})-[0-9a-f]{8}")
_GROUP_ROWS: Final = 1 << 17
_READERS: Final = 4


class ReplacedError(InputError):
    """A batch has gone: another process has put the same rows into another one."""


class RankStore:
    """The store of one job at a path or an address; it need not exist.

    code: of what makes the rows. Batches of another one are not read, and go when they are old.
    """

    def __init__(self, root: str, code: str) -> None:
        self.root, self.code = root, code

    def batches(self) -> list[str]:
        """The batches that are whole, oldest first."""
        return [one for one in self.all_batches() if one.split("-")[1] == self.code]

    def ranks(self) -> pa.Table | None:
        """One row for each file that was read, by name, the newest of each; with the `batch` that it is in."""
        every = self.all_batches()
        batches = [one for one in every if one.split("-")[1] == self.code]
        parts = [self._read_whole(batch) for batch in batches]
        rows = [
            part.append_column("batch", pa.array([batch] * len(part), pa.string()))
            for batch, part in zip(batches, parts, strict=True)
            if part is not None  # else its files are read again
        ]
        old = f"{time.time_ns() - KEEP_OTHERS_S * 10**9:016x}"
        if not rows:
            return None
        table = pa.concat_tables(rows)
        newest = {name: row for row, name in enumerate(table["name"].to_pylist())}
        kept = table.take(pa.array([newest[name] for name in sorted(newest)], pa.int64()))
        used = set(kept["batch"].to_pylist())
        self._remove(one for one in every if one not in used and (one in batches or one < old))
        return kept

    def read(self, table: str, ranks: pa.Table) -> pa.Table | None:
        """The rows of a table that are of these rows of `ranks`, whose numbers replace that of the file.

        None where none of them could be read.
        """
        wanted: dict[str, list[tuple[int, int]]] = {}
        columns = (ranks[name].to_pylist() for name in ("batch", "file", "error"))
        for row, (batch, number, error) in enumerate(zip(*columns, strict=True)):
            if not error:
                wanted.setdefault(batch, []).append((number, row))
        parts = [
            _renumbered(found, wanted[batch])
            for batch, found in zip(wanted, self._read_each(table, wanted), strict=True)
        ]
        return pa.concat_tables(parts) if parts else None

    def write(self, tables: Mapping[str, pa.Table]) -> None:
        """Add a batch: `ranks` and the tables of what was in them.

        Raises InputError when an address cannot be written, OutputError when a folder cannot.
        """
        batch = f"{time.time_ns():016x}-{self.code}-{uuid.uuid4().hex[:8]}"
        made = {name: _packed(tables[name]) for name in (*(name for name in tables if name != RANKS), RANKS)}
        if is_address(self.root):
            files, path = file_system(self.root)
            with reached(self.root):
                files.makedirs(f"{path}/{batch}", exist_ok=True)
                for name, data in made.items():
                    files.pipe_file(f"{path}/{batch}/{name}.parquet", data)
            return
        target = Path(self.root) / batch
        try:
            target.parent.mkdir(parents=True, exist_ok=True)
            with folder_beside(target) as folder:
                for name, data in made.items():
                    (folder / f"{name}.parquet").write_bytes(data)
                folder.rename(target)
        except OSError as error:
            raise OutputError(
                f"{self.root}: cannot be written ({error.strerror or error}), expected a folder for what is read of "
                "the ranks. Free some space, or choose another place: --store PATH"
            ) from error

    def compact(self, ranks: pa.Table, tables: Iterable[str]) -> bool:
        """Write anew what many small batches hold, as many processes that read one rank each leave them; whether so."""
        batches = self.batches()
        if len(batches) <= 8 + 4 * len(ranks) // BATCH_RANKS:
            return False
        names = list(tables)
        for at in range(0, len(ranks), BATCH_RANKS):
            part = ranks.slice(at, BATCH_RANKS)
            made = {name: table for name in names if (table := self.read(name, part)) is not None}
            numbers = pa.array(range(len(part)), pa.int64())
            self.write({**made, RANKS: part.drop(["batch"]).set_column(0, "file", numbers)})
        self._remove(batches)
        return True

    def all_batches(self) -> list[str]:
        if is_address(self.root):
            files, path = file_system(self.root)
            with reached(self.root):
                found = files.find(path, maxdepth=2) if files.exists(path) else []
            names = [str(one).split("/")[-2] for one in found if str(one).endswith(f"/{RANKS}.parquet")]
        else:
            names = os.listdir(self.root) if os.path.isdir(self.root) else []  # noqa: PTH112, PTH208
        return sorted(filter(_BATCH.fullmatch, names))

    def _read_each(self, table: str, batches: Iterable[str]) -> list[pa.Table]:
        with ThreadPoolExecutor(_READERS) as pool:
            return list(pool.map(functools.partial(self._read, table), batches))

    def _read_whole(self, batch: str) -> pa.Table | None:
        """The `ranks` of a batch; None where they are damaged, or another process has just removed them."""
        with contextlib.suppress(InputError):
            return self._read(RANKS, batch)
        return None

    def _read(self, table: str, batch: str) -> pa.Table:
        where = f"{self.root}/{batch}/{table}.parquet"
        try:
            if not is_address(self.root):
                return _unpacked(Path(where).read_bytes())  # Arrow opens no path that is not UTF-8
            files, path = file_system(where)
            return _unpacked(files.cat_file(path))
        except FileNotFoundError as error:
            raise ReplacedError(
                f"{where}: is no longer there, expected what was read of ranks. Load them again."
            ) from error
        except (OSError, pa.ArrowException) as error:
            raise InputError(
                f"{where}: cannot be read ({' '.join(str(error).split())[:200]}), expected a file that profiler-kit "
                f"wrote. Remove {self.root}: what it held is then read from the traces again."
            ) from error

    def _remove(self, batches: Iterable[str]) -> None:
        for batch in batches:
            with contextlib.suppress(OSError, KitError):
                if is_address(self.root):
                    files, path = file_system(self.root)
                    files.rm(f"{path}/{batch}", recursive=True)
                else:
                    shutil.rmtree(f"{self.root}/{batch}")


def is_store(path: str | Path) -> bool:
    """Whether it is a folder, or an address, that a RankStore has written to."""
    if is_address(path):
        root = str(path).rstrip("/")
        return root.endswith(STORE_SUFFIX) and bool(RankStore(root, "").all_batches())
    found = Path(path)
    return found.name.endswith(STORE_SUFFIX) and os.path.isdir(found) and any(map(_BATCH.fullmatch, os.listdir(found)))  # noqa: PTH112, PTH208


def is_job(path: Path) -> bool:
    """Whether it holds the traces of several ranks, or what was read of them."""
    return is_store(path) or holds_a_job(path)


def _renumbered(table: pa.Table, wanted: Sequence[tuple[int, int]]) -> pa.Table:
    """The rows of each file that is wanted, which are together, by ascending number, with the other number instead."""
    file = table["file"].to_numpy()
    number, new = np.array(wanted, dtype=np.int64).T
    first, end = np.searchsorted(file, number, "left"), np.searchsorted(file, number, "right")
    at = np.concatenate([np.arange(*one) for one in zip(first.tolist(), end.tolist(), strict=True)])
    if len(at) < len(file) or (at[1:] < at[:-1]).any():
        table = table.take(pa.array(at))
    return table.set_column(0, "file", pa.array(np.repeat(new, end - first)))


def _unpacked(data: bytes) -> pa.Table:
    """The table of a file.

    From a buffer of Arrow's, by this thread alone: a thread of its own that still lets go of something of Python's when
    the process ends ends it with `terminate called without an active exception`.
    """
    held = pa.allocate_buffer(len(data))
    memoryview(held).cast("B")[:] = data
    return pq.ParquetFile(pa.BufferReader(held)).read(use_threads=False)


def _packed(table: pa.Table) -> bytes:
    out = io.BytesIO()
    pq.write_table(table, out, compression="zstd", row_group_size=_GROUP_ROWS)
    return out.getvalue()


def store_of(folder: str, code: str, *, beside: bool, chosen: str | None = None) -> RankStore:
    """The store of a job's folder: the chosen one; else JOB.ranks beside it, which is made if `beside`; else in the
    cache; without a cache one that lasts as long as the object.
    """
    own = folder.rstrip("/") + STORE_SUFFIX
    if chosen is not None:
        return RankStore(chosen.rstrip("/"), code)
    if not is_address(folder) and (_writable(own) if os.path.isdir(own) else beside and _writable(Path(own).parent)):  # noqa: PTH112
        return RankStore(own, code)
    kept = cache.cache_folder()
    if kept is not None and cache.limit_bytes():
        with contextlib.suppress(OSError):
            kept.mkdir(parents=True, exist_ok=True, mode=0o700)
            if _writable(kept):
                here = kept / (hashlib.sha256(os.fsencode(folder)).hexdigest()[:32] + STORE_SUFFIX)
                cache.touch(here)
                return RankStore(str(here), code)
    held = tempfile.mkdtemp(prefix="profiler_kit-")
    store = RankStore(f"{held}/job{STORE_SUFFIX}", code)
    weakref.finalize(store, shutil.rmtree, held, True)
    return store


def _writable(path: str | Path) -> bool:
    return os.access(path, os.W_OK | os.X_OK)
