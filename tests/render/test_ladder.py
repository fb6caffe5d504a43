"""Figures and pictures of a ladder: bars that add up, a front nobody beats, pixels where masks are."""

from __future__ import annotations

import dataclasses
import io
import shutil
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from PIL import Image

from profiler_kit.errors import InputError
from profiler_kit.findings.records import ladder_setup
from profiler_kit.formats.ladder_file import ladder_rows
from profiler_kit.formats.ladder_record import ROWS
from profiler_kit.render import pictures
from profiler_kit.render.figures import ladder as figures_ladder
from profiler_kit.render.ladder_style import ladder_facts
from profiler_kit.render.layout import layout
from profiler_kit.render.overlays import row_overlay, sample_count, write_overlays
from profiler_kit.tables import every_table
from profiler_kit.timeline.palette import HUES
from tests.ladders import a_ladder, write_ladder


@pytest.fixture(scope="module")
def rows() -> pd.DataFrame:
    return ladder_rows(a_ladder())


def test_the_waterfall_stands_on_the_step_before(rows: pd.DataFrame) -> None:
    pale, solid = figures_ladder.waterfall(rows).data[:2]
    assert list(pale.y) == ["fp32", "bf16", "compile", "int8", "oom"]
    assert list(pale.x) == [0, 80, 160, 320, 0]
    assert list(solid.x) == [80, 80, 160, 80, 0]
    assert list(solid.text) == ["80", "160.0 · 2.00×", "320.0 · 4.00×", "400.0 · 5.00×", "oom"]
    assert list(solid.marker.color)[2:4] == [HUES[0], HUES[1]]
    assert "--batch-size 8: too much" in solid.hovertext[4]


def test_names_are_shown_as_they_are() -> None:
    record = a_ladder()
    hostile = "<img src=x onerror=alert(1)>"
    changed = dataclasses.replace(record.rows[1], technique=hostile, error=hostile)
    frame = ladder_rows(dataclasses.replace(record, rows=(record.rows[0], changed)))
    for figure in (figures_ladder.waterfall(frame), figures_ladder.pareto(frame)):
        assert "<img" not in figure.to_json().replace("\\u003c", "<")
    assert pictures.waterfall_png(frame, hostile)


def test_the_front_holds_what_nothing_beats(rows: pd.DataFrame) -> None:
    known = rows[rows["images_per_s"].notna()]
    slower = known.iloc[[1]].assign(technique="poor", images_per_s=100.0, baseline_miou=0.95)
    assert figures_ladder.pareto_front(pd.concat([known, slower]))["technique"].tolist() == [
        "int8", "compile", "bf16", "fp32",
    ]  # fmt: skip
    assert figures_ladder.pareto_front(known.iloc[:0]).empty


def test_the_roofline(rows: pd.DataFrame) -> None:
    """6 TFLOP a batch in 100 ms are 60 TFLOP/s; 60 GB in float32 make 100 FLOP per byte, 200 in bfloat16."""
    assert rows["tflops"].tolist()[:3] == [60, 120, 240]
    assert rows["intensity"].tolist()[:2] == [100, 200]
    assert rows["peak_tflops"].tolist()[:2] == [50, 790]
    figure = figures_ladder.roofline(rows, {"float32": 50.0, "bfloat16": 790.0}, 4000.0)
    roof = next(trace for trace in figure.data if trace.name and trace.name.startswith("bfloat16"))
    assert list(roof.x) == [12.5, 197.5, 1600.0] and list(roof.y) == [50.0, 790.0, 790.0]
    assert not figures_ladder.roofline(rows.iloc[4:], {}, 4000.0).data
    unknown = figures_ladder.roofline(rows.assign(peak_tflops=np.nan), {}, 4000.0)  # no rate was measured
    assert np.isfinite(unknown.layout.yaxis.range).all()


def test_the_table_leaves_out_what_nothing_has() -> None:
    shown = {one.name: one for one in layout(every_table()["ladder"].of_source(a_ladder()))}
    assert list(shown["technique"].cells) == ["fp32", "bf16", "compile", "↳ int8", "↳ oom"]
    assert "compile_warm_ns" not in shown and list(shown["compile_cold_ns"].values)[2:4] == [41, 60]


def test_what_a_ladder_ran_on() -> None:
    facts = dict(ladder_setup(a_ladder()))
    assert facts["Weights"] == "random:0" and facts["Images"] == "8 (generated:0)"
    assert facts["Measured rates"].startswith("float32 50 TFLOP/s") and "copy 4,000.0 GB/s" in facts["Measured rates"]


def test_the_picture_has_bars_as_long_as_the_numbers(rows: pd.DataFrame) -> None:
    image = np.asarray(Image.open(io.BytesIO(pictures.waterfall_png(rows, *ladder_facts(a_ladder())))))
    blue = tuple(int(HUES[0][i : i + 2], 16) for i in (1, 3, 5))
    lengths = [int((image[118 + 46 * row + 23, :850] == blue).all(axis=1).sum()) for row in range(3)]
    assert lengths[1] == pytest.approx(lengths[0], abs=2) and lengths[2] == pytest.approx(2 * lengths[0], abs=3)
    assert lengths[0] > 50


def test_pillows_own_font_gets_letters_it_has(monkeypatch: pytest.MonkeyPatch, rows: pd.DataFrame) -> None:
    monkeypatch.setattr(pictures, "_FONTS", ())
    assert pictures._sure("2.00× · µs – …é", pictures._font(12)) == "2.00x , us - ..?"
    assert pictures.waterfall_png(rows, "×")


def test_masks_beside_the_baselines(tmp_path: Path) -> None:
    folder = write_ladder(tmp_path / "ladder")
    assert sample_count(folder) == 1
    image = np.asarray(Image.open(io.BytesIO(row_overlay(folder, "bf16"))))
    assert image.shape == (480 + 34, 2 * 640 + 12, 3)
    left, right = image[34:, :640], image[34:, 652:]
    assert np.array_equal(left, right)
    grey = image[34 + 470, 320]
    assert np.ptp(grey) < 4 and np.ptp(left[170, 170]) > 20 and np.ptp(left[250, 470]) > 20  # in the masks: colour
    assert [path.parent.name for path in write_overlays(folder, ["fp32", "bf16", "oom"])] == ["fp32", "bf16"]
    for name in ("student", "int8"):
        shutil.copytree(folder / ROWS / "bf16", folder / ROWS / name)
    three = np.asarray(Image.open(io.BytesIO(row_overlay(folder, "int8"))))
    assert three.shape == (480 + 34, 3 * 652 - 12, 3) and np.array_equal(three[34:, 1304:], left)
    for technique, number, where in (("oom", 0, "oom/masks.json"), ("bf16", 1, "samples/1.jpg")):
        with pytest.raises(InputError) as caught:
            row_overlay(folder, technique, number)
        assert where in str(caught.value)


def test_an_image_of_another_size_than_its_masks(tmp_path: Path) -> None:
    folder = write_ladder(tmp_path / "ladder")
    Image.new("RGB", (10, 10)).save(folder / "samples" / "0.jpg")
    with pytest.raises(InputError) as caught:
        row_overlay(folder, "bf16")
    assert str(caught.value) == (
        f"{folder / ROWS / 'fp32' / 'masks.json'}: masks of 64 x 48 pixels, expected 10 x 10 as "
        f"{folder / 'samples' / '0.jpg'} has. Measure the ladder again."
    )
