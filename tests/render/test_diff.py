"""A comparison in words: factors, percentages, units, Markdown that survives hostile names."""

from __future__ import annotations

import pytest

from profiler_kit.analyses.compare.measurements import Measured, measured
from profiler_kit.analyses.compare.traces import Change, Comparison
from profiler_kit.findings.compare import changed, from_to, noise, of_comparison
from profiler_kit.render.layout import layout
from profiler_kit.render.markdown import document
from profiler_kit.render.text_table import filled_lines, table_title
from profiler_kit.table import Filled
from profiler_kit.tables import every_table, tables_of


def change(a: list[int] | None, b: list[int] | None, kind: str = "region", *path: str, metric: str = "gpu") -> Change:
    sides: list[Measured | None] = [None if samples is None else measured(samples) for samples in (a, b)]
    return Change(kind, path or ("x",), metric, sides[0], sides[1])  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("a", "b", "said"),
    [
        ([100, 100], [103, 103], "+3.0 %"),
        ([100, 100], [97, 97], "-3.0 %"),
        ([100, 100], [150, 150], "1.50 × slower"),
        ([300, 300], [100, 100], "3.00 × faster"),
        ([100, 120], [110, 111], "same"),
        ([100, 100], [0, 0], "-100.0 %"),
        ([0, 0], [5, 5], "–"),
        (None, [5, 5], "new"),
        ([5, 5], None, "gone"),
    ],
)
def test_changes_in_words(a: list[int] | None, b: list[int] | None, said: str) -> None:
    assert changed(change(a, b)) == said


UNKNOWN = "Whether both ran the same model is unknown: not every run has a run.json."


def test_both_values_are_in_one_unit() -> None:
    assert from_to(change([2_500_000], [900_000])) == "2.500 → 0.900 ms"
    assert from_to(change(None, [900_000])) == "– → 900.00 µs"
    assert noise(change([1], [2])) == "unknown"
    assert noise(change([1000, 2000], [1000, 2000])) == "± 2.22 µs"


@pytest.mark.parametrize(
    ("metric", "path", "b", "said"),
    [
        ("gpu", "GPU busy", [2], "B holds 4,000.00 × less GPU work than A: 8.00 → 0.00 µs in all (noise unknown)."),
        ("gpu", "GPU busy", [8800], "B holds 10.0 % more GPU work than A: 8.00 → 8.80 µs in all (noise unknown)."),
        ("gpu", "GPU busy", [8000], "B holds as much GPU work as A: 8.00 → 8.00 µs in all (noise unknown)."),
        (
            "wall",
            "trace",
            [16000],
            "B is 2.00 × longer than A: 8.00 → 16.00 µs from first to last event (noise unknown).",
        ),
        ("wall", "round", [4000], "B is 2.00 × faster than A: 8.00 → 4.00 µs a step (noise unknown)."),
    ],
)
def test_of_traces_that_repeat_nothing_together_neither_is_said_to_be_faster(
    metric: str, path: str, b: list[int], said: str
) -> None:
    rounds = ("ProfilerStep", (1, 1)) if path == "round" else (None, (0, 0))
    found = Comparison(*rounds, "gpu", (change([8000], b, "total", path, metric=metric),))
    assert [one.sentence for one in of_comparison(found)[:2]] == [UNKNOWN, said]


def hostile() -> Comparison:
    rows = (
        change([100, 100], [200, 201], "total", "round", metric="wall"),
        change([50, 50], [60, 60], "total", "GPU busy"),
        change([50, 50], [60, 60], "region", "a|b`c`"),
        change([20, 20], [30, 30], "region", "a|b`c`", "<script>@me"),
        change([1, 1], [2, 2], "region", "a|b`c`", metric="host"),
        change([1, 1], [2, 2], "region", "a|b`c`", "<script>@me", metric="host"),
        change([1, 1], None, "kernel", "k" * 500),
    )
    return Comparison("step|one", (2, 2), "gpu", rows)


def filled(found: Comparison) -> dict[str, Filled]:
    every = [table.of_source({"B": found}) for table in tables_of("diff")]
    return {one.table.name: one for one in every if len(one)}


def test_markdown_survives_hostile_names() -> None:
    tables = filled(hostile())
    text = document("a_b* → <b>", ["1 < 2 | 3"], [(one, 10, name == "diff_kernels") for name, one in tables.items()])
    assert text.startswith("### a\\_b\\* → \\<b\\>\n\n- 1 \\< 2 \\| 3\n")
    assert "| `a│b'c'` | 50 ns | 60 ns | +20.0 % | slower | 0 ns | 1 ns | 2 ns | × 2.00 | slower |" in text
    assert "| &emsp;`<script>@me` | 20 ns | 30 ns | × 1.50 | slower |" in text
    assert text.count("<details>") == text.count("</details>") == 1
    grids = [line for line in text.splitlines() if line.startswith("|")]
    widths = {line.replace("\\|", "").count("|") for line in grids}
    assert widths == {5, 7, 11}  # no cell is split: kernels, totals, regions
    assert max(map(len, grids)) < 250


def test_the_findings_name_the_innermost_region_that_holds_the_change() -> None:
    found = of_comparison(hostile())
    assert [one.sentence for one in found] == [
        UNKNOWN,
        "B is 2.00 × slower than A: 100 → 200 ns a step|one (noise ± 1 ns).",
        "GPU time changed most in a|b`c` > <script>@me: 20 → 30 ns (1.50 × slower).",
        "In B GPU work launched in a step|one takes 30 % of the step|one (50 % in A): "
        "look at launches and copies next.",
        "Times are per step|one: medians of 2.",
    ]
    assert found[2].where == ("a|b`c`", "<script>@me")
    assert of_comparison(hostile(), b="C")[1].sentence.startswith("C is 2.00 × slower than A")
    nothing = Comparison(None, (0, 0), "host", ())
    assert of_comparison(nothing)[1].sentence == "Nothing to compare: the traces share no time."
    assert filled(nothing) == {}


def test_a_column_says_what_changed_and_another_whether_it_counts() -> None:
    rows = (change([100, 120], [110, 111], "kernel", "k"), change(None, [5, 5], "kernel", "new"))
    shown = {one.label: one for one in layout(filled(Comparison(None, (0, 0), "gpu", rows))["diff_kernels"])}
    assert shown["is"].cells == ["same", "added"] and shown["change"].cells == ["+0.5 %", "–"]
    assert shown["change"].values[0] == pytest.approx(0.4545, abs=1e-3) and shown["change"].unit == "%"
    assert "run" not in shown  # there is one: an option selects by it


def test_a_run_without_gpu_events_has_regions_by_host_time() -> None:
    rows = (change([1, 1], [2, 2], "region", "step", metric="host"),)
    (table,) = filled(Comparison(None, (0, 0), "host", rows)).values()
    assert filled_lines(table)[0].split("   ") == [
        "region",
        "host A",
        "host B",
        "host change",
        "host is",
        "host noise ±",
    ]


def test_tables_say_how_many_rows_they_leave_out() -> None:
    rows = tuple(change([1, 1], [2, 2], "kernel", f"k{n}") for n in range(12))
    (table,) = filled(Comparison("ProfilerStep", (2, 2), "gpu", rows)).values()
    assert table_title(table, top=3) == "Kernels, largest change first, 3 of 12 rows"
    assert len(filled_lines(table, top=3)) == 5


def test_several_runs_are_told_apart_by_their_letter() -> None:
    table = every_table()["diff_totals"]
    both = table.of_source({"B": hostile(), "C": hostile()})
    assert [row["run"] for row in both.records()] == ["B", "B", "C", "C"]
    assert len(table.of_source({"B": hostile(), "C": hostile()}, run="C")) == 2
