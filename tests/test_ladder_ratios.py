"""What a ladder says for sure: intervals against plain resampling, noise, tails, the columns of others' CSV."""

from __future__ import annotations

import csv
import dataclasses
import math
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pytest

from profiler_kit.findings.records import of_ladder
from profiler_kit.formats.ladder_file import ladder_rows, write_csv
from profiler_kit.formats.ladder_ratios import Ratio, baseline_samples, drift, over_baseline, ratio, tail
from profiler_kit.formats.ladder_record import LadderRecord, Round, RowResult, read_ladder, too_few_masks
from tests.ladders import MIB, a_ladder

SAMPLES = Path(__file__).parents[1] / "traces"


def resampled(mine: Sequence[int], other: Sequence[int]) -> list[float]:
    """The interval by drawing every sample again, which the package does by order statistics."""
    draw = np.random.default_rng(7)
    found = [np.median(draw.choice(np.array(samples), (20_000, len(samples))), axis=1) for samples in (other, mine)]
    return [float(value) for value in np.quantile(found[0] / found[1], (0.025, 0.975))]


@pytest.mark.parametrize("counts", [(5, 5), (6, 9), (30, 60), (31, 8), (101, 100)])
def test_the_interval_is_the_bootstraps(counts: tuple[int, int]) -> None:
    draw = np.random.default_rng(sum(counts))
    mine, other = (
        [int(value) for value in draw.normal(at, 0.1 * at, n)] for at, n in zip((1e6, 2e6), counts, strict=True)
    )
    found = ratio(mine, other)
    assert found.value == np.median(other) / np.median(mine)
    assert [found.low, found.high] == pytest.approx(resampled(mine, other), rel=0.02)
    assert ratio(mine, other) == found and ratio(mine, other, 2.0).low == pytest.approx(2 * found.low)


def test_what_is_noise() -> None:
    slow, fast = Ratio(0.9, 0.88, 0.92), Ratio(1.1, 1.05, 1.15)
    assert (slow.verdict(0.02), fast.verdict(0.02)) == ("slower", "faster")
    assert (slow.verdict(math.nan), fast.verdict(math.nan)) == ("slower", "faster")
    assert Ratio(1.1, 0.99, 1.2).verdict(0.0) == "within the noise"
    assert fast.verdict(0.11) == slow.verdict(0.12) == "within the noise"  # the baseline itself differs by as much
    assert Ratio(3.0).verdict(0.0) == "too few samples" and Ratio().verdict(0.0) == ""
    few = ratio((10,) * 4, (20,) * 30)
    assert few.value == 2 and math.isnan(few.low) and math.isnan(few.high)


def test_a_tail_needs_a_sample_beyond_it() -> None:
    for share, least in ((0.9, 10), (0.95, 20), (0.99, 100), (0.999, 1000)):
        assert math.isnan(tail(range(least - 1), share))
        assert tail(range(least), share) == pytest.approx(np.quantile(np.arange(least), share))


def changed(record: LadderRecord, technique: str, **change: object) -> LadderRecord:
    rows = [dataclasses.replace(row, **change) if row.technique == technique else row for row in record.rows]  # type: ignore[arg-type]
    return dataclasses.replace(record, rows=tuple(rows))


def test_a_row_is_compared_with_the_baseline_around_it() -> None:
    """The device slows down: fp32 takes 100, then 200 ms; int8 ran between the two, bf16 before."""
    late = tuple(2 * ns for ns in a_ladder().rows[0].latency_ns)
    early = a_ladder().rows[0].latency_ns
    record = dataclasses.replace(a_ladder(), rounds=(Round(("bf16", "compile"), early), Round(("int8", "oom"), late)))
    assert baseline_samples(record, record.rows[3]) == (*early, *late)
    assert over_baseline(record, record.rows[1]).value == 2 and over_baseline(record, record.rows[3]).value == 7
    assert drift(record) == 1.0
    frame = ladder_rows(record)
    assert frame["speedup"].tolist()[:4] == [1, 2, 4, 7]
    assert frame["speedup_verdict"].tolist() == ["", "within the noise", "faster", "faster", ""]
    said = [one.sentence for one in of_ladder(record, frame)]
    assert "The baseline was measured 3 times: its medians differ by up to 100.0 %." in said
    assert "Within the noise of the baseline: bf16." in said


def test_a_step_that_is_noise_is_said() -> None:
    record = changed(a_ladder(), "compile", latency_ns=a_ladder().rows[1].latency_ns)
    frame = ladder_rows(record)
    assert frame["gain"].tolist()[2] == 1 and frame["gain_verdict"].tolist()[2] == "within the noise"
    said = [one.sentence for one in of_ladder(record, frame)]
    assert "Within the noise of the step below it: compile." in said
    assert "The baseline was measured once, before the other rows: how much the device drifted is unknown." in said


def test_metrics_of_too_few_masks_are_not_left_alone() -> None:
    assert [too_few_masks(masks, 8) for masks in (0, 1, 39, 40)] == ["no masks", *["too few masks to judge"] * 2, ""]
    base = a_ladder().rows[1]
    assert base.agreement is not None
    few = dataclasses.replace(base.agreement, masks=16)
    frame = ladder_rows(changed(a_ladder(), "bf16", agreement=few))
    assert frame["masks_judged"].tolist() == ["", "too few masks to judge", "", "", ""]
    record = changed(a_ladder(), "int8", masks=0)
    frame = ladder_rows(record)
    assert frame["masks_judged"].tolist()[3] == "no masks" and math.isnan(frame["miou"].tolist()[3])
    said = [one.sentence for one in of_ladder(record, frame)]
    assert "No masks: int8 (0 masks); there is nothing to compare." in said
    assert "mean IoU of 0.9000 with its masks (no masks)." in said[0]


def lines(path: Path, record: LadderRecord) -> list[dict[str, str]]:
    write_csv(path, record)
    with path.open(newline="") as handle:
        return list(csv.DictReader(handle))


def test_the_csv_means_what_it_means_elsewhere(tmp_path: Path) -> None:
    """Minutes; MiB and percents cut, not rounded; torch's name of a dtype; calls counted from the first one on."""
    samples = (*range(1_000_000, 1_000_099), 3_000_000, 2_000_000)
    record = changed(
        a_ladder(), "bf16", latency_ns=samples, first_ns=9_000_000, wall_s=90.0,
        peak_memory_bytes=1000 * MIB - 1, peak_reserved_bytes=4268 * MIB, total_memory_bytes=1005 * MIB,
    )  # fmt: skip
    fp32, bf16, *_ = lines(tmp_path / "r.csv", record)
    assert (bf16["time"], bf16["run_script_time"]) == ("1.5", "90.0")
    assert [bf16[name] for name in ("memory(MiB)", "memory(%)", "bytes_MiB", "percentage")] == [
        "999",
        "99",
        "999",
        "99",
    ]
    assert bf16["peak_reserved_MiB"] == "4268" and fp32["peak_reserved_MiB"] == ""
    assert (fp32["use_half"], bf16["use_half"], bf16["compress"]) == ("None", "torch.bfloat16", "None")
    assert (bf16["first"], bf16["second"], bf16["max"], bf16["argmax"]) == ("9.000ms", "1.000ms", "3.000ms", "100")
    assert bf16["first_in_argmax"] == "False" and bf16["num_batches"] == "101"
    assert bf16["p99"] != "" and bf16["p999"] == "" and fp32["p99"] == fp32["p99_ms"] == ""
    assert bf16["baseline_rounds"] == "1" and bf16["verdict"] == "faster" and fp32["verdict"] == ""


@pytest.mark.parametrize("name", ["h200-vit_b-ladder", "h200-vit_h-ladder", "h200-vit_small-ladder"])
def test_shipped_ladders_are_read_and_name_no_machine(name: str, tmp_path: Path) -> None:
    folder = SAMPLES / name
    record = read_ladder(folder)
    assert record.rounds == () and record.rows[0].peak_reserved_bytes is None
    assert "/tmp" not in (folder / "results.json").read_text() + (folder / "results.csv").read_text()
    write_csv(tmp_path / "results.csv", record)
    assert (tmp_path / "results.csv").read_text() == (folder / "results.csv").read_text()
    frame = ladder_rows(record)
    assert frame["p99_ns"].isna().all() and frame["speedup_low"].notna().sum() >= len(frame) - 2


def test_local_changes_are_said() -> None:
    record = dataclasses.replace(a_ladder(), git_commit=f"{'0' * 40}-dirty")
    said = [one.sentence for one in of_ladder(record, ladder_rows(record))]
    assert said[-1] == "Measured with uncommitted changes: the exact code is not on record."


def test_a_row_without_samples_has_no_ratio() -> None:
    empty = RowResult("x", (), "ok")
    record = dataclasses.replace(a_ladder(), rows=(empty, *a_ladder().rows[1:]), rounds=(Round(("bf16",), (5,) * 9),))
    assert math.isnan(over_baseline(record, record.rows[1]).value)
    assert ladder_rows(record)["speedup"].isna().all()
