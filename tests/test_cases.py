"""Every case of `cases/traces` on every surface, and what none of them may break."""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import Any

import pytest

from profiler_kit import load_run, load_trace
from profiler_kit.errors import OptionError
from profiler_kit.findings.doctor import examine
from profiler_kit.findings.quality import flaws, of_flaw
from profiler_kit.load.trace.file_facts import read_file_facts
from profiler_kit.render.report.page import report_page
from profiler_kit.tables import tables_of
from tests.builders import TraceBuilder
from tests.cli.run import profiler_kit

CASES = sorted(path for path in (Path(__file__).parent / "cases" / "traces").iterdir() if path.is_file())


@pytest.mark.parametrize("case", CASES, ids=lambda path: path.name)
def test_every_surface_shows_every_case(case: Path) -> None:
    trace = load_trace(case, arguments=["input_dims"])
    for table in tables_of("trace"):
        if table.of == "trace":
            try:
                records = table.of_source(trace).records()
            except OptionError as error:  # a table that is not for such a trace
                assert trace.quality.processes > 1 and "what waits for what across processes" in str(error)
                continue
            assert all(math.isfinite(value) for row in records for value in row.values() if isinstance(value, float))
    timeline, regions, kernels = trace.summary()["gpu_timeline"], trace.regions(), trace.kernels()
    assert regions["self_sum_ns"].sum() == kernels["sum_ns"].sum() == trace.operator_work()["gpu_ns"].sum()
    assert timeline["busy_ns"] + timeline["idle_ns"] == timeline["total_ns"]
    assert examine(case, None, trace, read_file_facts(case))["categories"]
    assert "</html>" in report_page([load_run(case)], [])


def test_launches_of_events_that_are_left_out_are_no_launches() -> None:
    for name, count in (("half_at_zero", 4), ("overrun_duration", 5)):
        trace = load_trace(CASES[0].parent / f"{name}.json")
        assert trace.launches()[["launches", "gpu_events"]].to_numpy().tolist() == [[count, count]]
        assert trace.regions()["launches"].tolist() == [count]


def test_two_gpus_in_turn_are_each_half_busy_of_the_whole() -> None:
    case = CASES[0].parent / "two_gpus_in_turn.json"
    each = load_trace(case).summary()["devices"]
    assert [(one["busy_ns"], one["idle_ns"], one["total_ns"]) for one in each] == [(400_000, 400_000, 800_000)] * 2
    assert profiler_kit("summary", case).out.count("50.0 %") == 2


def test_copies_of_unknown_size_are_not_of_no_bytes(tmp_path: Path) -> None:
    trace = TraceBuilder()
    for number, (name, size) in enumerate((("CopyHostToDevice", None), ("Memcpy HtoD (Pinned -> Device)", 100))):
        trace.launch(number + 1, 10 * number, name="hipMemcpyAsync")
        copy = trace.kernel(number + 1, 100 + 20 * number, 10, name=name)
        copy["cat"] = "gpu_memcpy"
        if size:
            copy["args"]["bytes"] = size
    path = trace.write(tmp_path / "t.json")
    found = load_trace(path).copy_totals().set_index("source")["size_bytes"]
    assert found.isna().to_dict() == {"Host": True, "Pinned": False}
    assert [row["size_bytes"] for row in json.loads(profiler_kit("copies", path, "--json").out)] == [None, 100]
    assert "2 copies of at least 100 B in all, 1 of them of pinned memory." in profiler_kit("advice", path).out


@pytest.mark.parametrize(
    ("times", "lost"),
    [
        ({"ts": 200, "dur": -5}, 1),
        ({"ts": 200, "dur": math.nan}, 1),
        ({"ts": math.nan, "dur": 5}, 1),
        ({"ts": 200, "dur": math.inf}, 1),
        ({"ts": 200, "dur": 1e300}, 1),
        ({"ts": None, "dur": 5}, 1),
        ({"ts": 200}, 1),
        ({"dur": 5}, 1),
        ({"ts": 200, "dur": "abc"}, 1),
        ({"ts": 200, "dur": 0}, 0),
    ],
)
def test_an_event_without_a_time_is_said_to_have_none(times: dict[str, Any], lost: int, tmp_path: Path) -> None:
    builder = TraceBuilder()
    builder.operator("aten::mm", 0, 10)
    builder.events.append({"ph": "X", "cat": "cpu_op", "name": "odd", "pid": 1, "tid": 1, **times})
    path = tmp_path / "t.json"
    path.write_text(json.dumps({"traceEvents": builder.events}), encoding="utf-8")
    trace = load_trace(path)
    said = [of_flaw(flaw).sentence for flaw in flaws(trace, read_file_facts(path)) if flaw.severity == "lost"]
    assert trace.quality.dropped_events == lost
    none = "Events without a phase, without a time, or with an impossible one (negative, not a number): 1."
    assert (none in said) == bool(lost)
    assert not any("could not be read" in sentence for sentence in said)


def test_short_gaps_before_work_whose_launch_is_not_known_are_not_called_launched_in_time(tmp_path: Path) -> None:
    builder = TraceBuilder()
    builder.operator("aten::mm", 0, 10)
    for start in (100, 120):
        builder.kernel(None, start, 10)
    said = profiler_kit("advice", builder.write(tmp_path / "t.json")).out
    assert "1 short gap between kernels, 10.00 µs each on average" in said


def test_what_is_not_read_is_said_in_place_of_an_empty_table(tmp_path: Path) -> None:
    path = tmp_path / "chrome.json"
    path.write_text(json.dumps([{"ph": "X", "cat": "toplevel", "name": "a", "pid": 1, "tid": 1, "ts": 1, "dur": 2}]))
    for command in ("summary", "kernels", "idle", "regions"):
        assert "1 span of an unknown category (in '1'), which are not analysed." in profiler_kit(command, path).out
    mm = {"ph": "X", "name": "aten::mm", "pid": "CPU functions", "tid": 1, "ts": 0, "dur": 10, "args": {}}
    path.write_text(json.dumps([mm, {**mm, "ph": "s", "id": 1, "cat": "cpu_to_cuda"}]), encoding="utf-8")
    said = "GPU work was launched (1 call launches it), but the GPU was not recorded: only the host side is shown."
    for command in ("summary", "kernels", "advice"):
        assert said in profiler_kit(command, path).out


@pytest.mark.parametrize(
    ("case", "choice", "found"),
    [
        ("ascend_trace_view", ("--region", "ProfilerStep#5"), (5, 2, {"ProfilerStep#5"})),
        ("legacy_autograd", (), (6, 3, set())),
        ("torch18_steps", ("--region", "ProfilerStep#11"), (4, 1, {"ProfilerStep#11"})),
        ("begin_end_mixed", ("--region", "encoder"), (3, 1, {"encoder"})),
        ("begin_end_mixed", ("--time", "100us:200us"), (3, 1, {"encoder"})),
        ("xpu_two_queues", ("--stream", "2"), (7, 2, {"fwd"})),
        ("external_id_only", ("--region", "encoder"), (4, 1, {"encoder"})),
    ],
)  # fmt: skip
def test_an_export_reads_other_forms_as_the_commands_do(
    case: str, choice: tuple[str, ...], found: tuple[int, int, set[str]], tmp_path: Path
) -> None:
    out = tmp_path / "out.json"
    said = profiler_kit("export", CASES[0].parent / f"{case}.json", *choice, "-o", out, "--json")
    exported = json.loads(said.out)
    events = json.loads(out.read_text())["traceEvents"]
    regions = {event["name"] for event in events if event.get("cat") == "gpu_region"}
    assert (exported["events"], exported["gpu_events"], regions) == found
    assert sum(event["ph"] == "B" for event in events) == sum(event["ph"] == "E" for event in events)
