"""Studies of batching: by component, sequential or batched, image size, device and dtype (options in, samples out).

One forward at a time on an idle device, nothing synchronised inside it, and every time divided by the images that were
really in the batch.
"""

from __future__ import annotations

import datetime
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Final

import torch
import torch.nn.functional as F  # noqa: N812 - the name everybody knows it by

from profiler_kit.capture.environment import Environment, command_line, describe_environment
from profiler_kit.capture.layers import layer_timer
from profiler_kit.errors import OptionError, WorkloadError
from profiler_kit.formats.study_file import STUDIES, StudyRecord, StudySample
from profiler_kit.models.sam.layers import free_memory, is_out_of_memory, parse_batch_sizes, synchronize
from profiler_kit.models.sam.models import LoadedModel, check_model, load_model, shipped_checkpoint
from profiler_kit.models.sam.optimizations import Optimization, encoder_dtype, optimized, parse_optimizations
from profiler_kit.models.sam.prompts import PromptChoice, parse_prompts
from profiler_kit.models.sam.scenes import Scene, generate_scenes
from profiler_kit.models.sam.workload import (
    Batch,
    SamForward,
    Stopwatch,
    move_batch,
    no_garbage_collection,
    prepare_batch,
)
from profiler_kit.progress import Report, silent
from profiler_kit.workload.capture_plan import choose_device

if TYPE_CHECKING:
    from segment_anything.modeling import Sam

COMPONENTS: Final = {
    "image_encoder": "image encoder",
    "prompt_encoder": "prompt encoder",
    "mask_decoder": "mask decoder",
    "postprocess": "postprocess",
}
WHOLE: Final = "whole forward"
_TABLE: Final = ("", "bf16", "fp16", "compile", "bf16,compile", "fp16,compile")
_PATCH: Final = 16


@dataclass(frozen=True, kw_only=True)
class StudyOptions:
    """The options of `profiler-kit study`. image_sizes: sides in pixels; around the model's own if ""."""

    model: str = "vit_b"
    checkpoint: Path | None = None
    seed: int = 0
    studies: str = ",".join(STUDIES)
    batch_sizes: str = "1,2,4,8"
    image_sizes: str = ""
    devices: str = ""
    optimizations: str = ""
    prompts: str = "centers"
    compiled: bool = True
    warmup: int | None = None
    iterations: int | None = None


@dataclass
class _Study:
    """What the studies share; `samples` and `notes` grow. device: the one in use, of `devices`."""

    options: StudyOptions
    devices: Sequence[torch.device]
    device: torch.device
    prompts: PromptChoice
    chosen: tuple[Optimization, ...]
    warmup: int
    iterations: int
    report: Report
    save: Callable[[StudyRecord], object]
    environments: Mapping[str, Environment]
    total: int
    created: str = field(default_factory=lambda: datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds"))
    done: int = 0
    weights: str = ""
    samples: list[StudySample] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)

    def load(self, device: torch.device) -> LoadedModel:
        options = self.options
        seed = None if shipped_checkpoint(options.model) else options.seed
        loaded = load_model(options.model, checkpoint=options.checkpoint, seed=seed, device=device)
        self.weights = loaded.weights
        return loaded

    def add(self, sample: StudySample, values_ns: Sequence[int]) -> None:
        self.samples += [replace(sample, iteration=n, latency_ns=value) for n, value in enumerate(values_ns)]

    def fits(self, what: str, measure: Callable[[], None]) -> bool:
        """Measure, and save what there is so far; when memory runs out, note it."""
        self.report(self.done, self.total, what)
        try:
            measure()
        except RuntimeError as error:
            if not is_out_of_memory(error):
                raise
            self.notes.append(f"{what}: out of memory on {self.device}")
            return False
        finally:
            self.done += 1
        self.save(self.record())
        return True

    def record(self) -> StudyRecord:
        """Everything measured so far."""
        environment = self.environments[str(self.devices[0])]
        return StudyRecord(
            self.options.model,
            self.weights,
            tuple(optimization.name for optimization in self.chosen),
            str(self.prompts),
            self.warmup,
            self.iterations,
            {name: found.device_name for name, found in self.environments.items()},
            environment.versions,
            environment.git_commit,
            command_line(sys.argv),
            self.created,
            tuple(self.samples),
            tuple(self.notes),
        )


def run_study(
    options: StudyOptions, *, report: Report = silent, save: Callable[[StudyRecord], object] = lambda _: None
) -> StudyRecord:
    """Run the chosen studies and return their samples; `save` gets what there is after each measurement.

    A batch or image size that does not fit ends its study with a note; an image size that an optimization does not take
    and a combination of the table that cannot run are left out with one. Raises OptionError for options,
    CheckpointError for the file, WorkloadError when nothing could be measured.
    """
    check_model(options.model)
    names = _names(options.studies)
    sizes = parse_batch_sizes(options.batch_sizes)
    sides = parse_image_sizes(options.image_sizes)
    devices = [choose_device(text.strip() or None) for text in options.devices.split(",")]
    on_gpu = devices[0].type == "cuda"
    study = _Study(
        options,
        devices,
        devices[0],
        parse_prompts(options.prompts),
        parse_optimizations(options.optimizations),
        options.warmup if options.warmup is not None else (3 if on_gpu else 1),
        options.iterations if options.iterations is not None else (20 if on_gpu else 5),
        report,
        save,
        {str(d): describe_environment(d) for d in devices},
        _count(names, sizes, sides, len(devices), compiled=options.compiled),
    )
    if study.warmup < 0 or study.iterations < 1:
        raise OptionError(f"--warmup {study.warmup}, --iterations {study.iterations}: want 0 or more and 1 or more.")
    if "components" in names or "batching" in names:
        _by_batch_size(study, names, sizes)
    if "image-size" in names:
        _by_image_size(study, sides, sizes[0])
    if "table" in names:
        _table(study, sizes[0])
    if not study.samples:
        raise WorkloadError(f"nothing could be measured: {'; '.join(study.notes)}. Try smaller sizes.")
    return study.record()


def parse_image_sizes(text: str) -> tuple[int, ...]:
    """Sides in pixels, separated by commas, each a multiple of the patch of 16; raises OptionError. "" is none."""
    sides = set()
    for part in filter(None, (p.strip() for p in text.split(","))):
        if not (part.isascii() and part.isdigit() and 64 <= int(part) <= 4096 and int(part) % _PATCH == 0):
            raise OptionError(
                f"--image-sizes {text!r}: found {part!r}, want multiples of {_PATCH} from 64 to 4096 separated by "
                "commas. Try 512,1024."
            )
        sides.add(int(part))
    return tuple(sorted(sides))


def resized(sam: Sam, side: int) -> Sam:
    """Change the model, in place, to take images of `side` pixels, as segment-anything's own code allows.

    The position embedding is resampled (bilinear), and so are the relative positions of global attention, as
    segment-anything's get_rel_pos does when it meets another grid. Windows stay as they are.
    """
    encoder, prompts = sam.image_encoder, sam.prompt_encoder
    grid = side // _PATCH
    position = encoder.pos_embed.detach().permute(0, 3, 1, 2)
    position = F.interpolate(position.float(), (grid, grid), mode="bilinear", antialias=True, align_corners=False)
    encoder.pos_embed = torch.nn.Parameter(
        position.permute(0, 2, 3, 1).to(encoder.pos_embed.dtype), requires_grad=False
    )
    for block in encoder.blocks:
        if block.window_size == 0:  # resampled here rather than at every forward, and where rewrites can see it
            for name in ("rel_pos_h", "rel_pos_w"):
                values = getattr(block.attn, name).detach()
                spread = F.interpolate(values.T[None].float(), 2 * grid - 1, mode="linear")[0].T.to(values.dtype)
                setattr(block.attn, name, torch.nn.Parameter(spread.contiguous(), requires_grad=False))
    encoder.img_size = side
    prompts.image_embedding_size = (grid, grid)
    prompts.input_image_size = (side, side)
    return sam


def _names(text: str) -> tuple[str, ...]:
    names = tuple(dict.fromkeys(part.strip() for part in text.split(",") if part.strip()))
    wrong = next((name for name in names if name not in STUDIES), None)
    if wrong is not None or not names:
        raise OptionError(f"--study {text}: {wrong or 'none'!r} is not known, want some of {', '.join(STUDIES)}.")
    return names


def _count(names: Sequence[str], sizes: Sequence[int], sides: Sequence[int], devices: int, *, compiled: bool) -> int:
    """Units of work for the progress bar."""
    combinations = devices * (len(_TABLE) if compiled else 3)
    each = {
        "components": len(sizes),
        "batching": len(sizes),
        "image-size": len(sides) or 3,
        "table": combinations,
    }
    return sum(each[name] for name in names)


def _scenes(count: int, side: int, seed: int) -> tuple[Scene, ...]:
    return generate_scenes(count, height=side * 3 // 4, width=side, seed=seed)


def _sample(study: _Study, name: str, label: str, sam: Sam, batch_size: int, *, compiled: bool = False) -> StudySample:
    dtype = str(encoder_dtype(sam)).removeprefix("torch.")
    side = int(sam.image_encoder.img_size)
    return StudySample(name, label, str(study.device), dtype, compiled, batch_size, side, 0, 0)


def _by_batch_size(study: _Study, names: Sequence[str], sizes: Sequence[int]) -> None:
    """Components, and sequential against batched, on one model at every batch size."""
    loaded = study.load(study.device)
    side = int(loaded.model.image_encoder.img_size)
    scenes = _scenes(max(sizes), side, study.options.seed)
    with optimized(loaded.model, study.chosen, study.device) as sam:
        singles = [_batch(study, sam, [scene]) for scene in scenes]
        for size in sizes:
            for name, measure in (("components", _components), ("batching", _batching)):
                if name not in names:
                    continue
                what = f"{name} at batch size {size}"

                def run(measure: Callable[..., None] = measure, size: int = size) -> None:
                    measure(study, sam, _batch(study, sam, scenes[:size]), singles[:size])

                if not study.fits(what, run):
                    free_memory(study.device)
                    return


def _batch(study: _Study, sam: Sam, scenes: Sequence[Scene]) -> Batch:
    return move_batch(prepare_batch(sam, scenes, study.prompts), study.device)


def _components(study: _Study, sam: Sam, batch: Batch, _singles: Sequence[Batch]) -> None:
    """Each part of the forward, from events around its modules; the whole one without any hook in turn."""
    forward, size = SamForward(sam), len(batch.images)
    _warm_up(study, lambda: forward(batch))
    whole: list[int] = []
    parts: dict[str, list[int]] = {name: [] for name in COMPONENTS}
    with no_garbage_collection():
        for _ in range(study.iterations):
            whole.append(_timed(study.device, lambda: forward(batch)))
            with layer_timer(forward, batch_size=size, select=lambda name, _: name in COMPONENTS) as timer:
                forward(batch)
                synchronize(study.device)
            calls = timer.frame()
            column = "device_ns" if study.device.type == "cuda" else "host_ns"
            for name, total in calls.groupby("layer")[column].sum().items():
                parts[str(name)].append(int(total))
    study.add(_sample(study, "components", WHOLE, sam, size), whole)
    for name, values in parts.items():
        if values:
            study.add(_sample(study, "components", COMPONENTS[name], sam, size), values)


def _batching(study: _Study, sam: Sam, batch: Batch, singles: Sequence[Batch]) -> None:
    """The same images one after the other, and all in one batch; the two take turns."""
    forward, size = SamForward(sam), len(batch.images)

    def one_by_one() -> None:
        for single in singles:
            forward(single)

    for run in (one_by_one, lambda: forward(batch)):
        _warm_up(study, run)
    samples: dict[str, list[int]] = {"sequential": [], "batched": []}
    with no_garbage_collection():
        for _ in range(study.iterations):
            samples["sequential"].append(_timed(study.device, one_by_one))
            samples["batched"].append(_timed(study.device, lambda: forward(batch)))
    for label, values in samples.items():
        study.add(_sample(study, "batching", label, sam, size), values)


def _by_image_size(study: _Study, sides: Sequence[int], size: int) -> None:
    """The whole forward at several sides of the (square) input, a fresh model each."""
    for side in sides or _default_sides(study):

        def run(side: int = side) -> None:
            loaded = study.load(study.device)
            scenes = _scenes(size, side, study.options.seed)
            with optimized(resized(loaded.model, side), study.chosen, study.device) as sam:
                _whole(study, sam, _batch(study, sam, scenes), "image-size", "forward")

        try:
            if not study.fits(f"image size {side}", run):
                break
        except OptionError as error:  # an optimization that takes the model's own size but not this one
            study.notes.append(f"image size {side}: {error}")
        free_memory(study.device)


def _default_sides(study: _Study) -> tuple[int, ...]:
    side = int(study.load(torch.device("cpu")).model.image_encoder.img_size)
    return side // 2, side, side * 3 // 2


def _table(study: _Study, size: int) -> None:
    """Every device, dtype, with and without torch.compile; a fresh model each."""
    for device in study.devices:
        study.device = device
        for names in _TABLE:
            compiled = "compile" in names
            if compiled and not study.options.compiled:
                continue

            def run(names: str = names, compiled: bool = compiled, device: torch.device = device) -> None:
                torch._dynamo.reset()
                loaded = study.load(device)
                scenes = _scenes(size, int(loaded.model.image_encoder.img_size), study.options.seed)
                with optimized(loaded.model, parse_optimizations(names), device) as sam:
                    _whole(study, sam, _batch(study, sam, scenes), "table", names or "fp32", compiled=compiled)

            what = f"{device}, {names or 'fp32'}"
            try:
                study.fits(what, run)
            except (RuntimeError, NotImplementedError) as error:  # a dtype or a compiler that is not there
                reason = (str(error).strip().splitlines() or [type(error).__name__])[0]
                study.notes.append(f"table, {what}: {reason[:200]}")
            free_memory(device)


def _whole(study: _Study, sam: Sam, batch: Batch, name: str, label: str, *, compiled: bool = False) -> None:
    forward = SamForward(sam)
    _warm_up(study, lambda: forward(batch), more=1 if compiled else 0)
    with no_garbage_collection():
        values = [_timed(study.device, lambda: forward(batch)) for _ in range(study.iterations)]
    study.add(_sample(study, name, label, sam, len(batch.images), compiled=compiled), values)


def _warm_up(study: _Study, run: Callable[[], object], *, more: int = 0) -> None:
    for _ in _times(study.warmup + more):
        run()
    synchronize(study.device)


def _times(count: int) -> Iterator[int]:
    return iter(range(count))


def _timed(device: torch.device, run: Callable[[], object]) -> int:
    clock = Stopwatch(device)
    run()
    return clock.stop_ns()
