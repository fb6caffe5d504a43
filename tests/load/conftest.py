"""Fixtures of the loader's tests."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from tests.readers import READERS, reader


@pytest.fixture(params=READERS, scope="module")
def both_readers(request: pytest.FixtureRequest) -> Iterator[str]:
    """The tests of a module run twice: the native reader takes what it can, and the decoder takes all."""
    with reader(request.param):
        yield request.param


@pytest.fixture
def decoder_alone() -> Iterator[None]:
    with reader("python"):
        yield
