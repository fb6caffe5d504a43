"""Compare what the two readers of chrome traces give: the native one, and the decoder alone."""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any
from unittest import mock

import numpy as np
import numpy.typing as npt
import pytest

from profiler_kit.errors import KitError
from profiler_kit.load.trace import native
from profiler_kit.load.trace.chrome import ChromeTrace, read_chrome_trace
from profiler_kit.load.trace.columns import EventColumns

HAVE_NATIVE = native.found() == "native"
READERS = [pytest.param("native", marks=pytest.mark.skipif(not HAVE_NATIVE, reason=native.found())), "python"]


@contextmanager
def reader(name: str) -> Iterator[None]:
    with mock.patch.dict(os.environ, {native.VARIABLE: name}):
        yield


def read_by(name: str, path: Path, arguments: Sequence[str] = ()) -> ChromeTrace | str:
    """What that reader gives, or the message of its error."""
    with reader(name):
        try:
            return read_chrome_trace(path, arguments=arguments)
        except KitError as error:
            return str(error)


def differences(one: ChromeTrace | str, other: ChromeTrace | str) -> list[str]:
    """What is not the same, codes and the order of names included.

    The order of threads is that of what was malformed between them too, which the readers take in blocks of their own.
    """
    if isinstance(one, str) or isinstance(other, str):
        return [] if one == other else [f"{one} != {other}"]
    a, b = one.columns, other.columns
    pairs = [(name, getattr(one, name), getattr(other, name)) for name in ("quality", "metadata")]
    pairs.append(("incidents", one.quality.incidents, other.quality.incidents))
    plain = ("names", "categories", "thread_names", "process_labels")
    pairs += [(name, getattr(a, name), getattr(b, name)) for name in plain]
    pairs.append(("threads", sorted(map(repr, a.threads)), sorted(map(repr, b.threads))))
    pairs += [(name, text.values, b.extra[name].values) for name, text in a.extra.items()]
    found = [f"{name}: {x} != {y}" for name, x, y in pairs if x != y]
    columns = ("name", "category", "thread", "start_ns", "dur_ns", "launched", "forward_flows", "backward_flows")
    arrays = [(name, *(_by_thread(name, of) for of in (a, b))) for name in columns]
    arrays += [(name, values, b.integers[name]) for name, values in a.integers.items()]
    arrays += [(name, text.codes, b.extra[name].codes) for name, text in a.extra.items()]
    for name, x, y in arrays:
        if x.dtype != y.dtype or not np.array_equal(x, y):
            at = np.flatnonzero(x != y)[:3] if x.shape == y.shape else []
            found.append(f"{name}: {x.dtype}{x.shape} {x.ravel()[at]} != {y.dtype}{y.shape} {y.ravel()[at]}")
    return found


def _by_thread(name: str, columns: EventColumns) -> npt.NDArray[Any]:
    """A column in which threads are numbered in the order of their names."""
    values = getattr(columns, name)
    order = sorted(range(len(columns.threads)), key=lambda code: repr(columns.threads[code]))
    numbers = np.argsort(np.array(order, dtype=np.int64)).astype(np.int32)
    if name == "thread":
        return np.asarray(numbers[values])
    if name in ("launched", "forward_flows", "backward_flows") and len(values):
        values = np.column_stack((values[:, :1], numbers[values[:, 1]], values[:, 2:]))
        return np.asarray(values[np.lexsort(values.T[::-1])] if name == "launched" else values)
    return np.asarray(values)
