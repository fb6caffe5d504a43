"""A mask generator compiled ahead, in a folder: AOTInductor packages of its encoder, and what torch's compilers kept.

A package that cannot be loaded may end the process (torch 2.11.0+cu130 did where libstdc++ was not within its reach).
So each is loaded in a process of its own first; where that fails there is none, the manifest says why, and the
compilers' caches alone make a start warm.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import torch

from profiler_kit.capture.environment import describe_environment
from profiler_kit.capture.run_folder import whole_folder
from profiler_kit.errors import OptionError, WorkloadError
from profiler_kit.files import write_json
from profiler_kit.formats.package_record import CACHES, MANIFEST, PackageRecord, digest, read_package
from profiler_kit.models.sam.compiled import load_encoder, save_encoder, why_not_loadable
from profiler_kit.models.serving.service import COMPILE_ENCODER, Packages, buckets_up_to, make_service, mode_of
from profiler_kit.workload.optimizations import optimized
from profiler_kit.workload.protocol import Workload, make_model

_Shapes = dict[str, tuple[int, ...]]  # of the images that each package takes
_OPTIONS: Final = ("points_per_side", "points_per_batch")  # of the workload, which decide what is compiled


def export_package(
    workload: Workload, mode: str | None, device: torch.device, target: Path, *, batch_size: int
) -> PackageRecord:
    """Compile for batches up to `batch_size` and write the folder, whole or not at all.

    Raises OptionError for a mode or a folder that cannot be, WorkloadError when nothing can be compiled ahead.
    """
    mode, _ = mode_of(workload, mode, device)
    with whole_folder(target, overwrite=False, option="") as folder:
        shapes, without = _write_packages(workload, mode, device, folder, batch_size)
        try:
            _run_once(workload, mode, device, folder, batch_size, shapes)
        except RuntimeError as error:  # such as of a package that cannot be recorded in a CUDA graph
            if not shapes:
                raise
            shapes, without = {}, _dropped(folder, error)
            _run_once(workload, mode, device, folder, batch_size, shapes)
        if (kept := torch.compiler.save_cache_artifacts()) is not None:
            (folder / CACHES).write_bytes(kept[0])
        elif not shapes:
            raise WorkloadError(
                f"--mode {mode}: compiles nothing, and its encoder cannot be packaged ({without}), expected a mode to "
                "compile ahead. Choose another one."
            )
        record = PackageRecord(
            model=workload.name,
            weights=workload.weights,
            mode=mode,
            device=device.type,
            device_name=describe_environment(device).device_name,
            torch=str(torch.__version__),
            batch_size=batch_size,
            image_size=workload.image_size,
            **{name: getattr(workload, name) for name in _OPTIONS},
            shapes=shapes,
            sha256={path.name: digest(path) for path in sorted(folder.iterdir())},
            without=without,
        )
        write_json(folder / MANIFEST, dataclasses.asdict(record))
    return record


def _run_once(
    workload: Workload,
    mode: str,
    device: torch.device,
    folder: Path,
    batch_size: int,
    shapes: dict[str, tuple[int, ...]],
) -> None:
    """What sam serve does first: it fills the compilers' caches."""
    with ExitStack() as stack:
        packages = (lambda: _loaded(folder, shapes)) if shapes else None
        make_service(workload, mode, device, stack, batch_size=batch_size, packages=packages).prepare()


def _dropped(folder: Path, error: Exception) -> str:
    """Take the packages away; says why."""
    for path in folder.glob("*.pt2"):
        path.unlink()
    return (str(error).strip().splitlines() or [type(error).__name__])[0]


def _write_packages(
    workload: Workload, mode: str, device: torch.device, folder: Path, batch_size: int
) -> tuple[_Shapes, str]:
    """The shape of the images that each package takes, or none and why."""
    shapes: _Shapes = {}
    try:
        if device.type == "cuda":  # the smallest first: where torch cannot load that, the large ones are not made
            with torch.device(device):
                probe = save_encoder(torch.nn.Linear(8, 8), torch.zeros(1, 8), folder / "probe.pt2")
            if problem := why_not_loadable([probe]):
                probe.unlink()
                return {}, f"torch {torch.__version__} cannot load the package of a single nn.Linear here: {problem}"
            probe.unlink()
        chosen = [one for one in mode_of(workload, mode, device)[1] if one.name not in COMPILE_ENCODER]
        with optimized(make_model(workload, device), chosen, device) as model:
            side = workload.image_size
            for size in buckets_up_to(batch_size):
                images = torch.zeros(size, 3, side, side, device=device)
                path = save_encoder(model.image_encoder, images, folder / f"encoder-{size}.pt2")
                shapes[path.name] = tuple(images.shape)
        if problem := why_not_loadable([folder / name for name in shapes]):
            raise RuntimeError(problem)
    except Exception as error:  # of torch.export or of a compiler, whatever they raise
        return {}, _dropped(folder, error)
    return shapes, ""


def _loaded(folder: Path, shapes: _Shapes) -> Packages:
    return {torch.Size(shape): load_encoder(folder / name) for name, shape in shapes.items()}


@dataclass(frozen=True)
class Package:
    """A folder that was opened. tried: how loading its packages in a process of its own went; see why_not_loadable."""

    folder: Path
    record: PackageRecord
    tried: Future[str] | None

    @property
    def packages(self) -> Callable[[], Packages] | None:
        """What loads the packages of the encoder, None where there are none."""
        return None if self.tried is None else self._packages

    def _packages(self) -> Packages:
        if self.tried is not None and (problem := self.tried.result()):
            raise WorkloadError(
                f"{self.folder}: torch {torch.__version__} cannot load its packages here ({problem}), expected those "
                f"made by it. Make them anew: {_again(self.record)}"
            )
        return _loaded(self.folder, {name: tuple(shape) for name, shape in self.record.shapes.items()})

    def check(self, **given: Any) -> None:
        """Raise OptionError for an option, or weights, that are not those of the folder; None where not given."""
        for name, value in given.items():
            if value is not None and value != (held := getattr(self.record, name)):
                option = "MODEL" if name == "model" else f"--{name.replace('_', '-')}"
                if name == "weights":
                    option = "--checkpoint"
                raise OptionError(
                    f"{option}: found {value} with --load {self.folder}, expected {held}, which it was made of. Leave "
                    "it out, or export anew."
                )


def open_package(folder: Path, device: torch.device) -> Package:
    """Check the folder, fill the compilers' caches from it, and start to try its packages.

    The files hold compiled code: open only what you made. Raises InputError, RunFormatError, and WorkloadError for what
    was made for another GPU or torch.
    """
    record = read_package(folder)
    here = (str(torch.__version__), device.type, describe_environment(device).device_name)
    if (record.torch, record.device, record.device_name) != here:
        raise WorkloadError(
            f"{folder}: made by torch {record.torch} for {record.device_name} ({record.device}), found torch {here[0]} "
            f"and {here[2]} ({here[1]}), expected the same. Make it anew: {_again(record)}"
        )
    tried = None
    if record.shapes:
        pool = ThreadPoolExecutor(1)
        tried = pool.submit(why_not_loadable, [folder / name for name in record.shapes])
        pool.shutdown(wait=False)
    if CACHES in record.sha256:
        torch.compiler.load_cache_artifacts((folder / CACHES).read_bytes())
    return Package(folder, record, tried)


def _again(record: PackageRecord) -> str:
    return f"profiler-kit sam export DIR {record.model} --mode {record.mode}"
