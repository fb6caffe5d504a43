"""The three forms of a runner: decorator, context manager, and `run(function, ...)`."""

from __future__ import annotations

import functools
import inspect
from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping, Sequence
from dataclasses import fields
from types import TracebackType
from typing import Any, Final, Generic, Literal, ParamSpec, TypeVar

from profiler_kit.capture.sharing import Needs
from profiler_kit.errors import CaptureError, KitError, OptionError

P = ParamSpec("P")
R = TypeVar("R")
Recording = TypeVar("Recording")

_RUNNERS: Final = "__profiler_kit_runners__"  # on a decorated function: its runners; functools.wraps hands it on


def runs_later(function: Callable[..., object]) -> bool:
    """Whether a call only makes something to run later: a generator or a coroutine; or an object called as one."""
    kinds = (inspect.isgeneratorfunction, inspect.iscoroutinefunction, inspect.isasyncgenfunction)
    return any(kind(one) for kind in kinds for one in (function, type(function).__call__))


def refuse_unrun(what: str, function: Callable[..., object], made: object) -> None:
    """Raise CaptureError where a call only made something to run later, which a look at the function did not tell."""
    kind = type(made).__name__.replace("_", " ")
    if inspect.isgenerator(made) or inspect.iscoroutine(made) or inspect.isasyncgen(made):
        if inspect.iscoroutine(made):
            made.close()  # it is not to be said on top that it was never awaited
        name = getattr(function, "__qualname__", type(function).__name__)
        raise CaptureError(
            f"{what}: {name} returned a {kind}, which has not run, expected the work to be done by the call. Use "
            "`with` around the code that runs it."
        )


def in_forms(
    what: str, make: Callable[[Any], Any], options: type[Any], args: Sequence[Any], named: Mapping[str, Any]
) -> Any:
    """A runner with the options in `named`; with a function in `args`, the result of running it at once.

    Then the other arguments are the function's own. Raises OptionError for an unknown option and for no function.
    """
    if args:
        function, *rest = args
        if not callable(function):
            raise OptionError(
                f"{what}: second argument is a {type(function).__name__}, expected the function to run. "
                "Give options by name."
            )
        return make(options()).run(function, *rest, **named)
    known = [field.name for field in fields(options)]
    unknown = next((name for name in named if name not in known), None)
    if unknown is not None:
        raise OptionError(f"{what}: unknown option {unknown!r}, expected one of {', '.join(known)}.")
    return make(options(**named))


class Runner(ABC, Generic[Recording]):
    """Records while a block or a function runs. One recording at a time; a runner may be used again and again."""

    what: str  # "profiler_runner", for messages

    @property
    @abstractmethod
    def needs(self) -> Needs:
        """What it needs of the torch profile it records through; nothing when it records another way."""

    @abstractmethod
    def start(self, *inside: Runner[Any]) -> Recording:
        """Begin to record, or raise StartError and leave everything as it is.

        `inside` are the runners known to start within: where they share the profile, it has what they need.
        """

    @abstractmethod
    def stop(self, error: BaseException | None) -> None:
        """End the recording, write the file and put back what `start` changed; `error` is what the block raised."""

    def __enter__(self) -> Recording:
        return self.start()

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> Literal[False]:
        try:
            self.stop(error)
        except Exception as failure:  # whatever keeps the file from being written
            if error is None:
                raise
            # the user's own exception matters most; a failure to write the file is only a note on it
            error.add_note(str(failure) if isinstance(failure, KitError) else f"{self.what}: {failure!r}")
        return False

    def __call__(self, function: Callable[P, R]) -> Callable[P, R]:
        """Decorate a function: every call is recorded, each into a file of its own."""
        if isinstance(function, staticmethod | classmethod):
            return type(function)(self(function.__func__))
        if not callable(function) or isinstance(function, type):
            kind = type(function).__name__
            found = f"the class {function.__name__}" if isinstance(function, type) else f"an object of type {kind}"
            raise OptionError(
                f"{self.what}: found {found} to decorate, expected a function. Decorate the method that does the work."
            )
        self._refuse_later(function)

        @functools.wraps(function)
        def recorded(*args: P.args, **kwargs: P.kwargs) -> R:
            return self.run(function, *args, **kwargs)

        setattr(recorded, _RUNNERS, (self, *_runners(function)))
        return recorded

    def run(self, function: Callable[P, R], /, *args: P.args, **kwargs: P.kwargs) -> R:
        """Call `function` with the other arguments, record the call, return what it returns."""
        self._refuse_later(function)
        with _Started(self, _runners(function)):
            made = function(*args, **kwargs)
            refuse_unrun(self.what, function, made)
            return made

    def _refuse_later(self, function: Callable[..., object]) -> None:
        if runs_later(function):
            name = getattr(function, "__qualname__", repr(function))
            raise OptionError(
                f"{self.what}: {name} is a generator or a coroutine, expected a plain function. "
                "Use `with` around the code that runs it."
            )


class _Started(Generic[Recording]):
    """`with runner:` that tells the runner which ones are inside."""

    def __init__(self, runner: Runner[Recording], inside: tuple[Runner[Any], ...]) -> None:
        self._runner = runner
        self._inside = inside

    def __enter__(self) -> Recording:
        return self._runner.start(*self._inside)

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> Literal[False]:
        return self._runner.__exit__(kind, error, trace)


def _runners(function: Callable[..., object]) -> tuple[Runner[Any], ...]:
    found = getattr(function, _RUNNERS, ())
    return found if isinstance(found, tuple) else ()  # a mock has every attribute
