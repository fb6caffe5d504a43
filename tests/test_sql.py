"""SQL over traces and snapshots: documented tables, exact integers, and nothing to be reached outside of them."""

from __future__ import annotations

from pathlib import Path

import pandas as pd
import pyarrow as pa
import pytest

from profiler_kit import sql_tables
from profiler_kit.errors import OptionError
from profiler_kit.snapshot import load_snapshot
from profiler_kit.sql import HINT, database, select, tables_of
from profiler_kit.sql_tables import SNAPSHOT_TABLES, TRACE_TABLES, Table, describe, snapshot_sources, trace_sources
from profiler_kit.trace import Trace, load_trace
from tests.builders import TraceBuilder, real_traces

GOLDEN = Path(__file__).parent / "golden" / "streams_graph.json.gz"
RUN = Path(__file__).parents[1] / "traces" / "h200-vit_b-bf16-compile"


def small(tmp_path: Path) -> Trace:
    trace = TraceBuilder()
    trace.region("step", 0, 100)
    trace.region("encoder > late", 10, 20)
    trace.operator("aten::mm", 11, 5)
    trace.launch(1, 12)
    trace.kernel(1, 40, 7)
    trace.launch(2, 50, name="cudaMemcpyAsync")
    trace.span("gpu_memcpy", "Memcpy HtoD", 60, 3, 7, correlation=2, device=0, stream=7, bytes=4096)
    trace.launch(3, 70, name="cudaDeviceSynchronize")
    trace.kernel(None, 80, 1, name="lost")
    return load_trace(trace.write(tmp_path / "t.json"))


def test_a_query_sees_events_launches_and_gpu_events(tmp_path: Path) -> None:
    trace = small(tmp_path)
    found = trace.sql("SELECT name, dur_ns, bytes, path, path_list, operator, stream FROM gpu_events ORDER BY start_ns")
    assert found.to_dict("list") == {
        "name": ["gemm", "Memcpy HtoD", "lost"],
        "dur_ns": [7000, 3000, 1000],
        "bytes": [None, 4096, None],
        "path": ["step > encoder > late", "step", "(unlinked)"],
        "path_list": [["step", "encoder > late"], ["step"], ["(unlinked)"]],
        "operator": ["aten::mm", None, None],
        "stream": [7, 7, 7],
    }
    launches = trace.sql("SELECT name, correlation, gpu_events, gpu_ns, path FROM launches")
    assert [tuple(row) for row in launches.itertuples(index=False)] == [
        ("cudaLaunchKernel", 1, 1, 7000, "step > encoder > late"),
        ("cudaMemcpyAsync", 2, 1, 3000, "step"),
        ("cudaDeviceSynchronize", 3, 0, 0, "step"),
    ]
    joined = trace.sql(
        "SELECT e.name, g.start_ns - e.end_ns AS wait FROM gpu_events g JOIN events e ON e.event = g.launch"
    )
    assert sorted(zip(joined["name"], joined["wait"], strict=True)) == [
        ("cudaLaunchKernel", 27_000),
        ("cudaMemcpyAsync", 9_000),
    ]


@pytest.mark.parametrize("path", [GOLDEN, *real_traces()], ids=lambda path: "/".join(path.parts[-2:]))
def test_sums_in_sql_equal_those_of_the_frames(path: Path) -> None:
    trace = load_trace(path)
    assert trace.sql("SELECT sum(dur_ns) FROM gpu_events").iloc[0, 0] == trace.gpu_events()["dur_ns"].sum()
    assert trace.sql("SELECT sum(self_sum_ns) FROM regions").iloc[0, 0] == trace.gpu_events()["dur_ns"].sum()
    counts = trace.sql("SELECT (SELECT count(*) FROM events) e, (SELECT sum(gpu_events) FROM launches) g")
    linked = trace.gpu_events()["launch"].notna().sum()
    assert counts.iloc[0].tolist() == [len(trace.columns), linked]


def assert_documented(tables: tuple[Table, ...], sources: dict[str, object]) -> None:
    assert [table.name for table in tables] == list(sources)
    for table in tables:
        found = select(f"DESCRIBE SELECT * FROM {table.name}", sources)  # type: ignore[arg-type]
        assert dict(zip(found["column_name"], found["column_type"], strict=True)) == {
            name: kind for name, (kind, _) in table.columns.items()
        }
        assert list(found["column_name"]) == list(table.columns)
        assert len(select(f"SELECT * FROM {table.name} LIMIT 1", sources).columns) == len(table.columns)  # type: ignore[arg-type]


@pytest.mark.parametrize("path", [GOLDEN, *real_traces()[:3]], ids=lambda path: path.name)
def test_the_tables_of_a_trace_are_as_documented(path: Path) -> None:
    assert_documented(TRACE_TABLES, dict(trace_sources(load_trace(path))))


def test_the_tables_of_a_snapshot_are_as_documented() -> None:
    snapshot = load_snapshot(RUN / "memory.pickle")
    sources = snapshot_sources(snapshot)
    assert_documented(SNAPSHOT_TABLES, dict(sources))
    found = snapshot.sql("SELECT count(*) n, sum(size_bytes) b FROM allocations")
    assert found.iloc[0].tolist() == [len(snapshot.allocations()), snapshot.allocations()["size_bytes"].sum()]


def test_a_trace_without_gpu_events_has_empty_tables(tmp_path: Path) -> None:
    trace = TraceBuilder()
    trace.operator("aten::mm", 0, 5)
    assert_documented(TRACE_TABLES, dict(trace_sources(load_trace(trace.write(tmp_path / "cpu.json")))))


def test_arguments_asked_for_become_columns(tmp_path: Path) -> None:
    builder = TraceBuilder()
    builder.operator("aten::mm", 0, 5, **{"Input Dims": [[2, 3]]})
    trace = load_trace(builder.write(tmp_path / "t.json"), arguments=["input_dims"])
    assert trace.sql("SELECT input_dims FROM events")["input_dims"].tolist() == ["[[2, 3]]"]


def test_the_description_names_every_table_and_column() -> None:
    text = describe(TRACE_TABLES)
    for table in TRACE_TABLES:
        assert f"{table.name}: one row per " in text
        assert all(f"    {column} " in text for column in table.columns)


def test_the_modules_help_lists_the_columns() -> None:
    text = sql_tables.__doc__ or ""
    for table in (*TRACE_TABLES, *SNAPSHOT_TABLES):
        assert all(f"    {column} " in text for column in table.columns)


def numbers() -> pa.Table:
    return pa.table({"x": pa.array([1, None, 1 << 62], pa.int64()), "y": pa.array([True, None, False])})


def test_integers_stay_integers() -> None:
    sources = {"t": numbers}
    found = select("SELECT x, x, y, [x] AS l FROM t", sources)
    assert found.dtypes.astype(str).to_dict() == {"x": "Int64", "x_1": "Int64", "y": "boolean", "l": "object"}
    assert found["x"].tolist() == [1, pd.NA, 1 << 62]
    assert found["l"].tolist() == [[1], [None], [1 << 62]]
    big = select("SELECT sum(x) AS fits, sum(x::HUGEINT) * 4 AS not64, avg(x) AS mean, 1.5 AS d FROM t", sources)
    assert big["fits"].tolist() == [(1 << 62) + 1] and str(big["fits"].dtype) == "int64"
    assert big["not64"].tolist() == [(1 << 64) + 4]
    assert big["d"].tolist() == [1.5]
    empty = select("SELECT x FROM t WHERE x = 7", sources)
    assert empty["x"].dtype == "int64" and len(empty) == 0


def test_only_the_tables_that_are_named_are_filled() -> None:
    def never() -> pa.Table:
        raise AssertionError("filled")

    assert select("WITH a AS (FROM T) SELECT count(*) AS n FROM a", {"t": numbers, "u": never})["n"].tolist() == [3]


@pytest.mark.parametrize(
    "query",
    [
        "SELECT * FROM read_csv('/etc/hostname')",
        "SELECT * FROM read_text('/etc/hostname')",
        "SELECT * FROM '/etc/hostname.csv'",
        'SELECT * FROM "/etc/hostname.csv"',
        "SELECT * FROM glob('/*')",
        "SELECT * FROM sniff_csv('/etc/hostname')",
        "SELECT * FROM parquet_metadata('/etc/hostname')",
        "SELECT * FROM read_csv('https://example.com/x.csv')",
        "SELECT (SELECT max(content) FROM read_text('/etc/hostname'))",
        "SELECT * FROM t WHERE x IN (SELECT size FROM read_blob('/etc/hostname'))",
        "WITH a AS (SELECT * FROM read_text('/etc/hostname')) SELECT * FROM a",
        "SELECT * FROM query('SELECT 1')",
        "SELECT * FROM query_table('t')",
        "SELECT * FROM json_execute_serialized_sql('{}')",
        "SELECT * FROM enable_logging(storage='file', storage_path='log')",
        "SELECT * FROM enable_profiling(save_location='x')",
        "SELECT * FROM arrow_scan(1::UBIGINT::POINTER, 2, 3)",
        "SELECT * FROM arrow_scan(1, 2, 3)",
        "SELECT * FROM pandas_scan(1)",
        "SELECT * FROM which_secret('a', 'b')",
        "SELECT * FROM secret_of_the_caller",
        "SELECT getenv('HOME')",
        "COPY t TO 'x.csv'",
        "COPY (SELECT 1) TO '/dev/stdout'",
        "ATTACH 'x.db'",
        "INSTALL httpfs",
        "LOAD httpfs",
        "SET memory_limit = '100GB'",
        "PRAGMA database_list",
        "CREATE TABLE a AS SELECT 1",
        "EXPORT DATABASE 'x'",
        "DROP VIEW t",
        "WITH a AS (DELETE FROM t RETURNING *) SELECT * FROM a",
        "SELECT 1; COPY t TO 'x.csv'",
        "CALL enable_logging()",
    ],
)
def test_nothing_outside_the_tables_can_be_reached(query: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    secret_of_the_caller = pd.DataFrame({"a": [1]})
    with pytest.raises(OptionError, match=r"^SQL: [^\n]*$"):
        select(query, {"t": numbers})
    assert list(tmp_path.iterdir()) == [] and len(secret_of_the_caller) == 1


def test_the_settings_hold_even_for_what_the_check_would_miss(tmp_path: Path) -> None:
    with database(1 << 28) as connection:
        for query in ("SELECT * FROM read_text('/etc/hostname')", "COPY (SELECT 1) TO 'x.csv'", "SET threads = 1"):
            with pytest.raises(Exception, match=r"disabled by configuration|has been locked"):
                connection.execute(query)


@pytest.mark.parametrize(
    ("query", "message"),
    [
        (
            "SELECT nope FROM t",
            'SQL: Referenced column "nope" not found in FROM clause! Candidate bindings: "x" in '
            "'SELECT nope FROM t'. " + HINT,
        ),
        ("SELECT * FROM nope", "SQL: no table 'nope', found t. " + HINT),
        ("SELEC 1", "SQL: syntax error at or near \"SELEC\" in 'SELEC 1'. " + HINT),
        ("", "SQL: found 0 statements in '', want one SELECT. " + HINT),
        ("SELECT 1; SELECT 2", "SQL: found 2 statements in 'SELECT 1; SELECT 2', want one SELECT. " + HINT),
        (
            "DROP VIEW t",
            "SQL: found another statement than SELECT in 'DROP VIEW t', want one SELECT. " + HINT,
        ),
        ("SELECT * FROM glob('*')", "SQL: the table function 'glob' is not allowed, want tables only. " + HINT),
        ("SELECT\n 'a'::int", "SQL: Could not convert string 'a' to INT32 in \"SELECT 'a'::int\". " + HINT),
    ],
)
def test_errors_are_one_line(query: str, message: str) -> None:
    with pytest.raises(OptionError) as caught:
        select(query, {"t": numbers})
    assert str(caught.value) == message


def test_memory_is_limited() -> None:
    query = "SELECT * FROM range(1000000000) ORDER BY hash(range)"
    with pytest.raises(OptionError) as caught:
        select(query, {}, memory_limit_bytes=64 << 20)
    assert str(caught.value) == (
        f"SQL: the query needs more memory than the 64 MiB it is given, in {query!r}. "
        "Aggregate or filter earlier, or take the frames of the Python API."
    )


def test_the_tables_a_query_names_are_found_wherever_they_stand() -> None:
    with database(1 << 28) as connection:
        query = (
            'WITH a AS (SELECT * FROM Events) SELECT *, (SELECT max(x) FROM regions) FROM a JOIN "threads" USING (t)'
        )
        assert {"events", "regions", "threads"} <= tables_of(query, connection)
        assert tables_of("SUMMARIZE events", connection) == {"events"}
