"""Students as workloads: what sets them apart from the SAM or the SAM 2 that taught them."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import torch

from profiler_kit.capture.layer_tree import Label, Select
from profiler_kit.capture.regions import region
from profiler_kit.errors import CheckpointError, OptionError
from profiler_kit.formats.ladder_record import RowResult
from profiler_kit.models.sam.workload import COMPONENTS, SamWorkload
from profiler_kit.models.sam2.workload import Sam2Workload
from profiler_kit.models.student.models import (
    KIND,
    PREFIX,
    StudentFile,
    check_backbone,
    check_teacher,
    load_encoder,
    of_sam2,
    read_student,
    shipped_student,
)
from profiler_kit.models.student.optimizations import (
    CPU_LADDER,
    LADDER,
    OPTIMIZATIONS,
    STUDENT,
    WITH_DECODER,
    beside_teacher,
)
from profiler_kit.models.student.quantize import Int8Encoder, frozen, put_int8, read_facts
from profiler_kit.workload.optimizations import LadderRow, Optimization, others
from profiler_kit.workload.protocol import Bench, Workload

if TYPE_CHECKING:
    _Base = SamWorkload
else:
    _Base = object

INT8: Final = "int8"  # the optimization that runs the student quantized
_ENCODER: Final = re.compile(r"image_encoder(\.(stages\.\d+(\.\d+)?|laterals\.\d+|heads\.\d+))?")


class EncoderOnly(torch.nn.Module):
    """The image encoder on prepared batches, without the decoder."""

    def __init__(self, sam: Any) -> None:
        super().__init__()
        self.image_encoder = sam.image_encoder

    @torch.no_grad()
    def forward(self, batch: Any) -> Any:
        """The maps of all images."""
        with region("image encoder"):
            return self.image_encoder(batch.images)


@dataclass(eq=False)
class _Student(_Base):
    """The options beside those of SamWorkload.

    name: "student_" and the backbone. checkpoint: the student's file; if None the one that ships, or random weights of
    the seed. teacher, teacher_checkpoint: whose decoder it has. beside: the model is the teacher as published, and the
    student an optimization of it. encoder_only: run the image encoder alone.
    """

    name: str = "student_resnet18"
    teacher: str = "vit_small"
    teacher_checkpoint: str | None = None
    int8: str | None = None
    beside: bool = False
    encoder_only: bool = False

    family = "student"

    def __post_init__(self) -> None:
        super().__post_init__()
        self.modes = {}
        if self.encoder_only:
            self.compares = "outputs"
        if self.beside:
            about = "the image encoder replaced by the student's"
            self.optimizations = {STUDENT: Optimization(STUDENT, about, self.put_in, exact=False), **self.optimizations}
        if self.beside and self.int8 is not None:
            about = "the student's encoder in int8, compiled for a CPU"
            alone = others(tuple(OPTIMIZATIONS), "compile_decoder")
            int8 = Optimization(INT8, about, self._quantized, (STUDENT,), alone, (STUDENT,), compiles=True, exact=False)
            self.optimizations = {**self.optimizations, INT8: replace(int8, package="torchao", settings=frozen)}

    @property
    def backbone(self) -> str:
        """The part of the name that says which."""
        return self.name.removeprefix(PREFIX)

    @property
    def file(self) -> Path | None:
        """The student's file, None for random weights."""
        if self.checkpoint is not None:
            return Path(self.checkpoint)
        return shipped_student(self.backbone) if self.teacher == "vit_small" and not self.teacher_checkpoint else None

    @property
    def _published(self) -> str:
        return self.teacher

    @property
    def _checkpoint(self) -> Path | None:
        return None if self.teacher_checkpoint is None else Path(self.teacher_checkpoint)

    def _check_model(self) -> None:
        check_backbone(self.backbone, f"--model {PREFIX}")
        check_teacher(self.teacher)
        if self.side % 32:
            raise OptionError(f"--image-size {self.side}: expected a multiple of 32.")

    def _weights_of(self) -> str:
        return super()._weights_of() if self.beside else KIND.weights(self.file, self.seed)

    def model(self, device: torch.device) -> Any:
        """The student; the teacher when the student is to be seen beside it."""
        sam = super().model(device)
        return sam if self.beside else self.put_in(sam)

    def put_in(self, sam: Any) -> Any:
        """Give a teacher the student's encoder."""
        student = None if self.file is None else read_student(self.file)
        if student is not None and self.file is not None:
            self._check_teacher(student, self.file)
            if student.decoder and not self.beside:
                sam.load_state_dict({**sam.state_dict(), **student.decoder})
        encoder, self.weights = load_encoder(sam, self.backbone, self.file, self.seed)
        sam.image_encoder = encoder.to(sam.device)
        return sam

    def _quantized(self, sam: Any) -> Any:
        assert self.int8 is not None
        sam, self.weights = put_int8(sam, Path(self.int8))
        return sam

    def _check_teacher(self, student: StudentFile, path: Path) -> None:
        known = self.beside or not student.decoder
        if student.teacher != self.teacher or (known and student.teacher_weights != self.weights):
            raise CheckpointError(
                f"{path}: a student of {student.teacher} ({student.teacher_weights[:23]}), expected one of "
                f"{self.teacher} ({self.weights[:23]}). Give its own --teacher and --teacher-checkpoint."
            )

    def setup(self) -> Mapping[str, Any]:
        """As SAM's, and the student's files are looked at; of the encoder alone nothing is asked."""
        found = super().setup()
        if self.beside and self.file is not None:
            self._check_teacher(read_student(self.file), self.file)
        if self.int8 is not None:
            read_facts(Path(self.int8))
        return {} if self.encoder_only else found

    def dtype(self, model: Any) -> torch.dtype:
        """That of the image encoder."""
        return torch.int8 if isinstance(model.image_encoder, Int8Encoder) else Workload.dtype(self, model.image_encoder)

    def layers(self, program: Any) -> tuple[Select | None, Label | None]:
        """The stages of the backbone and their blocks, beside the teacher's layers."""
        select, _ = super().layers(program)
        assert select is not None

        def timed(name: str, module: torch.nn.Module) -> bool:
            return select(name, module) or _ENCODER.fullmatch(name) is not None

        return timed, None

    def assemble(self, model: Any) -> Any:
        """As SAM's, or the encoder alone."""
        found = super().assemble(model)
        return EncoderOnly(model) if self.encoder_only else found

    def components(self, program: Any) -> Mapping[str, str]:
        """Those that there are."""
        return {name: title for name, title in COMPONENTS.items() if hasattr(program, name)}

    def ladder(self, device: torch.device) -> tuple[LadderRow, ...]:
        """On a CPU a short one."""
        rows = LADDER if device.type == "cuda" else CPU_LADDER
        return beside_teacher(rows) if self.beside else rows

    def answer(self, bench: Bench, row: RowResult, folder: Path) -> RowResult:
        """Masks, or of the encoder alone its maps."""
        if self.encoder_only:
            return Workload.answer(self, bench, row, folder)
        return super().answer(bench, row, folder)

    def compare(self, row: RowResult, folder: Path, baseline: Path) -> RowResult:
        """Likewise."""
        if self.encoder_only:
            return Workload.compare(self, row, folder, baseline)
        return super().compare(row, folder, baseline)


@dataclass(eq=False)
class StudentWorkload(_Student, SamWorkload):
    """A student of a SAM."""

    spec = "profiler_kit.models.student.workload:StudentWorkload"
    optimizations = WITH_DECODER


@dataclass(eq=False)
class Student2Workload(_Student, Sam2Workload):
    """A student of a SAM 2."""

    spec = "profiler_kit.models.student.workload:Student2Workload"
    optimizations = OPTIMIZATIONS


def student_workload(**options: Any) -> _Student:
    """The workload for those options; of a file given without a teacher, that which the file names."""
    student = StudentWorkload(**options)
    if student.file is not None and "teacher" not in options:
        options["teacher"] = read_student(student.file).teacher
    return Student2Workload(**options) if of_sam2(str(options.get("teacher"))) else StudentWorkload(**options)
