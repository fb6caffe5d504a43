"""What holds for every test."""

from __future__ import annotations

import gc
import os
from collections.abc import Iterator

import pytest
from hypothesis import HealthCheck, settings

# One thread for torch's operators, here and in the processes that tests start: several that wait for each other on a
# machine which other work holds take ten times as long.
os.environ.setdefault("OMP_NUM_THREADS", "1")
# Inductor's C++ without vectors: it tries each kind with a compiler and a torch of its own, twenty seconds in all.
os.environ.setdefault("TORCHINDUCTOR_VEC_ISA_OK", "0")

# The names of communication of the user who runs the tests are theirs.
os.environ["PROFILER_KIT_SETTINGS"] = os.devnull

# How long an example takes says nothing: the machine may be busy. The same examples each time, so that a test which
# fails is about what was changed; `--hypothesis-profile default` draws others.
settings.register_profile(
    "kit", deadline=None, derandomize=True, database=None, suppress_health_check=[HealthCheck.too_slow]
)
settings.load_profile("kit")


@pytest.fixture(scope="session", autouse=True)
def cache_of_the_tests(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    """One for all workers, and not that of the user, which holds what other code has read."""
    base = tmp_path_factory.getbasetemp()
    base = base.parent if "PYTEST_XDIST_WORKER" in os.environ else base
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("PROFILER_KIT_CACHE", str(base / "cache"))
        yield


# The files that take longest come first: the last one that a worker begins should be a short one.
SLOWEST = (
    *("browser/test_dashboard", "/notebooks/", "/sam/", "/browser/", "test_kills", "test_docs", "/workload/", "/sam2/"),
    *("/serving/", "/cli/", "/app/", "/student/", "/capture/", "test_hta", "test_records", "/fuzz/", "/load/"),
    *("/findings/", "test_trace.py", "test_tables", "test_cases", "test_sql"),
)


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Order the files; let tests on a GPU run with the torch of that machine, whose own warnings vary."""
    for item in items:
        if item.get_closest_marker("gpu"):
            item.add_marker(pytest.mark.filterwarnings("default"), append=False)
    turns = {path: [part in str(path) for part in SLOWEST] for path in {item.path for item in items}}
    items.sort(key=lambda item: turns[item.path], reverse=True)


gc.disable()  # until all tests are collected: what is imported stays


def pytest_collection_finish() -> None:
    """What is there before the first test stays: nothing looks for garbage in it, a third of a second each time.

    Not at the end either, where pytest looks five times.
    """
    gc.enable()
    gc.freeze()


@pytest.fixture(scope="module")
def low_ceilings() -> Iterator[None]:
    """What a CPU can do is measured with small matrices."""
    from profiler_kit.workload import ceilings  # torch
    from tests.workload.rows import LOW_CEILINGS

    with pytest.MonkeyPatch.context() as patch:
        for name, value in LOW_CEILINGS.items():
            patch.setattr(ceilings, name, value)
        yield
