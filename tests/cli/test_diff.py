"""diff: what it says about the sample runs, thresholds, Markdown, JSON, and one-line errors."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest

from tests.builders import TraceBuilder
from tests.cli.run import profiler_kit

RUNS = Path(__file__).parents[2] / "traces"
EAGER, COMPILED = RUNS / "h200-vit_b-eager-fp32", RUNS / "h200-vit_b-bf16-compile"
RECORD = "Record one with profiler_runner, or with torch.profiler's export_chrome_trace."

NO_PERCENTAGE = "not a percentage, expected a number and a percent sign. Try: 5%"


def steps(path: Path, *lengths: float) -> Path:
    trace = TraceBuilder()
    for number, length in enumerate(lengths):
        at = 10_000.0 * number
        trace.region(f"ProfilerStep#{number}", at, 5000)
        trace.region("encoder", at + 100, 400)
        trace.launch(number, at + 120)
        trace.kernel(number, at + 1000, length)
    return trace.write(path)


def test_a_run_of_no_length_has_no_busy_share(tmp_path: Path) -> None:
    nothing = TraceBuilder()
    nothing.kernel(5, 100, 0)
    done = profiler_kit("diff", steps(tmp_path / "a.json", 5, 5), nothing.write(tmp_path / "b.json"))
    assert done.code == 0 and "look at launches" not in done.out


def test_the_sample_runs_are_told_apart_at_a_glance() -> None:
    done = profiler_kit("diff", EAGER, COMPILED)
    assert (done.code, done.err) == (0, "")
    lines = done.out.splitlines()
    assert lines[:2] == [f"A: {EAGER}", f"B: {COMPILED}"]
    assert lines[3].startswith("B is 3.71 × faster than A: 80.517 → 21.699 ms a batch of 2 images, without ")
    assert lines[4] == (
        "GPU time changed most in ProfilerStep > timed region > image encoder: 70.157 → 13.834 ms (5.07 × faster)."
    )
    assert "Different settings: optimizations none → bf16, compile; dtype float32 → bfloat16." in lines
    assert "Peak memory: 5.14 GiB → 1.38 GiB." in lines


def test_a_threshold_that_fails_is_one_line_and_exit_code_1(tmp_path: Path) -> None:
    a, b = steps(tmp_path / "a.json", 1000, 1001), steps(tmp_path / "b.json", 1200, 1201)
    done = profiler_kit("diff", a, b, "--fail-above", "5%")
    assert done.code == 1 and "Regions: GPU busy time, and time on the host" in done.out
    assert done.err == (
        f"profiler-kit: {b}: GPU busy got slower than in {a}: 1.000 → 1.200 ms (+20.0 %, noise ± 2.22 µs), "
        "expected at most +5%. Look at what changed, or raise --fail-above.\n"
    )
    assert profiler_kit("diff", a, b, "--fail-above", "20.5 %").code == 0
    assert profiler_kit("diff", b, a, "--fail-above", "0%").code == 0
    assert profiler_kit("diff", a, b).code == 0


def test_what_ran_once_fails_too_and_says_that_noise_is_unknown(tmp_path: Path) -> None:
    a, b = steps(tmp_path / "a.json", 1000), steps(tmp_path / "b.json", 1200)
    done = profiler_kit("diff", a, b, "--fail-above", "5%")
    assert done.code == 1 and "(+20.0 %, measured once, noise unknown), expected at most +5%." in done.err
    assert "Times are of one ProfilerStep each, so the noise is unknown." in done.out


def test_json_holds_every_row(tmp_path: Path) -> None:
    a, b = steps(tmp_path / "a.json", 1000, 1001), steps(tmp_path / "b.json", 1200, 1201, 1202)
    done = profiler_kit("diff", a, b, "--json", "--fail-above", "5%")
    assert done.code == 1
    value = json.loads(done.out)
    assert (value["a"], value["b"], value["per"], value["rounds"]) == (str(a), str(b), "ProfilerStep", [2, 3])
    assert value["fail_above"] == 0.05 and value["failed"]["status"] == "slower"
    (gemm,) = [row for row in value["changes"] if row["kind"] == "kernel"]
    assert gemm["path"] == ["gemm"] and gemm["change"] == pytest.approx(0.2004, abs=1e-3)
    assert {key: gemm["b"][key] for key in ("value_ns", "count", "calls", "sum_ns", "mean_ns", "samples")} == {
        "value_ns": 1_201_000.0,
        "count": 1.0,
        "calls": 3,
        "sum_ns": 3_603_000,
        "mean_ns": 1_201_000.0,
        "samples": 3,
    }


def test_markdown_is_ready_to_paste(tmp_path: Path) -> None:
    done = profiler_kit("diff", EAGER, COMPILED, "--markdown", "--top", "3")
    assert (done.code, done.err) == (0, "")
    lines = done.out.splitlines()
    assert lines[0] == "### h200-vit\\_b-eager-fp32 → h200-vit\\_b-bf16-compile"
    assert lines[2].startswith("- B is 3.71 × faster than A: ")
    head = "| region | A | B | change | is | noise ± | host A | host B | host change | host is |"
    assert head in lines
    assert "<summary>Kernels, largest change first, 3 of 125 rows</summary>" in lines


@pytest.mark.parametrize("name", ["model", "image_size", "device_name"])
def test_of_another_model_or_device_that_is_said_and_none_is_faster(tmp_path: Path, name: str) -> None:
    other = tmp_path / "other"
    shutil.copytree(COMPILED, other)
    record = json.loads((other / "run.json").read_text())
    record[name] = 512 if name == "image_size" else "another"
    (other / "run.json").write_text(json.dumps(record))
    first, second, third = profiler_kit("diff", EAGER, other).out.splitlines()[3:6]
    assert first.startswith("Different settings: ") and f"{name.replace('_', ' ')} " in first
    assert first.endswith(" These are not times of the same work on the same device.")
    assert second.startswith("A: 80.517 ms, B: 21.699 ms, a batch of 2 images, without the profiler (noise ± ")
    assert third.startswith("Peak memory: ")


def test_runs_with_other_batches_are_compared_per_image(tmp_path: Path) -> None:
    other = tmp_path / "other"
    shutil.copytree(EAGER, other)
    record = json.loads((other / "run.json").read_text())
    record["batch_size"] = 4
    (other / "run.json").write_text(json.dumps(record))
    done = profiler_kit("diff", EAGER, other)
    assert "40.259 → 20.129 ms one item of the batch, without the profiler" in done.out
    assert "Different settings: batch size 2 → 4." in done.out
    (other / "run.json").write_text("broken")
    broken = profiler_kit("diff", EAGER, other)
    assert broken.code == 0 and broken.err.startswith(f"profiler-kit: {other}/run.json: JSON is malformed: ")
    assert "B takes as long as A: 91.828 → 91.828 ms a step" in broken.out


@pytest.mark.parametrize(
    ("args", "message"),
    [
        (["--fail-above", "5"], f"--fail-above 5: {NO_PERCENTAGE}"),
        (["--fail-above=-5%"], f"--fail-above -5%: {NO_PERCENTAGE}"),
        (["--fail-above", "nan%"], f"--fail-above nan%: {NO_PERCENTAGE}"),
        (["--json", "--markdown"], "--json --markdown: these exclude each other, expected one of them. Leave one out."),
        (["--top", "0"], "--top 0: expected at least 1 row. Try: --top 10"),
    ],
)
def test_wrong_options_are_one_line(args: list[str], message: str) -> None:
    done = profiler_kit("diff", EAGER, COMPILED, *args)
    assert (done.code, done.out, done.err) == (1, "", f"profiler-kit: {message}\n")


def test_a_missing_trace_is_one_line(tmp_path: Path) -> None:
    done = profiler_kit("diff", EAGER, tmp_path / "none.json")
    assert (done.code, done.out) == (1, "")
    assert done.err == f"profiler-kit: {tmp_path}/none.json: no such file, expected a chrome trace. {RECORD}\n"
