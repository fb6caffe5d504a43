"""Choose which line of a stack to show: the user's own code, not the interpreter or torch."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final, Protocol

# What torch/cuda/_memory_viz.py (_frame_filter) leaves out: the unwinder, the dispatcher and the interpreter itself.
NOISE_NAMES: Final = (
    "unwind::unwind",
    "CapturedTraceback::gather",
    "gather_with_cpp",
    "_start",
    "__libc_start_main",
    "PyEval_",
    "PyObject_",
    "PyFunction_",
)
NOISE_FILES: Final = (
    "core/boxing",
    "/Register",
    "/Redispatch",
    "pythonrun.c",
    "Modules/main.c",
    "Objects/call.c",
    "Objects/methodobject.c",
    "pycore_ceval.h",
    "ceval.c",
    "cpython/abstract.h",
)
BEFORE: Final = "(before the recording)"
UNNAMED: Final = "(unnamed)"
NO_STACK: Final = "(no Python stack, as on the backward thread)"
CALLS: Final = 5  # lines of a stack that a sentence holds
_WRAPPERS: Final = ("_call_impl", "<lambda>", "<module>")
_LIBRARIES: Final = ("torch/", "site-packages/", "dist-packages/", "runpy.py", "<frozen")


class HasFrame(Protocol):
    """A line of a stack."""

    @property
    def filename(self) -> str: ...
    @property
    def line(self) -> int | None: ...
    @property
    def name(self) -> str: ...


def frame_text(frame: HasFrame) -> str:
    """`function (file:line)`; without what is not known: the line, or the file too, as in a CPU recording."""
    return f"{frame.name or UNNAMED} ({place(frame.filename, frame.line)})" if frame.filename else frame.name or UNNAMED


def place(file: str, line: int | None) -> str:
    """`file:line`; the file where the line is not known."""
    return file if line is None else f"{file}:{line}"


def is_noise(frame: HasFrame) -> bool:
    """Whether the frame belongs to the unwinder, the dispatcher or the interpreter."""
    return any(part in frame.name for part in NOISE_NAMES) or any(part in frame.filename for part in NOISE_FILES)


def is_own(frame: HasFrame) -> bool:
    """Whether the frame is Python outside torch and the installed packages (that is, the user's)."""
    return frame.filename.endswith(".py") and not any(part in frame.filename for part in _LIBRARIES)


def frame_to_show(frames: Sequence[HasFrame]) -> HasFrame | None:
    """The innermost frame of the user's own code; without one the innermost Python frame, then any that is no noise.

    `frames` is innermost first. A CPU recording names no files, so that its innermost frame is it.
    """
    python = None
    other = None
    for frame in frames:
        if is_own(frame):
            return frame
        if python is None and frame.filename.endswith(".py"):
            python = frame
        if other is None and not is_noise(frame) and "CachingAllocator" not in frame.name:
            other = frame
    return python or other


def calls_text(frames: Sequence[HasFrame]) -> str:
    """The user's own lines of a stack, innermost first (all that are no noise where there is none); "" for none."""
    kept = [frame for frame in frames if is_own(frame)] or [frame for frame in frames if not is_noise(frame)]
    shown = [stack_name([frame]) for frame in kept[:CALLS]]
    return " ‹ ".join([*shown, "…"] if len(kept) > CALLS else shown)


def stack_name(frames: Sequence[HasFrame], *, before: bool = False) -> str:
    """One line for a stack: `step (train.py:12) › linear`, the user's line and what it called in the library.

    An empty stack means that the thread ran no Python, as autograd's backward thread does. `before`: allocated
    before the recording.
    """
    if not frames:
        return BEFORE if before else NO_STACK
    shown = frame_to_show(frames) or frames[0]
    name = shown.name or UNNAMED
    if shown.filename not in ("", "none", "??"):
        parts = shown.filename.replace("\\", "/").split("/")
        name = f"{name} ({place('/'.join(parts[-2:]), shown.line)})"
    called = next((frame for frame in frames if frame.filename.endswith(".py")), shown)
    if is_own(shown) and not is_own(called) and called.name not in _WRAPPERS:
        name = f"{name} › {called.name or UNNAMED}"
    return f"{name} {BEFORE}" if before else name
