"""Compare what the two readers of chrome traces give: the native one, and the decoder alone."""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from unittest import mock

import numpy as np
import pytest

from profiler_kit.errors import KitError
from profiler_kit.load.trace import native
from profiler_kit.load.trace.chrome import ChromeTrace, read_chrome_trace

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
    """What is not the same, codes and the order of names included."""
    if isinstance(one, str) or isinstance(other, str):
        return [] if one == other else [f"{one} != {other}"]
    a, b = one.columns, other.columns
    pairs = [(name, getattr(one, name), getattr(other, name)) for name in ("quality", "metadata")]
    pairs.append(("incidents", one.quality.incidents, other.quality.incidents))
    plain = ("names", "categories", "threads", "thread_names", "process_labels")
    pairs += [(name, getattr(a, name), getattr(b, name)) for name in plain]
    pairs += [(name, text.values, b.extra[name].values) for name, text in a.extra.items()]
    found = [f"{name}: {x} != {y}" for name, x, y in pairs if x != y]
    columns = ("name", "category", "thread", "start_ns", "dur_ns", "launched", "forward_flows", "backward_flows")
    arrays = [(name, getattr(a, name), getattr(b, name)) for name in columns]
    arrays += [(name, values, b.integers[name]) for name, values in a.integers.items()]
    arrays += [(name, text.codes, b.extra[name].codes) for name, text in a.extra.items()]
    for name, x, y in arrays:
        if x.dtype != y.dtype or not np.array_equal(x, y):
            at = np.flatnonzero(x != y)[:3] if x.shape == y.shape else []
            found.append(f"{name}: {x.dtype}{x.shape} {x.ravel()[at]} != {y.dtype}{y.shape} {y.ravel()[at]}")
    return found
