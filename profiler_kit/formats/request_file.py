"""requests.parquet: what each request to a server waited for, beside the trace of the batches it was in."""

from __future__ import annotations

import os
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Final

from profiler_kit.errors import RunFormatError
from profiler_kit.files import require_file, whole_file
from profiler_kit.schema import Column, Schema

if TYPE_CHECKING:
    import pandas as pd

# In the order in which a request goes through them. Unix nanoseconds, which a trace counts from its base time.
TIMES: Final = ("arrival_ns", "received_ns", "queued_ns", "start_ns", "computed_ns", "done_ns")
SERVED: Final = Schema(
    "SERVED",
    "request to a server (requests.parquet)",
    {
        "id": Column("int64", "counts requests from 0"),
        "batch": Column("int64", "counts batches from 0"),
        "batch_size": Column("int64", "requests in the batch"),
        "status": Column("int64", "of HTTP; 499 when the client hung up"),
        **{name: Column("Int64", "Unix time; missing for what did not happen") for name in TIMES},
    },
)
BATCH: Final = "batch"  # the region around each batch
_WHAT: Final = "a requests.parquet of profiler-kit"
RECORD_THEM: Final = "Record one with: curl -X POST 'http://127.0.0.1:8600/profile?requests=100'"
_LATEST: Final = 1 << 62


def write_requests(path: str | os.PathLike[str], rows: Iterable[Mapping[str, int | None]]) -> None:
    """Write the file, whole or not at all; a row holds the columns of SERVED."""
    import pandas as pd
    import pyarrow as pa
    import pyarrow.parquet as pq

    rows, types = list(rows), SERVED.dtypes()
    # each column by itself: where one value is missing, a frame would make floats of all, which hold 53 bits
    frame = pd.DataFrame({name: pd.Series([row[name] for row in rows], dtype=types[name]) for name in SERVED.columns})
    with whole_file(path) as temporary:
        pq.write_table(pa.Table.from_pandas(SERVED.check(frame), preserve_index=False), temporary)


def read_requests(path: str | os.PathLike[str]) -> pd.DataFrame:
    """SERVED by id. Raises InputError when there is no such file, RunFormatError when it holds something else."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    target = Path(path)
    require_file(target, _WHAT, RECORD_THEM)
    try:
        file = pq.ParquetFile(target)
        if file.metadata.num_rows > target.stat().st_size:  # a row takes some bytes; only one value repeated does not
            raise ValueError(f"{file.metadata.num_rows} rows in {target.stat().st_size} bytes")
        missing = [name for name in SERVED.columns if name not in file.schema_arrow.names]
        if missing:
            raise ValueError(f"column {missing[0]!r} is missing")
        frame = file.read(list(SERVED.columns)).to_pandas().astype(SERVED.dtypes())
        times = frame[list(TIMES)]
        known = times.ffill(axis=1).diff(axis=1).iloc[:, 1:]
        outside = bool((times < 0).any(axis=None)) or bool((times > _LATEST).any(axis=None))
        if frame["arrival_ns"].isna().any() or outside or bool((known < 0).any(axis=None)):
            raise ValueError("its times are missing or run backwards")
        if bool((frame[["id", "batch", "status"]] < 0).any(axis=None)) or bool((frame["batch_size"] < 1).any()):
            raise ValueError("a number is below what it counts from")
    except (ValueError, TypeError, pa.ArrowException, OSError) as error:
        reason = (str(error).splitlines() or [type(error).__name__])[0]
        raise RunFormatError(f"{target}: cannot be read ({reason}), expected {_WHAT}. {RECORD_THEM}") from error
    return SERVED.check(frame.sort_values("id", ignore_index=True))
