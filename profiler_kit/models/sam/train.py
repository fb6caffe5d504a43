"""Train a small SAM on generated scenes.

    python -m profiler_kit.models.sam.train --model vit_small --seconds 440 --out vit_small_512.pt
    python -m profiler_kit.models.sam.train --resume vit_small_512.pt --rate 5e-4 --seconds 440 --out better.pt

Made the weights that ship as `vit_small`, and in `models.sam2.train` those of `sam2_nano`. Weights from before logits
were trained steep go on with `--sharpen 8`. One GPU trains while every core but one draws new scenes.
"""

from __future__ import annotations

import argparse
import math
import time
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final, NamedTuple, cast

import numpy as np
import torch
from torch.optim.swa_utils import AveragedModel, get_ema_multi_avg_fn

from profiler_kit.capture.environment import describe_environment, resolve_device
from profiler_kit.files import write_json
from profiler_kit.models.sam.models import load_model, shipped_checkpoint
from profiler_kit.models.sam.prompts import PromptChoice
from profiler_kit.models.sam.scenes import generate_scenes
from profiler_kit.models.sam.segmenter import SamSegmenter
from profiler_kit.models.sam.train_check import evaluate, kept_by_default, predict_scene, scene_ious
from profiler_kit.models.sam.train_data import (
    BACKGROUND,
    MOST_OBJECTS,
    PADDING,
    Sample,
    default_workers,
    scene_feed,
    unseen_scenes,
    waiting,
)
from profiler_kit.models.sam.train_loss import SHARPNESS, Answer, Decode, Task, answer, decode_task, task_losses

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping
    from multiprocessing.queues import Queue

    from segment_anything.modeling import Sam

    from profiler_kit.models.sam.generator import Segmenter
    from profiler_kit.models.sam.train_check import Predict

_WEIGHT_DECAY: Final = 0.05
_WARM_UP: Final = 0.05  # share of the training in which the learning rate rises
_AVERAGE: Final = 0.995  # of the weights, kept at each step; 200 steps, where a training has some 3,000
_STEEPER: Final = (0.35, 0.7)  # where in a training from random weights logits become steep; flat ones learn first
_CENTRES: Final = 0.3  # share of the points that are object centres
_BOXES: Final = 0.2  # share of the images whose prompts are boxes
_BACKGROUNDS: Final = 0.15  # share of the points that ask for the background
_TAKE: Final = 16  # new scenes taken between two steps at most


class Colours(NamedTuple):
    """Mean and deviation of each channel, float[3, 1, 1], 0 to 255; called as a SAM calls its own."""

    pixel_mean: torch.Tensor
    pixel_std: torch.Tensor


@dataclass(frozen=True, kw_only=True)
class Family:
    """What training has to know of a family of models.

    load: as `models.load_model`. begin: gives random weights their scale. side: of the input, pixels. colours: of its
    images. stretched: whether images are stretched to a square. answer, decode: as those of `train_loss`. shipped: as
    `models.shipped_checkpoint`. thresholds: its mask generator's, where they are not SAM's. predict: as
    `predict_scene`. filed: what a checkpoint holds of a state dict.
    """

    load: Callable[..., Any]
    begin: Callable[[Any], None] = lambda _: None
    side: Callable[[Any], int]
    colours: Callable[[Any], Colours]
    stretched: bool = False
    answer: Answer
    decode: Decode
    shipped: Callable[[str], Path | None]
    segmenter: Callable[[Any], Segmenter]
    thresholds: Mapping[str, float] = field(default_factory=dict)
    predict: Predict
    filed: Callable[[dict[str, torch.Tensor]], Mapping[str, Any]] = lambda state: state


SAM: Final = Family(
    load=load_model,
    side=lambda sam: int(sam.image_encoder.img_size),
    colours=lambda sam: Colours(sam.pixel_mean, sam.pixel_std),
    answer=answer,
    decode=decode_task,
    shipped=shipped_checkpoint,
    segmenter=SamSegmenter,
    predict=predict_scene,
)


@dataclass(frozen=True, kw_only=True)
class TrainOptions:
    """seconds: of training, from the start of the program on. steps: fewer, for a try. first: scenes to wait for.

    kept: newest scenes that batches are drawn from, 1 MiB of device memory each at 512 px. rate: highest learning rate;
    it rises for a twentieth of the training and falls along a cosine. resume: weights to go on from. sharpen: their
    logits are so many times as steep before the first step. unseen: scenes of the last evaluation.
    """

    model: str = "vit_small"
    seconds: float = 440.0
    out: Path = Path("vit_small_512.pt")
    resume: Path | None = None
    sharpen: float = 1.0
    device: str = "cuda"
    batch: int = 64
    prompts: int = 4
    rate: float = 1e-3
    seed: int = 0
    steps: int | None = None
    first: int = 512
    kept: int = 24_000
    unseen: int = 256
    save_every: float = 60.0
    compile: bool = True
    workers: int = field(default_factory=default_workers)


class SceneStore:
    """The newest scenes on the device; a full store forgets the oldest."""

    def __init__(self, kept: int, side: int, device: torch.device) -> None:
        self.images = torch.zeros((kept, side, side, 3), dtype=torch.uint8, device=device)
        self.owner = torch.full((kept, side, side), PADDING, dtype=torch.int8, device=device)
        self.centres = torch.zeros((kept, MOST_OBJECTS, 2), dtype=torch.int16, device=device)
        self.boxes = torch.zeros((kept, MOST_OBJECTS, 4), dtype=torch.int16, device=device)
        self.objects = torch.zeros(kept, dtype=torch.int16, device=device)
        self.seen = 0

    def __len__(self) -> int:
        return min(self.seen, len(self.objects))

    def add(self, samples: list[Sample]) -> None:
        """Copy the samples over; nothing waits for the device."""
        if not samples:
            return
        self.seen += len(samples)
        samples = samples[-len(self.objects) :]  # no slot twice in one copy: which of the two stayed would be open
        slots = torch.arange(self.seen - len(samples), self.seen) % len(self.objects)
        for name in ("images", "owner", "centres", "boxes"):
            source = "image" if name == "images" else name
            self._copy(getattr(self, name), slots, torch.from_numpy(np.stack([getattr(s, source) for s in samples])))
        self._copy(self.objects, slots, torch.tensor([sample.objects for sample in samples], dtype=torch.int16))

    @staticmethod
    def _copy(target: torch.Tensor, slots: torch.Tensor, values: torch.Tensor) -> None:
        if target.is_cuda:
            values, slots = values.pin_memory(), slots.pin_memory()
        target[slots.to(target.device, non_blocking=True)] = values.to(target.device, non_blocking=True)


def draw_task(store: SceneStore, colours: Colours | Sam, batch: int, prompts: int) -> Task:
    """`batch` scenes at random with their colour channels in a random order, and `prompts` prompts for each.

    Boxes are asked of the first images. Some of the points are object centres, most random pixels of the object, as
    those of a grid are; a few ask for the background. Half of the boxes are exact and the others off by noise of a
    tenth of their sides.
    """
    index = torch.randint(len(store), (batch,), device=store.images.device)
    return ask_scenes(store, colours, index, prompts)


def ask_scenes(
    store: SceneStore, colours: Colours | Sam, index: torch.Tensor, prompts: int, *, recolour: bool = True
) -> Task:
    """As `draw_task`, of the scenes of that index; those without an object are asked for their background."""
    device, batch, count = index.device, len(index), len(index) * prompts
    boxed = round(_BOXES * batch)
    owner = store.owner[index]
    objects = store.objects[index, None]
    asked = (torch.rand(batch, prompts, device=device) * objects).long()
    chance = torch.rand(batch, prompts, device=device)
    chance[:boxed] = 1.0
    asked = torch.where((chance < _BACKGROUNDS) | (objects == 0), BACKGROUND, asked)
    truth = (owner[:, None] == asked[..., None, None]).flatten(0, 1)
    somewhere = (torch.rand(truth.shape, device=device) * truth).flatten(1).argmax(dim=1)
    side = owner.shape[-1]
    pixels = torch.stack([somewhere % side, somewhere // side], dim=1).float()
    rows = index[:, None].expand_as(asked), asked.clamp_min(0)
    centres, boxes = store.centres[rows].flatten(0, 1).float(), store.boxes[rows].flatten(0, 1).float()
    is_object = (asked != BACKGROUND).flatten()
    central = is_object & (torch.rand(count, device=device) < _CENTRES)
    by_box = is_object & (torch.arange(count, device=device) < boxed * prompts)
    sides = (boxes[:, 2:] - boxes[:, :2]).repeat(1, 2)
    noise = (torch.randn_like(boxes) * 0.1 * sides).clamp(-20, 20)
    boxes = torch.where((torch.rand(count, 1, device=device) < 0.5), boxes, (boxes + noise).clamp(0, side - 1))
    valid = owner != PADDING
    images = store.images[index].permute(0, 3, 1, 2)
    if recolour:
        order = torch.rand(batch, 3, device=device).argsort(dim=1)
        images = images.gather(1, order[:, :, None, None].expand(-1, -1, side, side))
    images = (images.float() - colours.pixel_mean) / colours.pixel_std * valid[:, None]
    return Task(images, torch.where(central[:, None], centres, pixels), boxes, by_box, truth, valid, boxed)


def train(options: TrainOptions, family: Family = SAM) -> dict[str, object]:
    """Train, write the averaged weights to `options.out` every `save_every` seconds and at the end, and evaluate.

    Returns the record that `main` writes beside the weights: settings, environment, loss curve, IoU.
    """
    since = time.perf_counter()
    torch.manual_seed(options.seed)
    loaded = family.load(options.model, checkpoint=options.resume, seed=options.seed)
    if options.resume is None:
        family.begin(loaded.model)
    sharpen(loaded.model, options.sharpen)
    side = family.side(loaded.model)
    unseen = unseen_scenes(side, options.unseen, options.workers)
    with scene_feed(side, options.workers, stretched=family.stretched) as samples:  # before CUDA is touched
        device = resolve_device(options.device)
        run = _Run(options, family, loaded.model.to(device).requires_grad_(True).train(), since)
        run.loop(samples)
    record = {
        "environment": asdict(describe_environment(device)),
        "options": {key: value.name if isinstance(value, Path) else value for key, value in asdict(options).items()},
        "start_weights": loaded.weights if options.resume else f"random:{options.seed}",
        "parameters": sum(parameter.numel() for parameter in run.model.parameters()),
        "steps": run.step,
        "training_s": round(time.perf_counter() - since, 1),
        "scenes_drawn": run.store.seen,
        "curve": run.curve,
        "unseen_while_training": run.unseen,
    }
    final = family.load(options.model, checkpoint=options.out)
    model = final.model.to(device)
    record |= {"weights": final.weights, "unseen": evaluate(model, unseen, family.predict)}
    record["kept_by_default"] = {
        shape: kept_by_default(family.segmenter(model), scenes[:64], thresholds=family.thresholds)
        for shape, scenes in unseen.items()
    }
    return record | {"total_s": round(time.perf_counter() - since, 1)}


@torch.no_grad()
def sharpen(model: Any, times: float) -> None:
    """Make all mask logits so many times as steep; masks at the threshold 0 stay as they are, their stability rises."""
    for network in model.mask_decoder.output_hypernetworks_mlps:
        last = network.proj_out if hasattr(network, "proj_out") else network.layers[-1]
        for parameter in last.parameters():
            parameter.mul_(times)


class _Run:
    """One training: the model, its average, the optimizer, the scenes and the curve so far."""

    def __init__(self, options: TrainOptions, family: Family, model: Any, since: float) -> None:
        self.options, self.family, self.model, self.since = options, family, model, since
        device = next(model.parameters()).device
        self.side = family.side(model)
        mean, deviation = family.colours(model)
        self.colours = Colours(mean.to(device), deviation.to(device))
        self.store = SceneStore(options.kept, self.side, device)
        self.average = AveragedModel(model, multi_avg_fn=get_ema_multi_avg_fn(_AVERAGE))
        matrices = [parameter for parameter in model.parameters() if parameter.dim() > 1]
        others = [parameter for parameter in model.parameters() if parameter.dim() <= 1]
        groups = [{"params": matrices, "weight_decay": _WEIGHT_DECAY}, {"params": others, "weight_decay": 0.0}]
        self.optimizer = torch.optim.AdamW(groups, lr=options.rate, betas=(0.9, 0.98), fused=device.type == "cuda")
        self.losses = torch.compile(task_losses) if options.compile else task_losses
        self._steep = SHARPNESS if options.resume else 1.0
        self.steepness = torch.tensor(self._steep, device=device)
        self.started, self.step = 0.0, 0
        self.curve: list[dict[str, float]] = []
        self.unseen: list[dict[str, float]] = []
        self._check = generate_scenes(min(16, options.unseen), height=self.side * 3 // 4, width=self.side, seed=2)

    @property
    def seconds(self) -> float:
        return time.perf_counter() - self.since

    def loop(self, samples: Queue[Sample]) -> None:
        options = self.options
        while len(self.store) < options.first:
            self.store.add([samples.get()])
        self.train_step()  # compiles, and as the learning rate rises from zero it changes nothing
        saved = self.started = self.seconds
        while self.progress < 1:
            self.store.add(waiting(samples, _TAKE))
            values = self.train_step()
            if self.step % 50 == 0:
                self.note(values)
            if self.seconds - saved >= options.save_every:
                saved = self.seconds
                self.save()
        self.save()

    @property
    def progress(self) -> float:
        """How far the training is, 0 to 1: by time, or by steps where a limit is set and nearer."""
        steps = self.options.steps
        spent = (self.seconds - self.started) / max(self.options.seconds - self.started, 1e-9)
        return max(spent, 0.0 if steps is None else self.step / steps)

    def train_step(self) -> torch.Tensor:
        """One step of the optimizer; returns best, single, quality and iou, still on the device."""
        done = min(self.progress, 1.0)
        rising = min(done / _WARM_UP, 1.0)
        for group in self.optimizer.param_groups:
            group["lr"] = self.options.rate * rising * (0.01 + 0.99 * 0.5 * (1 + math.cos(math.pi * done)))
        if self.options.resume is None:
            self._steepen(done)
        task = draw_task(self.store, self.colours, self.options.batch, self.options.prompts)
        with torch.autocast(task.images.device.type, dtype=torch.bfloat16):
            losses = self.losses(self.model, task, self.family.answer, self.steepness)
        losses.total.backward()
        torch.nn.utils.clip_grad_norm_(self.model.parameters(), 1.0)
        self.optimizer.step()
        self.optimizer.zero_grad(set_to_none=True)
        self.average.update_parameters(self.model)
        self.step += 1
        return torch.stack([part.detach() for part in losses[1:]])

    def _steepen(self, done: float) -> None:
        """Make logits steeper on the way, and what is asked of them with it: the masks stay as they are."""
        first, last = _STEEPER
        wanted = SHARPNESS ** min(max((done - first) / (last - first), 0.0), 1.0)
        if wanted != self._steep:
            sharpen(self.model, wanted / self._steep)
            self._steep = wanted
            self.steepness.fill_(wanted)

    def note(self, values: torch.Tensor) -> None:
        best, single, quality, iou = (round(value, 5) for value in values.tolist())
        row = {"step": self.step, "s": round(self.seconds, 1), "best": best, "single": single, "quality": quality}
        self.curve.append(row | {"iou": iou, "scenes": self.store.seen})
        if self.step % 500 == 0 or self.step == 50:
            print(*(f"{key} {value}" for key, value in self.curve[-1].items()), flush=True)

    def save(self) -> None:
        """Write the averaged weights in fp16, whole or not at all, and see what they do on unseen scenes."""
        average = self.average.module
        half = {key: value.detach().half().cpu() for key, value in average.state_dict().items()}
        temporary = self.options.out.with_name(self.options.out.name + ".tmp")
        torch.save(self.family.filed(half), temporary)
        temporary.replace(self.options.out)
        average.eval()
        iou = scene_ious(average, self._check, PromptChoice("centers"), self.family.predict)
        average.train()
        row = {"step": self.step, "s": round(self.seconds, 1), "centre_iou": round(float(iou.mean()), 4)}
        self.unseen.append(
            row | kept_by_default(self.family.segmenter(average), self._check, thresholds=self.family.thresholds)
        )
        print("unseen", self.unseen[-1], flush=True)


def main(
    arguments: list[str] | None = None,
    family: Family = SAM,
    defaults: TrainOptions = TrainOptions(),
) -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    for name, kind in (("model", str), ("seconds", float), ("out", Path), ("resume", Path), ("device", str)):
        parser.add_argument(f"--{name}", type=kind, default=getattr(defaults, name))
    for name in ("batch", "prompts", "seed", "steps", "first", "kept", "unseen", "workers"):
        parser.add_argument(f"--{name}", type=int, default=getattr(defaults, name))
    for name in ("rate", "sharpen", "save_every"):
        parser.add_argument(f"--{name.replace('_', '-')}", type=float, default=getattr(defaults, name))
    parser.add_argument("--no-compile", dest="compile", action="store_false")
    options = replace(defaults, **vars(parser.parse_args(arguments)))
    record = train(options, family)
    write_json(options.out.with_suffix(".json"), record)
    for what in ("unseen", "kept_by_default"):
        for name, row in cast("dict[str, dict[str, float]]", record[what]).items():
            print(name, row)


if __name__ == "__main__":
    main()
