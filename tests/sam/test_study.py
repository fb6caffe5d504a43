"""The batching studies on vit_tiny: every part of the forward, real batch sizes, other image sizes."""

from __future__ import annotations

import copy
from collections.abc import Sequence
from contextlib import AbstractContextManager
from pathlib import Path

import pytest
import torch
from segment_anything.modeling import Sam

from profiler_kit.errors import OptionError, RunFormatError
from profiler_kit.formats.study_file import (
    StudyRecord,
    read_study,
    study_samples,
    study_speeds,
    study_totals,
    write_study,
)
from profiler_kit.load.discover.runs import find_ladders, find_runs
from profiler_kit.models.sam.models import load_model
from profiler_kit.models.sam.workload import SamWorkload, resized
from profiler_kit.render.figures import study as figures_study
from profiler_kit.workload import study
from profiler_kit.workload.optimizations import Optimization, optimized
from profiler_kit.workload.study import StudyOptions, parse_image_sizes, run_study

REWRITES = "nosync,patch_linear,sdpa,rel_pos,window_pad,batched_decoder"


@pytest.fixture(scope="module")
def record() -> StudyRecord:
    return run_study(
        SamWorkload("vit_tiny"),
        StudyOptions(
            devices="cpu", batch_sizes="1,3", image_sizes="128,256", optimizations=REWRITES,
            compiled=False, warmup=0, iterations=2,
        )
    )  # fmt: skip


def test_every_study_has_its_samples(record: StudyRecord) -> None:
    totals = study_totals(study_samples(record))
    of = {name: rows for name, rows in totals.groupby("study")}
    parts = ["whole forward", "image encoder", "prompt encoder", "mask decoder", "postprocess"]
    assert of["components"]["label"].tolist() == parts * 2
    assert of["batching"][["label", "batch_size"]].to_numpy().tolist() == [
        ["sequential", 1], ["batched", 1], ["sequential", 3], ["batched", 3],
    ]  # fmt: skip
    assert of["image-size"]["image_size"].tolist() == [128, 256]
    assert of["table"]["dtype"].tolist() == ["float32", "bfloat16", "float16"] and not of["table"]["compiled"].any()
    assert (totals["samples"] == 2).all() and record.weights == "random:0" and record.notes == ()


def test_times_are_per_image_of_the_real_batch(record: StudyRecord) -> None:
    samples = study_samples(record)
    mine = samples[(samples["label"] == "batched") & (samples["batch_size"] == 3)]["latency_ns"]
    totals = study_totals(samples)
    row = totals[(totals["label"] == "batched") & (totals["batch_size"] == 3)].iloc[0]
    assert row["per_image_ns"] == mine.median() / 3 and row["images_per_s"] == pytest.approx(3e9 / mine.median())


def test_written_read_and_found(tmp_path: Path, record: StudyRecord) -> None:
    write_study(tmp_path / "mine", record)
    assert read_study(tmp_path / "mine") == record
    assert (tmp_path / "mine" / "study.csv").read_text().startswith("study,label,device,")
    (found,) = find_ladders(tmp_path)
    assert found.key == "mine" and found.results is None and found.study == tmp_path / "mine" / "study.json"
    assert find_runs(tmp_path) == []


def test_what_is_no_study_is_one_line(tmp_path: Path) -> None:
    path = tmp_path / "study.json"
    path.write_text("hello")
    with pytest.raises(RunFormatError, match=r"expected results of profiler-kit study\. Measure one with: "):
        read_study(tmp_path)


def test_a_study_that_is_cut_short_keeps_what_it_measured(tmp_path: Path) -> None:
    seen: list[int] = []

    def save(found: StudyRecord) -> None:
        write_study(tmp_path, found)
        seen.append(len(found.samples))
        if len(seen) == 2:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        run_study(
            SamWorkload("vit_tiny"),
            StudyOptions(devices="cpu", studies="image-size", image_sizes="128,192,256", warmup=0, iterations=1),
            save=save,
        )
    totals = study_totals(study_samples(read_study(tmp_path)))
    assert seen == [1, 2] and totals["image_size"].tolist() == [128, 192]


def test_an_image_size_that_an_optimization_does_not_take_is_left_out_with_a_note(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """As fused_attention does on a GPU, which wants a power of two."""

    def picky(sam: Sam, chosen: Sequence[Optimization], device: torch.device) -> AbstractContextManager[Sam]:
        if sam.image_encoder.img_size == 96:
            raise OptionError("--optimizations x: found images of 6 tokens a side.")
        return optimized(sam, chosen, device)

    monkeypatch.setattr(study, "optimized", picky)
    options = StudyOptions(devices="cpu", studies="image-size", image_sizes="96,128", warmup=0, iterations=1)
    found = run_study(SamWorkload("vit_tiny"), options)
    assert [sample.image_size for sample in found.samples] == [128]
    assert found.notes == ("image size 96: --optimizations x: found images of 6 tokens a side.",)


def test_the_figures(record: StudyRecord) -> None:
    samples = study_samples(record)
    totals = study_totals(samples)
    assert figures_study.component_boxes(samples).data[0].name == "whole forward"
    speedup = figures_study.batching_lines(totals).data[-1]
    assert speedup.name == "speed-up" and list(speedup.x) == ["1", "3"] and speedup.text[0].endswith("×")
    assert list(figures_study.size_lines(totals).data[0].x) == ["128", "256"]
    table = study_speeds(totals)
    assert table["dtype"].tolist() == ["float32", "bfloat16", "float16"]
    assert table["compiled_per_s"].isna().all() and table["eager_per_s"].notna().all()


def test_another_image_size_is_what_segment_anything_itself_makes_of_it() -> None:
    """It resamples relative positions at every forward; only the position embedding has to be given to it."""
    published = load_model("vit_tiny").model
    changed = resized(copy.deepcopy(published), 384).image_encoder
    published.image_encoder.pos_embed = changed.pos_embed
    images = torch.randn(1, 3, 384, 384)
    with torch.no_grad():
        assert torch.equal(changed(images), published.image_encoder(images))
    assert torch.equal(resized(published, 256).image_encoder.blocks[0].attn.rel_pos_h, changed.blocks[0].attn.rel_pos_h)


def test_options_that_cannot_be_used() -> None:
    assert parse_image_sizes(" 256, 128", 16) == (128, 256)
    for options, text in (
        (
            StudyOptions(studies="x"),
            "--study x: 'x' is not known, expected some of components, batching, image-size, table.",
        ),
        (
            StudyOptions(image_sizes="100"),
            "--image-sizes '100': found '100', expected multiples of 16 from 64 to 4096 separated by commas. "
            "Try 512,1024.",
        ),
        (StudyOptions(iterations=0), "--iterations 0: expected 1 or more."),
    ):
        with pytest.raises(OptionError) as caught:
            run_study(SamWorkload("vit_tiny"), options)
        assert str(caught.value) == text
