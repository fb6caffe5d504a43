"""Which workload a command runs: the user's own, named as `mine.py:workload`, or Segment Anything with its options."""

from __future__ import annotations

import re
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Final

import typer

from profiler_kit.errors import OptionError

if TYPE_CHECKING:
    from profiler_kit.workload.protocol import Workload

# Options of several commands. Those of SAM are None unless given: with another workload they are an error.
Model = Annotated[
    str | None,
    typer.Option(
        help="SAM: vit_b, vit_l, vit_h, vit_small (512 px) or vit_tiny (256 px). SAM 2.1: "
        "sam2_large, sam2_base_plus, sam2_small, sam2_tiny or sam2_nano (512 px). A student: student_resnet18, "
        "student_mobilenet_v3_large or student_cas_vit_s."
    ),
]
Checkpoint = Annotated[
    Path | None,
    typer.Option(
        help="Official checkpoint of that model; without one, random weights (vit_small, sam2_nano: their own)."
    ),
]
Seed = Annotated[int, typer.Option(help="Seed of the random weights and of the generated input.")]
Images = Annotated[Path | None, typer.Option(help="Folder of JPEG or PNG files; without one, scenes are generated.")]
Prompts = Annotated[
    str | None,
    typer.Option(
        help="What to ask of each image: centers, boxes or grid:N. Photographs get a grid. [default: centers]"
    ),
]
Warmup = Annotated[int | None, typer.Option(help="Batches before the timed ones. [default: 3 on a GPU, 1 on a CPU]")]
WarmupForwards = Annotated[
    int | None, typer.Option(help="Forwards before the timed ones. [default: 3 on a GPU, 1 on a CPU]")
]
Device = Annotated[str | None, typer.Option(help="cpu, cuda or cuda:N. [default: a GPU if there is one]")]


_SPEC: Final = re.compile(r".+\.py(:\w+)?|[A-Za-z_][\w.]*:\w+")


def is_workload(argument: Path | None) -> bool:
    """Whether the argument names a workload to run, not something recorded to show."""
    return argument is not None and _SPEC.fullmatch(str(argument)) is not None and not argument.is_dir()


def choose_workload(spec: Path | None, *, seed: int, **sam: str | float | Path | None) -> Workload:
    """The workload that `spec` names, or SAM (`sam2_*`: SAM 2, `student_*`: a student) without one.

    sam: its own options, None where not given.

    Raises OptionError for an option of SAM together with a spec, WorkloadError for what cannot be loaded.
    """
    given = {name: str(value) if isinstance(value, Path) else value for name, value in sam.items() if value is not None}
    if spec is not None:
        from profiler_kit.workload.protocol import load_workload

        for name, value in given.items():
            option = f"--{name.replace('_', '-')}" + ("" if value is True else f" {value}")
            raise OptionError(f"{option}: an option of Segment Anything, found with {spec}. Leave it out.")
        return load_workload(str(spec), {"seed": seed})
    from profiler_kit.models.sam.workload import SamWorkload
    from profiler_kit.models.sam2.workload import Sam2Workload

    fields = {_FIELDS.get(name, name): value for name, value in given.items()}
    if str(fields.get("name")).startswith("student_"):
        from profiler_kit.models.student.workload import student_workload

        return student_workload(seed=seed, **fields)
    family = Sam2Workload if str(fields.get("name")).startswith("sam2_") else SamWorkload
    return family(seed=seed, **fields)  # type: ignore[arg-type]  # each of the type that its option has


_FIELDS: Final = {"model": "name", "scenes": "count", "num_images": "count"}
