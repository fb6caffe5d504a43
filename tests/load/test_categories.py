"""Every category of Kineto, of the golden traces and of the real captures has a role or a reason to be left out."""

from __future__ import annotations

import gzip
import importlib.util
import json
import re
from pathlib import Path

import pytest

from profiler_kit.attribute.regions import attribute
from profiler_kit.load.discover.runs import samples_root
from profiler_kit.load.trace.categories import (
    GPU_WORK,
    HANDLED,
    IGNORED,
    OLD_CATEGORIES,
    is_gpu_work,
    is_launch,
    role_of,
)
from profiler_kit.load.trace.chrome import read_chrome_trace
from tests.builders import TraceBuilder, real_traces

both_readers = pytest.mark.usefixtures("both_readers")

GOLDEN = sorted((Path(__file__).parents[1] / "golden").glob("*.json*"))
SAMPLES = sorted((samples_root() or Path("none")).glob("*/trace.json.gz"))


@pytest.mark.parametrize(
    "path", [*GOLDEN, *SAMPLES, *real_traces()], ids=lambda path: f"{path.parent.name}-{path.name}"
)
def test_no_category_of_a_real_trace_is_unknown(path: Path) -> None:
    events = json.loads(gzip.decompress(path.read_bytes()), strict=False)["traceEvents"]
    found = {str(event.get("cat", "")) for event in events}
    assert {category for category in found if role_of(OLD_CATEGORIES.get(category, category)) == "unknown"} == set()


def test_there_are_golden_traces() -> None:
    assert GOLDEN and SAMPLES


def kineto_header() -> Path:
    torch = importlib.util.find_spec("torch")  # finds the folder, imports nothing
    root = Path((torch and torch.origin) or "none").parent
    return root / "include" / "kineto" / "ActivityType.h"


@pytest.mark.skipif(not kineto_header().is_file(), reason="torch is installed without Kineto's headers")
def test_no_activity_type_of_the_installed_kineto_is_unknown() -> None:
    names = set(re.findall(r'\{"(\w+)", ActivityType::\w+\}', kineto_header().read_text(encoding="utf-8")))
    assert len(names) > 20
    assert {name for name in names - {"ENUM_COUNT"} if role_of(name) == "unknown"} == set()


def test_a_category_is_handled_or_ignored_never_both() -> None:
    assert not set(HANDLED) & set(IGNORED)
    assert all(IGNORED.values())
    assert {name for name, role in HANDLED.items() if role == "gpu"} == GPU_WORK
    assert {role_of(name) for name in OLD_CATEGORIES.values()} == {"operator", "gpu", "launch", "stack"}


@pytest.mark.parametrize(
    ("category", "role"),
    [
        ("kernel", "gpu"),
        ("mtia_ccp_events", "gpu"),
        ("hpu_op", "launch"),
        ("xpu_driver", "launch"),
        ("privateuse1_runtime", "launch"),
        ("gcu_runtime", "launch"),  # of a fork of Kineto
        ("cuda_sync", "ignored"),
        ("gpu_user_annotation", "ignored"),
        ("", "ignored"),
        ("quantum_op", "unknown"),
    ],
)
def test_roles(category: str, role: str) -> None:
    assert role_of(category) == role
    assert is_gpu_work(category) == (role == "gpu")
    assert is_launch(category) == (role == "launch")


@both_readers
@pytest.mark.parametrize(
    ("launch", "work"),
    [
        ("cuda_driver", "kernel"),
        ("cuda_runtime", "gpu_memset"),  # ROCm
        ("xpu_runtime", "kernel"),
        ("xpu_driver", "gpu_memcpy"),
        ("mtia_runtime", "mtia_ccp_events"),
        ("privateuse1_driver", "kernel"),
        ("hpu_op", "kernel"),
    ],
)
def test_work_of_every_back_end_reaches_its_region(launch: str, work: str, tmp_path: Path) -> None:
    trace = TraceBuilder()
    trace.region("step", 0, 10)
    trace.span(launch, "launch", 1, 1, correlation=9)
    trace.span(work, "work", 20, 5, tid=7, correlation=9, stream=7, device=0)
    found = attribute(read_chrome_trace(trace.write(tmp_path / "t.json")).columns)
    assert [found.paths[path] for path in found.path] == [("step",)]
