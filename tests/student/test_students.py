"""Backbones have their published sizes and the teacher's shapes; a student is a workload as its teacher is."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from torchvision.models import mobilenet_v3_large

from profiler_kit.cli.workloads import choose_workload
from profiler_kit.errors import CheckpointError, OptionError
from profiler_kit.models.sam.workload import SamWorkload
from profiler_kit.models.student.backbones import BACKBONES, Level, StudentEncoder, start_from
from profiler_kit.models.student.models import StudentFile, load_encoder, read_student
from profiler_kit.models.student.workload import Student2Workload, StudentWorkload
from profiler_kit.workload.optimizations import optimized, parse_optimizations
from profiler_kit.workload.protocol import Bench, make_model, relative_error_and_cosine
from profiler_kit.workload.row import RowPlan, run_row

CPU = torch.device("cpu")
TINY = {"name": "student_cas_vit_tiny", "teacher": "vit_tiny"}


def file_of(path: Path, backbone: str = "cas_vit_tiny", **change: object) -> Path:
    """A student's file with random weights, for the random vit_tiny of seed 0."""
    teacher = SamWorkload(name="vit_tiny").model(CPU)
    encoder, _ = load_encoder(teacher, backbone, None, 3)
    facts = {"backbone": backbone, "teacher": "vit_tiny", "teacher_weights": "random:0"}
    student = StudentFile(
        **{**facts, "taught_on": "generated scenes", "side": 256, **change}, encoder=encoder.state_dict()
    )  # type: ignore[arg-type]
    student.write(path)
    return path


@pytest.mark.parametrize(
    ("name", "parameters"),
    [
        ("resnet18", 11_689_512 - 513_000),  # without the classifier
        ("mobilenet_v3_large", 5_483_032 - 2_511_080),
        ("cas_vit_s", 5_760_000 - 2 * 257_000),  # 5.76 M as published, with two classifiers
    ],
)
def test_backbones_have_the_published_size_and_give_the_teachers_maps(name: str, parameters: int) -> None:
    encoder = StudentEncoder(name, (Level(16, 4), Level(32, 8), Level(128, 16)), 64).eval()
    assert sum(p.numel() for p in encoder.stages.parameters()) == pytest.approx(parameters, rel=0.002)
    with torch.no_grad():
        maps = encoder(torch.zeros(2, 3, 64, 64))
        one = StudentEncoder(name, (Level(24, 16),), 64).eval()(torch.zeros(1, 3, 64, 64))
    assert [tuple(found.shape) for found in maps] == [(2, 16, 16, 16), (2, 32, 8, 8), (2, 128, 4, 4)]
    assert one.shape == (1, 24, 4, 4)


def test_torchvisions_own_weights_are_taken_and_others_refused(tmp_path: Path) -> None:
    published = mobilenet_v3_large(weights=None).eval()
    torch.save(published.state_dict(), tmp_path / "theirs.pt")
    encoder = StudentEncoder("mobilenet_v3_large", (Level(8, 16),), 64).eval()
    assert start_from(encoder, tmp_path / "theirs.pt", "mobilenet_v3_large").startswith("checkpoint:")
    images = torch.randn(1, 3, 64, 64, generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        x = images
        for stage in encoder.stages:
            x = stage(x)
        torch.testing.assert_close(x, published.features(images))
    with pytest.raises(CheckpointError, match=r"theirs.pt: .*resnet18"):
        start_from(StudentEncoder("resnet18", (Level(8, 16),), 64), tmp_path / "theirs.pt", "resnet18")


def test_a_student_is_a_workload_with_layers_of_its_own(tmp_path: Path) -> None:
    chosen = StudentWorkload(**TINY, checkpoint=str(file_of(tmp_path / "student.pt"))).at_image_size(320)
    bench = Bench(chosen, model := make_model(chosen, CPU), CPU, 1)
    assert chosen.weights.startswith("checkpoint:") and bench.item(0).images.shape[-1] == 320
    (answer,) = bench.run(bench.item(0))
    assert answer.masks.shape[1:] == (3, 240, 320)
    select, _ = chosen.layers(bench.program)
    assert select is not None
    timed = [name for name, module in bench.program.named_modules() if select(name, module)]
    assert {"image_encoder.stages.2.2", "image_encoder.heads.0", "mask_decoder.transformer"} <= set(timed)
    assert set(chosen.components(bench.program)) == {"image_encoder", "prompt_encoder", "mask_decoder", "postprocess"}
    assert isinstance(model.image_encoder, StudentEncoder)


@pytest.mark.parametrize("text", ["student", "student,bf16,channels_last", "student,nosync,batched_decoder"])
def test_beside_its_teacher_it_is_one_of_the_optimizations(text: str, tmp_path: Path) -> None:
    chosen = StudentWorkload(**TINY, beside=True, checkpoint=str(file_of(tmp_path / "student.pt")))
    plain = Bench(chosen, teacher := make_model(chosen, CPU), CPU, 1)
    assert chosen.weights == "random:0" and type(teacher.image_encoder).__name__ == "ImageEncoderViT"
    with optimized(make_model(chosen, CPU), parse_optimizations(text, chosen.optimizations), CPU) as model:
        bench = Bench(chosen, model, CPU, 1)
        answer = bench.run(bench.item(0))
    assert chosen.weights.startswith("checkpoint:")
    assert answer[0].masks.shape == plain.run(plain.item(0))[0].masks.shape


def test_a_row_of_the_encoder_alone(tmp_path: Path) -> None:
    chosen = StudentWorkload(**TINY, beside=True, encoder_only=True)
    for name, optimizations in (("fp32", ""), ("student", "student")):
        folder = tmp_path / "rows" / name
        folder.mkdir(parents=True)
        plan = RowPlan(name, optimizations, chosen.spec, "cpu", 1, 0, 2, str(folder), chosen.options)
        row = run_row(plan)
        assert (row.status, len(row.latency_ns)) == ("ok", 2), row.error
    row = chosen.compare(row, tmp_path / "rows" / "student", tmp_path / "rows" / "fp32")
    assert (row.scores["relative_error"] or 0) > 0 and -1 <= (row.scores["cosine"] or 0) <= 1


def test_a_student_of_a_sam_2_gives_three_maps() -> None:
    pytest.importorskip("transformers")
    options = {"name": "student_cas_vit_tiny", "teacher": "sam2_nano", "side": 64}
    whole, encoder = (Student2Workload(**options, encoder_only=alone) for alone in (False, True))
    bench = Bench(encoder, model := make_model(encoder, CPU), CPU, 1)
    assert [tuple(one.shape) for one in bench.run(bench.item(0))] == [(1, 16, 16, 16), (1, 32, 8, 8), (1, 128, 4, 4)]
    whole.image_size = 64
    answers = Bench(whole, model, CPU, 1)
    assert answers.run(answers.item(0))[0].masks.shape[1:] == (3, 48, 64)


def test_files_that_do_not_fit_are_refused_in_one_line(tmp_path: Path) -> None:
    path = file_of(tmp_path / "student.pt")
    with pytest.raises(CheckpointError) as other:
        make_model(StudentWorkload(name="student_resnet18", teacher="vit_tiny", checkpoint=str(path)), CPU)
    said = "holds a student with cas_vit_tiny, expected resnet18. Try --model student_cas_vit_tiny."
    assert str(other.value) == f"{path}: {said}"
    beside = StudentWorkload(
        **TINY, beside=True, checkpoint=str(file_of(tmp_path / "b.pt", teacher_weights="random:1"))
    )
    with pytest.raises(CheckpointError) as teacher:
        beside.put_in(make_model(beside, CPU))
    assert str(teacher.value) == (
        f"{tmp_path / 'b.pt'}: a student of vit_tiny (random:1), expected one of vit_tiny (random:0). "
        "Give its own --teacher and --teacher-checkpoint."
    )
    torch.save({"backbone": "resnet18"}, tmp_path / "half.pt")
    with pytest.raises(CheckpointError, match=r"half.pt: no teacher in it, expected a student's file. Make one with"):
        read_student(tmp_path / "half.pt")
    with pytest.raises(OptionError) as name:
        StudentWorkload(name="student_vgg").check(1)
    known = ", ".join(f"student_{backbone}" for backbone in BACKBONES)
    assert str(name.value) == f"--model student_vgg: no such backbone, expected one of {known}."


def test_the_command_line_finds_the_family_by_the_files_teacher(tmp_path: Path) -> None:
    path = file_of(tmp_path / "student.pt", teacher="sam2_nano")
    assert type(choose_workload(None, seed=0, model="student_cas_vit_tiny", checkpoint=path)) is Student2Workload
    shipped = choose_workload(None, seed=0, model="student_resnet18")
    assert (
        type(shipped) is StudentWorkload and shipped.setup() is not None and shipped.weights.startswith("checkpoint:")
    )


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (
            {"backbone": "vgg"},
            "the backbone is 'vgg', expected one of resnet18, mobilenet_v3_large, cas_vit_s, cas_vit_tiny.",
        ),
        ({"teacher": "vit_x"}, "the teacher is 'vit_x', expected a SAM or a SAM 2 of this package."),
        ({"teacher": "sam2_x"}, "the teacher is 'sam2_x', expected a SAM or a SAM 2 of this package."),
        ({"side": "512"}, "no side in it, expected a student's file."),
    ],
)
def test_a_file_of_what_is_not_known_is_refused(change: dict[str, object], said: str, tmp_path: Path) -> None:
    facts = {"backbone": "resnet18", "teacher": "vit_tiny", "teacher_weights": "random:0", "taught_on": "", "side": 64}
    torch.save({**facts, "encoder": {}, "decoder": {}, **change}, path := tmp_path / "s.pt")
    with pytest.raises(CheckpointError) as caught:
        read_student(path)
    assert str(caught.value) == f"{path}: {said} Make one with: profiler-kit sam student train"


def test_the_shipped_student_is_of_the_shipped_teacher() -> None:
    """Its features are near the teacher's on a scene that it never saw."""
    shipped = StudentWorkload(beside=True, encoder_only=True)
    teacher = Bench(shipped, make_model(shipped, CPU), CPU, 1)
    student = shipped.put_in(make_model(shipped, CPU))
    item = teacher.item(0)
    found = relative_error_and_cosine(student.image_encoder(item.images), teacher.run(item))
    assert (found["cosine"] or 0) > 0.99
    file = shipped.file
    assert file is not None and read_student(file).taught_on == "generated scenes" and file.stat().st_size < 25_000_000
