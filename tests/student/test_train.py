"""Training: an interrupted one ends as one that was not, what is no number stops it, and it is a run to look at."""

from __future__ import annotations

import contextlib
import dataclasses
import io
import json
import shutil
from collections.abc import Iterator
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

from profiler_kit.cli import load_command
from profiler_kit.errors import CheckpointError, InputError, KitError, OptionError, WorkloadError
from profiler_kit.formats.ladder_record import RESULTS, RowResult, read_ladder
from profiler_kit.formats.run_record import read_record
from profiler_kit.models.sam.train import SAM, Family
from profiler_kit.models.sam.train_data import PADDING, Sample, make_mosaic, make_sample
from profiler_kit.models.sam2.models import load_model
from profiler_kit.models.sam2.train import SAM2
from profiler_kit.models.student import train as training
from profiler_kit.models.student.models import read_student
from profiler_kit.models.student.train import TaughtStore, TrainOptions, family_of, make_scene, student_losses, train
from profiler_kit.models.student.workload import student_workload
from profiler_kit.workload import ladder
from profiler_kit.workload.ceilings import Probe
from profiler_kit.workload.row import RowPlan, run_row
from tests.student.test_students import file_of

TINY = TrainOptions(
    teacher="vit_tiny", backbone="cas_vit_tiny", device="cpu", batch_size=2, prompts=1, scenes=3, steps=3
)


def drawn(images: Path | None, teacher: Any, family: Family, count: int, *_: object) -> Iterator[Sample]:
    """As training.samples_of, in this process."""
    if images is not None:
        return training.photograph_samples(teacher, family, images, count)
    return (make_scene(number, family.side(teacher), stretched=family.stretched) for number in range(count))


@pytest.fixture(autouse=True)
def no_processes(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(training, "samples_of", drawn)


def test_every_fourth_scene_has_four_parts_with_small_objects() -> None:
    samples = [make_scene(number, 256, stretched=False) for number in range(8)]
    for number, sample in enumerate(samples):
        made = (make_mosaic if number in (3, 7) else make_sample)(number, 256)
        assert np.array_equal(sample.image, made.image) and np.array_equal(sample.owner, made.owner)
    for sample in (samples[3], samples[7]):
        assert sample.objects == 12 and (sample.owner[192:] == PADDING).all()  # three in each part
        for number in range(12):
            (y, x) = np.nonzero(sample.owner == number)
            assert len(set(zip(y // 96, x // 128, strict=True))) == 1  # no object leaves its part
            assert len(y) <= 4 * (0.2 * 96) ** 2


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> Path:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(training, "samples_of", drawn)
        return train(dataclasses.replace(TINY, out=tmp_path_factory.mktemp("student") / "whole"))


def student(*arguments: object) -> str:
    """Run `profiler-kit sam student ...`; gives stdout, raises what it raised."""
    with contextlib.redirect_stdout(io.StringIO()) as out:
        load_command("sam").main(["student", *map(str, arguments)], standalone_mode=False)
    return out.getvalue()


def test_a_student_its_record_and_a_run_are_written(trained: Path) -> None:
    assert {path.name for path in trained.iterdir()} == {"student.pt", "state.pt", "training.json", "run"}
    found, record = read_student(trained / "student.pt"), json.loads((trained / "training.json").read_text())
    assert (found.backbone, found.teacher, found.taught_on) == ("cas_vit_tiny", "vit_tiny", "generated scenes")
    assert found.decoder and not any(key.startswith("image_encoder") for key in found.decoder)
    assert (record["steps"], record["taught_on"], record["scenes"]) == (3, "generated scenes", 3)
    assert [row["step"] for row in record["curve"]] == [3.0]
    run = read_record(trained / "run")
    assert run.model == "student_cas_vit_tiny, training" and run.workload["taught_on"] == "generated scenes"
    assert (trained / "run" / "trace.json.gz").is_file() and (trained / "run" / "memory.pickle").is_file()


def test_what_a_killed_training_left_is_gone_on_with(trained: Path, tmp_path: Path) -> None:
    out = tmp_path / "student"
    shutil.copytree(trained, out)
    for name in ("student.pt", "training.json"):  # the state is written first
        (out / name).unlink()
    train(dataclasses.replace(TINY, out=out, resume=True))
    assert {path.name for path in out.iterdir()} == {"student.pt", "state.pt", "training.json", "run"}
    assert read_student(out / "student.pt").backbone == "cas_vit_tiny"
    (tmp_path / "killed" / ".tmp-1-state.pt").mkdir(parents=True)
    dataclasses.replace(TINY, out=tmp_path / "killed").check()


def test_a_student_of_a_sam2(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    small = dataclasses.replace(SAM2, load=partial(load_model, side=128))
    monkeypatch.setattr(training, "family_of", lambda name: small if name == "sam2_nano" else None)
    monkeypatch.setattr(training, "_record", lambda run: None)
    folder = train(dataclasses.replace(TINY, teacher="sam2_nano", scenes=2, steps=1, out=tmp_path / "student"))
    found = read_student(folder / "student.pt")
    assert (found.teacher, found.side, found.decoder) == ("sam2_nano", 128, {})
    workload = student_workload(name="student_cas_vit_tiny", checkpoint=str(folder / "student.pt"), side=128)
    assert workload.spec.endswith(":Student2Workload") and workload.teacher == "sam2_nano"
    maps = workload.model(torch.device("cpu")).image_encoder(torch.zeros(1, 3, 128, 128))
    assert [tuple(part.shape) for part in maps] == [(1, 16, 32, 32), (1, 32, 16, 16), (1, 128, 8, 8)]


@pytest.mark.parametrize("name", ["vit_tiny", "sam2_nano"])
def test_a_student_that_is_its_teacher_has_nothing_to_learn(name: str) -> None:
    family, cpu = family_of(name), torch.device("cpu")
    more = {"side": 128} if name == "sam2_nano" else {}
    teacher = family.load(name, **more).model.requires_grad_(False)
    store = TaughtStore(2, teacher, family, cpu)
    store.add(list(drawn(None, teacher, family, 2)))
    store.teach(torch.float32)
    torch.manual_seed(0)
    with torch.no_grad():
        losses = student_losses(teacher.image_encoder, teacher, family, *store.draw(2, 2))
    assert float(losses.features) < 1e-4 and float(losses.quality) < 1e-3  # maps are kept in half precision
    assert name == "vit_tiny" or float(losses.iou) > 0.99  # of random weights some masks are empty


def test_an_interrupted_training_goes_on_to_the_same_end(
    trained: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(training, "_record", lambda run: None)
    save = training._Run.save

    def interrupted(run: Any, losses: torch.Tensor) -> None:
        save(run, losses)
        if run.step == 2:
            raise KeyboardInterrupt

    options = dataclasses.replace(TINY, out=tmp_path / "half", save_every_s=0)
    with monkeypatch.context() as patch:
        patch.setattr(training._Run, "save", interrupted)
        with pytest.raises(KeyboardInterrupt):
            train(options)
    assert torch.load(options.out / "state.pt", weights_only=True)["step"] == 2
    train(dataclasses.replace(options, resume=True))
    whole, half = (torch.load(path / "state.pt", weights_only=True) for path in (trained, options.out))
    assert whole["step"] == half["step"] == 3
    for part in ("encoder", "average"):
        assert all(torch.equal(tensor, half[part][key]) for key, tensor in whole[part].items())
    with pytest.raises(OptionError) as other:
        train(dataclasses.replace(options, resume=True, backbone="cas_vit_s"))
    assert str(other.value) == (
        f"--resume: {options.out / 'state.pt'} has backbone cas_vit_tiny, found cas_vit_s. Ask for the same, or "
        "choose another --out."
    )


def test_a_loss_that_is_no_number_stops_and_the_last_good_student_stays(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    losses, calls = training.student_losses, iter(range(9))

    def broken(*arguments: Any) -> training.Losses:
        found = losses(*arguments)
        return found if next(calls) < 1 else found._replace(total=found.total * float("nan"))

    monkeypatch.setattr(training, "student_losses", broken)
    options = dataclasses.replace(TINY, out=tmp_path / "nan", save_every_s=0)
    with pytest.raises(WorkloadError) as stopped:
        train(options)
    assert str(stopped.value) == (
        f"step 2: the loss is nan, expected a number; stopped, {options.out / 'student.pt'} is of the last good step. "
        "Try a lower --rate."
    )
    assert all(part.isfinite().all() for part in read_student(options.out / "student.pt").encoder.values())


def test_a_weight_that_the_file_cannot_hold_stops_the_training(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    losses = training.student_losses

    def swelling(encoder: torch.nn.Module, *arguments: Any) -> training.Losses:
        with torch.no_grad():
            next(encoder.buffers()).fill_(1e6)
        return losses(encoder, *arguments)

    monkeypatch.setattr(training, "student_losses", swelling)
    with pytest.raises(WorkloadError, match="a weight is more than float16 holds"):
        train(dataclasses.replace(TINY, out=tmp_path / "swollen"))


def test_a_folder_of_images_is_asked_for_what_the_teacher_finds_there(tmp_path: Path) -> None:
    images = tmp_path / "photos"
    images.mkdir()
    with pytest.raises(InputError, match=r"photos: no image in the folder, expected files ending in .jpg, .jpeg, .png"):
        train(dataclasses.replace(TINY, images=images, out=tmp_path / "out"))
    rng = np.random.default_rng(0)
    for number in range(2):
        Image.fromarray(rng.integers(0, 255, (40, 64, 3), dtype=np.uint8)).save(images / f"{number}.png")
    teacher = SAM.load("vit_tiny").model
    samples = list(training.photograph_samples(teacher, SAM, images, 2))
    assert [sample.image.shape for sample in samples] == [(256, 256, 3)] * 2
    store = TaughtStore(2, teacher, SAM, torch.device("cpu"))
    store.add([dataclasses.replace(sample, objects=0) for sample in samples])  # where the teacher found nothing
    store.teach(torch.float32)
    task, maps = store.draw(2, 3)
    assert maps[0].shape == (2, 64, 16, 16) and not task.by_box.any() and task.truth.any()


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"backbone": "vgg"}, "--backbone vgg: no such backbone, expected one of resnet18, "),
        ({"teacher": "vit_x"}, "--teacher vit_x: no such model, expected one of vit_tiny, "),
        ({"teacher": "sam2_x"}, "--teacher sam2_x: no such model, expected one of sam2_nano, "),
        ({"seed": -1}, "--seed -1: expected 0 to "),
        ({"device": "tpu"}, "device: found 'tpu', expected "),
        ({"minutes": 0.0}, "--minutes 0: expected more than 0."),
        ({"batch_size": 1}, "--batch-size 1: expected 2 or more."),
        ({"resume": True}, "out: no state.pt in it, expected a training to go on with. Leave --resume out."),
    ],
)
def test_what_cannot_be_used_is_said_before_anything_is_made(change: dict[str, Any], said: str, tmp_path: Path) -> None:
    with pytest.raises(KitError) as caught:
        train(dataclasses.replace(TINY, out=tmp_path / "out", **change))
    assert said in str(caught.value) and "\n" not in str(caught.value)
    assert not list(tmp_path.iterdir())


def test_a_gpu_without_bfloat16_is_said_before_anything_is_made(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(training, "choose_device", lambda device: torch.device("cuda:0"))
    monkeypatch.setattr(torch.cuda, "is_bf16_supported", lambda including_emulation: including_emulation)
    monkeypatch.setattr(torch.cuda, "get_device_name", lambda device: "Tesla T4")
    with pytest.raises(WorkloadError) as caught:
        train(dataclasses.replace(TINY, out=tmp_path / "out"))
    assert str(caught.value) == "--device cuda:0: Tesla T4 has no bfloat16. Use --device cpu, or another GPU."
    assert not list(tmp_path.iterdir())


def test_nothing_is_overwritten(trained: Path) -> None:
    with pytest.raises(OptionError) as caught:
        train(dataclasses.replace(TINY, out=trained))
    assert str(caught.value) == (
        f"--out {trained}: this exists already. Add --resume to go on, or choose another --out."
    )


@pytest.fixture
def rows_in_this_process(monkeypatch: pytest.MonkeyPatch) -> None:
    def process(_plan: object, row_plan: RowPlan, _show: object) -> RowResult:
        with contextlib.redirect_stdout(io.StringIO()):
            return run_row(row_plan)

    monkeypatch.setattr(ladder, "_process", process)
    monkeypatch.setattr(ladder, "_probe", lambda plan: Probe("CPU", {"torch": "2"}, None, "profiler-kit", None))


@pytest.mark.usefixtures("rows_in_this_process")
def test_it_is_evaluated_beside_its_teacher(trained: Path, tmp_path: Path) -> None:
    how = ("--device", "cpu", "--scenes", "1", "--out", tmp_path / "out", "--json")
    (found,) = json.loads(student("eval", trained, *how))
    teacher, mine = found["students"]
    assert (teacher["technique"], mine["technique"]) == ("fp32", "student") and teacher["of_teacher"] == 1
    assert teacher["parameters"] == 469_640 and mine["parameters"] == 370_108 and mine["image_size"] == 256
    assert 0 < mine["agreement"] <= 1 and mine["miou_small"] is not None and found["num_images"] == 1
    assert (tmp_path / "out" / "rows" / "student" / "overlay.png").is_file()
    with pytest.raises(OptionError, match=r"--prompts grid: not known, expected boxes or centers."):
        student("eval", trained, "--prompts", "grid")
    with pytest.raises(OptionError, match=r"^--scenes 0: expected 1 or more."):
        student("eval", trained, "--scenes", "0")
    for wrong, said in (
        (("--include-crowds",), "--include-crowds: found without annotations, expected --coco DIR."),
        (("--area", "annotated"), "--area annotated: found without annotations, expected --coco DIR."),
        (
            ("--multimask", "--prompts", "centers"),
            "--multimask: a point always gets three masks. Use it with --prompts boxes.",
        ),
    ):
        with pytest.raises(OptionError) as caught:
            student("eval", trained, *wrong)
        assert str(caught.value) == said
    other = file_of(tmp_path / "other.pt", teacher_weights="random:7")
    with pytest.raises(
        CheckpointError, match=r"other.pt: a student of vit_tiny \(random:7\), expected one of vit_tiny \(random:0"
    ):
        student("eval", other, "--device", "cpu", "--out", tmp_path / "unlike")
    assert not (tmp_path / "unlike").exists()
    with pytest.raises(CheckpointError, match=r"student.pt: cannot be read .* expected a student in int8."):
        student("eval", trained, "--int8", trained / "student.pt")  # before any row runs


@pytest.mark.usefixtures("rows_in_this_process")
def test_it_is_measured_alone_and_whole(trained: Path, tmp_path: Path) -> None:
    quick = ("--device", "cpu", "--rows", "student", "--iterations", "1", "--warmup", "0", "--out", tmp_path / "out")
    printed = student("bench", trained, *quick, "--image-size", "64")
    assert printed.count("students beside their teacher") == 2
    alone, whole = (read_ladder(tmp_path / "out" / name / RESULTS) for name in ("encoder-b1-64px", "whole-b1-64px"))
    assert [row.image_size for row in (*alone.rows, *whole.rows)] == [64] * 4
    assert alone.rows[1].scores["cosine"] is not None and whole.rows[1].agreement is not None
    (tmp_path / "used" / "whole-b1" / "rows").mkdir(parents=True)
    (other := tmp_path / "other").mkdir()
    (other / "notes.txt").touch()
    for wrong, said in (
        (
            ("--out", other),
            f"--out {other}: this folder holds notes.txt, expected ladders at most. Choose another --out.",
        ),
        (
            ("--out", tmp_path / "used"),
            f"--out {tmp_path / 'used' / 'whole-b1'}: there is a ladder already. Choose another --out, or add --resume "
            "or --overwrite.",
        ),
        (
            ("--teacher", "sam2_nano"),
            f"--teacher sam2_nano: found with a student of vit_tiny: {trained}. Leave --teacher out.",
        ),
        (
            ("--backbone", "resnet18"),
            f"--backbone resnet18: found with a student of cas_vit_tiny: {trained}. Leave --backbone out.",
        ),
        (("--image-size", "64,63"), "--image-size 63: expected a multiple of 32."),
        (("--batch-size", "1,1"), "--batch-size 1,1: one is listed twice; list it once."),
    ):  # the last case of several is refused before the first one runs
        with pytest.raises(OptionError) as caught:
            student("bench", trained, "--device", "cpu", *wrong)
        assert str(caught.value) == said
    assert [path.name for path in (tmp_path / "used").iterdir()] == ["whole-b1"]
    with pytest.raises(OptionError, match=r"--batch-size 0: expected whole numbers from 1 to 4096, such as 1,8."):
        student("bench", trained, "--batch-size", "0")
    with pytest.raises(OptionError, match=r"^--backbone vgg: no such backbone"):
        student("bench", "--backbone", "vgg")
    with pytest.raises(OptionError, match=r"^--teacher vit_x: no such model"):
        student("bench", "--teacher", "vit_x")
    with pytest.raises(OptionError, match=r"^--int8 x.pt2: found without a student, expected the one it was made of"):
        student("bench", "--int8", "x.pt2")
