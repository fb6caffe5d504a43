"""Layer totals and coverage, on calls small enough to add up by hand; nothing here imports torch."""

from __future__ import annotations

import pandas as pd
import pytest

from profiler_kit.analyses.layers.totals import LAYER_COVERAGE, LAYER_TOTALS, explained, forward_spread, layer_totals
from profiler_kit.errors import SchemaError
from profiler_kit.formats.layer_file import FORWARD_CALLS, LAYER_CALLS

Row = tuple[str, str, int, int, int, int | None, int | None]  # layer, parent, batch, iteration, call, device, host


def calls_of(*rows: Row) -> pd.DataFrame:
    """LAYER_CALLS; self time is half of the total."""
    frame = pd.DataFrame(
        [
            {
                "layer": layer,
                "type": layer.upper(),
                "variant": "window 14" if layer == "a" else "",
                "parent": parent,
                "batch_size": batch,
                "iteration": iteration,
                "call": call,
                "device_ns": device,
                "self_device_ns": None if device is None else device // 2,
                "host_ns": host,
                "self_host_ns": 0 if host is None else host // 2,
            }
            for layer, parent, batch, iteration, call, device, host in rows
        ]
    )
    kinds = LAYER_CALLS.dtypes()
    return frame.astype(kinds)


def forwards_of(*rows: tuple[int, int, int]) -> pd.DataFrame:
    return pd.DataFrame(rows, columns=list(FORWARD_CALLS.columns)).astype("int64")


TWO_BATCHES = calls_of(
    # batch 2 stands first: the order of the file does not matter
    ("(model)", "", 2, 0, 0, 1000, 9),
    ("a", "(model)", 2, 0, 0, 600, 9),
    ("b", "a", 2, 0, 0, 100, 9),
    ("b", "a", 2, 0, 1, 200, 9),
    ("(model)", "", 1, 0, 0, 800, 9),
    ("a", "(model)", 1, 0, 0, 400, 9),
    ("b", "a", 1, 0, 0, 120, 9),
    ("(model)", "", 1, 1, 0, 400, 9),
    ("a", "(model)", 1, 1, 0, 200, 9),
    ("b", "a", 1, 1, 0, 80, 9),
)


def test_totals_added_up_by_hand() -> None:
    before = TWO_BATCHES.copy()
    totals = layer_totals(TWO_BATCHES)
    pd.testing.assert_frame_equal(TWO_BATCHES, before)
    expected = pd.DataFrame(
        [
            ("(model)", "(MODEL)", "", "", 0, 1, 2, 1, 600.0, 500.0, 700.0, 300.0, 600.0, 1.0, 1.0),
            ("a", "A", "window 14", "(model)", 1, 1, 2, 1, 300.0, 250.0, 350.0, 150.0, 300.0, 1.0, 0.5),
            ("b", "B", "", "a", 2, 1, 2, 1, 100.0, 90.0, 110.0, 50.0, 100.0, 1.0, 1 / 6),
            ("(model)", "(MODEL)", "", "", 0, 2, 1, 1, 1000.0, 1000.0, 1000.0, 500.0, 500.0, 1.2, 1.0),
            ("a", "A", "window 14", "(model)", 1, 2, 1, 1, 600.0, 600.0, 600.0, 300.0, 300.0, 1.0, 0.6),
            ("b", "B", "", "a", 2, 2, 1, 2, 300.0, 300.0, 300.0, 150.0, 150.0, 2 / 3, 0.3),
        ],
        columns=list(LAYER_TOTALS.columns),
    )
    pd.testing.assert_frame_equal(totals, expected)


def test_host_time_stands_in_where_there_is_no_device_time() -> None:
    totals = layer_totals(calls_of(("(model)", "", 1, 0, 0, None, 70), ("a", "(model)", 1, 0, 0, None, 30)))
    assert totals["median_ns"].tolist() == [70.0, 30.0]
    assert totals["self_median_ns"].tolist() == [35.0, 15.0]


def test_an_iteration_in_which_a_layer_did_not_run_counts_zero() -> None:
    totals = layer_totals(
        calls_of(
            ("(model)", "", 1, 0, 0, 50, 1),
            ("a", "(model)", 1, 0, 0, 40, 1),
            ("(model)", "", 1, 1, 0, 10, 1),
        )
    ).set_index("layer")
    assert totals.loc["a", ["iterations", "median_ns"]].tolist() == [2, 20.0]
    assert totals.loc["a", "share"] == pytest.approx(20 / 30)


def test_a_module_that_calls_itself_and_calls_without_a_root() -> None:
    totals = layer_totals(calls_of(("a", "", 1, 0, 0, 10, 1), ("b", "a", 1, 0, 0, 6, 1), ("b", "b", 1, 0, 1, 2, 1)))
    assert totals["depth"].tolist() == [0, 1]
    assert totals["calls"].tolist() == [1, 2]
    assert totals["share"].tolist() == [1.0, 0.6]  # the 2 are inside the 6


def test_coverage_added_up_by_hand() -> None:
    forwards = forwards_of((1, 0, 500), (1, 1, 700), (2, 0, 800), (4, 0, 1))
    expected = pd.DataFrame(
        [
            # medians: forward 600, hooked 600, outermost layer a 300, innermost layer b 100
            (1, 600.0, 600.0, 300.0, 0.5, 100.0, 1 / 6, 0.0),
            (2, 800.0, 1000.0, 600.0, 0.75, 300.0, 0.375, 0.25),
        ],
        columns=list(LAYER_COVERAGE.columns),
    )
    pd.testing.assert_frame_equal(explained(TWO_BATCHES, forwards), expected)


def test_empty_in_empty_out_and_a_missing_column() -> None:
    pd.testing.assert_frame_equal(layer_totals(LAYER_CALLS.empty()), LAYER_TOTALS.empty())
    pd.testing.assert_frame_equal(explained(TWO_BATCHES, FORWARD_CALLS.empty()), LAYER_COVERAGE.empty())
    pd.testing.assert_frame_equal(explained(LAYER_CALLS.empty(), forwards_of((1, 0, 5))), LAYER_COVERAGE.empty())
    with pytest.raises(SchemaError, match="LAYER_CALLS: column 'host_ns' is missing"):
        layer_totals(TWO_BATCHES.drop(columns="host_ns"))


def test_a_module_that_calls_itself_is_not_counted_twice() -> None:
    calls = calls_of(
        ("(model)", "", 1, 0, 0, 100, 9),
        ("r", "(model)", 1, 0, 0, 90, 9),
        ("r", "r", 1, 0, 1, 60, 9),  # inside the 90
        ("r", "r", 1, 0, 2, 30, 9),
    )
    totals = layer_totals(calls).set_index("layer")
    assert totals.loc["r", ["calls", "median_ns", "self_median_ns", "share"]].tolist() == [3, 90, 90, 0.9]
    coverage = explained(calls, forwards_of((1, 0, 100)))
    assert coverage[["layers_ns", "leaves_ns", "share"]].to_numpy().tolist() == [[90.0, 90.0, 0.9]]


def test_the_spread_of_the_forwards() -> None:
    rows = [(1, number, nanos) for number, nanos in enumerate((90, 100, 100, 100, 110))]
    rows += [(2, number, nanos) for number, nanos in enumerate((80, 90, 100, 110, 120))]
    forwards = pd.DataFrame(rows, columns=list(FORWARD_CALLS.columns)).astype(FORWARD_CALLS.dtypes())
    assert forward_spread(forwards) == pytest.approx(0.2)  # quartiles 90 and 110 of batch 2
    assert forward_spread(FORWARD_CALLS.empty()) == 0.0
