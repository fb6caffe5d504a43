"""Keep a loaded trace in one Parquet file that proves itself (ChromeTrace -> file -> the same ChromeTrace).

Integer arrays with one element per event are Parquet columns (zstd 1, row groups of 256 k, times and ids packed as
deltas, MISSING as a null). All else (strings once, flows, metadata, quality) lies compressed in the footer, next to
the stamp that says what the file was made from and a CRC-32 of the whole file.
"""

from __future__ import annotations

import dataclasses
import io
import json
import math
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import IO, Any, Final

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.parquet as pq
from isal import isal_zlib

from profiler_kit.load.trace import chrome, columns
from profiler_kit.load.trace.events import MISSING

FORMAT: Final = 1  # raise it whenever what is written changes its meaning
ROW_GROUP: Final = 1 << 18
ZSTD_LEVEL: Final = 1
PATH_SEPARATOR: Final = "."

_BODY: Final = b"profiler_kit.body"
_STAMP: Final = b"profiler_kit.stamp"
_SUM: Final = b"profiler_kit.crc32"
_SUM_PREFIX: Final = b"crc32 of this file with zeros here: "
_NO_SUM: Final = b"00000000"


class NotOurs(Exception):
    """The file is no whole Parquet file of this format: cut off, changed, or written by somebody else."""


class Unpackable(Exception):
    """A value of a kind this format cannot hold."""


class Packer:
    """Takes a tree of records, dicts, lists and arrays apart: a JSON tree, arrays beside it, columns of `rows` rows.

    only: the columns' names, where they are known; by themselves any integers, one per row, are a column.
    """

    def __init__(self, rows: int, only: frozenset[str] | None = None) -> None:
        self.rows = rows
        self.only = only
        self.columns: dict[str, npt.NDArray[Any]] = {}
        self.arrays: list[npt.NDArray[Any]] = []

    def pack(self, value: Any, name: str = "") -> Any:
        """The JSON tree of `value`; raises Unpackable for a kind of value that is not known."""
        if value is None or isinstance(value, str | int | float):
            return value
        if isinstance(value, np.ndarray):
            return self._array(value, name)
        if isinstance(value, Path):
            return {"path": str(value)}
        if dataclasses.is_dataclass(value) and not isinstance(value, type):
            fields = {f.name: getattr(value, f.name) for f in dataclasses.fields(value)}
            packed = {key: self.pack(inner, _below(name, key)) for key, inner in fields.items()}
            return {"record": type(value).__name__, "fields": packed}
        if isinstance(value, Mapping):
            items = value.items()
            return {"dict": [[self.pack(k), self.pack(v, _below(name, str(k)))] for k, v in items]}
        if isinstance(value, tuple):
            return {"tuple": [self.pack(inner, _below(name, str(n))) for n, inner in enumerate(value)]}
        if isinstance(value, list):
            if all(type(inner) is str for inner in value):
                return {"strings": value}
            return {"list": [self.pack(inner, _below(name, str(n))) for n, inner in enumerate(value)]}
        raise Unpackable(f"{name}: {type(value).__name__}")

    def _array(self, value: npt.NDArray[Any], name: str) -> Any:
        if value.dtype.kind not in "biuf":
            raise Unpackable(f"{name}: array of {value.dtype}")
        fits = value.shape == (self.rows,) and name not in self.columns
        if fits and (self.only is None or name in self.only):
            self.columns[name] = value
            return {"column": name}
        self.arrays.append(value)
        return {"array": len(self.arrays) - 1}


def unpack(tree: Any, columns: Mapping[str, npt.NDArray[Any]], arrays: list[npt.NDArray[Any]]) -> Any:
    """What Packer.pack took apart."""
    if not isinstance(tree, dict):
        return tree
    if "column" in tree:
        return columns[tree["column"]]
    if "array" in tree:
        return arrays[tree["array"]]
    if "strings" in tree:
        return tree["strings"]
    if "path" in tree:
        return Path(tree["path"])
    if "dict" in tree:
        return {unpack(k, columns, arrays): unpack(v, columns, arrays) for k, v in tree["dict"]}
    if "record" in tree:
        fields = {key: unpack(value, columns, arrays) for key, value in tree["fields"].items()}
        return _record(tree["record"])(**fields)
    values = [unpack(value, columns, arrays) for value in tree["tuple" if "tuple" in tree else "list"]]
    return tuple(values) if "tuple" in tree else values


def _record(name: str) -> type:
    """A dataclass of the loader by its name; a name that is none is nobody's file."""
    kind = getattr(columns, name, None) or getattr(chrome, name, None)
    if not (isinstance(kind, type) and dataclasses.is_dataclass(kind)):
        raise NotOurs(f"unknown record {name!r}")
    return kind


def _below(name: str, key: str) -> str:
    return f"{name}{PATH_SEPARATOR}{key}" if name else key


class Writer:
    """Writes row groups as they come, the rest at the end; memory stays at one row group."""

    def __init__(self, file: Path, stamp: Mapping[str, Any]) -> None:
        self._file = file
        self._stamp = dict(stamp)
        self._writer: pq.ParquetWriter | None = None
        self.rows = 0

    def __enter__(self) -> Writer:
        return self

    def __exit__(self, *_: object) -> None:
        if self._writer is not None:
            self._writer.close()
            self._writer = None

    def add(self, columns: Mapping[str, npt.NDArray[Any]]) -> None:
        """Write one row group of these columns; each call names the same ones."""
        table = pa.table({name: _to_arrow(values) for name, values in columns.items()})
        if self._writer is None:
            self._writer = _open(self._file, table.schema)
        self._writer.write_table(table, row_group_size=ROW_GROUP)
        self.rows += table.num_rows

    def finish(self, tree: Any, arrays: list[npt.NDArray[Any]]) -> None:
        """Write the footer and the checksum."""
        if self._writer is None:
            self._writer = _open(self._file, pa.schema([]))
        kinds = [{"dtype": array.dtype.str, "shape": list(array.shape)} for array in arrays]
        text = json.dumps({"tree": tree, "rows": self.rows, "arrays": kinds}, separators=(",", ":")).encode("ascii")
        raw = b"".join((len(text).to_bytes(8, "little"), text, *map(_array_bytes, arrays)))
        packed = len(raw).to_bytes(8, "little") + pa.Codec("zstd", compression_level=ZSTD_LEVEL).compress(
            raw, asbytes=True
        )
        stamp = json.dumps({**self._stamp, "format": FORMAT}, sort_keys=True).encode("ascii")
        self._writer.add_key_value_metadata({_BODY: packed, _STAMP: stamp})
        self._writer.add_key_value_metadata({_SUM: _SUM_PREFIX + _NO_SUM})
        self._writer.close()
        self._writer = None
        _sign(self._file)


def write_trace(trace: chrome.ChromeTrace, file: Path, stamp: Mapping[str, Any]) -> None:
    """Write a loaded trace to `file`; `stamp` is what read_stamp gives back."""
    packer = Packer(len(trace.columns))
    tree = packer.pack(trace)
    with Writer(file, stamp) as writer:
        for start in range(0, max(packer.rows, 1), ROW_GROUP):
            writer.add({name: values[start : start + ROW_GROUP] for name, values in packer.columns.items()})
        writer.finish(tree, packer.arrays)


def read_trace(file: Path, stamp: Mapping[str, Any]) -> chrome.ChromeTrace:
    """Read what write_trace or a spill wrote.

    Raises NotOurs when the file is damaged, of another format, or made with another stamp, and OSError when it
    cannot be read at all.
    """
    data = file.read_bytes()
    _verify(io.BytesIO(data))
    return _guarded(lambda: _read(pq.ParquetFile(pa.BufferReader(data)), stamp))


def read_tree(file: Path, stamp: Mapping[str, Any]) -> chrome.ChromeTrace:
    """As read_trace in bounded memory: the arrays with one element per event are left empty."""
    with file.open("rb") as handle:
        _verify(handle)
        return _guarded(lambda: _read(pq.ParquetFile(handle), stamp, with_columns=False))


def _guarded(read: Callable[[], Any]) -> chrome.ChromeTrace:
    try:
        trace = read()
    except (pa.ArrowException, ValueError, KeyError, TypeError, IndexError, AttributeError, RecursionError) as error:
        raise NotOurs(str(error)) from error
    if not isinstance(trace, chrome.ChromeTrace):
        raise NotOurs("no trace")
    return trace


def _read(file: pq.ParquetFile, stamp: Mapping[str, Any], *, with_columns: bool = True) -> Any:
    kept = file.metadata.metadata or {}
    if json.loads(kept[_STAMP]) != {**stamp, "format": FORMAT}:
        raise NotOurs("made from another file")
    packed = kept[_BODY]
    raw = memoryview(pa.Codec("zstd").decompress(packed[8:], int.from_bytes(packed[:8], "little"), asbytes=True))
    end = 8 + int.from_bytes(raw[:8], "little")
    body = json.loads(bytes(raw[8:end]))
    arrays = []
    for kind in body["arrays"]:
        arrays.append(_array(raw[end:], np.dtype(kind["dtype"]), kind["shape"]))
        end += arrays[-1].nbytes
    if body["rows"] != file.metadata.num_rows:
        raise NotOurs("another number of rows")
    columns = _columns(file) if with_columns else {name: np.zeros(0, np.int64) for name in file.schema_arrow.names}
    return unpack(body["tree"], columns, arrays)


def _columns(file: pq.ParquetFile) -> dict[str, npt.NDArray[Any]]:
    schema, rows = file.schema_arrow, file.metadata.num_rows
    groups = [file.metadata.row_group(number) for number in range(file.num_row_groups)]
    nulls = [
        {group.column(n).path_in_schema for n in range(group.num_columns) if _all_null(group.column(n))}
        for group in groups
    ]
    columns = {}
    for field in schema:
        dtype = field.type.to_pandas_dtype()
        if nulls and all(field.name in empty for empty in nulls):  # takes no room, as when the trace itself is read
            columns[field.name] = np.broadcast_to(np.array(MISSING, dtype), rows)
        else:
            columns[field.name] = np.empty(rows, dtype)
    start = 0
    for number, (group, empty) in enumerate(zip(groups, nulls, strict=True)):
        end = start + group.num_rows
        table = file.read_row_group(number, columns=[name for name in columns if name not in empty])
        for name, into in columns.items():
            if name not in empty:
                _fill(into[start:end], table[name])
            elif into.flags.writeable:
                into[start:end] = MISSING
        start = end
    return columns


def _all_null(chunk: pq.ColumnChunkMetaData) -> bool:
    statistics = chunk.statistics
    return statistics is not None and statistics.has_null_count and statistics.null_count == chunk.num_values


def _fill(into: npt.NDArray[Any], values: pa.ChunkedArray) -> None:
    start = 0
    for chunk in values.chunks:
        known = chunk.fill_null(MISSING) if chunk.null_count else chunk
        into[start : start + len(chunk)] = known.to_numpy()
        start += len(chunk)


def _to_arrow(values: npt.NDArray[Any]) -> pa.Array:
    return pa.array(values, mask=values == MISSING) if values.dtype == np.int64 else pa.array(values)


def _open(file: Path, schema: pa.Schema) -> pq.ParquetWriter:
    coded = [field.name for field in schema if field.type == pa.int32()]
    packed = [field.name for field in schema if field.type == pa.int64()]
    return pq.ParquetWriter(
        file,
        schema,
        compression="zstd",
        compression_level=ZSTD_LEVEL,
        use_dictionary=coded,
        column_encoding=dict.fromkeys(packed, "DELTA_BINARY_PACKED"),
        store_schema=False,
        write_page_checksum=False,  # the whole file has one
    )


def _array_bytes(array: npt.NDArray[Any]) -> bytes:
    """int64 as differences down the first axis, which compress; they wrap around on overflow, and back again."""
    if array.dtype != np.int64:
        return array.tobytes()
    return np.diff(array, axis=0, prepend=np.zeros((1, *array.shape[1:]), np.int64)).tobytes()


def _array(data: memoryview, dtype: np.dtype[Any], shape: list[int]) -> npt.NDArray[Any]:
    array = np.frombuffer(data, dtype, math.prod(shape)).reshape(shape)
    return np.cumsum(array, axis=0, dtype=np.int64) if dtype == np.int64 else array.copy()


def _sign(file: Path) -> None:
    with file.open("r+b") as handle:
        at, found = _checksum(handle)
        handle.seek(at)
        handle.write(found)


def _verify(handle: IO[bytes]) -> None:
    at, found = _checksum(handle)
    handle.seek(at)
    if handle.read(len(found)) != found:
        raise NotOurs("damaged: another checksum")


def _checksum(handle: IO[bytes]) -> tuple[int, bytes]:
    """Where the checksum stands, and what it must be."""
    size = handle.seek(0, 2)
    handle.seek(max(0, size - 8))
    last = handle.read()  # length of the footer, PAR1
    start = size - 8 - int.from_bytes(last[:4], "little")
    if last[4:] != b"PAR1" or start < 0:
        raise NotOurs("no Parquet file")
    handle.seek(start)
    found = handle.read().rfind(_SUM_PREFIX)
    if found < 0:
        raise NotOurs("no checksum")
    at = start + found + len(_SUM_PREFIX)
    value, left = 0, at
    handle.seek(0)
    while block := handle.read(min(left, 1 << 20)):
        value, left = isal_zlib.crc32(block, value), left - len(block)
    value = isal_zlib.crc32(_NO_SUM, value)
    handle.seek(at + len(_NO_SUM))
    while block := handle.read(1 << 20):
        value = isal_zlib.crc32(block, value)
    return at, b"%08x" % value
