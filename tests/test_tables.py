"""Every declared table on every surface: columns explained, keys as declared, and the same numbers everywhere."""

from __future__ import annotations

import csv
import functools
import importlib
import io
import json
import math
import pkgutil
import re
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from markupsafe import escape

from app.parts.tables import _FIT_PX as FIT_PX
from app.parts.tables import _frame as dashboard_frame
from app.parts.tables import _heading_px as heading_px
from docs.generate import tables as reference_tables
from profiler_kit import tables
from profiler_kit.analyses.compare.snapshots import compare_snapshots
from profiler_kit.errors import OptionError
from profiler_kit.findings.doctor import examine
from profiler_kit.findings.no_rows import no_rows
from profiler_kit.formats.ladder_record import read_ladder
from profiler_kit.formats.load_file import read_load
from profiler_kit.formats.study_file import read_study
from profiler_kit.joined import join_run
from profiler_kit.load.discover.runs import find_runs
from profiler_kit.load.flight.reader import read_dumps
from profiler_kit.load.trace.file_facts import load_file_facts
from profiler_kit.ranks import load_ranks
from profiler_kit.render.html import table_html
from profiler_kit.render.layout import layout
from profiler_kit.render.markdown import plain, table_markdown
from profiler_kit.render.text_table import filled_lines
from profiler_kit.run import Run, compare_runs, load_run
from profiler_kit.snapshot import load_snapshot
from profiler_kit.sql_arrow import sql_columns
from profiler_kit.table import Filled, Table, is_missing
from profiler_kit.tables import every_table
from profiler_kit.text import MISSING
from profiler_kit.trace import Trace, load_trace
from profiler_kit.trend import load_trend
from tests.app.samples import host_trace
from tests.builders import TraceBuilder
from tests.cli.run import profiler_kit
from tests.flight_dumps import two
from tests.ladders import a_ladder
from tests.serving.samples import a_load, served_run

HERE = Path(__file__).parent
GOLDEN = HERE / "golden"
RUN = HERE.parent / "traces" / "h200-vit_b-bf16-compile"


@functools.cache
def traces() -> list[Trace]:
    """A large one, and one with copies, communication and modules."""
    return [load_trace(path, arguments=["input_dims"]) for path in (RUN / "trace.json.gz", Path(small()))]


@functools.cache
def small(folder: str = "") -> str:
    trace = TraceBuilder()
    trace.region("step", 0, 50)
    trace.operator("aten::linear", 0, 30, **{"Input Dims": [[8, 4]]})
    trace.span("python_function", "nn.Module: Linear_0", 0, 40)
    for correlation, name in enumerate(("gemm", "bias"), start=1):
        trace.launch(correlation, correlation)
        trace.kernel(correlation, 10 * correlation, 8, name=name)
    trace.kernel(3, 24, 10, name="ncclDevKernel_AllReduce", stream=9)
    copy = trace.kernel(None, 60, 4, name="Memcpy HtoD (Pinned -> Device)")
    copy["cat"] = "gpu_memcpy"
    copy["args"]["bytes"] = 4096
    return str(trace.write(Path(folder or tempfile.mkdtemp()) / "rank0.json"))


def cut_off() -> Path:
    path = Path(small()).with_name("cut.json")
    whole = Path(small()).read_bytes()
    path.write_bytes(whole[: whole.rindex(b'"cat": "kernel"')])
    return path


@functools.cache
def jobs() -> list[Any]:
    return [load_ranks({0: small(), 1: small()})]


@functools.cache
def runs() -> tuple[Run, Run]:
    return load_run(RUN.with_name("h200-vit_b-eager-fp32")), load_run(RUN)


def two_runs(folder: Path) -> Path:
    """The runs of two days, of a rank each."""
    for day in ("monday", "tuesday"):
        (folder / day).mkdir()
        (folder / day / "rank0.json").write_bytes(Path(small()).read_bytes())
    return folder


SOURCES: dict[str, Callable[[], list[Any]]] = {
    "trace": traces,
    "snapshot": functools.cache(lambda: [load_snapshot(RUN / "memory.pickle")]),
    "joined": functools.cache(
        lambda: [join_run(load_trace(GOLDEN / "joined_h200.json.gz"), load_snapshot(GOLDEN / "joined_h200.pickle"))]
    ),
    "job": jobs,
    "file": functools.cache(
        lambda: [examine(path, None, load_trace(path), load_file_facts(path)) for path in (Path(small()), cut_off())]
    ),
    "ladder": functools.cache(lambda: [a_ladder()]),
    "study": functools.cache(lambda: [read_study(HERE.parent / "traces" / "h200-vit_b-study")]),
    "diff": lambda: [{"B": compare_runs(*runs())}],
    "tree diff": lambda: [dict(zip("AB", traces(), strict=True))],
    "memory diff": lambda: [{"B": compare_snapshots(*(run.snapshot for run in runs()))}],
    "layers": lambda: [runs()[1].layers],
    "requests": functools.cache(lambda: [load_run(served_run(Path(tempfile.mkdtemp()))).served]),
    "load": functools.cache(lambda: [read_load(a_load(Path(tempfile.mkdtemp())))]),
    "flight": functools.cache(lambda: [read_dumps(two(Path(tempfile.mkdtemp())))]),
    "trend": functools.cache(lambda: [load_trend(two_runs(Path(tempfile.mkdtemp())))]),
    "runs": functools.cache(lambda: [find_runs(HERE.parent / "traces")]),
    "layers diff": lambda: [{"AB"[number]: run.layers.totals for number, run in enumerate(runs()) if run.layers}],
}


@functools.cache
def others(of: str) -> list[Any]:
    """What was recorded without a GPU, in training, by a server, of two ranks: other columns hold something there."""
    if of == "trace":
        host = host_trace().write(Path(tempfile.mkdtemp()) / "host.json")
        recorded = (host, GOLDEN / "operators_h200.json.gz", GOLDEN / "graph_capture_training_h200.json.gz")
        return [load_trace(path, arguments=["input_dims"]) for path in recorded]
    if of == "snapshot":
        return [load_snapshot(GOLDEN / f"memory_{name}_h200.pickle") for name in ("train", "pools", "expandable")]
    jobs = [(GOLDEN / "ddp", "ddp_rank{}.json.gz"), (GOLDEN / "ranks" / "gpu_step", "trace.rank{}.json.gz")]
    return [load_ranks({rank: folder / name.format(rank) for rank in (0, 1)}) for folder, name in jobs if of == "job"]


def filled(table: Table) -> list[Filled]:
    return [table.of_source(source) for source in SOURCES[table.of]()]


def each_table(test: Any) -> Any:
    return pytest.mark.parametrize("table", every_table().values(), ids=lambda table: table.name)(test)


def same(a: object, b: object) -> bool:
    if is_missing(a) or is_missing(b):
        return is_missing(a) and is_missing(b)
    if isinstance(a, float) or isinstance(b, float):
        return math.isclose(float(a), float(b), rel_tol=1e-12)  # type: ignore[arg-type]
    return a == b


@each_table
def test_the_declaration_says_what_everything_means(table: Table) -> None:
    assert table.title and table.schema.row
    for name in table.schema.columns:
        assert table.schema.label(name), name
        meaning = table.schema.meaning(name)
        assert meaning[:1].isupper() or meaning.startswith(("nn.Module", "record_function")), (name, meaning)
        assert meaning.endswith("."), (name, meaning)
    for name in (*table.order, *table.host, *([table.share_of] if table.share_of else [])):
        assert name in table.schema.columns
    for option in table.options:
        assert option.meaning.endswith(".") and option.check(option.default) == option.default


@each_table
def test_json_and_csv_hold_the_columns_of_the_schema_and_the_same_numbers(table: Table) -> None:
    for one in filled(table):
        rows = json.loads(json.dumps(one.records()))
        assert len(rows) == len(one)
        assert all(list(row) == list(table.schema.columns) for row in rows)
        lines = list(csv.reader(io.StringIO(one.csv())))
        assert lines[0] == list(table.schema.columns) and len(lines) == len(rows) + 1
        for row, line in zip(rows[:50], lines[1:51], strict=True):
            for value, text in zip(row.values(), line, strict=True):
                if isinstance(value, int | float) and not isinstance(value, bool):
                    assert same(value, float(text))


@each_table
def test_sql_holds_the_same_rows(table: Table) -> None:
    if table.of not in ("trace", "snapshot"):
        return
    for one in filled(table):
        found = one.source.sql(f"SELECT * FROM {table.name}")
        assert len(found) == len(one)
        assert [name for name in found if name in sql_columns(table)] == list(sql_columns(table))
        for name, column in table.schema.columns.items():
            if column.dtype in ("path", "paths"):
                lists = [tuple(path) if path is not None else () for path in found[f"{name}_list"]]
                assert lists == [tuple(path) for path in one.frame[name]]
            elif column.dtype != "list":
                assert all(map(same, found[name].tolist(), one.frame[name].tolist())), name


@each_table
def test_text_and_markdown_lay_out_the_same_cells(table: Table) -> None:
    for one in filled(table):
        shown = layout(one, slice(40))
        text = filled_lines(one, top=40)
        marked = table_markdown(one, 40)
        if not len(one):  # a sentence says so instead
            why = no_rows(one)
            assert text == [] and (len(marked) == 2 if why is None else marked == [plain(why.line)])
            continue
        assert len(marked) == min(len(one), 40) + 2
        assert len(text) == len(marked)
        assert all(column.label in text[0] for column in shown)
        assert all(column.meaning.endswith(".") for column in shown)
        assert sum(not column.optional for column in shown) == marked[0].replace("\\|", "").count("|") - 1
        aligned = zip((column for column in shown if not column.optional), marked[1].split("|")[1:-1], strict=True)
        assert all(rule == " --- " for column, rule in aligned if column.kind == "text")  # numbers alone to the right
        for number, line in enumerate(text[2:]):
            assert all(column.cells[number] in line for column in shown)


@each_table
def test_a_text_table_fits_its_terminal_and_says_what_it_leaves_out(table: Table) -> None:
    for one in [*filled(table), *(table.of_source(source) for source in others(table.of))]:
        shown = layout(one, slice(40))
        assert len({column.label for column in shown}) == len(shown)
        assert not [column.label for column in shown if re.search(r"\bgpu\b", column.label)]  # it is GPU
        for width in (28, 80):
            lines = filled_lines(one, top=40, width=width)
            assert all(len(line) <= width for line in lines)
            if len(one):
                cells = lines[: 2 + min(len(one), 40)]
                said = " ".join(lines[len(cells) :]).removeprefix("Left out for lack of room: ").removesuffix(".")
                gone = [column for column in shown if column.label not in re.split(" {2,}", cells[0])]
                assert said == ", ".join(column.label for column in gone)
                kept = [column for column in shown[1:] if column not in gone and column.kind in ("number", "share")]
                assert all(column.cells[row] in line for row, line in enumerate(cells[2:]) for column in kept)


VERDICTS = {
    "ladder": {"technique", "images_per_s", "speedup", "speedup_verdict", "agreement", "masks_judged"},
    "roofline": {"operator", "shapes", "bound", "peak_share"},
    "ranks": {"rank", "busy_ns", "own_ns", "more_ns"},
    "study_totals": {"study", "label", "dtype", "batch_size", "median_ns"},
    "layer_totals": {"layer", "batch_size", "per_image_ns", "share"},
    "kernel_origins": {"path", "operator", "sum_ns"},
}


@pytest.mark.parametrize("name", VERDICTS)
def test_what_a_row_is_judged_by_has_room_in_80_columns(name: str) -> None:
    table = every_table()[name]
    recorded = [read_ladder(folder) for folder in sorted((HERE.parent / "traces").glob("*ladder"))]
    more = [*(recorded if name == "ladder" else []), *others(table.of)]
    for one in [*filled(table), *(table.of_source(source) for source in more)]:
        head = re.split(" {2,}", filled_lines(one, width=80)[0]) if len(one) else []
        said = {column.label for column in layout(one) if column.name in VERDICTS[name]}
        assert said <= set(head) or not len(one)


@each_table
def test_html_lays_out_the_same_cells(table: Table) -> None:
    for one in filled(table):
        shown, drawn = layout(one, slice(40)), table_html(one, top=40)
        assert drawn.count("<tr>") == (min(len(one), 40) + 1 if len(one) else 0)
        for column in shown if len(one) else ():
            assert f">{escape(column.heading)}</th>" in drawn
            assert all(escape(cell) in drawn for cell in (column.bare() if column.kind == "number" else column.cells))


SIZES = {"%": 0.01, "ns": 1, "µs": 1e3, "ms": 1e6, "s": 1e9, "B": 1, "KiB": 1 << 10, "MiB": 1 << 20, "GiB": 1 << 30}
SIZES |= {"B/s": 1, "kB/s": 1e3, "MB/s": 1e6, "GB/s": 1e9, "TB/s": 1e12}


@each_table
def test_the_numbers_shown_are_those_of_the_frame(table: Table) -> None:
    for one in filled(table):
        for column in layout(one):
            declared = table.schema.columns.get(column.name)
            if declared is None or column.kind not in ("number", "share") or declared.where:
                continue
            whole = one.frame[declared.of].tolist() if declared.of else [1] * len(one)
            # people read a moment from the start of the timeline
            zero = one.source.zero_ns if table.of == "trace" and table.schema.is_moment(column.name) else 0
            size = SIZES.get(column.unit, 1) / (1e3 if column.name.endswith("_us") else 1)
            for shown, value, of, cell in zip(
                column.values, one.frame[column.name].tolist(), whole, column.cells, strict=True
            ):
                if shown is None:
                    assert cell == MISSING and (is_missing(value) or not of)
                else:
                    assert math.isclose(float(shown) * size, float(value - zero) / of, rel_tol=1e-9, abs_tol=1e-12)


@each_table
def test_the_dashboard_shows_the_same_columns(table: Table) -> None:
    for one in filled(table):
        frame, look = dashboard_frame(one, 12)
        columns, first = look["column_config"], look["column_order"]
        assert len(frame) == len(one)
        laid_out = layout(one)
        assert {column.name for column in laid_out} <= set(frame)
        for column in laid_out:
            assert column.meaning in str(columns[column.name])
        assert (
            sum(columns[name]["width"] for name in first) <= FIT_PX
        )  # none is cut off in a window of 1280: others are in a menu
        assert all(columns[name]["width"] >= heading_px(columns[name]["label"]) for name in first)


def test_the_reference_explains_every_column() -> None:
    text = reference_tables()
    for table in every_table().values():
        section = text.partition(f"## {table.name}\n")[2].partition("\n## ")[0]
        assert all(f"| `{name}` | " in section for name in table.schema.columns)
        assert not re.search(r"\| +\|$", section, re.MULTILINE), f"{table.name}: a column without a meaning"


def test_no_two_tables_share_a_name() -> None:
    modules = [importlib.import_module(f"profiler_kit.tables.{m.name}") for m in pkgutil.iter_modules(tables.__path__)]
    assert len(every_table()) == sum(len(module.TABLES) for module in modules)


def test_a_table_by_its_name_with_options() -> None:
    trace = traces()[0]
    found = trace.table("idle", scope="device")
    assert found.options == {"scope": "device", "kernel_wait_us": 30.0}
    assert found.frame.equals(trace.idle(scope="device"))
    with pytest.raises(OptionError, match=r"^table 'idel': unknown, expected one of: categories, "):
        trace.table("idel")
    with pytest.raises(OptionError) as caught:
        trace.table("idle", scop="device")
    assert str(caught.value) == "table idle: no option 'scop', expected one of: scope, kernel_wait_us."


def test_a_run_has_the_tables_of_what_it_holds() -> None:
    run = load_run(RUN)
    assert run.table("regions").frame.equals(traces()[0].regions())
    assert len(run.table("allocations")) == len(load_snapshot(RUN / "memory.pickle").allocations())
    with pytest.raises(OptionError) as caught:
        load_run(RUN / "memory.pickle").table("regions")
    assert str(caught.value) == (
        "table regions: this run holds no trace, expected one. Record it with: profiler-kit capture --out DIR"
    )


def test_one_kernel_has_one_short_name() -> None:
    """Whichever table a kernel is in, with the same others beside it, it reads the same."""
    trace = traces()[0]
    names = {}
    for table, column in (("kernels", "name"), ("operator_kernels", "name"), ("kernel_groups", "key")):
        one = next(shown for shown in layout(trace.table(table)) if shown.name == column)
        names[table] = dict(zip(one.full, one.cells, strict=True))
    assert names["kernels"] == names["operator_kernels"] == names["kernel_groups"]


def test_a_new_table_is_a_command_by_itself() -> None:
    done = profiler_kit("--help")
    for table in every_table().values():
        assert not table.command or f"  {table.command} " in done.out
