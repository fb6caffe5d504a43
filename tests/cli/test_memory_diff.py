from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from profiler_kit.analyses.compare.snapshots import compare_snapshots, stack_key
from profiler_kit.load.snapshot.data import Frame
from profiler_kit.snapshot import load_snapshot
from tests import snapshots as s
from tests.cli.run import profiler_kit

MiB = 1 << 20


def history(sizes: dict[str, int], line: int, folder: str, region: str = "step") -> dict[str, Any]:
    """One allocation for each function, all live at the peak, in one region."""
    trace, blocks = [], []
    for number, (name, size) in enumerate(sizes.items()):
        frames = [s.frame(name, f"{folder}/model.py", line), s.frame("main", f"{folder}/train.py", 5 * line)]
        trace.append(s.event("segment_alloc", 10 + number, number << 30, size))
        trace.append(s.alloc(10 + number, number << 30, size, frames=frames))
        blocks.append(s.block(number << 30, size, size, frames=frames))
    marks = [s.mark("START", region, 0), s.mark("END", region, 100)]
    segments = [s.segment(one["address"], one["size"], one) for one in blocks]
    return s.snapshot(trace, segments=segments, marks=marks)


@pytest.fixture
def pair(tmp_path: Path) -> tuple[Path, Path]:
    """The code moved to another line and folder; `encode` grew from 30 to 35 MiB, `old` went and `new` came."""
    a = s.write(tmp_path / "a.pickle", history({"encode": 30 * MiB, "old": 2 * MiB}, 7, "/home/me/work"))
    b = s.write(tmp_path / "b.pickle", history({"new": MiB, "encode": 35 * MiB}, 19, "/ci/build"))
    return a, b


def test_stacks_are_found_again_though_the_code_moved(pair: tuple[Path, Path]) -> None:
    found = compare_snapshots(load_snapshot(pair[0]), load_snapshot(pair[1]))
    rows = [(row.path[-1], row.status, row.delta_bytes // MiB) for row in found.of("stack")]
    assert rows == [
        ("encode (model.py)", "grew", 5),
        ("old (model.py)", "removed", -2),
        ("new (model.py)", "added", 1),
    ]
    assert [(row.path, row.a_bytes, row.b_bytes) for row in found.of("region")] == [(("step",), 32 * MiB, 36 * MiB)]
    assert sum(row.delta_bytes for row in found.of("stack")) == found.of("total")[0].delta_bytes == 4 * MiB


def test_what_a_stack_is_found_again_by() -> None:
    call = Frame("/x/torch/nn/modules/module.py", 3, "_call_impl")
    linear, main = Frame("/x/torch/nn/modules/linear.py", 9, "forward"), Frame("/y/train.py", 1, "main")
    cpp = Frame("??", 0, "at::empty<float>(long)")
    compiled = Frame(f"/tmp/torchinductor/c{'b' * 51}.py", 5, "call")
    assert stack_key([cpp, linear, call, main]) == ("main (train.py)", "forward (linear.py)")
    assert stack_key([compiled, main]) == ("main (train.py)", "call (compiled code)")
    assert stack_key([cpp]) == ("at::empty(long)",)
    assert stack_key([Frame("", 0, "aten::empty"), Frame("", 0, "nn.Module: Linear_12"), main]) == (
        "main (train.py)",
        "Linear",
    )
    assert stack_key([]) == ("(no Python stack)",)


def test_text(pair: tuple[Path, Path]) -> None:
    done = profiler_kit("memory", *pair)
    assert (done.code, done.err) == (0, "")
    assert [line.rstrip() for line in done.out.splitlines() if not line.startswith("─")] == [
        f"A: {pair[0]}",
        f"B: {pair[1]}",
        "",
        "The peak grew: 32.0 → 36.0 MiB (+12.5 %).",
        "Most of it: main (train.py) > encode (model.py), 30.0 → 35.0 MiB live at the peak.",
        "",
        "Totals",
        "",
        "what                          A          B    change     is   difference",
        "peak allocated         32.0 MiB   36.0 MiB   +12.5 %   grew      4.0 MiB",
        "peak reserved          32.0 MiB   36.0 MiB   +12.5 %   grew      4.0 MiB",
        "allocated at the end   32.0 MiB   36.0 MiB   +12.5 %   grew      4.0 MiB",
        "reserved at the end    32.0 MiB   36.0 MiB   +12.5 %   grew      4.0 MiB",
        "",
        "Regions: peak while they were open",
        "",
        "region          A          B    change     is   difference   instances A   instances B   "
        "each in A   each in B",
        "step     32.0 MiB   36.0 MiB   +12.5 %   grew      4.0 MiB             1             1   "
        " 32.0 MiB    36.0 MiB",
        "",
        "Live at the peak by stack, largest change first",
        "",
        "stack                                        A          B    change        is   difference   allocations A   "
        "allocations B",
        "main (train.py) > encode (model.py)   30.0 MiB   35.0 MiB   +16.7 %      grew      5.0 MiB               1   "
        "            1",
        "main (train.py) > old (model.py)       2.0 MiB          –         –   removed     -2.0 MiB               1   "
        "            0",
        "main (train.py) > new (model.py)             –    1.0 MiB         –     added      1.0 MiB               0   "
        "            1",
        "",
    ]


def test_gate(pair: tuple[Path, Path]) -> None:
    a, b = pair
    assert profiler_kit("memory", a, b, "--fail-above", "13%").code == 0
    assert profiler_kit("memory", b, a, "--fail-above", "0%").code == 0
    assert profiler_kit("memory", a, a, "--fail-above", "0%").code == 0
    done = profiler_kit("memory", a, b, "--fail-above", "5%")
    assert done.code == 1
    assert done.err == (
        f"profiler-kit: {b}: peak allocated of device 0 grew over {a}: 32.0 → 36.0 MiB (+12.5 %), expected at most "
        "+5 %. Look at what changed, or raise --fail-above.\n"
    )


def test_json_and_markdown(pair: tuple[Path, Path]) -> None:
    done = profiler_kit("memory", *pair, "--json", "--fail-above", "5%")
    data = json.loads(done.out)
    assert done.code == 1
    assert (data["fail_above"], data["failed"]["path"]) == (0.05, ["peak allocated"])
    assert {row["kind"] for row in data["changes"]} == {"total", "region", "stack"}
    text = profiler_kit("memory", *pair, "--markdown").out
    assert text.startswith("### Memory: a.pickle → b.pickle\n\n- The peak grew: 32.0 → 36.0 MiB (+12.5 %).\n")
    assert "| `step` | 32.0 MiB | 36.0 MiB | +12.5 % | grew |" in text


def test_a_recording_equals_itself() -> None:
    for path in s.captures():
        found = compare_snapshots(load_snapshot(path), load_snapshot(path))
        assert {row.status for row in found.changes} <= {"same"}
        assert found.worst(0.0) is None


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (("--json", "--markdown"), "--json --markdown: these exclude each other, expected one of them. Leave one out."),
        (
            ("--leaks",),
            "memory A B: --html, --device and the tables of one snapshot say nothing about two. Leave them out.",
        ),
        (("--fail-above", "5"), "--fail-above 5: not a percentage, expected a number and a percent sign. Try: 5%"),
    ],
)
def test_options_that_say_nothing_about_two(pair: tuple[Path, Path], options: tuple[str, ...], message: str) -> None:
    done = profiler_kit("memory", *pair, *options)
    assert (done.code, done.out, done.err) == (1, "", f"profiler-kit: {message}\n")


def test_a_gate_needs_two(pair: tuple[Path, Path]) -> None:
    done = profiler_kit("memory", pair[0], "--fail-above", "5%")
    assert (done.code, done.out) == (1, "")
    assert done.err == (
        "profiler-kit: --fail-above 5%: this compares two snapshots, found one. "
        "Try: profiler-kit memory A B --fail-above 5%\n"
    )
