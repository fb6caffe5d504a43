"""Tables: numbers are never cut, names are shortened in the middle, optional columns go first."""

from __future__ import annotations

import re
import shutil
from pathlib import Path

import pytest

from profiler_kit.cli import output
from profiler_kit.cli.output import hanging, print_table
from profiler_kit.render.text_table import shorten, table_lines
from tests.app.samples import host_trace
from tests.cli.run import profiler_kit

GOLDEN = Path(__file__).parents[1] / "golden"
COLUMNS = ("region", "times", "sum", "busy")
ROWS = [
    ("outer", "1", "12.000 ms", "9.000 ms"),
    ("  a name that is quite long, and then some", "20", "1.500 ms", "1.500 ms"),
]


def test_a_table_is_as_wide_as_it_needs_to_be() -> None:
    assert table_lines(COLUMNS, ROWS) == [
        "region                                       times         sum       busy",
        "─────────────────────────────────────────────────────────────────────────",
        "outer                                            1   12.000 ms   9.000 ms",
        "  a name that is quite long, and then some      20    1.500 ms   1.500 ms",
    ]


def test_a_narrow_terminal_shortens_names_then_drops_columns() -> None:
    assert table_lines(COLUMNS, ROWS, width=60, optional=("times",)) == [
        "region                          times         sum       busy",
        "────────────────────────────────────────────────────────────",
        "outer                               1   12.000 ms   9.000 ms",
        "  a name that … and then some      20    1.500 ms   1.500 ms",
    ]
    assert table_lines(COLUMNS, ROWS, width=52, optional=("times", "busy")) == [
        "region                                sum       busy",
        "────────────────────────────────────────────────────",
        "outer                           12.000 ms   9.000 ms",
        "  a name that … and then some    1.500 ms   1.500 ms",
        "Left out for lack of room: times.",
    ]
    assert table_lines(COLUMNS, ROWS, width=20, optional=("times", "busy")) == [
        "region",
        "────────────────────",
        "outer",
        "  a name t…then some",
        "Left out for lack of",
        "room: times, sum,",
        "busy.",
    ]


def test_control_characters_do_not_reach_the_terminal() -> None:
    assert table_lines(("a",), [("x\x1b[31m",)])[2] == "x\N{REPLACEMENT CHARACTER}[31m"


def test_a_new_line_in_a_name_breaks_no_heading(tmp_path: Path) -> None:
    trace, snapshot = tmp_path / "a\nb.json.gz", tmp_path / "m\n.pickle"
    shutil.copy(GOLDEN / "streams_graph.json.gz", trace)
    shutil.copy(GOLDEN / "memory_pools_h200.pickle", snapshot)
    commands = [(name, trace) for name in ("summary", "kernels", "regions", "doctor", "advice")]
    commands += [("diff", trace, trace), ("memory", snapshot), ("memory", snapshot, snapshot)]
    commands += [("export", trace, "--time", "0ms:1ms", "-o", tmp_path / "o\n.json")]
    commands += [("report", trace, "-o", tmp_path / "r\n.html"), ("memory", snapshot, "--html", tmp_path / "p\n.html")]
    for command in commands:
        done = profiler_kit(*command)
        printed = done.out + done.err
        assert done.code == 0 and f"{tmp_path}/" in printed, command
        assert not re.search(rf"{re.escape(str(tmp_path))}/\w\n", printed), command


def test_texts_of_any_column_give_way_the_longest_first_and_numbers_do_not() -> None:
    columns, rows = ("what if", "name", "then"), [["no gap above 10 µs", "elementwise_kernel_" * 3, "1,234,567.890 ms"]]
    wide = table_lines(columns, rows, width=80)
    assert [len(line) for line in wide] == [80, 80, 80] and "no gap above 10 µs" in wide[2]
    narrow = table_lines(columns, rows, width=56)
    assert [len(line) for line in narrow] == [56, 56, 56] and narrow[2].endswith("   1,234,567.890 ms")
    assert table_lines(columns, rows, width=37)[2:] == [
        "no gap above 10 µs   elementw…kernel_",
        "Left out for lack of room: then.",
    ]


def test_a_moment_is_a_number_and_a_list_of_sizes_a_text() -> None:
    moment, sizes = "2026-11-26 03:11:41.578113", "[24, 4096, 4096], [64, 1536, 64]"
    assert table_lines(("name", "began", "shapes"), [("step", moment, sizes)], width=60)[2] == (
        f"step   {moment}   [24, 4096, 4…, 1536, 64]"
    )


def test_a_sentence_is_broken_between_words_on_a_terminal_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    assert hanging("  lost  ", "half of the file " * 4) == "  lost  " + "half of the file " * 4
    monkeypatch.setattr("profiler_kit.cli.output.terminal_width", lambda: 30)
    assert hanging("  lost  ", "half of the file " * 2) == "  lost  half of the file half\n        of the file"


def _narrow() -> None:
    """A terminal of 60 columns for what the command prints."""
    output.terminal_width = lambda: 60


@pytest.mark.parametrize(
    ("command", "source", "said"),
    [
        ("memory", "tests/cases/snapshots/skip_free_completed.pickle", "which is too early"),
        ("ladder", "traces/h200-vit_b-ladder", "how much the device drifted is unknown"),
        ("layers", "traces/h200-vit_b-eager-fp32", "note: "),
    ],
)
def test_what_commands_say_below_their_tables_fits_the_terminal(command: str, source: str, said: str) -> None:
    out = profiler_kit(command, source, cwd=Path(__file__).parents[2], first=_narrow).out
    assert said in " ".join(out.split()) and "\ufffd" not in out
    assert [line for line in out.splitlines() if len(line) > 60] == []


def test_shorten_keeps_both_ends() -> None:
    assert [shorten("abcdefgh", size) for size in (8, 7, 4)] == ["abcdefgh", "abc…fgh", "ab…h"]


@pytest.mark.parametrize("name", ["kernels", "idle", "launches", "sequences", "copies", "overlap", "utilization"])
def test_a_trace_without_a_gpu_gets_a_sentence_instead_of_an_empty_table(name: str, tmp_path: Path) -> None:
    path = host_trace().write(tmp_path / "host.json.gz")
    assert profiler_kit(name, path).out == (
        f"{path}: no GPU events. Record on a machine with a GPU, with CUDA among the activities; where the host's time "
        "went: profiler-kit summary\n"
    )


def test_a_table_without_rows_says_so(capsys: pytest.CaptureFixture[str]) -> None:
    print_table("copies", ("kind", "count"), [])
    assert capsys.readouterr().out == "copies: none\n\n"
