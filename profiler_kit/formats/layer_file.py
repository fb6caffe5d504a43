"""layers.parquet: the layer calls of a sweep with the whole forwards beside them, written and read in one place."""

from __future__ import annotations

import json
import os
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Final

from profiler_kit.errors import RunFormatError
from profiler_kit.files import require_file, whole_file
from profiler_kit.formats.run_record import LAYERS
from profiler_kit.schema import Column, Schema

if TYPE_CHECKING:
    import pandas as pd

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
    import pyarrow as pa
    import pyarrow.parquet as pq

    target = Path(path) / LAYERS if Path(path).is_dir() else Path(path)
    require_file(target, "a layers.parquet of profiler-kit", _HINT)
    try:
        table = pq.read_table(target)
    except (pa.ArrowException, OSError) as error:
        raise RunFormatError(f"{target}: not a Parquet file that can be read, {_EXPECTED}. {_HINT}") from error
    metadata = table.schema.metadata or {}
    try:
        calls = _typed(table.to_pandas(), LAYER_CALLS)
        forwards = _typed(json.loads(metadata.get(_FORWARDS, b"{}")), FORWARD_CALLS)
        notes = tuple(str(note) for note in json.loads(metadata.get(_NOTES, b"[]")))
    except KeyError as error:
        raise RunFormatError(
            f"{target}: column {error.args[0]!r} is missing, found {table.column_names}, {_EXPECTED}. {_HINT}"
        ) from error
    except (ValueError, TypeError) as error:
        reason = str(error).splitlines()[0] if str(error) else type(error).__name__
        raise RunFormatError(f"{target}: a column holds something else ({reason}), {_EXPECTED}. {_HINT}") from error
    return LayerFile(calls, forwards, notes)


def _typed(columns: pd.DataFrame | dict[str, list[int]], schema: Schema) -> pd.DataFrame:
    """The columns of the schema in its dtypes; KeyError names the first that is missing. No columns: no rows."""
    import pandas as pd

    frame = pd.DataFrame(columns)
    if not len(frame.columns):
        return schema.empty()
    wanted = schema.dtypes()
    missing = [name for name in wanted if name not in frame.columns]
    if missing:
        raise KeyError(missing[0])
    return schema.check(frame.astype(wanted))
