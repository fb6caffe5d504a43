"""Numbers are kept in few bytes while a file is read, and come out as they went in."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from profiler_kit.load.integers import MISSING, narrowed, of_one_width, resized

EDGES = [sign * (1 << bits) + step for bits in (7, 15, 31, 62) for sign in (-1, 1) for step in (-1, 0, 1)]
NUMBERS = st.lists(st.one_of(st.just(MISSING), st.integers(-200, 200), st.sampled_from(EDGES)), max_size=20)


@given(st.lists(NUMBERS, max_size=4))
def test_parts_of_different_widths_join_to_the_numbers_they_were(parts: list[list[int]]) -> None:
    narrow = of_one_width([narrowed(np.array(part, dtype=np.int64)) for part in parts])
    assert len({part.dtype for part in narrow}) <= 1
    joined = resized(np.concatenate(narrow), np.int64) if narrow else np.zeros(0, np.int64)
    assert joined.dtype == np.int64
    assert joined.tolist() == [number for part in parts for number in part]


@pytest.mark.parametrize(
    ("numbers", "size"),
    [([], 1), ([MISSING], 1), ([0, 127, -127], 1), ([-128], 2), ([128, MISSING], 2), ([1 << 15], 4), ([1 << 31], 8)],
)
def test_the_fewest_bytes_that_leave_one_number_for_missing(numbers: list[int], size: int) -> None:
    assert narrowed(np.array(numbers, dtype=np.int64)).itemsize == size


def test_a_column_without_a_number_takes_no_memory() -> None:
    absent = resized(narrowed(np.full(1000, MISSING)), np.int64)
    assert absent.strides == (0,) and not absent.flags.writeable and (absent == MISSING).all()


def test_a_long_column_is_resized_to_its_end() -> None:
    numbers = np.arange(200_000) % 200 - 100
    numbers[[70_000, -1]] = MISSING
    assert narrowed(numbers).itemsize == 1 and np.array_equal(resized(narrowed(numbers), np.int64), numbers)
