"""SQL over traces and snapshots: documented tables, exact integers, and nothing to be reached outside of them."""

from __future__ import annotations

from pathlib import Path

import pandas as pd
import pyarrow as pa
import pytest

from profiler_kit.errors import OptionError
from profiler_kit.snapshot import load_snapshot
from profiler_kit.sql import HINT, database, select, tables_of, to_frame
from profiler_kit.sql_arrow import describe, sources, sql_columns
from profiler_kit.table import Of
from profiler_kit.tables import tables_of as declared
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


def assert_documented(of: Of, source: object) -> None:
    filled = sources(of, source)
    tables = declared(of)
    assert [table.name for table in tables] == list(filled)
    with database(1 << 30) as connection:
        for table in tables:
            connection.register(table.name, filled[table.name]())
            found = connection.execute(f"DESCRIBE {table.name}").fetchall()
            assert [tuple(row[:2]) for row in found] == [(name, kind) for name, (kind, _) in sql_columns(table).items()]
            row = connection.sql(f"SELECT * FROM {table.name} LIMIT 1").to_arrow_table()
            assert len(to_frame(row).columns) == len(found)


@pytest.mark.parametrize("path", [GOLDEN, *real_traces()[:3]], ids=lambda path: path.name)
def test_the_tables_of_a_trace_are_as_documented(path: Path) -> None:
    assert_documented("trace", load_trace(path))


def test_the_tables_of_a_snapshot_are_as_documented() -> None:
    snapshot = load_snapshot(RUN / "memory.pickle")
    assert_documented("snapshot", snapshot)
    found = snapshot.sql("SELECT count(*) n, sum(size_bytes) b FROM allocations")
    assert found.iloc[0].tolist() == [len(snapshot.allocations()), snapshot.allocations()["size_bytes"].sum()]


def test_a_trace_without_gpu_events_has_empty_tables(tmp_path: Path) -> None:
    trace = TraceBuilder()
    trace.operator("aten::mm", 0, 5)
    assert_documented("trace", load_trace(trace.write(tmp_path / "cpu.json")))


# What queries were written against before the tables were declared in one place.
KEPT = {
    "events": "event name category thread start_ns dur_ns end_ns correlation external_id device stream sequence_number "
    "forward_thread python_id python_parent_id bytes collective",
    "launches": "event name category thread start_ns dur_ns end_ns correlation gpu_events gpu_ns path path_list",
    "gpu_events": "event name category process device stream start_ns dur_ns end_ns correlation bytes launch "
    "launch_start_ns launch_end_ns launch_thread instance path path_list forward_path forward_path_list communication "
    "operator_event operator "
    "outer_operator_event outer_operator module modules modules_list since_launch_ns launch_delay_ns queue_ns "
    "latency_ns previous_end_ns",
    "regions": "path path_list instances gpu_events sum_ns busy_ns span_ns self_sum_ns host_ns launches",
    "region_instances": "instance event name step path path_list parent thread start_ns end_ns gpu_start_ns gpu_end_ns",
    "operators": "event name thread start_ns dur_ns end_ns self_ns depth parent path path_list",
    "threads": "thread pid tid label process",
    "allocations": "allocation device address size_bytes stream stack alloc_event free_event alloc_us free_us",
    "allocator_events": "event device action address size_bytes stream time_us stack device_free_bytes pool "
    "user_metadata compile_context category",
    "memory_regions": "device path path_list instances peak_bound peak_bytes allocated_bytes freed_bytes net_bytes "
    "churn_bytes largest_bytes largest_stack",
    "memory_segments": "device segment address size_bytes stream segment_type pool expandable from_state to_state",
    "memory_blocks": "device segment address size_bytes allocation from_state to_state",
    "memory_fragmentation": "device time_us allocated_bytes active_bytes reserved_bytes largest_free_bytes "
    "inactive_split_bytes",
    "stacks": "stack frames",
}


def test_names_and_columns_stay() -> None:
    tables = {table.name: list(sql_columns(table)) for of in ("trace", "snapshot") for table in declared(of)}
    kept = {name: columns.split() for name, columns in KEPT.items()}
    assert {name: tables[name][: len(columns)] for name, columns in kept.items()} == kept  # new ones stand behind


def test_arguments_asked_for_become_columns(tmp_path: Path) -> None:
    builder = TraceBuilder()
    builder.operator("aten::mm", 0, 5, **{"Input Dims": [[2, 3]]})
    trace = load_trace(builder.write(tmp_path / "t.json"), arguments=["input_dims"])
    assert trace.sql("SELECT input_dims FROM events")["input_dims"].tolist() == ["[[2,3]]"]


def test_the_description_names_every_table_and_column() -> None:
    text = describe(declared("trace"))
    for table in declared("trace"):
        assert f"{table.name}: one row per " in text
        assert all(f"    {column} " in text for column in sql_columns(table))


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
        ("", "SQL: found 0 statements in '', expected one SELECT. " + HINT),
        ("SELECT 1; SELECT 2", "SQL: found 2 statements in 'SELECT 1; SELECT 2', expected one SELECT. " + HINT),
        (
            "DROP VIEW t",
            "SQL: found a statement other than SELECT in 'DROP VIEW t', expected one SELECT. " + HINT,
        ),
        ("SELECT * FROM glob('*')", "SQL: the table function 'glob' is not allowed, expected tables only. " + HINT),
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
