"""query: tables, JSON, CSV and one-line errors."""

from __future__ import annotations

import csv
import io
import json
from pathlib import Path

import pytest

from profiler_kit.tables import tables_of
from tests.builders import TraceBuilder
from tests.cli.run import profiler_kit

ROOT = Path(__file__).parents[2]
GOLDEN = ROOT / "tests" / "golden" / "streams_graph.json.gz"
RUN = ROOT / "traces" / "h200-vit_b-bf16-compile"
COLUMNS = "path, path_list, count(*) AS n, sum(dur_ns) AS ns, NULL AS missing"
QUERY = f"SELECT {COLUMNS} FROM gpu_events GROUP BY ALL ORDER BY ns"
HINT = "`profiler-kit query FILE --tables` lists tables and columns."


def test_json_and_csv_hold_the_same_rows() -> None:
    done = profiler_kit("query", GOLDEN, QUERY, "--json")
    assert (done.code, done.err) == (0, "")
    rows = json.loads(done.out)
    assert sum(row["n"] for row in rows) == 11
    assert rows[0]["path_list"] == rows[0]["path"].split(" > ") and rows[0]["missing"] is None
    lines = list(csv.DictReader(io.StringIO(profiler_kit("query", GOLDEN, QUERY, "--csv").out)))
    assert [(line["path"], json.loads(line["path_list"]), int(line["n"]), int(line["ns"])) for line in lines] == [
        (row["path"], row["path_list"], row["n"], row["ns"]) for row in rows
    ]


def test_no_text_of_a_csv_is_a_command(tmp_path: Path) -> None:
    trace = TraceBuilder()
    trace.launch(1, 0)
    for at, name in enumerate(("=cmd|' /C calc'!A0", "+1", "-2", "@SUM(A1)", "a\x1b[31mred\nline", "gemm")):
        trace.kernel(1, 10 + 5 * at, 4, name=name)
    path = trace.write(tmp_path / "t.json")
    right = ["'=cmd|' /C calc'!A0", "'+1", "'-2", "'@SUM(A1)", "a�[31mred�line", "gemm"]
    for arguments in (("kernels", path), ("query", path, "SELECT name FROM gpu_events")):
        rows = csv.DictReader(io.StringIO(profiler_kit(*arguments, "--csv").out))
        assert sorted(row["name"] for row in rows) == sorted(right)


def test_a_table_is_for_reading() -> None:
    done = profiler_kit("query", GOLDEN, "SELECT 'a' AS text, 1234567 AS number, NULL AS nothing")
    assert (done.code, done.err) == (0, "")
    header, _, row = [line.split() for line in done.out.splitlines() if line.strip()]
    assert header == ["text", "number", "nothing"] and row == ["a", "1234567", "–"]
    many = profiler_kit("query", GOLDEN, "SELECT * FROM range(1001)")
    assert many.out.splitlines()[-1] == "1000 of 1001 rows: add LIMIT, or print all with --csv or --json"
    nothing = profiler_kit("query", GOLDEN, "SELECT name FROM events WHERE dur_ns < 0", "--json")
    assert (nothing.code, json.loads(nothing.out)) == (0, [])


def test_without_a_terminal_long_names_are_shortened_and_still_told_apart() -> None:
    names = [f"void {'at::native::' * 20}kernel<{number}>" for number in (1, 2)]
    query = f"SELECT * FROM (VALUES ('{names[0]}', 1), ('{names[1]}', 2)) AS t(name, n)"
    done = profiler_kit("query", GOLDEN, query)
    header, _, *rows, said = [line for line in done.out.splitlines() if line.strip()]
    assert header.split() == ["name", "n"] and len({row.split()[1] for row in rows}) == 2
    assert max(map(len, rows)) < 70 and all("…" in row for row in rows)
    assert said == "Texts are shortened to 60 letters: print them whole with --csv or --json"
    assert [row["name"] for row in json.loads(profiler_kit("query", GOLDEN, query, "--json").out)] == names


def test_a_run_folder_holds_trace_and_snapshot() -> None:
    query = "SELECT (SELECT count(*) FROM gpu_events) AS g, (SELECT count(*) FROM allocations) AS a"
    done = profiler_kit("query", RUN, query, "--json")
    assert done.code == 0 and min(json.loads(done.out)[0].values()) > 0
    snapshot = profiler_kit("query", RUN / "memory.pickle", "SELECT count(*) AS a FROM allocations", "--json")
    assert json.loads(snapshot.out)[0]["a"] == json.loads(done.out)[0]["a"]
    listed = json.loads(profiler_kit("query", RUN, "--tables", "--json").out)
    assert {table["table"] for table in listed} >= {
        *("events", "launches", "gpu_events", "regions", "region_instances", "operators", "threads"),
        *("allocations", "allocator_events", "memory_regions", "memory_segments", "memory_blocks"),
        *("memory_fragmentation", "stacks"),
    }


def test_the_tables_are_listed_without_loading(tmp_path: Path) -> None:
    (tmp_path / "t.json").write_text("no trace at all")
    done = profiler_kit("query", tmp_path / "t.json", "--tables")
    assert (done.code, done.err) == (0, "")
    assert "\n\nevents: one row per complete event" in done.out
    assert "    self_sum_ns  BIGINT " in done.out


TABLES = ", ".join(table.name for table in tables_of("trace"))
EXAMPLE = "SELECT name, sum(dur_ns) AS ns FROM gpu_events GROUP BY name ORDER BY ns DESC LIMIT 10"


@pytest.mark.parametrize(
    ("args", "message"),
    [
        (["SELECT * FROM nope"], f"SQL: no table 'nope', found {TABLES}. {HINT}"),
        (
            ["SELECT 1", "--json", "--csv"],
            "--json --csv: these exclude each other, expected one of them. Leave one out.",
        ),
        (["DROP VIEW a"], f"SQL: found a statement other than SELECT in 'DROP VIEW a', expected one SELECT. {HINT}"),
        ([], f"QUERY: missing, expected one SELECT. Try: profiler-kit query {GOLDEN} '{EXAMPLE}'"),
    ],
)
def test_errors_are_one_line(args: list[str], message: str) -> None:
    done = profiler_kit("query", GOLDEN, *args)
    assert (done.code, done.out, done.err) == (1, "", f"profiler-kit: {message}\n")


def test_a_missing_file_is_said_even_when_no_table_is_asked_for(tmp_path: Path) -> None:
    for args in (["SELECT 1"], ["--tables"]):
        done = profiler_kit("query", tmp_path / "none.json", *args)
        assert (done.code, done.out) == (1, "")
        assert done.err == (
            f"profiler-kit: {tmp_path}/none.json: no such file, expected a chrome trace, a memory snapshot or a run "
            "folder. Record a run with: profiler-kit capture --out DIR\n"
        )


def test_low_memory_answers_from_disk() -> None:
    query = "SELECT category, count(*) AS n, sum(dur_ns) AS ns FROM events GROUP BY ALL ORDER BY category"
    low = profiler_kit("query", GOLDEN, query, "--json", "--low-memory")
    assert (low.code, low.err) == (0, "")
    assert low.out == profiler_kit("query", GOLDEN, query, "--json").out
    regions = profiler_kit("query", GOLDEN, "FROM regions", "--low-memory")
    assert (regions.code, regions.out) == (1, "")
    assert (
        regions.err == f"profiler-kit: SQL: no table 'regions', found events, launches, gpu_events, threads. {HINT}\n"
    )
    listed = json.loads(profiler_kit("query", GOLDEN, "--tables", "--json", "--low-memory").out)
    assert [table["table"] for table in listed] == ["events", "launches", "gpu_events", "threads"]
    snapshot = profiler_kit("query", RUN / "memory.pickle", "SELECT 1", "--low-memory")
    assert snapshot.err == (
        f"profiler-kit: --low-memory: {RUN}/memory.pickle is a memory snapshot, expected a trace. Leave the option "
        "out.\n"
    )
