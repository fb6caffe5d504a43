"""Record a chrome trace of a block or a function."""

from __future__ import annotations

import gzip
import os
import shutil
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final, ParamSpec, TypeVar, overload

import torch
from torch.profiler import ProfilerActivity, profile, schedule, supported_activities

from profiler_kit.capture.forms import Runner, in_forms
from profiler_kit.capture.sharing import Needs, Session, Window, all_needs, join_session, now_ns, open_session
from profiler_kit.capture.targets import Rank, make_target, one_line
from profiler_kit.capture.torch_profile import TorchProfile, has_recorded, quiet
from profiler_kit.capture.trace_cut import Cut, cut_trace
from profiler_kit.errors import CaptureError, OptionError, StartError
from profiler_kit.files import whole_file

P = ParamSpec("P")
R = TypeVar("R")

_SUFFIXES: Final = (".json.gz", ".json")
_GZIP_LEVEL: Final = 6  # torch exports at 9: four times slower, and 10 % smaller


@dataclass(frozen=True, kw_only=True)
class ProfilerOptions:
    """What to record; the keyword options of `profiler_runner`, which describes them."""

    wait: int = 0
    warmup: int = 0
    active: int | None = None
    repeat: int = 1
    record_shapes: bool = False
    with_stack: bool = False
    profile_memory: bool | None = None
    with_modules: bool = False
    all_threads: bool = False
    activities: Iterable[ProfilerActivity] | None = None
    rank: Rank = "auto"

    def __post_init__(self) -> None:
        for name in ("wait", "warmup", "repeat"):
            _check_count(name, getattr(self, name), 0)
        if self.active is not None:
            _check_count("active", self.active, 1)
        elif (self.wait, self.warmup, self.repeat) != (0, 0, 1):
            raise OptionError(
                "profiler_runner: wait, warmup and repeat make a schedule, but active is missing, expected the number "
                "of steps to record in each cycle. Add active=1."
            )


@overload
def profiler_runner(
    path: str | os.PathLike[str],
    /,
    *,
    wait: int = 0,
    warmup: int = 0,
    active: int | None = None,
    repeat: int = 1,
    record_shapes: bool = False,
    with_stack: bool = False,
    profile_memory: bool | None = None,
    with_modules: bool = False,
    all_threads: bool = False,
    activities: Iterable[ProfilerActivity] | None = None,
    rank: Rank = "auto",
) -> ProfilerRunner: ...


@overload
def profiler_runner(
    path: str | os.PathLike[str], function: Callable[P, R], /, *args: P.args, **kwargs: P.kwargs
) -> R: ...


def profiler_runner(path: str | os.PathLike[str], /, *args: Any, **kwargs: Any) -> Any:
    """Record a chrome trace with torch.profiler, in one of three forms.

        @profiler_runner("trace.json.gz", record_shapes=True)
        def step(): ...

        with profiler_runner("trace.json.gz") as prof:      # prof is torch's profiler: prof.step(), prof.events()
            ...

        result = profiler_runner("trace.json.gz", step, batch, lr=0.1)

    In the third form every argument after the function is the function's own, so no name is taken from it; to give
    options there, write `profiler_runner(path, with_stack=True).run(step, batch, lr=0.1)`.

    The suffix of the path chooses the format: .json.gz or .json. A decorated function that is called again, a runner
    entered again and another runner with the same path write trace.1.json.gz, trace.2.json.gz, and so on; a recursive
    call is a nested profiler. Under torch.distributed the rank goes into the name, trace.rank0.json.gz. Files of
    earlier runs of the program are replaced when they are traces; any other file is left alone. A staticmethod or a
    classmethod may be decorated above or below its own decorator; a class, a generator and a coroutine are refused.
    The file appears whole or not at all. When the code raises, what was recorded until then is written and the
    exception goes on; should writing fail as well, the exception carries a note about it.

    A memory_runner may run inside or around it. Without CUDA the two share one torch profile, which the outer one
    starts, and the inner one's file is written when the outer one ends. What each file holds is its own: the trace
    has what happened while its runner was at work, and Python calls only with with_stack. As decorators, the outer
    one starts the profile with the options of both; in a `with` it cannot know them, and options the profile lacks
    are an error that says to swap the two. A shared profile has no schedule.

    Options:
        wait, warmup, active, repeat: a schedule, counted in `prof.step()` calls: skip `wait` steps, warm up for
            `warmup`, record `active`, and all that `repeat` times (0: to the end). Each cycle writes its own file;
            with repeat other than 1 they are numbered from 0: trace.0.json.gz. Without `active`, everything is
            recorded into one file.
        record_shapes, with_stack, profile_memory, with_modules: as in torch.profiler.profile. Without CUDA memory is
            recorded unless profile_memory is False, so that a memory_runner inside can share the profile; the trace
            holds it only when profile_memory is True.
        all_threads: record operators and regions of every thread, not only of this one and those it starts work on.
        activities: what to record; by default the CPU and every accelerator that is there.
        rank: "auto" (the rank goes into the name once torch.distributed is initialised), "none", or a number.

    Raises OptionError for an option or a path that cannot be used, before anything starts. Raises CaptureError when
    a torch profiler is already recording (it goes on undisturbed), when the schedule ends before a step was
    recorded, when another profiler ended this one, and when the file cannot be written.
    """
    return in_forms("profiler_runner", lambda options: ProfilerRunner(path, options), ProfilerOptions, args, kwargs)


class ProfilerRunner(Runner[profile]):
    """Records chrome traces; made by `profiler_runner`."""

    what = "profiler_runner"

    def __init__(self, path: str | os.PathLike[str], options: ProfilerOptions) -> None:
        scheduled = options.active is not None and options.repeat != 1
        self._target = make_target(self.what, path, _SUFFIXES, options.rank, always_numbered=scheduled)
        self._options = options
        self._activities = _activities(options.activities)
        self._session: Session | None = None
        self._since_ns = 0
        self._refused = False
        self._saved = 0
        self._failed = False

    @property
    def needs(self) -> Needs:
        """Its own options; memory only when the trace is to hold it."""
        o = self._options
        return Needs(
            activities=frozenset(self._activities),
            record_shapes=o.record_shapes,
            with_stack=o.with_stack,
            profile_memory=bool(o.profile_memory),
            with_modules=o.with_modules,
            all_threads=o.all_threads,
            scheduled=o.active is not None,
        )

    def start(self, *inside: Runner[Any]) -> profile:
        """Begin to record; gives torch's profiler."""
        who = f"{self.what} {self._target.path}"
        needs = self.needs
        session = join_session(who, self.what, needs)
        if session is None:
            needs = all_needs(needs, (runner.needs for runner in inside))
            session = open_session(who, self.what, lambda: self._make_profile(needs), scheduled=needs.scheduled)
        self._saved = 0
        self._refused = self._failed = False
        self._session = session
        self._since_ns = now_ns()
        return session.profile

    def stop(self, error: BaseException | None) -> None:
        """End the recording and write what is not yet written; a guest's trace is written when its host ends."""
        session, self._session = self._session, None
        if session is None:
            raise CaptureError(f"profiler_runner {self._target.path}: stop without start, expected start() first.")
        self._refused = isinstance(error, StartError)
        if session.kind != self.what:
            window, refused = (self._since_ns, now_ns()), self._refused
            session.leave(self.what, lambda: self._write(session.profile, window, refused=refused))
            return
        steps = session.profile.step_num
        session.close()
        if not (self._saved or self._failed or self._refused or session.profile.lost):
            first = self._options.wait + self._options.warmup
            raise CaptureError(
                f"profiler_runner {self._target.path}: nothing was recorded: the schedule skips {first} steps and "
                f"found {steps}. Call prof.step() after each step, or skip fewer."
            )

    def _make_profile(self, needs: Needs) -> TorchProfile:
        o = self._options
        for_others = not torch.cuda.is_available() and ProfilerActivity.CPU in self._activities
        with quiet():
            steps = (
                None if o.active is None else schedule(wait=o.wait, warmup=o.warmup, active=o.active, repeat=o.repeat)
            )
            return TorchProfile(
                activities=list(needs.activities),
                schedule=steps,
                on_trace_ready=self._save,
                record_shapes=needs.record_shapes,
                with_stack=needs.with_stack,
                profile_memory=needs.profile_memory or (for_others and o.profile_memory is None),
                with_modules=needs.with_modules,
                all_threads=needs.all_threads,
            )

    def _save(self, recording: profile) -> None:
        """Write one cycle; torch calls this when the cycle, or the whole recording, ends."""
        assert isinstance(recording, TorchProfile)
        self._failed = True  # unless it ends well
        if self._write(recording, None, refused=self._refused):
            self._saved += 1
        self._failed = False

    def _write(self, recording: TorchProfile, window: Window | None, *, refused: bool) -> bool:
        """Write the trace. False when a runner inside refused to start before anything was recorded."""
        path = self._target.next()
        if recording.lost:
            raise CaptureError(
                f"profiler_runner {path}: another profiler was started inside and ended this recording, nothing is "
                "written: torch runs one at a time. Leave one of the two out."
            )
        if refused and not has_recorded(recording):
            return False
        o = self._options
        cut = Cut(
            python=recording.with_stack and not o.with_stack,
            memory=recording.profile_memory and not o.profile_memory,
            window=window,
        )
        with one_line(self.what, path, "trace"):
            _export(recording, path, cut)
        self._target.advance(path)
        return True


def _export(recording: profile, path: Path, cut: Cut) -> None:
    """Write the trace, whole or not at all. Kineto does not report a failed write: the end of the file tells."""
    with whole_file(path) as temporary:
        raw = temporary.with_suffix("") if path.suffix == ".gz" else temporary
        recording.export_chrome_trace(str(raw))
        if not _is_closed(raw):
            raise OSError("the folder is gone, or the disk is full")
        if cut:
            kept = raw.with_name(f"{raw.name}.cut")
            cut_trace(raw, kept, cut)
            kept.replace(raw)
        if raw is not temporary:
            with raw.open("rb") as source, gzip.open(temporary, "wb", compresslevel=_GZIP_LEVEL) as packed:
                shutil.copyfileobj(source, packed, 1 << 20)


def _is_closed(path: Path) -> bool:
    """The file ends as a JSON object does."""
    if not path.exists():
        return False
    with path.open("rb") as handle:
        handle.seek(max(0, path.stat().st_size - 16))
        return handle.read().rstrip().endswith(b"}")


def _activities(wanted: Iterable[ProfilerActivity] | None) -> list[ProfilerActivity]:
    """What to record; torch lists CUDA as supported also where there is no GPU."""
    supported = supported_activities()
    here = {a for a in supported if a != ProfilerActivity.CUDA or torch.cuda.is_available()}
    chosen = list(here) if wanted is None else list(wanted)
    if not chosen:
        raise OptionError("profiler_runner: activities is empty, expected at least one. Use ProfilerActivity.CPU.")
    for activity in chosen:
        if activity not in here:
            name = getattr(activity, "name", repr(activity))
            names = ", ".join(sorted(a.name for a in here))
            raise OptionError(f"profiler_runner: activity {name} is not available here, expected some of {names}.")
    return chosen


def _check_count(name: str, value: object, least: int) -> None:
    if isinstance(value, bool) or not isinstance(value, int) or value < least:
        raise OptionError(f"profiler_runner: {name} is {value!r}, expected a whole number from {least}.")
