"""A torch profiler that notices when another one ends it, and a check for others at work."""

from __future__ import annotations

import gc
import os
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, Final

import torch
from torch._C._autograd import _profiler_enabled
from torch._C._profiler import _ExperimentalConfig, _ExtraFields_Allocation, _ExtraFields_TorchOp
from torch.autograd import profiler as autograd_profiler
from torch.profiler import profile

_STEP_NAME: Final = "ProfilerStep"
_KINETO_LOG: Final = "KINETO_LOG_LEVEL"


class TorchProfile(profile):
    """torch.profiler.profile that notices when another profiler has ended its recording.

    torch runs one profiler at a time and does not say so: a second one throws away what the first recorded, and
    then exporting the first, or stopping it twice, crashes the process. `lost` tells; from then on this one is
    inert, and nothing can be exported.

    all_threads: of every thread; of such a recording torch says that there is one, not in which thread it began.
    """

    lost = False

    def __init__(self, *, all_threads: bool = False, **options: Any) -> None:
        self.all_threads = all_threads
        config = _ExperimentalConfig(profile_all_threads=True) if all_threads else None
        super().__init__(experimental_config=config, **options)

    def prepare_trace(self) -> None:
        if not self.lost:
            with quiet(), _kineto_silent():
                super().prepare_trace()

    def start_trace(self) -> None:
        if not self.lost:
            super().start_trace()

    def stop_trace(self) -> None:
        if not self.lost and (autograd_profiler._is_profiler_enabled if self.all_threads else _profiler_enabled()):
            super().stop_trace()
        else:
            self.lost = True
            self.profiler = None


@contextmanager
def _kineto_silent() -> Iterator[None]:
    """Without a GPU libkineto, which starts here, prints that as an error, and its stages; the user knows the one and
    did not ask for the other. With one its messages stay: they may say why no GPU work was recorded.
    """
    if torch.cuda.is_available() or _KINETO_LOG in os.environ:
        yield
        return
    os.environ[_KINETO_LOG] = "99"
    try:
        yield
    finally:
        del os.environ[_KINETO_LOG]


@contextmanager
def quiet() -> Iterator[None]:
    """torch warns that events are cleared after each cycle, and about no warm-up; both are what was asked for."""
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message="Warning: Profiler clears events")
        warnings.filterwarnings("ignore", message="Profiler won't be using warmup")
        yield


def start_profile(recording: TorchProfile) -> None:
    """Start it; when that fails, leave nothing half started."""
    try:
        recording.start()
    except BaseException:
        _forget(recording)
        autograd_profiler._set_is_profiler_enabled(False)
        raise


def stop_profile(recording: TorchProfile) -> None:
    """Stop it, and let go of torch's step counter also when that fails."""
    try:
        recording.stop()
    finally:
        _forget(recording)


def has_recorded(recording: TorchProfile) -> bool:
    """Whether a profile that has ended holds an operator, a change of memory or a region other than ProfilerStep."""
    result = None if recording.profiler is None else recording.profiler.kineto_results
    todo = [] if result is None else result.experimental_event_tree()
    while todo:
        event = todo.pop()
        recorded = isinstance(event.extra_fields, _ExtraFields_TorchOp | _ExtraFields_Allocation)
        if recorded and not event.name.startswith(_STEP_NAME):
            return True
        todo.extend(event.children)
    return False


def _forget(recording: TorchProfile) -> None:
    autograd_profiler.KinetoStepTracker.erase_step_count(_STEP_NAME)
    if recording.execution_trace_observer:
        recording.execution_trace_observer.cleanup()


def foreign_profiler() -> str | None:
    """The torch profiler that is at work outside our runners, or None."""
    if _profiler_enabled() or autograd_profiler._is_profiler_enabled:
        return "a torch profiler"
    # Warming up under a schedule, a torch.profiler.profile has prepared Kineto but does not show in these flags,
    # and there is no list of them. It does count steps, so only then is it worth looking for one (some 50 ms).
    if _STEP_NAME in getattr(autograd_profiler.KinetoStepTracker, "_step_dict", {}):
        for thing in gc.get_objects():
            if issubclass(type(thing), profile) and _is_prepared(thing):
                return "a torch.profiler.profile that warms up"
    return None


def _is_prepared(recording: profile) -> bool:
    inner = recording.profiler
    return inner is not None and inner.entered and inner.kineto_results is None
