"""The ladder in its own processes: measured, failed, timed out and resumed rows; out of memory; options."""

from __future__ import annotations

import csv
import dataclasses
import json
import math
from pathlib import Path

import numpy as np
import pytest
import torch

from profiler_kit.errors import CheckpointError, InputError, OptionError, RunFormatError, WorkloadError
from profiler_kit.findings.records import ladder_setup, of_ladder
from profiler_kit.formats.ladder_file import ladder_rows
from profiler_kit.formats.ladder_ratios import baseline_samples
from profiler_kit.formats.ladder_record import Ceilings, LadderRecord, RowResult, climb, read_ladder
from profiler_kit.load.discover.runs import find_runs
from profiler_kit.models.sam.accuracy import read_masks_file
from profiler_kit.models.sam.forward import Batch
from profiler_kit.models.sam.models import load_model, model_names
from profiler_kit.models.sam.optimizations import LADDER
from profiler_kit.models.sam.workload import SamWorkload
from profiler_kit.workload import ladder
from profiler_kit.workload.ceilings import Probe
from profiler_kit.workload.ladder import run_ladder
from profiler_kit.workload.ladder_plan import LadderOptions, LadderPlan, make_ladder_plan, parse_rows
from profiler_kit.workload.row import RowPlan, run_row
from tests.workload.rows import row_here

pytestmark = pytest.mark.usefixtures("low_ceilings")
QUICK = LadderOptions(device="cpu", batch_size=2, warmup=1, iterations=3, rows="bf16; tf32; broken=fp16")
CPU, GPU = torch.device("cpu"), torch.device("cuda", 0)
OURS = {field.name for field in dataclasses.fields(SamWorkload)}


def plan_of(**change: object) -> LadderPlan:
    """QUICK on a vit_tiny with that changed, options of SAM and of the ladder alike."""
    ours = {name: change.pop(name) for name in list(change) if name in OURS}
    workload = SamWorkload(**{"name": "vit_tiny", "count": 3, "task": "points", **ours})  # type: ignore[arg-type]
    return make_ladder_plan(workload, dataclasses.replace(QUICK, **change))  # type: ignore[arg-type]


def measure(**change: object) -> tuple[Path, LadderRecord]:
    """Run the ladder of that plan."""
    plan = plan_of(**change)
    return run_ladder(plan.workload, plan.options)


def rows(text: str, device: torch.device) -> tuple[tuple[str, str], ...]:
    """The rows of a ladder of SAM."""
    return parse_rows(text, SamWorkload("vit_tiny"), device)


@pytest.fixture(scope="module")
def out(low_ceilings: None, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A ladder whose first try timed out in every row, and was then resumed; its row `broken` has no such model.

    The row bf16 has a process of its own.
    """
    folder = tmp_path_factory.mktemp("ladder") / "new"
    with pytest.MonkeyPatch.context() as patch:
        plain, process = LadderPlan.row_plan, ladder._process

        def plan(self: LadderPlan, technique: str, optimizations: str) -> RowPlan:
            made = plain(self, technique, optimizations)
            return dataclasses.replace(made, options={"name": "vit_x"}) if technique == "broken" else made

        patch.setattr(LadderPlan, "row_plan", plan)
        with pytest.raises(WorkloadError) as caught:
            measure(rows="bf16", timeout_s=1e-9, out=folder)
        late = "fp32: took longer than --timeout 1e-09 s while at: start."
        assert str(caught.value) == f"no row could be measured; {late} The rest is in {folder}."
        assert [row.status for row in read_ladder(folder).rows] == ["timeout", "timeout"]
        patch.setattr(ladder, "_process", lambda plan, row, show: (process if row.names else row_here)(plan, row, show))
        returned, record = measure(out=folder, resume=True, traces=False)
    assert returned == folder and record == read_ladder(folder)
    return folder


@pytest.fixture(scope="module")
def record(out: Path) -> LadderRecord:
    return read_ladder(out)


def test_a_row_that_fails_keeps_its_error_and_the_others_go_on(record: LadderRecord) -> None:
    assert {row.technique: (row.status, row.error) for row in record.rows} == {
        "fp32": ("ok", ""),
        "bf16": ("ok", ""),
        "tf32": ("skipped", "tf32 needs a CUDA device, found cpu."),
        "broken": ("failed", _NO_MODEL),
    }


_NO_MODEL = (
    f"--model vit_x: no such model, expected one of {', '.join(model_names())}, or a SAM 2.1 such as sam2_large."
)


def test_what_is_measured_of_a_row(record: LadderRecord) -> None:
    fp32, bf16 = record.rows[:2]
    for row in (fp32, bf16):
        assert len(row.latency_ns) == 3 and min(row.latency_ns) > 0 and row.first_ns is not None
        assert list(row.phases_ns) == ["load", "compile_cold", "warmup", "steady"]
        assert row.phases_ns["compile_cold"] == 0 and row.phases_ns["steady"] >= sum(row.latency_ns)
        assert row.peak_memory_bytes is not None and row.total_memory_bytes is not None
        assert 0 < row.peak_memory_bytes < row.total_memory_bytes
        assert (row.weights, row.image_size, row.batch_size) == ("random:0", 256, 2)
    assert (fp32.dtype, bf16.dtype) == ("float32", "bfloat16")
    assert record.setup.weights == "random:0" and record.setup.images == "generated:0"
    assert record.ceilings is not None and set(record.ceilings.matrix_tflops) == {"float32", "bfloat16", "float16"}
    assert min(record.ceilings.matrix_tflops.values()) > 0 and record.ceilings.copy_gb_per_s > 0


def test_masks_are_compared_with_the_truth_and_with_the_baseline(out: Path, record: LadderRecord) -> None:
    fp32, bf16 = record.rows[:2]
    images = read_masks_file(out / "rows" / "bf16" / "masks.json")
    assert [image.name for image in images] == ["scene-0", "scene-1", "scene-2"]  # one batch and a half
    assert bf16.masks == sum(len(image.counts) for image in images) == 24
    for row in (fp32, bf16):
        assert row.truth is not None and row.truth.masks == 24 == sum(row.truth.counts)
    assert fp32.agreement is not None and (fp32.agreement.miou, fp32.agreement.strict_miou) == (1, 1)
    assert bf16.agreement is not None and bf16.agreement.miou is not None and 0.9 < bf16.agreement.miou < 1
    assert sorted(path.name for path in (out / "samples").iterdir()) == ["0.jpg", "1.jpg"]
    assert not (out / ".shared").exists()


def test_the_work_is_that_of_the_published_model(record: LadderRecord) -> None:
    """The patch embedding alone: 2 images of 16 x 16 patches, 3 * 16 * 16 products for each of 64 channels."""
    work = record.rows[0].work
    assert work is not None and record.rows[1].work is None
    assert work.flop > 2 * 2 * 256 * 768 * 64
    parameters = 4 * sum(p.numel() for p in load_model("vit_tiny").model.image_encoder.parameters())
    assert work.bytes > parameters  # every weight is read at least once


def test_the_frame_and_the_csv(out: Path, record: LadderRecord) -> None:
    frame = ladder_rows(record)
    assert frame["technique"].tolist() == ["fp32", "bf16", "tf32", "broken"]
    first, second, third = (frame.iloc[number] for number in range(3))
    assert first["parent"] == "" and second["parent"] == "fp32" and first["speedup"] == 1
    around = sorted((*record.rows[0].latency_ns, *record.rounds[0].latency_ns))
    median = (around[2] + around[3]) / 2  # of the baseline before and after
    assert second["speedup"] == second["gain"] == pytest.approx(second["images_per_s"] * median / 2e9)
    assert second["speedup_verdict"] == "too few samples" and math.isnan(second["speedup_low"])
    assert first["speedup_verdict"] == first["gain_verdict"] == ""
    assert first["images_per_s"] == pytest.approx(2e9 / sorted(record.rows[0].latency_ns)[1])
    assert second["intensity"] == pytest.approx(2 * first["intensity"])  # half the bytes
    assert math.isnan(third["images_per_s"]) and third["samples"] == 0 and third["error"]
    with (out / "results.csv").open(newline="") as handle:
        rows = list(csv.DictReader(handle))
    assert ",".join(list(rows[0])[:24]) == (
        "technique,time,sam_commit_name,pytorch_version,sam_model_type,batch_size,memory(MiB),memory(%),img_s(avg),"
        "batch_ms(avg)/batch_size,mIoU,use_compile,use_half,compress,epilogue_fusion_first,use_compile_decoder,"
        "use_nested_tensor,use_rel_pos,pad_input_image_batch,num_workers,num_batches,num_images,profile_path,memory_path"
    )
    samples = record.rows[1].latency_ns
    assert float(rows[1]["img_s(avg)"]) == pytest.approx(6e9 / sum(samples))  # 3 batches of 2, in their own time
    assert float(rows[1]["batch_ms(avg)/batch_size"]) == pytest.approx(sum(samples) / 3 / 2 / 1e6)
    assert float(rows[1]["time"]) == pytest.approx(record.rows[1].wall_s / 60) and rows[1]["first_in_argmax"] == "False"
    assert (
        rows[1]["use_half"] == "torch.bfloat16"
        and rows[0]["use_half"] == "None"
        and rows[1]["num_images"] == "6"
        and rows[1]["fail_count"] == "0"
    )
    assert rows[3]["status"] == "failed" and rows[3]["likely_failed_stderr"] == _NO_MODEL and rows[3]["mIoU"] == ""


def test_the_baseline_is_measured_again_at_the_end(out: Path, record: LadderRecord) -> None:
    """bf16 is the one row that was measured: tf32 and broken have nothing to compare."""
    assert [(one.rows, len(one.latency_ns), one.error) for one in record.rounds] == [(("bf16",), 3, "")]
    assert not list((out / "rows").glob(".*"))
    assert dict(ladder_setup(record))["Rounds"] == "fp32; bf16; fp32"


def test_rounds_of_rows_and_of_a_ladder_that_was_cut_short(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Every row that was measured is between two measurements of the baseline, of the same sitting."""
    ran: list[str] = []

    def process(plan: LadderPlan, row_plan: RowPlan, _show: object) -> RowResult:
        again = row_plan.timed_only
        ran.append("again" if again else row_plan.technique)
        if row_plan.technique == "c":
            return RowResult("c", ("bf16",), "failed", f"see {plan.out}/rows/c/log.txt.")
        late = again and ran.count("again") == 2
        if late:
            return RowResult("fp32", (), "timeout", "too late.", batch_size=2)
        return RowResult(row_plan.technique, row_plan.names, "ok", batch_size=2, latency_ns=(100, 101, 102))

    monkeypatch.setattr(ladder, "_process", process)
    rows = "a=bf16;b=bf16;c=bf16;d=bf16;e=bf16"
    _, record = measure(rows=rows, out=tmp_path / "x", baseline_every=2)
    assert ran == ["fp32", "a", "b", "again", "c", "d", "e", "again"]
    assert [(one.rows, one.error) for one in record.rounds] == [(("a", "b"), ""), (("d", "e"), "too late.")]
    assert baseline_samples(record, record.rows[1]) == (100, 101, 102) * 2
    assert baseline_samples(record, record.rows[-1]) == (100, 101, 102)  # the round after it failed
    said = [one.sentence for one in of_ladder(record, ladder_rows(record))]
    assert "The baseline could not be measured again: too late." in said
    assert "The baseline was measured 2 times: its medians differ by up to 0.0 %." in said
    ran.clear()
    monkeypatch.setattr(ladder, "_probe", lambda _plan: Probe(record.device_name, {}, None, "", Ceilings({}, 1.0)))
    _, resumed = measure(rows=f"{rows};f=bf16", out=tmp_path / "x", baseline_every=2, resume=True)
    assert ran == ["again", "c", "f", "again"]
    assert [one.rows for one in resumed.rounds[2:]] == [(), ("f",)]
    ran.clear()
    measure(rows=rows, out=tmp_path / "y", baseline_every=0)
    assert ran == ["fp32", "a", "b", "c", "d", "e"]


def test_what_is_written_names_files_from_the_folder_on(tmp_path: Path) -> None:
    plan = plan_of(out=tmp_path / "my ladder")
    for text, wanted in (
        (f"see {tmp_path}/my ladder/rows/a/log.txt.", "see rows/a/log.txt."),
        (
            f"profiler-kit ladder --out '{tmp_path}/my ladder' --rows a",
            "profiler-kit ladder --out 'my ladder' --rows a",
        ),
        (f"sam student eval s.pt --out {tmp_path}", f"sam student eval s.pt --out {tmp_path.name}"),
        (f"{tmp_path}/my ladder2/x", f"{tmp_path}/my ladder2/x"),
        (f"/else{tmp_path}/my ladder/x", f"/else{tmp_path}/my ladder/x"),
    ):
        assert ladder._portable(plan, text) == wanted


def test_a_checkpoint_is_read_before_any_process_starts(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ladder, "_process", lambda *_: pytest.fail("a process was started"))
    state = load_model("vit_tiny").model.state_dict()
    torch.save({**state, "more": torch.zeros(1)}, tmp_path / "more.pt")
    torch.save({name: value for name, value in state.items() if "neck" not in name}, tmp_path / "less.pt")
    (tmp_path / "cut.pt").write_bytes((tmp_path / "more.pt").read_bytes()[:5000])
    for file, said in (
        ("more.pt", "holds more, which vit_tiny has not."),
        ("less.pt", "is missing, expected all"),
        ("cut.pt", "broken or cut off"),
    ):
        with pytest.raises(CheckpointError, match=said):
            measure(checkpoint=str(tmp_path / file), out=tmp_path / "new")
    with pytest.raises(CheckpointError, match=r"holds vit_tiny: embedding width 64, expected vit_b. Try --model vit_t"):
        measure(name="vit_b", checkpoint=str(tmp_path / "more.pt"), out=tmp_path / "new")
    assert not (tmp_path / "new").exists()


def test_no_masks_are_said_to_be_none(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Random weights at the generator's own thresholds: nothing is found, and no score is printed for it."""
    monkeypatch.setattr(ladder, "_process", row_here)
    _, record = measure(
        task="amg", batch_size=1, count=2, points_per_side=2, rows="bf16", iterations=1, baseline_every=0, out=tmp_path
    )
    frame = ladder_rows(record)
    assert frame["masks"].tolist() == [0, 0] and frame["masks_judged"].tolist() == ["no masks"] * 2
    assert frame[["miou", "baseline_miou", "agreement"]].isna().all(axis=None)
    said = [one.sentence for one in of_ladder(record, frame)]
    assert "No masks: fp32 (0 masks), bf16 (0 masks); there is nothing to compare." in said


def test_measured_rows_are_not_run_again(out: Path, record: LadderRecord) -> None:
    stamps = {path: path.stat().st_mtime_ns for path in out.rglob("row.json")}
    _, again = measure(rows="bf16", out=out, resume=True, min_miou=0.5)
    assert [row for row in again.rows] == list(record.rows[:2]) and again.min_miou == 0.5
    assert {path: path.stat().st_mtime_ns for path in out.rglob("row.json")} == stamps


def test_resuming_wants_the_same_options(out: Path) -> None:
    for change, text in (
        ({"batch_size": 3}, "batch size 2, now it is 3"),
        ({"task": "boxes"}, "task points, now it is boxes"),
        ({"seed": 5}, "weights random:0, now it is random:5"),
    ):
        with pytest.raises(OptionError) as caught:
            measure(out=out, resume=True, **change)
        assert str(caught.value) == (
            f"--resume: {out} was measured with {text}. Use the same options, or another --out."
        )
    with pytest.raises(OptionError) as caught:
        measure(out=out, resume=True, rows="bf16=fp16")
    assert str(caught.value) == (
        f"--resume: bf16 in {out} was bf16, now it is fp16. Rename the row, or use another --out."
    )
    with pytest.raises(OptionError) as caught:
        measure(out=out)
    assert str(caught.value) == (
        f"--out {out}: there is a ladder already. Choose another --out, or add --resume or --overwrite."
    )


def test_the_dashboard_does_not_take_results_for_traces(out: Path) -> None:
    assert find_runs(out) == []  # no row has traces


def row_plan(folder: Path, **change: object) -> RowPlan:
    plan = plan_of(out=folder, rows="bf16", **change).row_plan("bf16", "bf16")
    (folder / "rows" / "bf16").mkdir(parents=True)
    return plan


def test_a_batch_that_does_not_fit_names_the_one_that_does(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    plain = SamWorkload.step

    def limited(self: SamWorkload, model: object, batch: Batch) -> object:
        if len(batch.images) > 2:
            torch.empty(1 << 60, dtype=torch.uint8)  # more than any machine has: torch's own error
        return plain(self, model, batch)

    monkeypatch.setattr(SamWorkload, "step", limited)
    row = run_row(row_plan(tmp_path, batch_size=9))
    assert (row.status, row.fitted_batch_size, row.batch_size) == ("oom", 2, 9)
    assert row.error == (
        "--batch-size 9: vit_tiny (bf16) ran out of memory on cpu, a batch of 2 fitted (found by halving). "
        "Try --batch-size 2."
    )


def test_all_masks_of_an_image_with_a_trace_beside_them(tmp_path: Path) -> None:
    amg = {"task": "amg", "points_per_side": 2, "points_per_batch": 3}
    row = run_row(row_plan(tmp_path, batch_size=1, traces=True, iterations=1, **amg))
    assert (row.status, row.error, row.batch_size, row.traces) == ("ok", "", 1, "rows/bf16")
    images = read_masks_file(tmp_path / "rows" / "bf16" / "masks.json")
    assert [image.name for image in images] == ["scene-0", "scene-1", "scene-2"]
    (run,) = find_runs(tmp_path)
    assert run.key == "rows/bf16" and run.problem is None and run.trace is not None and run.memory is not None
    assert run.record is not None and run.record.latency_ns == row.latency_ns


def test_the_stair_climbs_by_adding() -> None:
    rows: list[tuple[str, tuple[str, ...]]] = [
        ("fp32", ()),
        ("tf32", ("tf32",)),
        ("bf16", ("bf16",)),
        ("compile", ("bf16", "compile")),
        ("sdpa", ("bf16", "sdpa", "compile")),
        ("int8", ("bf16", "sdpa", "int8", "compile")),
        ("sparse", ("bf16", "sdpa", "sparse", "compile")),
    ]
    assert climb(rows) == ("fp32", "bf16", "compile", "sdpa")  # int8 and sparse exclude each other: no step
    assert climb(rows[:-1]) == ("fp32", "bf16", "compile", "sdpa", "int8")
    assert climb(rows[:3]) == ("fp32",) and climb([]) == ()


def test_alternatives_of_the_default_ladder_are_no_steps(tmp_path: Path) -> None:
    plan = plan_of(rows="", out=tmp_path)
    assert plan.steps == ("fp32", "sdpa", "window_pad", "batched_decoder", "compile")
    steps = dataclasses.replace(plan, rows=rows("", GPU), device=GPU).steps
    assert steps == ("fp32", *(row.label for row in LADDER[1:] if not row.alternative))
    assert {"compile", "fp8"} <= set(steps) and not {"int8", "2:4 sparse", "TF32"} & set(steps)
    own = dataclasses.replace(plan, rows=rows("bf16;a=bf16,compile;b=bf16,sdpa,compile_max", GPU), device=GPU)
    assert own.steps == ("fp32", "bf16", "a", "b")  # the ways of compiling count as one


def test_the_weights_that_ship_with_a_model_are_named(tmp_path: Path) -> None:
    plan = plan_of(name="vit_small", seed=3, out=tmp_path)
    assert plan.setup.weights.startswith("checkpoint:") and plan.setup.images == "generated:3"


def test_rows_as_typed() -> None:
    assert [name for name, _ in rows("", CPU)] == [
        "fp32", "bf16", "sdpa", "window_pad", "batched_decoder", "compile",
    ]  # fmt: skip
    names = [name for name, _ in rows("", GPU)]
    assert names[:3] == ["fp32", "TF32", "bf16"] and names[-1] == "fp8" and "2:4 sparse" in names
    assert rows("compile", GPU)[1][1].startswith("bf16,nosync,") and len(rows("compile", GPU)) == 2
    assert rows("bf16; fast = bf16,compile", CPU) == (("fp32", ""), ("bf16", "bf16"), ("fast", "bf16,compile"))
    assert rows("bf16,compile;fp32", CPU) == (("fp32", ""), ("bf16+compile", "bf16,compile"))
    for text, problem in {
        "a=bf16;a=fp16": "--rows a=bf16;a=fp16: 'a' is listed twice; list it once.",
        "=bf16": "--rows =bf16: 'a row without a name' is listed twice; list it once.",
        "fp32=bf16": "--rows fp32=bf16: fp32 is the model as published. Choose another name.",
    }.items():
        with pytest.raises(OptionError) as caught:
            rows(text, CPU)
        assert str(caught.value) == problem
    with pytest.raises(OptionError) as caught:
        rows("x=compile,bf16", CPU)
    assert str(caught.value) == "--rows, x: compile,bf16: bf16 must come before compile. Change the order."


@pytest.mark.parametrize(
    ("change", "text"),
    [
        ({"batch_size": 0}, "--batch-size 0: expected 1 to 1024."),
        ({"iterations": 0}, "--iterations 0: expected 1 or more."),
        ({"count": 0}, "--num-images 0: expected 1 or more."),
        ({"task": "x"}, "--task x: not known, expected one of points, boxes, amg, single-point, multi-point."),
        ({"task": "amg", "batch_size": 1, "points_per_batch": 0}, "--points-per-batch 0: expected 1 to 4096."),
        (
            {"task": "amg"},
            "--batch-size 2: --task amg takes one image at a time. Its batches are of points: use --points-per-batch.",
        ),
        ({"task": "amg", "pred_iou_thresh": 1.5}, "--pred-iou-thresh 1.5: expected a share from 0 to 1."),
        ({"min_miou": 99.0}, "--min-miou 99.0: expected a share from 0 to 1. Try --min-miou 0.99."),
        ({"timeout_s": 0.0}, "--timeout 0: expected more than 0 seconds."),
        ({"baseline_every": -1}, "--baseline-every -1: expected 0 or more."),
        ({"multimask": True}, "--multimask: a point always gets three masks. Use it with --task boxes."),
        ({"annotated": True}, "--annotated: found without annotations, expected --coco DIR."),
        ({"crowds": True, "images": "a"}, "--crowds: found without annotations, expected --coco DIR."),
        ({"images": "a", "coco": "b"}, "--images and --coco: found both; choose one of them."),
    ],
)
def test_options_that_cannot_be_used(tmp_path: Path, change: dict[str, object], text: str) -> None:
    with pytest.raises(OptionError) as caught:
        measure(out=tmp_path / "new", **change)
    assert str(caught.value) == text
    assert list(tmp_path.iterdir()) == []


def test_files_that_cannot_be_used(tmp_path: Path) -> None:
    for change in ({"coco": f"{tmp_path / 'x'}"}, {"images": f"{tmp_path / 'x'}"}, {"checkpoint": f"{tmp_path / 'x'}"}):
        with pytest.raises(InputError) as caught:
            measure(out=tmp_path / "new", **change)
        assert str(caught.value).startswith(f"{tmp_path / 'x'}: ")
    (tmp_path / "notes.txt").write_text("mine")
    with pytest.raises(OptionError) as refused:
        measure(out=tmp_path, overwrite=True)
    assert str(refused.value) == (
        f"--out {tmp_path}: this folder holds something other than a ladder. Choose another --out."
    )
    assert [path.name for path in tmp_path.iterdir()] == ["notes.txt"]


def test_results_that_are_none(tmp_path: Path) -> None:
    (tmp_path / "results.json").write_text(json.dumps({"setup": 1}))
    with pytest.raises(RunFormatError) as caught:
        read_ladder(tmp_path)
    assert str(caught.value) == (
        f"{tmp_path / 'results.json'}: Expected `object`, got `int` - at `$.setup`, expected results of profiler-kit "
        "ladder. Measure one with: profiler-kit ladder --out DIR"
    )


def test_a_process_that_dies_says_how() -> None:
    assert ladder._how_it_ended(-9) == "signal SIGKILL (the machine ran out of memory?)"
    assert ladder._how_it_ended(3) == "exit code 3"


def test_generated_scenes_are_kept_for_the_next_row(tmp_path: Path) -> None:
    workload = SamWorkload("vit_tiny", seed=3)
    workload.image_size, workload.scratch = 64, tmp_path
    made, again = workload.scenes(2), workload.scenes(2)
    assert [scene.size for scene in made] == [(48, 64)] * 2
    assert (tmp_path / "scenes.npz").is_file() and [scene.name for scene in again] == [scene.name for scene in made]
    for a, b in zip(made, again, strict=True):
        assert np.array_equal(a.image, b.image) and np.array_equal(a.masks, b.masks)


def test_where_images_come_from() -> None:
    assert SamWorkload(seed=7).source == "generated:7" and SamWorkload(coco="x").source == "x"
    assert RowResult("a", (), "ok").phases_ns == {}
