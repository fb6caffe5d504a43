"""Teach a small encoder to give what a teacher's gives, and masks like the teacher's behind its frozen decoder."""

from __future__ import annotations

import contextlib
import copy
import math
import time
from collections.abc import Iterator, Mapping
from concurrent.futures import ProcessPoolExecutor
from dataclasses import asdict, dataclass, field, replace
from functools import partial
from itertools import islice
from pathlib import Path
from typing import Any, Final, NamedTuple, cast

import numpy as np
import torch
import torch.nn.functional as F  # noqa: N812 - the usual name
from torch.optim.swa_utils import get_ema_multi_avg_fn

from profiler_kit.capture.device import choose_device
from profiler_kit.capture.environment import describe_environment
from profiler_kit.capture.record_run import record_run
from profiler_kit.capture.regions import region
from profiler_kit.errors import InputError, OptionError, WorkloadError
from profiler_kit.files import require_folder, whole_file, write_json
from profiler_kit.models.checkpoints import CheckpointKind, State
from profiler_kit.models.sam.generator import MaskGenerator
from profiler_kit.models.sam.scenes import load_images
from profiler_kit.models.sam.train import SAM, Colours, Family, SceneStore, ask_scenes
from profiler_kit.models.sam.train_data import (
    MOST_OBJECTS,
    Sample,
    default_workers,
    fit_sample,
    make_mosaic,
    make_sample,
    process_context,
)
from profiler_kit.models.sam.train_loss import Task, mask_losses
from profiler_kit.models.sam2.train import SAM2
from profiler_kit.models.student.backbones import StudentEncoder, start_from
from profiler_kit.models.student.models import StudentFile, check_backbone, check_teacher, load_encoder, of_sam2
from profiler_kit.progress import Report, silent
from profiler_kit.workload.capture import require_count
from profiler_kit.workload.protocol import LARGEST_SEED

Tensor = torch.Tensor
STUDENT, STATE, RECORD, RUN = "student.pt", "state.pt", "training.json", "run"
GENERATED: Final = "generated scenes"
LEVELS: Final = (1.0, 1 / 4, 1 / 8)  # weights of the maps, the coarsest first
_WEIGHT_DECAY: Final = 0.05
_WARM_UP: Final = 0.05  # share of the training in which the learning rate rises
_AVERAGE: Final = 0.999  # of the weights, kept at each step; less in the first steps
_NOTE_EVERY: Final = 25  # steps between two looks at the losses, which wait for the device
_ENCODED: Final = 32  # images that are drawn before they go to the device
_TAUGHT: Final = 16  # images that the teacher sees at once
_MOSAIC_EVERY: Final = 4  # scenes, one of which has small objects
_STATE: Final = CheckpointKind("the state of a training", "Leave --resume out to begin anew in another folder.")


@dataclass(frozen=True, kw_only=True)
class TrainOptions:
    """minutes: of training, without drawing scenes. steps: so many, however long they take. scenes: drawn, or images
    taken of `images`; each is seen by the teacher once. init: the backbone's own weights to start from. resume: go on
    with what is in `out`.
    """

    teacher: str = "vit_small"
    teacher_checkpoint: Path | None = None
    backbone: str = "resnet18"
    minutes: float = 10.0
    steps: int | None = None
    images: Path | None = None
    scenes: int | None = None
    init: Path | None = None
    out: Path = Path("traces/student")
    resume: bool = False
    device: str | None = None
    batch_size: int | None = None
    prompts: int = 2
    rate: float = 1e-3
    seed: int = 0
    save_every_s: float = 60.0
    workers: int = field(default_factory=default_workers)

    def check(self) -> None:
        """Raises OptionError, InputError for the folder of images, WorkloadError for a GPU; nothing is made before."""
        check_backbone(self.backbone)
        check_teacher(self.teacher)
        require_count("--seed", self.seed, 0, LARGEST_SEED)
        device = choose_device(self.device)
        if device.type == "cuda" and not torch.cuda.is_bf16_supported(including_emulation=False):
            name = torch.cuda.get_device_name(device)
            raise WorkloadError(f"--device {device}: {name} has no bfloat16. Use --device cpu, or another GPU.")
        least = {"scenes": 1, "batch_size": 2, "prompts": 1, "steps": 1, "workers": 1}  # batch norm asks for two
        for name, lowest in least.items():
            value = getattr(self, name)
            if value is not None and value < lowest:
                raise OptionError(f"--{name.replace('_', '-')} {value}: expected {lowest} or more.")
        if not 0 < self.minutes < 1e5 or not 0 < self.rate < 1:
            bad = f"--minutes {self.minutes:g}" if not 0 < self.minutes < 1e5 else f"--rate {self.rate:g}"
            raise OptionError(f"{bad}: expected more than 0{', less than 1' if bad.startswith('--rate') else ''}.")
        if self.images is not None:
            load_images(self.images, limit=1)
        begun = (self.out / STATE).is_file()
        if self.resume and not begun:
            raise InputError(f"{self.out}: no {STATE} in it, expected a training to go on with. Leave --resume out.")
        held = [path for path in self.out.iterdir() if not path.name.startswith(".tmp-")] if self.out.is_dir() else []
        if not self.resume and (held or (self.out.exists() and not self.out.is_dir())):
            raise OptionError(f"--out {self.out}: this exists already. Add --resume to go on, or choose another --out.")
        require_folder(self.out / STATE)


class Losses(NamedTuple):
    """total: what is minimised. features: Huber over the maps. masks: focal and dice, the teacher's masks for truth.
    quality: absolute error of the predicted IoU. iou: of the masks with the teacher's.
    """

    total: Tensor
    features: Tensor
    masks: Tensor
    quality: Tensor
    iou: Tensor


def family_of(teacher: str) -> Family:
    """What training has to know of a teacher of that name."""
    return SAM2 if of_sam2(teacher) else SAM


def student_losses(
    encoder: torch.nn.Module, teacher: Any, family: Family, task: Task, maps: tuple[Tensor, ...]
) -> Losses:
    """What sets the student apart from its teacher, whose maps of the task's images are given; differentiable.

    Whether a prompt asks for an object or for the background, the teacher's own answer is what is right.
    """
    with region("student's encoder"):
        mine = encoder(task.images)
    mine = mine if isinstance(mine, tuple) else (mine,)
    pairs = zip(LEVELS, reversed(mine), reversed(maps), strict=False)
    features = torch.stack([weight * F.huber_loss(a.float(), b.float()) for weight, a, b in pairs]).sum()
    with region("mask decoder"):
        with torch.no_grad():
            wanted, wanted_iou = family.decode(teacher, task, [part.to(mine[-1].dtype) for part in maps])
        logits, predicted = family.decode(teacher, task, mine)
    with region("losses"):
        step = task.valid.shape[-1] // logits.shape[-1]
        valid = task.valid[:, ::step, ::step].contiguous()
        losses, iou = mask_losses(logits.flatten(0, 1)[:, None], wanted.flatten(0, 1) > 0, valid)
        quality = F.l1_loss(predicted.float(), wanted_iou.float())
        return Losses(features + losses.mean() + quality, features, losses.mean(), quality, iou.mean())


class TaughtStore(SceneStore):
    """Scenes on the device with what the teacher makes of each, found once, in half precision."""

    def __init__(self, kept: int, teacher: Any, family: Family, device: torch.device) -> None:
        super().__init__(kept, family.side(teacher), device)
        self._teacher, self.maps = teacher, list[Tensor]()
        mean, deviation = family.colours(teacher)
        self._colours = Colours(mean.to(device), deviation.to(device))

    @torch.no_grad()
    def teach(self, dtype: torch.dtype, report: Report = silent) -> None:
        """The teacher's maps of all images."""
        for start in range(0, len(self), _TAUGHT):
            report(start, len(self), "the teacher looks at each")
            index = torch.arange(start, min(start + _TAUGHT, len(self)), device=self.images.device)
            images = self.images_of(index)
            with torch.autocast(images.device.type, dtype, enabled=dtype != torch.float32):
                found = self._teacher.image_encoder(images)
            found = found if isinstance(found, tuple) else (found,)
            if not self.maps:
                self.maps = [part.new_empty((len(self), *part.shape[1:]), dtype=torch.float16) for part in found]
            for kept, part in zip(self.maps, found, strict=True):
                kept[index] = part.half()

    def images_of(self, index: Tensor) -> Tensor:
        """The images of that index, as the encoder takes them."""
        return ask_scenes(self, self._colours, index, 1, recolour=False).images

    def draw(self, batch: int, prompts: int) -> tuple[Task, tuple[Tensor, ...]]:
        """Scenes at random, prompts for each, and the teacher's maps."""
        index = torch.randint(len(self), (batch,), device=self.images.device)
        task = ask_scenes(self, self._colours, index, prompts, recolour=False)
        return task, tuple(part[index] for part in self.maps)


def photograph_samples(teacher: Any, family: Family, folder: Path, most: int | None) -> Iterator[Sample]:
    """The images of a folder with the teacher's own masks, the largest of each, as objects to ask for."""
    generator = MaskGenerator(family.segmenter(teacher), points_per_side=16, **family.thresholds)
    for scene in load_images(folder, limit=most):
        found = sorted((one["segmentation"] for one in generator.generate(scene.image)), key=np.sum, reverse=True)
        masks = np.array(found[:MOST_OBJECTS], dtype=np.bool_).reshape(-1, *scene.size)
        yield fit_sample(replace(scene, masks=masks), family.side(teacher), stretched=family.stretched)


def train(options: TrainOptions, *, report: Report = silent) -> Path:
    """Train a student into the folder `options.out`, which holds its file, the state to go on from, and the record.

    Raises OptionError and InputError for what cannot be used, and WorkloadError when a loss is not a number: the last
    good checkpoint stays.
    """
    options.check()
    family = family_of(options.teacher)
    loaded = family.load(options.teacher, checkpoint=options.teacher_checkpoint)
    encoder, _ = load_encoder(loaded.model, options.backbone, None, options.seed)
    init = None if options.init is None else start_from(encoder, options.init, options.backbone)
    device = choose_device(options.device)
    count = options.scenes or (4096 if device.type == "cuda" else 64)
    with contextlib.ExitStack() as stack:
        samples = samples_of(options.images, loaded.model, family, count, options.workers, stack)
        run = _Run(options, loaded.model, loaded.weights, encoder, device, report)
        run.facts |= {"init": init, "scenes": count}
        before = run.read_state() if options.resume else None
        run.prepare(samples)
    if before is not None:
        run.take_up(before)
    run.loop()
    if not (options.out / RUN).exists():
        _record(run)
    return options.out


def samples_of(
    images: Path | None, teacher: Any, family: Family, count: int, workers: int, stack: contextlib.ExitStack
) -> Iterator[Sample]:
    """The first images of the folder, or scenes by processes that begin now, before CUDA is touched, until the stack
    ends.
    """
    if images is not None:
        return photograph_samples(teacher, family, images, count)
    pool = stack.enter_context(ProcessPoolExecutor(workers, mp_context=process_context()))
    stack.callback(pool.shutdown, cancel_futures=True)
    make = partial(make_scene, side=family.side(teacher), stretched=family.stretched)
    return pool.map(make, range(count), chunksize=4)


def make_scene(number: int, side: int, *, stretched: bool) -> Sample:
    """Scene `number` of those a student learns from."""
    make = make_mosaic if number % _MOSAIC_EVERY == _MOSAIC_EVERY - 1 else make_sample
    return make(number, side, stretched=stretched)


class _Run:
    """One training: the student, its average, the optimizer, the scenes and the curve so far."""

    def __init__(
        self,
        options: TrainOptions,
        teacher: Any,
        weights: str,
        encoder: StudentEncoder,
        device: torch.device,
        report: Report,
    ) -> None:
        self.options, self.device, self.report = options, device, report
        # what has to be the same to go on
        self.facts: dict[str, Any] = {
            "backbone": options.backbone,
            "teacher": options.teacher,
            "teacher_weights": weights,
            "taught_on": GENERATED if options.images is None else f"images of {options.images.name}",
            "batch": options.batch_size or (64 if device.type == "cuda" else 4),
            "prompts": options.prompts,
            "rate": options.rate,
            "seed": options.seed,
        }
        self.batch = int(self.facts["batch"])
        self.dtype = torch.bfloat16 if device.type == "cuda" else torch.float32
        self.family = family_of(options.teacher)
        self.teacher = teacher.to(device).requires_grad_(False)
        self.encoder = encoder.to(device, memory_format=torch.channels_last).requires_grad_(True).train()  # type: ignore[call-overload]  # torch's stubs lack it
        self.average = copy.deepcopy(encoder).eval().requires_grad_(False)
        pairs = list(zip(self.average.state_dict().values(), encoder.state_dict().values(), strict=True))
        self.averaged, self.counted = (
            [pair for pair in pairs if pair[0].is_floating_point() is floating] for floating in (True, False)
        )
        matrices = [parameter for parameter in encoder.parameters() if parameter.dim() > 1]
        others = [parameter for parameter in encoder.parameters() if parameter.dim() <= 1]
        groups = [{"params": matrices, "weight_decay": _WEIGHT_DECAY}, {"params": others, "weight_decay": 0.0}]
        self.optimizer = torch.optim.AdamW(groups, lr=options.rate, fused=device.type == "cuda")
        self.step, self.before_s, self.since = 0, 0.0, time.perf_counter()
        self.curve: list[dict[str, float]] = []

    @property
    def elapsed_s(self) -> float:
        return self.before_s + time.perf_counter() - self.since

    @property
    def progress(self) -> float:
        """How far the training is, 0 to 1: by steps where their number is given, else by time."""
        steps = self.options.steps
        return self.elapsed_s / (60 * self.options.minutes) if steps is None else self.step / steps

    def prepare(self, samples: Iterator[Sample]) -> None:
        """Take the scenes or images, and let the teacher see each once."""
        self.store = TaughtStore(int(self.facts["scenes"]), self.teacher, self.family, self.device)
        while some := list(islice(samples, _ENCODED)):
            self.store.add(some)
            self.report(
                len(self.store), int(self.facts["scenes"]), "scenes" if self.options.images is None else "images"
            )
        self.store.teach(self.dtype, self.report)
        torch.manual_seed(self.options.seed)
        self.since = time.perf_counter()

    def loop(self) -> None:
        saved = self.elapsed_s
        losses = None  # of a training that had ended, but not all of it was written
        while self.progress < 1:
            losses = self.train_step()
            if self.step % _NOTE_EVERY == 0 or self.progress >= 1:
                self.note(losses)
            if self.elapsed_s - saved >= self.options.save_every_s:
                saved = self.elapsed_s
                self.save(losses)
        if self.step:
            self.save(losses)

    def train_step(self) -> Tensor:
        """One step of the optimizer; returns the losses, still on the device."""
        done = min(self.progress, 1.0)
        rising = min(done / _WARM_UP + 0.01, 1.0)
        for group in self.optimizer.param_groups:
            group["lr"] = self.options.rate * rising * (0.01 + 0.99 * 0.5 * (1 + math.cos(math.pi * done)))
        with region("draw"):
            task, maps = self.store.draw(self.batch, self.options.prompts)
        with torch.autocast(self.device.type, self.dtype, enabled=self.dtype != torch.float32):
            losses = student_losses(self.encoder, self.teacher, self.family, task, maps)
        with region("backward"):
            losses.total.backward()
        with region("optimizer"), torch.no_grad():
            torch.nn.utils.clip_grad_norm_(self.encoder.parameters(), 1.0)
            self.optimizer.step()
            self.optimizer.zero_grad(set_to_none=True)
            self.step += 1
            decay = min(_AVERAGE, (1 + self.step) / (10 + self.step))
            averages, weights = (list(of) for of in zip(*self.averaged, strict=True))
            get_ema_multi_avg_fn(decay)(
                averages, weights, self.step
            )  # all at once: one by one they took a fifth of a step
            for mine, now in self.counted:
                mine.copy_(now)
        return torch.stack([part.detach() for part in losses])

    def note(self, losses: Tensor) -> None:
        values = self.finite(losses)
        names = ("total", "features", "masks", "quality", "iou")
        row = {"step": float(self.step), "s": round(self.elapsed_s, 1)}
        self.curve.append(row | {name: round(value, 5) for name, value in zip(names, values, strict=True)})
        said = f"step {self.step}, loss {values[0]:.3f}, IoU with the teacher {values[-1]:.3f}"
        self.report(min(self.progress, 1.0), 1, said)

    def finite(self, losses: Tensor) -> list[float]:
        """The losses on the host; raises WorkloadError when one is not a number, or a weight is none in float16."""
        values: list[float] = losses.tolist()
        weights = cast("Iterator[Tensor]", self.average.state_dict().values())
        if not all(map(math.isfinite, values)):
            found = f"the loss is {values[0]}, expected a number"
        elif not all(bool(part.half().isfinite().all()) for part in weights if part.is_floating_point()):
            found = "a weight is more than float16 holds, in which the student is kept"
        else:
            return values
        path = self.options.out / STUDENT
        kept = f"{path} is of the last good step" if path.is_file() else "no checkpoint had been written yet"
        raise WorkloadError(f"step {self.step}: {found}; stopped, {kept}. Try a lower --rate.")

    def save(self, losses: Tensor | None) -> None:
        """The state to go on from, and the student with averaged weights; each whole or not at all."""
        if losses is not None:
            self.finite(losses)
        options, shipped = self.options, self.family.shipped(self.options.teacher)
        state: State = self.teacher.state_dict()
        ships = shipped is not None and options.teacher_checkpoint is None
        facts = {key: self.facts[key] for key in ("backbone", "teacher", "teacher_weights", "taught_on")}
        generators = [torch.get_rng_state()] + ([torch.cuda.get_rng_state()] if self.device.type == "cuda" else [])
        kept = {
            "facts": self.facts,
            "encoder": self.encoder.state_dict(),
            "average": self.average.state_dict(),
            "optimizer": self.optimizer.state_dict(),
            "step": self.step,
            "elapsed_s": self.elapsed_s,
            "generators": generators,
            "curve": self.curve,
        }
        with whole_file(options.out / STATE) as temporary:
            torch.save(kept, temporary)
        StudentFile(
            **facts,
            side=self.family.side(self.teacher),
            encoder=self.average.state_dict(),
            decoder={} if ships else {k: v for k, v in state.items() if not k.startswith("image_encoder.")},
        ).write(options.out / STUDENT)
        self.write_record()

    def read_state(self) -> Mapping[str, Any]:
        """What `save` kept; raises CheckpointError, and OptionError when it is of another training."""
        path = self.options.out / STATE
        found = _STATE.unpickle(path)
        if not isinstance(found, dict) or not {"facts", "optimizer", "generators"} <= set(found):
            raise InputError(f"{path}: expected {_STATE.expected}. {_STATE.hint}")
        for key, value in self.facts.items():
            if found["facts"].get(key) != value:
                raise OptionError(
                    f"--resume: {path} has {key.replace('_', ' ')} {found['facts'].get(key)}, found {value}. "
                    "Ask for the same, or choose another --out."
                )
        return cast("Mapping[str, Any]", found)

    def take_up(self, state: Mapping[str, Any]) -> None:
        self.encoder.load_state_dict(state["encoder"])
        self.average.load_state_dict(state["average"])
        self.optimizer.load_state_dict(state["optimizer"])
        self.step, self.before_s, self.curve = state["step"], state["elapsed_s"], state["curve"]
        torch.set_rng_state(state["generators"][0])
        if self.device.type == "cuda" and len(state["generators"]) > 1:
            torch.cuda.set_rng_state(state["generators"][1])

    def write_record(self) -> None:
        options = {key: str(value) if isinstance(value, Path) else value for key, value in asdict(self.options).items()}
        record = {
            **self.facts,
            "options": options,
            "environment": asdict(describe_environment(self.device)),
            "parameters": sum(parameter.numel() for parameter in self.encoder.parameters()),
            "steps": self.step,
            "training_s": round(self.elapsed_s, 1),
            "curve": self.curve,
        }
        write_json(self.options.out / RECORD, record)


def _record(run: _Run) -> None:
    """Some steps more, recorded as any run is; what they learn is not kept."""
    facts = {"taught_on": run.facts["taught_on"], "teacher": run.options.teacher}
    recorder = record_run(
        run.options.out / RUN,
        model=run.encoder,
        name=f"student_{run.options.backbone}, training",
        weights=run.facts["teacher_weights"],
        batch_size=run.batch,
        image_size=run.encoder.img_size,
        device=run.device,
        trace_batches=1,
        warmup=None if run.device.type == "cuda" else 0,
        facts=facts,
    )
    recorder.run(run.train_step)
