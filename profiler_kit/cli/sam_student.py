"""`profiler-kit sam student`: teach a small encoder, say how good it is, quantize it, export it, measure it."""

from __future__ import annotations

import itertools
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Final

import typer

from profiler_kit.cli.output import AsJson, print_json
from profiler_kit.cli.workloads import Device, Images, Seed, Warmup
from profiler_kit.errors import OptionError
from profiler_kit.progress import progress_bar

if TYPE_CHECKING:
    from profiler_kit.formats.ladder_record import LadderRecord
    from profiler_kit.workload.protocol import Workload

Student = Annotated[
    Path, typer.Argument(metavar="STUDENT", help="What sam student train wrote: the folder, or student.pt in it.")
]
Teacher = Annotated[str, typer.Option(help="A SAM or SAM 2, as capture --model.")]
TeacherCheckpoint = Annotated[
    Path | None, typer.Option(help="Its official checkpoint; vit_small and sam2_nano come with the package.")
]
Backbone = Annotated[str, typer.Option(help="resnet18, mobilenet_v3_large, cas_vit_s or cas_vit_tiny.")]
Sizes = Annotated[
    str, typer.Option(help="Sides of the image in pixels, one ladder each: 512,768,1024. [default: the teacher's]")
]
Out = Annotated[Path | None, typer.Option(help="Folder to write.")]
Overwrite = Annotated[bool, typer.Option("--overwrite", help="Replace what is at --out.")]
Resume = Annotated[bool, typer.Option("--resume", help="Go on with what is at --out: rows measured are kept.")]
Int8 = Annotated[Path | None, typer.Option(help="What sam student quantize wrote, to measure beside it.")]


def train(
    teacher: Teacher = "vit_small",
    teacher_checkpoint: TeacherCheckpoint = None,
    backbone: Backbone = "resnet18",
    minutes: Annotated[float, typer.Option(help="Minutes to train, once the images are ready.")] = 10.0,
    steps: Annotated[int | None, typer.Option(help="Train this many steps instead, however long they take.")] = None,
    images: Images = None,
    scenes: Annotated[
        int | None, typer.Option(help="Images to learn from. [default: 4096 on a GPU, 64 on a CPU]")
    ] = None,
    init: Annotated[Path | None, typer.Option(help="The backbone's own weights to start from.")] = None,
    batch_size: Annotated[int | None, typer.Option(help="Images in a step. [default: 64 on a GPU, 4 on a CPU]")] = None,
    rate: Annotated[float, typer.Option(help="Highest learning rate.")] = 1e-3,
    seed: Seed = 0,
    device: Device = None,
    out: Annotated[Path, typer.Option(help="Folder for the student, its record and the state to go on from.")] = Path(
        "traces/student"
    ),
    resume: Annotated[bool, typer.Option("--resume", help="Go on with the training in --out.")] = False,
) -> None:
    """Teach a backbone to give what the teacher's encoder gives, with the teacher's decoder behind it, frozen.

    The loss: Huber over the encoder's maps, then masks and predicted IoU for points, boxes and background points. The
    teacher looks at each image once. Some steps are recorded as a run (--out/run): look at it with profiler-kit serve
    """
    from profiler_kit.models.student.train import TrainOptions
    from profiler_kit.models.student.train import train as run

    options = TrainOptions(
        teacher=teacher,
        teacher_checkpoint=teacher_checkpoint,
        backbone=backbone,
        minutes=minutes,
        steps=steps,
        images=images,
        scenes=scenes,
        init=init,
        batch_size=batch_size,
        rate=rate,
        seed=seed,
        device=device,
        out=out,
        resume=resume,
    )
    with progress_bar("train") as report:
        folder = run(options, report=report)
    typer.echo(f"written to {folder}\n  next   profiler-kit sam student eval {folder}")


def evaluate(
    student: Student,
    teacher_checkpoint: TeacherCheckpoint = None,
    int8: Int8 = None,
    coco: Annotated[Path | None, typer.Option(help="COCO folder, or its json.")] = None,
    scenes: Annotated[int, typer.Option(help="Images to segment: generated ones, or the first of --coco.")] = 64,
    prompts: Annotated[str, typer.Option(help="boxes or centers, of each object.")] = "boxes",
    multimask: Annotated[
        bool, typer.Option("--multimask", help="Predict three masks for each box, and keep the best.")
    ] = False,
    include_crowds: Annotated[bool, typer.Option("--include-crowds", help="Count COCO's crowds as objects.")] = False,
    area: Annotated[
        str, typer.Option(help="Which area tells small from large objects: pixels or annotated.")
    ] = "pixels",
    image_size: Sizes = "",
    device: Device = None,
    seed: Seed = 0,
    out: Out = None,
    resume: Resume = False,
    overwrite: Overwrite = False,
    as_json: AsJson = False,
) -> None:
    """Segment images with teacher and student: mean IoU with the truth by size, and of the student with its teacher.

    One ladder for each image size, with the teacher as baseline; masks beside each other are in its pictures.
    """
    for option, value, known in (
        ("--prompts", prompts, ("boxes", "centers")),
        ("--area", area, ("pixels", "annotated")),
    ):
        if value not in known:
            raise OptionError(f"{option} {value}: not known, expected {known[0]} or {known[1]}.")
    if scenes < 1:
        raise OptionError(f"--scenes {scenes}: expected 1 or more.")
    for option, given in (("--include-crowds", include_crowds), ("--area annotated", area == "annotated")):
        if given and coco is None:
            raise OptionError(f"{option}: found without annotations, expected --coco DIR.")
    if multimask and prompts != "boxes":
        raise OptionError("--multimask: a point always gets three masks. Use it with --prompts boxes.")
    options = {
        "coco": None if coco is None else str(coco),
        "count": scenes,
        "task": "boxes" if prompts == "boxes" else "points",
        "multimask": multimask,
        "crowds": include_crowds,
        "annotated": area == "annotated",
        "seed": seed,
    }
    chosen = _student_options(student, teacher_checkpoint, int8)
    rows = "student" + (";int8=student,int8" if int8 is not None else "")
    cases = ((f"{side}px" if side else "", {**chosen, **options, "side": side}, 1) for side in _sides(image_size))
    _measure(cases, rows, out, device, resume, overwrite, as_json, baseline_every=0, iterations=5)


def bench(
    student: Annotated[
        Path | None,
        typer.Argument(metavar="[STUDENT]", help="As for sam student eval; random weights of --backbone without one."),
    ] = None,
    backbone: Annotated[str | None, typer.Option(help="Without a STUDENT, as train's. [default: resnet18]")] = None,
    teacher: Annotated[str | None, typer.Option(help="Without a STUDENT, as train's. [default: vit_small]")] = None,
    teacher_checkpoint: TeacherCheckpoint = None,
    int8: Int8 = None,
    parts: Annotated[str, typer.Option(help="encoder: alone; whole: from the image to masks.")] = "encoder,whole",
    rows: Annotated[str, typer.Option(help="As ladder --rows. [default: dtypes, compiled, CUDA graphs]")] = "",
    batch_size: Annotated[str, typer.Option(help="Images in a batch, one ladder each: 1,8.")] = "1",
    image_size: Sizes = "",
    device: Device = None,
    iterations: Annotated[int | None, typer.Option(help="Timed batches. [default: 20 on a GPU, 5 on a CPU]")] = None,
    warmup: Warmup = None,
    traces: Annotated[bool, typer.Option("--traces", help="Add a trace and a memory snapshot to each row.")] = False,
    out: Out = None,
    resume: Resume = False,
    overwrite: Overwrite = False,
    as_json: AsJson = False,
) -> None:
    """Measure a student beside its teacher: dtype, torch.compile and CUDA graphs, a ladder for each part and batch.

    Rows are those of profiler-kit ladder: fresh processes, the device idle before each batch, warm-up apart.
    """
    from profiler_kit.models.student.models import PREFIX, check_backbone

    if student is None:
        backbone, teacher = backbone or "resnet18", teacher or "vit_small"
        check_backbone(backbone)
        if int8 is not None:
            raise OptionError(f"--int8 {int8}: found without a student, expected the one it was made of: STUDENT.")
        checkpoint = None if teacher_checkpoint is None else str(teacher_checkpoint)
        chosen = {"name": PREFIX + backbone, "teacher": teacher, "teacher_checkpoint": checkpoint, "beside": True}
    else:
        chosen = _student_options(student, teacher_checkpoint, int8)
        held = (
            ("--backbone", backbone, str(chosen["name"]).removeprefix(PREFIX)),
            ("--teacher", teacher, chosen["teacher"]),
        )
        for option, given, found in held:
            if given not in (None, found):
                raise OptionError(f"{option} {given}: found with a student of {found}: {student}. Leave {option} out.")
    wanted = [part.strip() for part in parts.split(",") if part.strip()]
    if wanted not in (["encoder"], ["whole"], ["encoder", "whole"], ["whole", "encoder"]):
        raise OptionError(f"--parts {parts}: expected encoder, whole or both.")
    what: dict[str, dict[str, Any]] = {"encoder": {"encoder_only": True}, "whole": {"task": "points", "count": 8}}
    cases = (
        (
            "-".join(filter(None, (part, f"b{batch}", f"{side}px" if side else ""))),
            {**chosen, **what[part], "side": side},
            batch,
        )
        for part, batch, side in itertools.product(wanted, _numbers("--batch-size", batch_size), _sides(image_size))
    )
    _measure(cases, rows, out, device, resume, overwrite, as_json, iterations=iterations, warmup=warmup, traces=traces)


def quantize(
    student: Student,
    mode: Annotated[str, typer.Option(help="ptq: after training; qat: with some more training.")] = "ptq",
    teacher_checkpoint: TeacherCheckpoint = None,
    images: Images = None,
    scenes: Annotated[int, typer.Option(help="Images to calibrate with, or to learn from.")] = 32,
    steps: Annotated[int, typer.Option(help="Of qat.")] = 200,
    batch_size: Annotated[int, typer.Option(help="Images at once.")] = 4,
    rate: Annotated[float, typer.Option(help="Learning rate of qat.")] = 1e-4,
    seed: Seed = 0,
    device: Annotated[
        str | None, typer.Option(help="Where it looks or learns: cpu, cuda or cuda:N. [default: a GPU if there is one]")
    ] = None,
    out: Annotated[Path | None, typer.Option(help="File to write. [default: int8.pt2 beside the student]")] = None,
) -> None:
    """Bring a student's convolutions to int8, converted for torch's compiler on a CPU; additive attention stays float.

    What is written runs in int8: sam student eval and bench measure it with --int8.
    """
    from profiler_kit.models.student.quantize import INT8, QuantizeOptions
    from profiler_kit.models.student.quantize import quantize as run

    file = _file(student)
    options = QuantizeOptions(
        student=file,
        mode=mode,
        teacher_checkpoint=teacher_checkpoint,
        images=images,
        scenes=scenes,
        steps=steps,
        batch_size=batch_size,
        rate=rate,
        seed=seed,
        device=device,
        out=out or file.with_name(INT8),
    )
    with progress_bar("quantize") as report:
        written = run(options, report=report)
    typer.echo(f"written to {written}\n  next   profiler-kit sam student eval {student} --int8 {written} --device cpu")


def export(
    student: Student,
    aoti: Annotated[Path | None, typer.Option(help="AOTInductor package (.pt2) to write, for --device.")] = None,
    onnx: Annotated[Path | None, typer.Option(help="ONNX model to write; run by onnxruntime on the CPU.")] = None,
    batch_size: Annotated[int, typer.Option(help="Batch size; the only one that the package takes.")] = 1,
    device: Device = None,
    as_json: AsJson = False,
) -> None:
    """Write a student's encoder as a file that runs without this package, run that, and compare the two."""
    import dataclasses

    from profiler_kit.models.student.export import export as run

    given = [(kind, path) for kind, path in (("aoti", aoti), ("onnx", onnx)) if path is not None]
    if not given:
        raise OptionError("sam student export: found no file to write, expected --aoti FILE or --onnx FILE.")
    options = {**_student_options(student, None, None), "beside": False}
    done = run(options, given, batch=batch_size, device=device)
    if as_json:
        print_json([{**dataclasses.asdict(one), "path": str(one.path)} for one in done])
        return
    for one in done:
        said = "no number" if one.error is None else f"{one.error:.2e}"
        typer.echo(f"written to {one.path}: images of {one.side} px, relative error {said} against the student itself")


def _file(student: Path) -> Path:
    """The student's file, of a folder that in it."""
    from profiler_kit.models.student.train import STUDENT

    return student / STUDENT if student.is_dir() else student


def _student_options(student: Path, teacher_checkpoint: Path | None, int8: Path | None) -> dict[str, Any]:
    """The options of a student's workload beside its teacher, from its file."""
    from profiler_kit.models.student.models import PREFIX, read_student

    path = _file(student)
    found = read_student(path)
    return {
        "name": PREFIX + found.backbone,
        "checkpoint": str(path),
        "teacher": found.teacher,
        "teacher_checkpoint": None if teacher_checkpoint is None else str(teacher_checkpoint),
        "int8": None if int8 is None else str(int8),
        "beside": True,
    }


def _numbers(option: str, text: str) -> list[int]:
    found = [one.strip() for one in text.split(",") if one.strip()]
    if not found or not all(one.isascii() and one.isdigit() and 0 < int(one) <= 4096 for one in found):
        raise OptionError(f"{option} {text}: expected whole numbers from 1 to 4096, such as 1,8.")
    numbers = [int(one) for one in found]
    if len(set(numbers)) < len(numbers):
        raise OptionError(f"{option} {text}: one is listed twice; list it once.")
    return numbers


def _sides(text: str) -> list[int]:
    return _numbers("--image-size", text) if text else [0]


def _measure(
    cases: Iterator[tuple[str, Mapping[str, Any], int]],
    rows: str,
    out: Path | None,
    device: str | None,
    resume: bool,
    overwrite: bool,
    as_json: bool,
    **timing: Any,
) -> None:
    """One ladder for each case (its folder, options of the workload, batch size), and what it says of the students."""
    from profiler_kit.cli.ladder import draw_ladder, print_ladder
    from profiler_kit.cli.table_command import print_filled
    from profiler_kit.models.student.workload import student_workload
    from profiler_kit.tables import every_table
    from profiler_kit.workload.ladder import check_ladder, check_ladders, run_ladder
    from profiler_kit.workload.ladder_plan import LadderOptions

    planned: list[tuple[str, Workload, LadderOptions]] = []
    for name, chosen, size in cases:
        place = None if out is None else out / name
        options = LadderOptions(
            rows=rows,
            batch_size=size,
            device=device,
            out=place,
            resume=resume,
            overwrite=overwrite,
            warm_compile=False,
            **timing,
        )
        planned.append((name, student_workload(**chosen), options))
    if out is not None and planned[0][0]:
        check_ladders(out)
    for _, workload, options in planned:
        check_ladder(workload, options)
    said = []
    for name, workload, options in planned:
        with progress_bar(name or "ladder") as report:
            folder, record = run_ladder(workload, options, report=report)
        draw_ladder(folder, record)
        said.append(record)
        if not as_json:
            print_ladder(record, "students")
            if len((found := every_table()["accuracy_by_category"].of_source(record)).frame):
                print_filled(found)
        typer.echo(f"written to {folder}", err=as_json)
    if as_json:
        print_json([_as_json(record) for record in said])


def _as_json(record: LadderRecord) -> dict[str, object]:
    from profiler_kit.tables import every_table

    setup = record.setup
    facts = {"device_name": record.device_name, "batch_size": setup.batch_size, "task": setup.task}
    images = {"images": setup.images, "num_images": setup.num_images, "multimask": setup.multimask}
    found = {name: every_table()[name].of_source(record).records() for name in ("students", "accuracy_by_category")}
    return {**facts, **images, **found}


COMMANDS: Final = {"train": train, "eval": evaluate, "bench": bench, "quantize": quantize, "export": export}
