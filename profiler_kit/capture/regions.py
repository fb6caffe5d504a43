"""Name a block of code in every trace and memory snapshot taken while it runs."""

from __future__ import annotations

import functools
import unicodedata
from collections.abc import Callable
from types import TracebackType
from typing import Final, ParamSpec, TypeVar, cast

import torch
from torch.profiler import record_function

from profiler_kit.capture.forms import runs_later
from profiler_kit.errors import OptionError

P = ParamSpec("P")
R = TypeVar("R")

# Kineto does not escape names in the trace: a double quote makes a file that no JSON reader accepts. It turns a
# backslash into a slash, and a name with a control character or anything beyond ASCII into "unknown".
_UNSAFE: Final = {ord('"'): "'", ord("\\"): "/", **dict.fromkeys((*range(32), 127), " ")}


def region(name: str, *, nvtx: bool = False) -> _Region:
    """Mark a block (`with region("image encoder"):`) or a function (`@region("step")`) with a name.

    The block shows as a user annotation in torch.profiler traces and as a START and an END in CUDA memory
    snapshots. `nvtx` opens an NVTX range too, for Nsight Systems; on a machine without CUDA it is left out
    silently. Without a profiler a region costs a few microseconds. The block ends when it raises, too.
    A decorated function may recurse and run in several threads; a context manager is for one use at a time.

    Regions are those that are open on a thread, whoever opened them: of two asyncio tasks, the second to open one has
    it below that of the first as long as both are open (`a > b`), and its work counts in both. Put no `await` into a
    region whose time is to be read, or profile one task at a time.

    A name is printable ASCII, because torch writes nothing else into a trace unharmed: `"` becomes `'`, a backslash
    `/`, a control character a space, an accented letter the plain one, and any other character `?`. Inside
    torch.compile a region is a plain record_function, which the compiler leaves out without breaking the graph.

    Raises OptionError when the name is no text or empty, and when the function to decorate is a generator or a
    coroutine: only making it, not running it, would be marked.
    """
    if torch.compiler.is_dynamo_compiling():
        return cast("_Region", record_function(name))
    if not isinstance(name, str):
        raise OptionError(f'region: the name is a {type(name).__name__}, expected text. Write region("image encoder").')
    if not name.strip():
        raise OptionError('region: the name is empty, expected text. Write region("image encoder").')
    return _Region(_printable(name), nvtx=nvtx)


@functools.lru_cache(maxsize=1024)
def _printable(name: str) -> str:
    letters = (c for c in unicodedata.normalize("NFKD", name.translate(_UNSAFE)) if not unicodedata.combining(c))
    return "".join(letters).encode("ascii", "replace").decode("ascii")


class _Region:
    """One marked block; made by `region`."""

    def __init__(self, name: str, *, nvtx: bool) -> None:
        self.name = name
        self._nvtx = nvtx
        self._record: record_function | None = None
        self._pushed = False

    def __enter__(self) -> _Region:
        self._record = record_function(self.name)
        self._record.__enter__()
        if self._nvtx and torch.cuda.is_available():
            torch.cuda.nvtx.range_push(self.name)
            self._pushed = True
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        record, self._record = self._record, None
        try:
            if self._pushed:
                self._pushed = False
                torch.cuda.nvtx.range_pop()
        finally:
            if record is not None:
                record.__exit__(kind, error, trace)

    def __call__(self, function: Callable[P, R]) -> Callable[P, R]:
        """Decorate a function: each call is an instance of the region."""
        if runs_later(function):
            name = getattr(function, "__qualname__", repr(function))
            raise OptionError(
                f"region {self.name!r}: {name} is a generator or a coroutine, expected a plain function. "
                "Open the region with `with` inside it, around code that does not yield."
            )

        @functools.wraps(function)
        def marked(*args: P.args, **kwargs: P.kwargs) -> R:
            with region(self.name, nvtx=self._nvtx):
                return function(*args, **kwargs)

        return marked
