"""The phases of a run, each a loop over batches: warm-up, timed iterations, trace, memory snapshot; then run.json."""

from __future__ import annotations

import contextlib
import datetime
import time
from collections.abc import Callable, Generator, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Final, TypeVar

import torch

from profiler_kit.capture.device import Stopwatch, free_memory, no_garbage_collection, synchronize
from profiler_kit.capture.environment import describe_environment
from profiler_kit.capture.memory import memory_runner
from profiler_kit.capture.regions import region
from profiler_kit.capture.runners import profiler_runner
from profiler_kit.formats.run_record import RunRecord
from profiler_kit.progress import Ticks, silent

T = TypeVar("T")
R = TypeVar("R")
Loop = Generator[T, None, None]
Item = Callable[[int], T]

STEP_REGION: Final = "timed region"  # around every batch; what the latency samples are of


def drive(loop: Loop[T], step: Callable[[T], R]) -> R | None:
    """Run `step` on every batch of a phase; returns what it gave for the last one, if any.

    An error of the step is raised inside the phase too, so that what records there ends as it should.
    """
    result: list[R] = []
    for batch in loop:
        result.clear()  # keep no answer or batch alive while the next ones are made: they would count as peak memory
        try:
            result.append(step(batch))
        except BaseException as error:
            loop.throw(error)
            raise
        del batch
    return result[0] if result else None


class Phases:
    """What is done with the batches of a run. A phase is a loop: `for batch in phases.warm_up(item, 3): step(batch)`.

    item(number) gives a batch, counted from 0 in every phase; the time it takes is in no latency. After the timed
    iterations `latency_ns` has a sample for each and, on a GPU, `peak_bytes` and `peak_reserved_bytes` say how much
    memory torch's allocator gave out and held. `snapshot_peak_bytes` is that of the snapshot, on a CPU.
    """

    def __init__(self, device: torch.device, ticks: Ticks | None = None) -> None:
        self.device = device
        self.ticks = ticks or Ticks(silent, 1)
        self.phases_ns = dict.fromkeys(("load", "compile_cold", "warmup", "steady"), 0)
        self.first_ns: int | None = None
        self.warmups = 0
        self.latency_ns: list[int] = []
        self.peak_bytes: int | None = None
        self.peak_reserved_bytes: int | None = None
        self.snapshot_peak_bytes: int | None = None

    @contextlib.contextmanager
    def phase(self, name: str, note: str = "") -> Iterator[None]:
        """Take the wall time of the block as that of the phase `name`."""
        self.ticks.begin(note or name)
        since = time.perf_counter_ns()
        yield
        self.phases_ns[name] = time.perf_counter_ns() - since

    def first(self, item: Item[T], *, compiles: bool) -> Loop[T]:
        """The first call, timed by itself; the time to compile when that is what it does."""
        self.ticks.begin("compile" if compiles else "first call")
        samples: list[int] = []
        yield from self._timed(item, 0, samples)
        self.first_ns = samples[0]
        self.phases_ns["compile_cold"] = samples[0] if compiles else 0

    def warm_up(self, item: Item[T], count: int) -> Loop[T]:
        """Batches before the timed ones."""
        self.warmups = count
        with self.phase("warmup", "warm up"):
            for number in range(count):
                yield from self._once(item, number)
                self.ticks.tick()

    def timed(self, item: Item[T], count: int) -> Loop[T]:
        """The timed iterations: nothing is recorded, the device is idle before each."""
        device = self.device
        on_gpu = device.type == "cuda"
        if on_gpu:
            torch.cuda.reset_peak_memory_stats(device)
        with no_garbage_collection(), self.phase("steady", "time"):
            for number in range(count):
                yield from self._timed(item, number, self.latency_ns)
                self.ticks.tick()
        if on_gpu:
            self.peak_bytes = torch.cuda.max_memory_allocated(device)
            self.peak_reserved_bytes = torch.cuda.max_memory_reserved(device)

    def traced(
        self, item: Item[T], path: Path, count: int, *, record_shapes: bool = False, with_stack: bool = False
    ) -> Loop[T]:
        """Trace a few batches, a ProfilerStep each; on a GPU after one more that starts CUPTI and is thrown away."""
        self.ticks.begin("trace")
        skipped = 1 if self.device.type == "cuda" else 0
        with profiler_runner(
            path,
            warmup=skipped,
            active=count,
            record_shapes=record_shapes,
            with_stack=with_stack,
            profile_memory=False,
            rank="none",
        ) as profiler:
            for number in range(skipped + count):
                yield from self._once(item, number)
                profiler.step()
                self.ticks.tick(0 if number < skipped else 1)

    def unrolled(self, item: Item[T], path: Path) -> Loop[T]:
        """Trace one batch whose CUDA graphs run kernel by kernel, with shapes and stacks: its times are not looked at.

        It says what operator and module each kernel of a replay belongs to.
        """
        with profiler_runner(path, record_shapes=True, with_stack=True, profile_memory=False, rank="none"):
            yield from self._once(item, 0)

    def remembered(self, item: Item[T], path: Path, kernels: Path | None = None) -> Loop[T]:
        """Record the memory of one batch, and on a GPU, in `kernels`, a trace of the same batch.

        Writing the allocator's history down slows the host, so that these kernels have a trace of their own, and the
        run's trace stays undisturbed. On a CPU the snapshot comes from the profiler itself and holds the operators.
        """
        self.ticks.begin("memory snapshot")
        with contextlib.ExitStack() as history, contextlib.ExitStack() as trace:  # the trace ends before the history
            profiler = None
            if self.device.type == "cuda" and kernels is not None:
                profiler = trace.enter_context(profiler_runner(kernels, warmup=1, active=1, rank="none"))
                yield from self._once(item, 0)  # starts CUPTI, and is thrown away
            free_memory(self.device)
            memory = memory_runner(path, stacks="python", rank="none")
            history.enter_context(memory)
            if profiler is not None:
                profiler.step()
            yield from self._once(item, 0)
        self.snapshot_peak_bytes = memory.peak_bytes
        self.ticks.tick()

    def _ready(self, item: Item[T], number: int) -> T:
        """The batch once its copy has arrived, which would run into the timed region."""
        batch = item(number)
        synchronize(self.device)
        return batch

    def _once(self, item: Item[T], number: int) -> Loop[T]:
        batch = self._ready(item, number)
        with region(STEP_REGION):
            yield batch
        synchronize(self.device)

    def _timed(self, item: Item[T], number: int, samples: list[int]) -> Loop[T]:
        """Adds the time between two events around the batch; nothing is synchronised between them."""
        batch = self._ready(item, number)
        clock = Stopwatch(self.device)
        with region(STEP_REGION):
            yield batch
        samples.append(clock.stop_ns())

    def record(
        self,
        name: str,
        *,
        model: str,
        weights: str,
        optimizations: Sequence[str],
        batch_size: int,
        image_size: int,
        dtype: str,
        workload: Mapping[str, object],
        notes: Sequence[str],
    ) -> RunRecord:
        """The run as run.json tells it."""
        environment = describe_environment(self.device)
        return RunRecord(
            name=name,
            created=datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds"),
            model=model,
            weights=weights,
            optimizations=tuple(optimizations),
            batch_size=batch_size,
            image_size=image_size,
            dtype=dtype,
            device=environment.device,
            device_name=environment.device_name,
            versions=environment.versions,
            warmup_iterations=self.warmups,
            timed_iterations=len(self.latency_ns),
            phases_ns=self.phases_ns,
            latency_ns=tuple(self.latency_ns),
            peak_memory_bytes=self.peak_bytes,
            peak_reserved_bytes=self.peak_reserved_bytes,
            snapshot_peak_bytes=self.snapshot_peak_bytes,
            command=environment.command,
            git_commit=environment.git_commit,
            workload=workload,
            notes=tuple(notes),
        )


def numerics(dtype: str, device: torch.device) -> list[str]:
    """What float32 means on this device, as a note."""
    if device.type != "cuda" or dtype != "float32":
        return []
    products = "TF32" if torch.get_float32_matmul_precision() != "highest" else "IEEE float32"
    convolutions = "TF32 (torch's default)" if torch.backends.cudnn.allow_tf32 else "IEEE float32"
    return [f"float32: matrix products in {products}, convolutions in {convolutions}"]
