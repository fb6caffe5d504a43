"""Students by name, and their files: the encoder in half precision, and what it was taught by."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from functools import partial
from pathlib import Path
from typing import Any, Final, cast

import torch

from profiler_kit.errors import CheckpointError, OptionError
from profiler_kit.files import whole_file
from profiler_kit.models.checkpoints import CheckpointKind, State, build_seeded, unpacked
from profiler_kit.models.sam import models as sam1
from profiler_kit.models.sam2 import models as sam2
from profiler_kit.models.student.backbones import BACKBONES, Level, StudentEncoder

PREFIX: Final = "student_"
KIND: Final = CheckpointKind("a student's file", "Make one with: profiler-kit sam student train")
# Taught by the shipped vit_small on generated scenes, stored in int8 rows.
_SHIPPED: Final[Mapping[str, Path]] = {"resnet18": Path(__file__).parent / "weights" / "resnet18_512.pt"}


@dataclass(frozen=True)
class StudentFile:
    """What a student's file holds.

    backbone: its name. teacher, teacher_weights: whose encoder it learnt from. taught_on: "generated scenes", or the
    images of a folder. side: of the images it learnt from. encoder: tensors by name, float16. decoder: of the teacher
    with its prompt encoder, where that does not come with the package.
    """

    backbone: str
    teacher: str
    teacher_weights: str
    taught_on: str
    side: int
    encoder: State = field(repr=False)
    decoder: State = field(default_factory=dict, repr=False)

    def write(self, path: Path) -> None:
        """Whole or not at all."""
        with whole_file(path) as temporary:
            torch.save({**asdict(self), "encoder": _half(self.encoder), "decoder": _half(self.decoder)}, temporary)


def _half(state: State) -> State:
    kept = {key: tensor.detach().cpu() for key, tensor in state.items()}
    return {key: tensor.half() if tensor.is_floating_point() else tensor for key, tensor in kept.items()}


def read_student(path: Path) -> StudentFile:
    """Read a student's file; raises CheckpointError."""
    found = KIND.unpickle(path)
    wanted = {"backbone": str, "teacher": str, "teacher_weights": str, "taught_on": str, "side": int, "encoder": dict}
    for key, kind in {**wanted, "decoder": dict}.items():
        value = found.get(key) if isinstance(found, dict) else None
        if not isinstance(value, kind):
            raise CheckpointError(f"{path}: no {key} in it, expected {KIND.expected}. {KIND.hint}")
    states = {key: unpacked(found[key]) for key in ("encoder", "decoder")}
    student = StudentFile(**{**{key: found[key] for key in wanted}, **states})
    if student.backbone not in BACKBONES:
        raise CheckpointError(
            f"{path}: the backbone is {student.backbone!r}, expected one of {', '.join(BACKBONES)}. {KIND.hint}"
        )
    try:
        check_teacher(student.teacher)
    except OptionError as error:
        said = f"{path}: the teacher is {student.teacher!r}, expected a SAM or a SAM 2 of this package. {KIND.hint}"
        raise CheckpointError(said) from error
    return student


def check_backbone(name: str, given: str = "--backbone ") -> str:
    """Return `name` when it is a backbone; raises OptionError with the list otherwise.

    given: what stands before its name where it was asked for.
    """
    if name not in BACKBONES:
        before = given.rpartition(" ")[2]
        known = ", ".join(before + backbone for backbone in BACKBONES)
        raise OptionError(f"{given}{name}: no such backbone, expected one of {known}.")
    return name


def of_sam2(teacher: str) -> bool:
    """Whether a teacher of that name is a SAM 2; else it is a SAM."""
    return teacher.startswith("sam2_")


def check_teacher(name: str) -> None:
    """Raise OptionError for what is neither a SAM nor a SAM 2, WorkloadError for one that needs more packages."""
    (sam2 if of_sam2(name) else sam1).check_model(name, "--teacher")


def shipped_student(backbone: str) -> Path | None:
    """The file of the student that comes with the package, None where there is none."""
    return _SHIPPED.get(backbone)


def levels_of(teacher: Any) -> tuple[Level, ...]:
    """The maps that a teacher's encoder gives, finest first."""
    if hasattr(teacher.prompt_encoder, "embed_dim"):  # a SAM
        return (Level(int(teacher.prompt_encoder.embed_dim), 16),)
    width = int(teacher.mask_decoder.hidden_size)
    return Level(width // 8, 4), Level(width // 4, 8), Level(width, 16)


def side_of(teacher: Any) -> int:
    """The side of the images that it takes, pixels."""
    return int(getattr(teacher, "image_size", 0) or teacher.image_encoder.img_size)


def load_encoder(teacher: Any, backbone: str, checkpoint: Path | None, seed: int) -> tuple[StudentEncoder, str]:
    """The student's encoder for the images of `teacher`, in eval mode on the CPU, and "checkpoint:..." or "random:...".

    Raises CheckpointError for the file of another backbone or for another kind of teacher.
    """
    build = partial(StudentEncoder, backbone, levels_of(teacher), side_of(teacher))
    encoder = cast("StudentEncoder", build_seeded(build, seed, ()))
    if checkpoint is not None:
        student = read_student(checkpoint)
        if student.backbone != backbone:
            raise CheckpointError(
                f"{checkpoint}: holds a student with {student.backbone}, expected {backbone}. "
                f"Try --model {PREFIX}{student.backbone}."
            )
        KIND.check(checkpoint, student.encoder, encoder.state_dict(), f"{PREFIX}{backbone} for {student.teacher}")
        encoder.load_state_dict(student.encoder)
    return encoder, KIND.weights(checkpoint, seed)
