"""The one thread that runs the model: requests wait in a bounded queue and are answered in batches.

A batch closes when it is full, when no other request is on its way, or when its first one has waited long enough. Each
request is answered as soon as its masks are known. When a batch fails, each request that has no answer yet is tried
alone, so that one fails by itself; out of memory halves what is left. The thread outlives every exception.
"""

from __future__ import annotations

import contextlib
import threading
import time
from collections import deque
from collections.abc import Callable, Iterable, Sequence
from concurrent.futures import Future
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

import torch

from profiler_kit.capture.device import free_memory, is_out_of_memory, synchronize
from profiler_kit.capture.regions import region
from profiler_kit.capture.runners import profiler_runner
from profiler_kit.formats.request_file import BATCH, SERVED
from profiler_kit.models.sam.generator import Pixels, Points
from profiler_kit.models.serving.metrics import Histogram

SIZES: Final = (1, 2, 4, 8, 16, 32, 64)
Masks = list[dict[str, Any]]
Generate = Callable[[Sequence[Pixels], Sequence[Points | None]], Iterable[Masks]]


class Closed(Exception):
    """The server is shutting down: this request will not be run."""


@dataclass(eq=False)
class Job:
    """One request. Times are Unix nanoseconds, None until then: as profiler_kit.formats.request_file has them.

    points: those it asks a mask of each for, None for all masks.
    """

    id: int
    arrival_ns: int
    points: Points | None = None
    image: Pixels | None = None
    received_ns: int | None = None
    queued_ns: int | None = None
    start_ns: int | None = None
    computed_ns: int | None = None
    done_ns: int | None = None
    batch: int = -1
    batch_size: int = 0
    status: int = 0
    result: Future[Masks] = field(default_factory=Future)

    def row(self) -> dict[str, int | None]:
        """Its row of requests.parquet."""
        return {name: getattr(self, name) for name in SERVED.columns}


@dataclass(eq=False)
class Recording:
    """A profile of some requests: where its trace goes, how many are wanted, which were run in it, and its end.

    answered: waits until their answers are made. Writing the trace holds the interpreter, and what is encoded meanwhile
    would look slow.
    """

    trace: Path
    wanted: int
    answered: Callable[[], object] = lambda: None
    jobs: list[Job] = field(default_factory=list)
    ended: Future[None] = field(default_factory=Future)


class Worker(threading.Thread):
    """Runs `generate` on batches; `prepare` comes first, in the same thread.

    size: of a batch at most. on_their_way: how many requests will soon be in the queue; a batch waits for no others.
    """

    def __init__(
        self,
        generate: Generate,
        device: torch.device,
        *,
        size: int,
        max_wait_s: float,
        on_their_way: Callable[[], int],
        prepare: Callable[[], object] = lambda: None,
    ) -> None:
        super().__init__(name="model", daemon=True)
        self._generate, self._device, self._prepare = generate, device, prepare
        self.size, self._max_wait_s, self._on_their_way = size, max_wait_s, on_their_way
        self._waiting: deque[Job] = deque()
        self._changed = threading.Condition()
        self._closed = False
        self._recording: Recording | None = None
        self.ready: Future[None] = Future()
        self.batches = 0
        self.sizes = Histogram(SIZES)  # requests in each batch
        self.batch_s = 0.0  # how long the last one took

    @property
    def waiting(self) -> int:
        """Requests in the queue."""
        return len(self._waiting)

    def submit(self, job: Job) -> None:
        """Put a request into the queue; raises Closed."""
        with self._changed:
            if self._closed:
                raise Closed
            job.queued_ns = time.time_ns()
            self._waiting.append(job)
            self._changed.notify()

    def give_up(self, job: Job) -> None:
        """Its client has gone: it leaves the queue, unless it runs already."""
        with self._changed:
            if job.result.cancel() and job in self._waiting:
                self._waiting.remove(job)

    def look_again(self) -> None:
        """One that was on its way does not come."""
        with self._changed:
            self._changed.notify()

    def record(self, recording: Recording) -> bool:
        """Profile the next requests; False while another profile is going on."""
        with self._changed:
            if self._recording is not None or self._closed:
                return False
            self._recording = recording
            self._changed.notify()
            return True

    def end_recording(self) -> None:
        """End a profile before it has all its requests."""
        with self._changed:
            if self._recording is not None:
                self._recording.wanted = 0
                self._changed.notify()

    def close(self) -> None:
        """Let the running batch finish, and nothing else: who waits is told that it is over."""
        with self._changed:
            self._closed = True
            waiting = list(self._waiting)
            self._waiting.clear()
            self._changed.notify()
        for job in waiting:
            if job.result.set_running_or_notify_cancel():
                job.result.set_exception(Closed())

    def run(self) -> None:
        """Prepare, then batch after batch until it is closed."""
        try:
            self._prepare()
        except BaseException as error:  # whoever waits for `ready` raises it
            self.ready.set_exception(error)
            return
        self.ready.set_result(None)
        while not self._closed:
            recording = self._recording
            if recording is None:
                self._run_batch(self._next(None))
                continue
            problem: Exception | None = None
            try:
                self._recorded(recording)
            except Exception as error:
                problem = error
            self._end(recording, problem)
        if self._recording is not None:
            self._end(self._recording, Closed())

    def _end(self, recording: Recording, problem: Exception | None) -> None:
        self._recording = None
        if problem is None:
            recording.ended.set_result(None)
        else:
            recording.ended.set_exception(problem)

    def _recorded(self, recording: Recording) -> None:
        """Run batches under the profiler; on a GPU after one that starts CUPTI and is not kept."""
        first = self._device.type == "cuda"
        with profiler_runner(
            recording.trace,
            warmup=int(first),
            active=1 << 30 if first else None,
            profile_memory=False,
            all_threads=True,
            rank="none",
        ) as prof:
            if first:
                self._run_batch(self._next(recording))
                prof.step()
            while len(recording.jobs) < recording.wanted and not self._closed:
                jobs = self._next(recording)
                self._run_batch(jobs)
                recording.jobs += jobs
            if len(recording.jobs) >= recording.wanted > 0:  # of one that ended before nothing is kept
                recording.answered()

    def _next(self, recording: Recording | None) -> list[Job]:
        """The requests of the next batch, without those whose client has gone; none when something else is to do."""
        with self._changed:
            while not self._waiting and not self._to_do(recording):
                self._changed.wait()
            if not self._waiting or self._recording is not recording:  # what waits then is the first of a recording
                return []
            until_ns = (self._waiting[0].queued_ns or 0) + int(self._max_wait_s * 1e9)
            while len(self._waiting) < self.size and self._on_their_way() and not self._closed:
                if (left := until_ns - time.time_ns()) <= 0:
                    break
                self._changed.wait(left / 1e9)
            taken = [self._waiting.popleft() for _ in range(min(self.size, len(self._waiting)))]
        return [job for job in taken if job.result.set_running_or_notify_cancel()]

    def _to_do(self, recording: Recording | None) -> bool:
        return self._closed or self._recording is not recording or (recording is not None and not recording.wanted)

    def _run_batch(self, jobs: Sequence[Job]) -> None:
        if not jobs:
            return
        start_ns = time.time_ns()
        for job in jobs:
            job.batch, job.batch_size, job.start_ns = self.batches, len(jobs), start_ns
        self.batches += 1
        self.sizes.add(len(jobs))
        with region(BATCH):
            self._answer(jobs)
        self.batch_s = (time.time_ns() - start_ns) / 1e9

    def _answer(self, jobs: Sequence[Job]) -> None:
        """Run them together; where that fails, the others in smaller parts; one that fails alone has failed.

        A job without its image was given up; no client waits for it.
        """
        wanted = [(job, image) for job in jobs if (image := job.image) is not None]
        jobs, images, answered = [job for job, _ in wanted], [image for _, image in wanted], 0
        if not jobs:
            return
        try:
            for job, masks in zip(jobs, self._generate(images, [job.points for job in jobs]), strict=True):
                synchronize(self._device)
                job.computed_ns = time.time_ns()
                job.result.set_result(masks)
                answered += 1
        except Exception as error:
            full, problem = is_out_of_memory(error), error.with_traceback(None)
        else:
            return
        # out of the except block: the exception's frames held the tensors that filled the memory
        with contextlib.suppress(RuntimeError):  # of a GPU that has failed for good
            free_memory(self._device)
        left = jobs[answered:]
        if len(jobs) == 1 and left:
            jobs[0].computed_ns = time.time_ns()
            jobs[0].result.set_exception(problem)
            return
        step = (len(left) + 1) // 2 if full and left else 1
        for at in range(0, len(left), step):
            self._answer(left[at : at + step])
