"""Keep what a method has computed, so that every page, table and finding shares one answer.

`@kept` is for methods of objects that never change (a loaded trace, a snapshot, a run) whose answer depends on their
arguments alone. Answers belong to the object: when it goes, so do they. They are shared: never change them.
"""

from __future__ import annotations

import dataclasses
import functools
import inspect
import itertools
import sys
import threading
from collections import OrderedDict
from collections.abc import Callable, Collection, Hashable, Mapping
from typing import Any, Concatenate, Final, ParamSpec, TypeVar, cast

S = TypeVar("S")
P = ParamSpec("P")
R = TypeVar("R")

BOUND_BYTES: Final = 128 << 20  # of what `kept` holds per object; `kept_for_good` is not counted
_STORE: Final = "_kept_answers"
_ASKED: Final = 100  # of the items of a list, for its size


def kept(method: Callable[Concatenate[S, P], R]) -> Callable[Concatenate[S, P], R]:
    """Compute the method once per arguments; beyond BOUND_BYTES the answers not used for longest are dropped.

    Arguments must be hashable; a default given or left out is the same. Threads that ask for one answer at the same
    time wait for one computation. An exception is not kept.
    """
    return _keeping(method, for_good=False)


def kept_for_good(method: Callable[Concatenate[S, P], R]) -> Callable[Concatenate[S, P], R]:
    """Likewise, for the few answers that the others are computed from: never dropped, not counted."""
    return _keeping(method, for_good=True)


class _Answer:
    """One value, or the place where it is being computed."""

    __slots__ = ("done", "lock", "size", "value")

    def __init__(self) -> None:
        self.lock, self.done, self.size = threading.RLock(), False, 0
        self.value: Any = None


class _Store:
    """The answers of one object, the one used last at the end."""

    def __init__(self) -> None:
        self.lock = threading.Lock()
        self.answers: OrderedDict[Hashable, _Answer] = OrderedDict()

    def find(self, key: Hashable) -> _Answer:
        with self.lock:
            answer = self.answers.setdefault(key, _Answer())
            self.answers.move_to_end(key)
            return answer

    def settle(self, key: Hashable, answer: _Answer) -> None:
        """Count a new answer and drop the oldest beyond the bound; the new one stays whatever its size."""
        with self.lock:
            self.answers[key] = answer  # it may have been forgotten meanwhile
            held = sum(one.size for one in self.answers.values())
            for old in [name for name, one in self.answers.items() if one.size and one is not answer]:
                if held <= BOUND_BYTES:
                    return
                held -= self.answers.pop(old).size

    def forget(self, key: Hashable, answer: _Answer) -> None:
        with self.lock:
            if self.answers.get(key) is answer:
                del self.answers[key]


def _keeping(method: Callable[Concatenate[S, P], R], *, for_good: bool) -> Callable[Concatenate[S, P], R]:
    signature: list[inspect.Signature] = []  # looked up at the first call with arguments, not for every import

    @functools.wraps(method)
    def ask(self: S, *args: P.args, **kwargs: P.kwargs) -> R:
        if not signature:
            signature.append(inspect.signature(method))
        bound = signature[0].bind(self, *args, **kwargs)
        bound.apply_defaults()
        key = (method.__qualname__, *list(bound.arguments.values())[1:])
        store: _Store = vars(self).setdefault(_STORE, _Store())  # one step, so that two threads share one store
        answer = store.find(key)
        with answer.lock:
            if not answer.done:
                try:
                    answer.value = method(self, *args, **kwargs)
                except BaseException:
                    store.forget(key, answer)
                    raise
                answer.done, answer.size = True, 0 if for_good else size_of(answer.value)
                store.settle(key, answer)
        value: R = answer.value
        return value

    return cast("Callable[Concatenate[S, P], R]", ask)  # wraps() forgets that the first argument is positional


def size_of(value: object) -> int:
    """About how many bytes a value takes: its arrays and frames, and the records, lists and dicts around them.

    Of a long list some hundred items are asked, evenly spread, each of which counts for those up to the next.
    """
    if value is None or isinstance(value, str | int | float):  # most of what lists and dicts hold
        return sys.getsizeof(value)
    usage = getattr(value, "memory_usage", None)  # of a frame or series; asked this way pandas need not be imported
    if callable(usage):
        used = usage()
        return int(used if isinstance(used, int) else used.sum())
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        return sum(size_of(getattr(value, field.name)) for field in dataclasses.fields(value))
    if isinstance(value, Mapping):
        return _sum_of(value.values()) + sys.getsizeof(value)
    if isinstance(value, list | tuple):
        return _sum_of(value) + sys.getsizeof(value)
    return int(getattr(value, "nbytes", 0)) or sys.getsizeof(value)


def _sum_of(values: Collection[object]) -> int:
    step = 1 + len(values) // _ASKED | 1  # odd: what alternates is met in all its kinds
    return step * sum(map(size_of, itertools.islice(values, 0, None, step)))
