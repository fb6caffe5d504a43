"""Record a memory snapshot of a block or a function: CUDA's own, or the same form on a CPU."""

from __future__ import annotations

import inspect
import logging
import os
import pickle
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Final, Literal, ParamSpec, TypeVar, get_args, overload

import torch
from torch.profiler import ProfilerActivity

from profiler_kit.capture.cpu_snapshot import CpuRecording, peak_bytes
from profiler_kit.capture.forms import Runner, in_forms
from profiler_kit.capture.sharing import Needs, all_needs
from profiler_kit.capture.targets import Rank, Target, make_target, one_line
from profiler_kit.errors import CaptureError, OptionError, StartError
from profiler_kit.files import whole_file
from profiler_kit.version import __version__

P = ParamSpec("P")
R = TypeVar("R")
Stacks = Literal["python", "all", "none"]

_SUFFIXES: Final = (".pickle", ".pkl")
_ERROR_CHARS: Final = 2_000
_LOG: Final = logging.getLogger("profiler_kit")
_told: set[str] = set()  # what has been logged in this process


@dataclass(frozen=True, kw_only=True)
class MemoryOptions:
    """What to record; the keyword options of `memory_runner`, which describes them."""

    stacks: Stacks = "python"
    max_entries: int = 1_000_000
    rank: Rank = "auto"

    def __post_init__(self) -> None:
        if self.stacks not in get_args(Stacks):
            raise OptionError(f'memory_runner: stacks is {self.stacks!r}, expected "python", "all" or "none".')
        if isinstance(self.max_entries, bool) or not isinstance(self.max_entries, int) or self.max_entries < 1:
            raise OptionError(f"memory_runner: max_entries is {self.max_entries!r}, expected a whole number from 1.")


@overload
def memory_runner(
    path: str | os.PathLike[str],
    /,
    *,
    stacks: Stacks = "python",
    max_entries: int = 1_000_000,
    rank: Rank = "auto",
) -> MemoryRunner: ...


@overload
def memory_runner(
    path: str | os.PathLike[str], function: Callable[P, R], /, *args: P.args, **kwargs: P.kwargs
) -> R: ...


def memory_runner(path: str | os.PathLike[str], /, *args: Any, **kwargs: Any) -> Any:
    """Record allocations into a memory snapshot, in one of three forms.

        @memory_runner("memory.pickle")
        def step(): ...

        with memory_runner("memory.pickle"):
            ...

        result = memory_runner("memory.pickle", step, batch, lr=0.1)

    In the third form every argument after the function is the function's own; to give options there, write
    `memory_runner(path, stacks="all").run(step, batch, lr=0.1)`. Names of files follow `profiler_runner`:
    memory.pickle, memory.1.pickle, and memory.rank0.pickle under torch.distributed.

    The snapshot is written also when the code raises: after running out of memory it explains why. The file
    is torch's format, which load_snapshot and torch's own page read, plus a key "profiler_kit": version, torch,
    source ("cuda" or "torch.profiler"), max_entries, and error (repr of what the code raised, or None). It holds
    plain values only. Regions (`region`, record_function) are in external_annotations.

    With CUDA every device's allocator is recorded. Without CUDA the CPU's allocations are recorded through
    torch.profiler instead, which a log message says once; `cpu_snapshot.build_snapshot` describes what such a file
    holds. A profiler_runner may run inside or around it; without CUDA the two share one torch profile, as
    `profiler_runner` describes: the inner one's file is written when the outer one ends. Inside a
    `with profiler_runner(...)` there are Python frames only when that one has with_stack=True, which a log message
    says once.

    Options:
        stacks: "python" records Python frames, "all" C++ frames too, "none" nothing. On a CPU, "python" and "all"
            give operators and Python calls, "none" operators.
        max_entries: how many events to keep (on CUDA for each device); older ones are dropped.
        rank: as in `profiler_runner`.

    Raises OptionError for an option or a path that cannot be used, before anything starts. Raises CaptureError when
    memory history (or, on a CPU, a profiler) is already recording, which goes on undisturbed, and when the file
    cannot be written.
    """
    return in_forms("memory_runner", lambda options: MemoryRunner(path, options), MemoryOptions, args, kwargs)


class MemoryRunner(Runner[None]):
    """Records memory snapshots; made by `memory_runner`."""

    what = "memory_runner"

    def __init__(self, path: str | os.PathLike[str], options: MemoryOptions) -> None:
        self._target: Target = make_target(self.what, path, _SUFFIXES, options.rank)
        self._options = options
        self._recording: CudaRecording | CpuRecording | None = None
        self.peak_bytes: int | None = None  # of CPU tensors, once the snapshot is written, where it tells

    @property
    def needs(self) -> Needs:
        """Without CUDA the memory of the CPU, with Python calls if stacks are wanted."""
        if torch.cuda.is_available():
            return Needs()
        return Needs(
            activities=frozenset({ProfilerActivity.CPU}),
            profile_memory=True,
            with_stack=self._options.stacks != "none",
        )

    def start(self, *inside: Runner[Any]) -> None:
        """Begin to record."""
        who = f"memory_runner {self._target.path}"
        recording: CudaRecording | CpuRecording
        if torch.cuda.is_available():
            recording = CudaRecording(who, self._options)
        else:
            _tell("memory_runner: no CUDA device, so CPU allocations are recorded, through torch.profiler")
            recording = CpuRecording(
                who, self.needs, all_needs(self.needs, (r.needs for r in inside)), self._options.max_entries
            )
        recording.start()
        if isinstance(recording, CpuRecording) and recording.lacks_stacks:
            _tell(
                "memory_runner: it shares the torch profile of a profiler_runner that was started without "
                "with_stack=True, so stacks hold operators and no Python frames"
            )
        self._recording = recording

    def stop(self, error: BaseException | None) -> None:
        """End the recording and write the snapshot; a guest's snapshot is written when its host ends."""
        recording, self._recording = self._recording, None
        if recording is None:
            raise CaptureError(f"memory_runner {self._target.path}: stop without start, expected start() first.")
        about = {
            "version": __version__,
            "source": recording.source,
            "max_entries": self._options.max_entries,
            "torch": str(torch.__version__),
            "error": None if error is None else repr(error)[:_ERROR_CHARS],
        }
        refused = isinstance(error, StartError)
        # what may be called much later holds no exception: its frames would keep the tensors that filled the memory
        recording.stop(error, lambda snapshot: self._write(snapshot, about, refused=refused))

    def _write(self, snapshot: dict[str, Any], about: dict[str, Any], *, refused: bool) -> None:
        if refused and not any(snapshot["device_traces"]):
            return  # a runner inside did not start, and nothing happened before
        if about["source"] == CpuRecording.source:
            self.peak_bytes = peak_bytes(snapshot, self._options.max_entries)
        snapshot["profiler_kit"] = about
        path = self._target.next()
        with one_line(self.what, path, "snapshot"), whole_file(path) as temporary, temporary.open("wb") as handle:
            pickle.dump(snapshot, handle, protocol=pickle.HIGHEST_PROTOCOL)
        self._target.advance(path)


class CudaRecording:
    """The allocator history of every CUDA device, from `start` to `stop`."""

    source: Final = "cuda"

    def __init__(self, who: str, options: MemoryOptions) -> None:
        self._who = who
        self._options = options

    def start(self) -> None:
        torch.cuda.init()
        if torch._C._cuda_isHistoryEnabled():
            raise StartError(
                f"{self._who}: CUDA memory history is already recording, expected it off: the allocator keeps one "
                "history. Leave one of the two out, or call torch.cuda.memory._record_memory_history(None) first."
            )
        options = self._options
        wanted: dict[str, Any] = {
            "enabled": "all",
            "context": None if options.stacks == "none" else "all",
            "stacks": "all" if options.stacks == "all" else "python",
            "max_entries": options.max_entries,
            "clear_history": True,
            # regions of every thread, where this torch can; without it those of the recording thread
            "global_record_annotations": True,
        }
        known = inspect.signature(torch.cuda.memory._record_memory_history).parameters
        try:
            torch.cuda.memory._record_memory_history(**{key: wanted[key] for key in wanted if key in known})
        except BaseException:
            self._switch_off()
            raise

    def stop(self, _error: BaseException | None, write: Callable[[dict[str, Any]], None]) -> None:
        """Hand the snapshot to `write`; history is off afterwards whatever happens."""
        try:
            snapshot: dict[str, Any] = torch.cuda.memory._snapshot()
        finally:
            self._switch_off()
        write(snapshot)

    def _switch_off(self) -> None:
        torch.cuda.memory._record_memory_history(None)


def _tell(message: str) -> None:
    """Log a message once in a process; without any logging set up, Python prints it on stderr."""
    if message not in _told:
        _told.add(message)
        _LOG.warning(message)
