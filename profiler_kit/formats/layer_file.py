"""layers.parquet: the layer calls of a sweep with the whole forwards beside them, written and read in one place."""

from __future__ import annotations

import json
import os
from collections.abc import Collection
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Final

from profiler_kit.errors import RunFormatError
from profiler_kit.files import require_file, whole_file
from profiler_kit.formats.checked import MOST, Count
from profiler_kit.formats.run_record import LAYERS
from profiler_kit.schema import Column, Schema

if TYPE_CHECKING:
    import pandas as pd
    import pyarrow as pa

LAYER_CALLS: Final = Schema(
    "LAYER_CALLS",
    "call of a module, in call order (layers.parquet)",
    {
        "layer": Column("str", 'dotted module path; "(model)" is the module that was timed'),
        "type": Column("str", "class name"),
        "variant": Column("str", 'what sets layers of one type apart ("window 14", "global"); "" when nothing does'),
        "parent": Column("str", 'layer path of the module whose call this call ran inside; "" at the top'),
        "batch_size": Column("int64"),
        "iteration": Column("int64"),
        "call": Column("int64", "counts calls of this layer within the iteration, from 0"),
        "device_ns": Column("Int64", "between CUDA events on the stream; missing on a machine without a GPU"),
        "self_device_ns": Column("Int64", "less the calls made inside it"),
        "host_ns": Column("int64", "perf_counter around the call; on a CPU this is the layer's time"),
        "self_host_ns": Column("int64"),
    },
)

FORWARD_CALLS: Final = Schema(
    "FORWARD_CALLS",
    "whole forward run without hooks, beside the ones that LAYER_CALLS is of",
    {
        "batch_size": Column("int64"),
        "iteration": Column("int64"),
        "forward_ns": Column("int64", "between CUDA events on a GPU, perf_counter on a CPU"),
    },
)


_FORWARDS: Final = b"profiler_kit.forwards"  # keys of the Parquet file's own metadata
_NOTES: Final = b"profiler_kit.notes"
_EXPECTED: Final = "expected a layers.parquet of profiler-kit"
_LONGEST: Final = 10_000  # characters of the name of a layer
_HINT: Final = "Record one with: profiler-kit layers --out DIR"


@dataclass(frozen=True, eq=False)
class LayerFile:
    """calls: LAYER_CALLS. forwards: FORWARD_CALLS, empty when the file has none. notes: what to know about them."""

    calls: pd.DataFrame
    forwards: pd.DataFrame
    notes: tuple[str, ...] = ()


def write_layers(path: str | os.PathLike[str], layers: LayerFile) -> None:
    """Write the file, whole or not at all. The rows are the layer calls; the rest is in the file's metadata."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    table = pa.Table.from_pandas(LAYER_CALLS.check(layers.calls), preserve_index=False)
    forwards = FORWARD_CALLS.check(layers.forwards).to_dict(orient="list")
    extra = {_FORWARDS: json.dumps(forwards).encode(), _NOTES: json.dumps(layers.notes).encode()}
    table = table.replace_schema_metadata({**(table.schema.metadata or {}), **extra})
    with whole_file(path) as temporary:
        pq.write_table(table, temporary, compression="zstd")


def read_layers(path: str | os.PathLike[str]) -> LayerFile:
    """Read a layers.parquet, or that of a run folder.

    Raises InputError when there is no such file, RunFormatError when it is not Parquet or lacks a column.
    """
    import msgspec
    import pyarrow as pa
    import pyarrow.parquet as pq

    target = Path(path) / LAYERS if Path(path).is_dir() else Path(path)
    require_file(target, "a layers.parquet of profiler-kit", _HINT)
    found: list[str] = []
    try:
        schema = pq.read_schema(target)
        found, metadata = schema.names, schema.metadata or {}
        _require(found, LAYER_CALLS)
        _typed(schema.empty_table(), LAYER_CALLS)
        texts = [name for name, column in LAYER_CALLS.columns.items() if column.dtype == "str"]
        file = pq.ParquetFile(target, read_dictionary=texts)  # each text once: a long one must not fill the memory
        if file.metadata.num_rows > target.stat().st_size:  # a row takes some bytes; only one value repeated does not
            raise ValueError(f"{file.metadata.num_rows} rows in {target.stat().st_size} bytes")
        calls = _typed(file.read(list(LAYER_CALLS.columns)), LAYER_CALLS)
        forwards = _forwards(msgspec.json.decode(metadata.get(_FORWARDS, b"{}"), type=dict[str, list[Count]]))
        notes = msgspec.json.decode(metadata.get(_NOTES, b"[]"), type=tuple[str, ...])
    except KeyError as error:
        raise RunFormatError(
            f"{target}: column {error.args[0]!r} is missing, found {found}, {_EXPECTED}. {_HINT}"
        ) from error
    except (ValueError, TypeError, RecursionError) as error:
        if not found:
            raise RunFormatError(f"{target}: not a Parquet file that can be read, {_EXPECTED}. {_HINT}") from error
        reason = str(error).splitlines()[0] if str(error) else type(error).__name__
        raise RunFormatError(f"{target}: a column holds something else ({reason}), {_EXPECTED}. {_HINT}") from error
    except (pa.ArrowException, OSError) as error:
        raise RunFormatError(f"{target}: not a Parquet file that can be read, {_EXPECTED}. {_HINT}") from error
    return LayerFile(calls, forwards, notes)


def _require(found: Collection[str], schema: Schema) -> None:
    """KeyError names the first column that is missing."""
    missing = [name for name in schema.columns if name not in found]
    if missing:
        raise KeyError(missing[0])


def _forwards(columns: dict[str, list[int]]) -> pd.DataFrame:
    """FORWARD_CALLS of the columns; no columns: no rows."""
    import pyarrow as pa

    if not columns:
        return FORWARD_CALLS.empty()
    _require(columns, FORWARD_CALLS)
    return _typed(
        pa.table({name: pa.array(columns[name], pa.int64()) for name in FORWARD_CALLS.columns}), FORWARD_CALLS
    )


def _typed(table: pa.Table, schema: Schema) -> pd.DataFrame:
    """The table as a frame of the schema; ValueError when a column is of another type or holds an impossible value."""
    import pyarrow as pa
    import pyarrow.compute as pc

    most = min(MOST, (1 << 62) // max(len(table), 1))  # so that no sum of a column overflows
    for name, column in schema.columns.items():
        values, is_text, optional = table.column(name), column.dtype == "str", column.dtype == "Int64"
        kind = values.type.value_type if pa.types.is_dictionary(values.type) else values.type
        fits = kind == pa.string() if is_text else pa.types.is_integer(kind) or (optional and kind == pa.null())
        if not fits:
            raise ValueError(f"{name} is {kind}, expected {'string' if is_text else 'int64'}")
        if values.null_count and not optional:
            raise ValueError(f"{name} is empty in {values.null_count} rows")
        low, high = pc.min_max(pc.utf8_length(values.unique().cast(kind)) if is_text else values).as_py().values()
        least = -most if name.startswith("self_") else int(name == "batch_size")
        if low is not None and not least <= low <= high <= (_LONGEST if is_text else most):
            raise ValueError(f"{name} is {f'up to {high} characters long' if is_text else f'{low} to {high}'}")
    return schema.check(table.select(list(schema.columns)).to_pandas().astype(schema.dtypes()))
