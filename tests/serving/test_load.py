"""Load: open and closed loops over real HTTP, latency from the scheduled time, and answers compared."""

from __future__ import annotations

import json
import os
import re
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import pandas as pd
import pytest

from profiler_kit.analyses.serving.load import load_steps
from profiler_kit.cli import sam
from profiler_kit.errors import KitError, RunFormatError
from profiler_kit.formats.load_file import Rle, read_load
from profiler_kit.models.serving.compare import answers_agree
from profiler_kit.models.serving.load import Plan, arrivals, read_files, run_load
from tests.cli.run import profiler_kit
from tests.serving.conftest import Client, packed
from tests.serving.samples import a_load, sample
from tests.serving.test_server import SCENES


def test_load_and_compare(small: Client, tmp_path: Path) -> None:
    images = tmp_path / "images"
    images.mkdir()
    for number, scene in enumerate(SCENES[:2]):
        (images / f"{number}.png").write_bytes(packed(scene))
    (images / "broken.jpg").write_bytes(b"no image")
    out = tmp_path / "load.jsonl"
    how = ("--images", images, "--rate", "20", "--concurrency", "2", "--duration", "0.3")
    done = profiler_kit("sam", "load", small.url, *how, "--out", out, "--json")
    assert done.code == 0, done.err
    rows = {row["step"]: row for row in json.loads(done.out)}
    assert list(rows) == ["first", "rate 20", "concurrency 2"]
    due = len(list(arrivals(20, 0.3, 0)))
    assert (rows["first"]["answered"], rows["first"]["refused"]) == (2, 1) and rows["rate 20"]["requests"] == due
    assert all(row["lost"] == 0 and row["answered"] + row["refused"] == row["requests"] for row in rows.values())
    samples = read_load(out).samples
    assert all(one.scheduled_ns <= one.sent_ns <= one.done_ns for one in samples)
    assert {one.error for one in samples if one.status == 400} == {
        "No image in 8 bytes: expected a JPEG, PNG or WebP file."
    }
    with_masks = [one.image for one in samples if one.masks]
    assert with_masks == ["0.png", "1.png"]
    again = profiler_kit("sam", "load", small.url, *how, "--out", out)
    assert (again.code, again.err) == (
        1,
        f"profiler-kit: --out {out}: this file exists already. Choose another name.\n",
    )
    same = profiler_kit("sam", "compare", out, out, "--min-miou", "0.99")
    assert same.code == 0 and "mean IoU of matched masks 1.0000, strict as the sam2 example counts 1.0000" in same.out


def test_requests_leave_at_random_at_the_rate() -> None:
    times = list(arrivals(1_000, 20, seed=1))
    assert len(times) == pytest.approx(20_000, rel=0.03) and times == sorted(times) and times[-1] < 20e9
    gaps = pd.Series(times).diff().dropna()
    assert gaps.mean() == pytest.approx(gaps.std(), rel=0.05)  # an exponential distribution
    assert times == list(arrivals(1_000, 20, seed=1)) != list(arrivals(1_000, 20, seed=2))


def test_latency_counts_from_when_a_request_was_due(tmp_path: Path) -> None:
    found = load_steps(read_load(a_load(tmp_path)))
    first, rate = found.astype(object).where(found.notna(), None).to_dict("records")
    assert (first["step"], first["requests"], first["p50_ns"], first["p99_ns"]) == ("first", 1, 9, None)
    assert {name: rate[name] for name in ("requests", "answered", "refused", "lost")} == {
        "requests": 102,
        "answered": 100,
        "refused": 1,
        "lost": 1,
    }
    assert (rate["p50_ns"], rate["p95_ns"], rate["p99_ns"], rate["max_ns"]) == (50_500, 95_050, 99_010, 100_000)
    assert rate["answers_per_s"] == pytest.approx(1e6) and rate["batch_size"] == 1.5
    assert (rate["queue_ns"], rate["gpu_ns"], rate["encode_ns"]) == (50_500, 2_000_000, None)
    assert (rate["allocated_bytes"], rate["reserved_bytes"]) == (1 << 20, 1 << 21)
    (tmp_path / "few").mkdir()
    assert load_steps(read_load(a_load(tmp_path / "few", count=99)))["p99_ns"].isna().all()


def test_masks_that_differ(tmp_path: Path) -> None:
    folders = [tmp_path / name for name in "ab"]
    for folder in folders:
        folder.mkdir()
    base, other = a_load(folders[0]), a_load(folders[1], mask=Rle((2, 2), "022"))  # two of four pixels
    done = profiler_kit("sam", "compare", base, other, "--json")
    assert json.loads(done.out) == {
        "images": 1,
        "masks": 1,
        "miou": 0.5,
        "strict_miou": 0.5,
        "count_mismatch": 0,
        "match_mismatch": 0,
        "step": "rate 5",
        "baseline_p50_ns": 50_500.0,
        "other_p50_ns": 50_500.0,
    }
    assert profiler_kit("sam", "compare", base, other).out == (
        "1 image, 1 mask of the baseline: too few masks to judge; mean IoU of matched masks 0.5000, strict as the sam2 "
        "example counts 0.5000. A different number of masks in 0 images, a mask without a partner in 0 images. Median "
        "latency at rate 5 50.50 µs against 50.50 µs of the baseline (100 and 100 answers).\n"
    )
    failed = profiler_kit("sam", "compare", base, other, "--min-miou", "0.9")
    assert (failed.code, failed.err) == (
        1,
        f"profiler-kit: {other}: mean IoU 0.5, expected at least 0.9 with {base}.\n",
    )
    none = tmp_path / "none.jsonl"
    none.write_text(sample("rate 5", 0, 0, 1).line())
    refused = profiler_kit("sam", "compare", base, none)
    assert refused.code == 1 and refused.err.startswith(
        f"profiler-kit: {none}: no image with masks that {base} has too"
    )
    for counts in ("0", "zz~", "09", ""):
        broken = tmp_path / "broken.jsonl"
        broken.write_text(sample("first", 0, 0, 1, masks=(Rle((2, 2), counts),), scores=(0.5,)).line())
        refused = profiler_kit("sam", "compare", broken, base)
        assert refused.code == 1 and "a mask that is none" in refused.err and refused.err.count("\n") == 1
    for size, said in (
        ((1, 4), "a.png: masks of 4 x 1 pixels, expected 2 x 2 as in "),
        ((-1, -4), "Expected `int` >= 1"),
    ):
        broken.write_text(sample("first", 0, 0, 1, masks=(Rle(size, "04"),), scores=(0.5,)).line())
        with pytest.raises(KitError, match=said):
            answers_agree(read_load(base), read_load(broken))


def test_a_file_that_is_cut_off_or_of_something_else(tmp_path: Path) -> None:
    path = a_load(tmp_path, count=3)
    whole = read_load(path)
    assert not whole.cut and read_load(path).samples == whole.samples
    path.write_bytes(path.read_bytes()[:-120])
    assert read_load(path).cut
    for text, reason in (
        ("hello\n", "line 1: "),
        ('{"image": 3}\n', "line 1: "),
        (sample("a", 5, 6, 1).line(), "done_ns is before scheduled_ns"),
        (sample("a", 0, 0, 1, status=-1).line(), "line 1: "),
    ):
        path.write_text(text)
        with pytest.raises(RunFormatError, match=reason):
            read_load(path)


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (("http://127.0.0.1:1",), "http://127.0.0.1:1: no server of masks answers ([Errno 111] Connection refused). "),
        (("https://127.0.0.1:1",), "URL https://127.0.0.1:1: expected one such as http://127.0.0.1:8600."),
        (("http://127.0.0.1:x",), "URL http://127.0.0.1:x: Port could not be cast to integer value as 'x', "),
        (("localhost", "--rate", "5,-1"), "--rate 5,-1: expected numbers from above 0 to 10000, such as 5,10,20."),
        (("localhost", "--concurrency", "1.5"), "--concurrency 1.5: expected whole numbers, such as 1,4,16."),
        (("localhost", "--duration", "0"), "--duration 0: expected seconds, more than 0."),
        (("localhost", "--images", "nowhere"), "nowhere: no image in the folder, expected files ending in "),
    ],
)
def test_a_load_that_cannot_be_sent(arguments: tuple[str, ...], said: str, tmp_path: Path) -> None:
    done = profiler_kit("sam", "load", *arguments, cwd=tmp_path)
    assert done.code == 1 and done.err.startswith(f"profiler-kit: {said}") and done.err.count("\n") == 1
    assert list(tmp_path.iterdir()) == []


def test_what_is_served_can_be_ended_and_a_port_in_use_is_said(tmp_path: Path) -> None:
    command = [
        sys.executable,
        "-m",
        "profiler_kit.cli",
        "sam",
        "serve",
        "vit_tiny",
        "--device",
        "cpu",
        "--mode",
        "baseline",
    ]
    command += ["--points-per-side", "1", "--pred-iou-thresh", "0", "--stability-score-thresh", "0"]
    environment = {**os.environ, "PYTHONPATH": str(Path(__file__).parents[2])}
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True, cwd=tmp_path, env=environment) as server:
        try:
            assert server.stdout is not None
            url = server.stdout.readline().split()[0]
            run_load(Plan(url, read_files(None, count=1), concurrencies=[1], duration_s=0.01), tmp_path / "a.jsonl")
            assert {one.status for one in read_load(tmp_path / "a.jsonl").samples} == {200}
            port = url.rpartition(":")[2]
            taken = profiler_kit("sam", "serve", "--port", port)
            assert (taken.code, taken.out) == (1, "") and taken.err.startswith(
                f"profiler-kit: --port {port}: taken by "
            )
            server.send_signal(signal.SIGTERM)
            assert server.wait(600) == 0
        finally:
            server.kill()


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({"model": "vit_z"}, "--model vit_z: no such model, expected one of "),
        ({"mode": "fastest"}, "--mode fastest: not known, expected one of baseline, ao, fast, furious, graphs, fp8."),
        ({"mode": "graphs", "device": "cpu"}, "--mode graphs: "),
        ({"queue": 0}, "--queue 0: expected 1 to 1,000,000."),
        ({"max_mib": -1.0}, "--max-mib -1: expected more than 0 and less than 1e12."),
        ({"max_mib": float("nan")}, "--max-mib nan: expected more than 0 and less than 1e12."),
        ({"max_mib": 1e13}, "--max-mib 1e+13: expected more than 0 and less than 1e12."),
        ({"max_pixels": 0}, "--max-pixels 0: expected more than 0 and less than 1e12."),
        ({"points_per_side": 0}, "--points-per-side 0: expected 1 to "),
        ({"port": 99999}, "--port 99999: out of range, expected 1 to 65535"),
    ],
)
def test_a_server_that_cannot_start(options: dict[str, Any], said: str) -> None:
    with pytest.raises(KitError, match="^" + re.escape(said)):
        sam.serve(**options)


def test_help_needs_nothing_heavy() -> None:
    code = "import sys; from profiler_kit.cli import load_command; load_command('sam'); print(*sys.modules)"
    loaded = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout.split()
    assert not {"torch", "starlette", "uvicorn", "pandas.core"} & set(loaded)
    names = profiler_kit("sam", "--help").out
    assert all(name in names for name in ("serve", "load", "compare"))
