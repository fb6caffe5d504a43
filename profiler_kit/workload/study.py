"""Studies of batching: by component, sequential or batched, image size, device and dtype.

One forward at a time on an idle device, nothing synchronised inside it, and every time divided by the images that were
really in the batch.
"""

from __future__ import annotations

import datetime
import sys
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, Final

import torch

from profiler_kit.capture.device import (
    Stopwatch,
    choose_device,
    free_memory,
    is_out_of_memory,
    no_garbage_collection,
    synchronize,
)
from profiler_kit.capture.environment import Environment, command_line, describe_environment
from profiler_kit.capture.layer_sweep import parse_batch_sizes
from profiler_kit.capture.layers import layer_timer
from profiler_kit.errors import OptionError, WorkloadError
from profiler_kit.formats.study_file import STUDIES, StudyRecord, StudySample
from profiler_kit.progress import Report, silent
from profiler_kit.workload.capture import timing_of
from profiler_kit.workload.optimizations import Optimization, optimized, parse_optimizations
from profiler_kit.workload.protocol import Bench, Workload, make_model

WHOLE: Final = "whole forward"
_TABLE: Final = ("", "bf16", "fp16", "compile", "bf16,compile", "fp16,compile")


@dataclass(frozen=True, kw_only=True)
class StudyOptions:
    """The options of `profiler-kit study`.

    studies: all that the workload can do if "". image_sizes: sides in pixels, around the model's own if "".
    """

    studies: str = ""
    batch_sizes: str = "1,2,4,8"
    image_sizes: str = ""
    devices: str = ""
    optimizations: str = ""
    compiled: bool = True
    warmup: int | None = None
    iterations: int | None = None


@dataclass
class _Study:
    """What the studies share; `samples` and `notes` grow. device: the one in use, of `devices`."""

    workload: Workload
    options: StudyOptions
    devices: Sequence[torch.device]
    device: torch.device
    chosen: tuple[Optimization, ...]
    warmup: int
    iterations: int
    report: Report
    save: Callable[[StudyRecord], object]
    environments: Mapping[str, Environment]
    total: int
    created: str = field(default_factory=lambda: datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds"))
    done: int = 0
    samples: list[StudySample] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)

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
            self.workload.name,
            self.workload.weights,
            tuple(optimization.name for optimization in self.chosen),
            str(self.workload.facts().get("prompts", "")),
            self.warmup,
            self.iterations,
            {name: found.device_name for name, found in self.environments.items()},
            environment.versions,
            environment.git_commit,
            command_line(sys.argv),
            self.created,
            tuple(self.samples),
            tuple(self.notes),
            family=self.workload.family,
            unit=self.workload.unit,
        )


def run_study(
    workload: Workload,
    options: StudyOptions,
    *,
    report: Report = silent,
    save: Callable[[StudyRecord], object] = lambda _: None,
) -> StudyRecord:
    """Run the chosen studies and return their samples; `save` gets what there is after each measurement.

    A batch or image size that does not fit ends its study with a note; an image size that an optimization does not take
    and a combination of the table that cannot run are left out with one. Raises OptionError for options,
    CheckpointError for the file, WorkloadError when nothing could be measured.
    """
    workload.check(1)
    names = _names(options.studies or ",".join(_possible(workload)))
    if "image-size" in names and not workload.image_step:
        workload.at_image_size(0)  # says that there is no such thing
    sizes = parse_batch_sizes(options.batch_sizes)
    sides = parse_image_sizes(options.image_sizes, workload.image_step or 1)
    devices = [choose_device(text.strip() or None) for text in options.devices.split(",")]
    chosen = parse_optimizations(options.optimizations, workload.optimizations)
    table = [
        text
        for text in _TABLE
        if set(filter(None, text.split(","))) <= set(workload.optimizations)
        and (options.compiled or "compile" not in text)
    ]
    each = {"components": len(sizes), "batching": len(sizes), "image-size": len(sides) or 3}
    total = sum(each.get(name, len(devices) * len(table)) for name in names)
    environments = {str(d): describe_environment(d) for d in devices}
    warmup, iterations = timing_of(devices[0], options.warmup, options.iterations, (20, 5))
    study = _Study(
        workload, options, devices, devices[0], chosen, warmup, iterations, report, save, environments, total
    )
    if "components" in names or "batching" in names:
        _by_batch_size(study, names, sizes)
    if "image-size" in names:
        _by_image_size(study, sides, sizes[0])
    if "table" in names:
        _table(study, table, sizes[0])
    if not study.samples:
        raise WorkloadError(f"nothing could be measured: {'; '.join(study.notes)}. Try smaller sizes.")
    return study.record()


def parse_image_sizes(text: str, step: int) -> tuple[int, ...]:
    """Sides in pixels, separated by commas, each a multiple of `step`; raises OptionError. "" is none."""
    sides = set()
    for part in filter(None, (p.strip() for p in text.split(","))):
        if not (part.isascii() and part.isdigit() and 64 <= int(part) <= 4096 and int(part) % step == 0):
            raise OptionError(
                f"--image-sizes {text!r}: found {part!r}, expected multiples of {step} from 64 to 4096 separated by "
                "commas. Try 512,1024."
            )
        sides.add(int(part))
    return tuple(sorted(sides))


def _possible(workload: Workload) -> list[str]:
    """The studies that the workload can do: image sizes only where it has other ones."""
    return [name for name in STUDIES if name != "image-size" or workload.image_step]


def _names(text: str) -> tuple[str, ...]:
    names = tuple(dict.fromkeys(part.strip() for part in text.split(",") if part.strip()))
    wrong = next((name for name in names if name not in STUDIES), None)
    if wrong is not None or not names:
        raise OptionError(f"--study {text}: {wrong or 'none'!r} is not known, expected some of {', '.join(STUDIES)}.")
    return names


def _sample(study: _Study, name: str, label: str, bench: Bench, size: int, *, compiled: bool = False) -> StudySample:
    side = bench.workload.image_size
    return StudySample(name, label, str(study.device), bench.dtype, compiled, size, side, 0, 0)


def _by_batch_size(study: _Study, names: Sequence[str], sizes: Sequence[int]) -> None:
    """Components, and sequential against batched, on one model at every batch size."""
    with optimized(make_model(study.workload, study.device), study.chosen, study.device) as model:
        bench = Bench(study.workload, model, study.device, 1)
        for size in sizes:
            for name, measure in (("components", _components), ("batching", _batching)):
                if name not in names:
                    continue

                def run(measure: Callable[..., None] = measure, size: int = size) -> None:
                    measure(study, bench, size)

                if not study.fits(f"{name} at batch size {size}", run):
                    free_memory(study.device)
                    return


def _components(study: _Study, bench: Bench, size: int) -> None:
    """Each part of the forward, from events around its modules; the whole one without any hook in turn."""
    named = bench.workload.components(bench.program)
    batch = bench.of_size(size)
    _warm_up(study, lambda: bench.run(batch))
    whole: list[int] = []
    parts: dict[str, list[int]] = {name: [] for name in named}
    with no_garbage_collection():
        for _ in range(study.iterations):
            whole.append(_timed(study.device, lambda: bench.run(batch)))
            if not named:
                continue
            with layer_timer(bench.program, batch_size=size, select=lambda name, _: name in named) as timer:
                bench.run(batch)
                synchronize(study.device)
            calls = timer.frame()
            column = "device_ns" if study.device.type == "cuda" else "host_ns"
            for name, total in calls.groupby("layer")[column].sum().items():
                parts[str(name)].append(int(total))
    study.add(_sample(study, "components", WHOLE, bench, size), whole)
    for name, values in parts.items():
        if values:
            study.add(_sample(study, "components", named[name], bench, size), values)


def _batching(study: _Study, bench: Bench, size: int) -> None:
    """The same images one after the other, and all in one batch; the two take turns."""
    batch, single = bench.of_size(size), bench.of_size(1)

    def one_by_one() -> None:
        for _ in range(size):
            bench.run(single)

    for run in (one_by_one, lambda: bench.run(batch)):
        _warm_up(study, run)
    samples: dict[str, list[int]] = {"sequential": [], "batched": []}
    with no_garbage_collection():
        for _ in range(study.iterations):
            samples["sequential"].append(_timed(study.device, one_by_one))
            samples["batched"].append(_timed(study.device, lambda: bench.run(batch)))
    for label, values in samples.items():
        study.add(_sample(study, "batching", label, bench, size), values)


def _by_image_size(study: _Study, sides: Sequence[int], size: int) -> None:
    """The whole forward at several sides of the (square) input, a fresh model each."""
    for side in sides or _default_sides(study):

        def run(side: int = side) -> None:
            sized = study.workload.at_image_size(side)
            _whole(study, sized, study.chosen, size, "image-size", "forward")
            study.workload.weights = sized.weights

        try:
            if not study.fits(f"image size {side}", run):
                break
        except OptionError as error:  # an optimization that takes the model's own size but not this one
            study.notes.append(f"image size {side}: {error}")
        free_memory(study.device)


def _default_sides(study: _Study) -> tuple[int, ...]:
    make_model(study.workload, torch.device("cpu"))  # which may be what knows its size
    side = study.workload.image_size
    if not side:
        spec = study.workload.spec
        raise OptionError(f"--image-sizes: missing, and {spec} has no image_size. Try --image-sizes 224.")
    return side // 2, side, side * 3 // 2


def _table(study: _Study, combinations: Sequence[str], size: int) -> None:
    """Every device, dtype, with and without torch.compile; a fresh model each."""
    for device in study.devices:
        study.device = device
        for names in combinations:

            def run(names: str = names) -> None:
                torch._dynamo.reset()
                chosen = parse_optimizations(names, study.workload.optimizations)
                _whole(study, study.workload, chosen, size, "table", names or "fp32")

            what = f"{device}, {names or 'fp32'}"
            try:
                study.fits(what, run)
            except (
                RuntimeError,
                NotImplementedError,
                WorkloadError,
            ) as error:  # no such dtype here, or no compiler
                reason = (str(error).strip().splitlines() or [type(error).__name__])[0]
                study.notes.append(f"table, {what}: {reason[:200]}")
            free_memory(device)


def _whole(study: _Study, workload: Workload, chosen: Sequence[Optimization], size: int, name: str, label: str) -> None:
    """The whole forward of a fresh model."""
    device, compiled = study.device, any(optimization.compiles for optimization in chosen)
    with optimized(make_model(workload, device), chosen, device) as model:
        bench = Bench(workload, model, device, 1)
        batch = bench.of_size(size)
        _warm_up(study, lambda: bench.run(batch), more=1 if compiled else 0)
        with no_garbage_collection():
            values = [_timed(device, lambda: bench.run(batch)) for _ in range(study.iterations)]
    study.add(_sample(study, name, label, bench, size, compiled=name == "table" and compiled), values)


def _warm_up(study: _Study, run: Callable[[], Any], *, more: int = 0) -> None:
    for _ in range(study.warmup + more):
        run()
    synchronize(study.device)


def _timed(device: torch.device, run: Callable[[], object]) -> int:
    clock = Stopwatch(device)
    run()
    return clock.stop_ns()
