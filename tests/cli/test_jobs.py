"""A job of ranks in the report, in SQL, against another run, with the memory of its ranks."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import pytest

from profiler_kit import load_ranks
from tests.cli.run import profiler_kit
from tests.jobs import SimulatedJob

SAID = "Rank 5 holds the job up since step 1: its kernels take longer."


def old(folder: Path) -> Path:
    """Files that have not changed for a minute are read once."""
    import os
    import time

    for file in folder.rglob("*.json"):
        os.utime(file, (time.time() - 60,) * 2)
    return folder


@pytest.fixture(scope="module")
def job(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Eight ranks on two nodes in tensor, data and pipeline groups; rank 5 computes longer from step 1 on."""
    made = SimulatedJob(ranks=8, layout="3d", slow=5, cause="compute", since=1, nodes=2)
    return old(made.write(tmp_path_factory.mktemp("jobs") / "slow"))


@pytest.fixture(scope="module")
def even(job: Path) -> Path:
    """The same without a slow rank."""
    return old(SimulatedJob(ranks=8, layout="3d", nodes=2).write(job.with_name("even")))


def rows(*args: str | Path) -> Any:
    done = profiler_kit(*args, "--json")
    assert done.code == 0, done.err
    return json.loads(done.out)


def test_the_report_of_a_job_answers_first(job: Path, tmp_path: Path) -> None:
    done = profiler_kit("report", job, "-o", tmp_path / "job.html")
    assert done.code == 0 and done.out.startswith(str(tmp_path / "job.html"))
    page = (tmp_path / "job.html").read_text()
    before, said, after = page.replace("<b>", "").replace("</b>", "").partition(SAID)
    assert said and "<h3" not in before
    assert 'fill="#c42828"' in after and "<title>rank 5, step 2: " in after
    for heading in ("What the job would gain", "Bandwidth by kind of group and size", "Files of the job (8)"):
        assert heading in after
    assert "http" not in after
    kept = profiler_kit("report", f"{job}.ranks", "--markdown")  # what was read of it is enough
    assert kept.code == 0 and SAID in kept.out.replace("**", "")


def test_markdown_of_a_job_is_short(job: Path) -> None:
    done = profiler_kit("report", job, "--markdown")
    heading, _, first, *_ = done.out.splitlines()
    assert (heading, first.startswith(f"- {SAID}")) == ("### Ranks of slow", True)
    assert "**Ranks by own work beyond that of their peers, 5 of 8 rows**" in done.out and "| `5` |" in done.out
    assert len(done.out.splitlines()) < 100


def test_a_job_stands_beside_a_run_in_one_report(job: Path, tmp_path: Path) -> None:
    run = job / "node0" / "rank0.json"
    done = profiler_kit("report", run, job, "-o", tmp_path / "both.html")
    assert done.code == 0
    assert 'href="#job0"' in (tmp_path / "both.html").read_text()


def test_sql_over_a_job_its_store_and_the_store_alone(job: Path, tmp_path: Path) -> None:
    query = "SELECT rank, sum(end_ns - start_ns) AS ns, count(*) AS n FROM rank_work GROUP BY rank ORDER BY rank"
    found = rows("query", job, query)
    assert [row["rank"] for row in found] == list(range(8)) and {row["n"] for row in found} == {28}
    work = load_ranks(job).of("work")
    assert sum(row["ns"] for row in found) == int((work["end_ns"] - work["start_ns"]).sum())
    assert rows("query", f"{job}.ranks", query) == found
    alone = Path(shutil.copytree(f"{job}.ranks", tmp_path / "kept.ranks"))
    assert rows("query", alone, query) == found
    assert rows("ranks", alone)["verdict"]["rank"] == 5
    joined = 'SELECT DISTINCT kind, "group" FROM rank_places JOIN ranks USING (rank) WHERE rank = 5 ORDER BY kind'
    assert [row["kind"] for row in rows("query", job, joined)] == ["dp", "node", "pp", "tp"]
    listed = {one["table"] for one in rows("query", job, "--tables")}
    assert {"ranks", "rank_groups", "rank_work", "rank_steps", "rank_parts", "rank_files", "links"} <= listed
    (tmp_path / "other.ranks").mkdir()
    assert profiler_kit("query", tmp_path / "other.ranks", query).code == 1


def test_a_run_against_another(job: Path, even: Path) -> None:
    one, other = rows("ranks", job, "--against", even)
    assert [one["run"], other["run"]] == ["even", "slow"]
    assert [one["verdict"], other["verdict"], other["slow_rank"], other["cause"]] == ["nobody", "rank", 5, "compute"]
    assert other["step_change"] == pytest.approx(other["step_ns"] / one["step_ns"] - 1)
    text = profiler_kit("ranks", job, "--against", even).out.splitlines()[-1]
    assert text.startswith("A step takes ") and "more than in even" in text
    assert "slow: rank 5 (compute, " in text and text.endswith("even: nothing holds it up.")
    assert len(rows("ranks", job, "--by", "run")) == 1
    missing = profiler_kit("ranks", job, "--against", even / "nothing")
    assert missing.code == 1 and missing.err.startswith(f"profiler-kit: {even / 'nothing'}: no such file")


def test_memory_peaks_by_rank(tmp_path: Path) -> None:
    folder = old(SimulatedJob(ranks=4, steps=1).write(tmp_path / "job"))
    assert rows("ranks", folder, "--by", "memory") == []
    for rank, most in ((1, 100), (3, 250)):
        file = folder / f"rank{rank}.json"
        trace = json.loads(file.read_text())
        trace["profile_memory"] = 1
        for at, (size, total) in enumerate(((most, most), (-most, 0), (8, 8))):
            args = {"Addr": 512, "Bytes": size, "Total Allocated": total, "Total Reserved": 2 * most,
                    "Device Type": 1, "Device Id": 0}  # fmt: skip
            trace["traceEvents"].append(
                {"ph": "i", "cat": "cpu_instant_event", "name": "[memory]", "pid": 1, "tid": 1, "s": "t",
                 "ts": 1e9 + at, "args": args}
            )  # fmt: skip
        file.write_text(json.dumps(trace))
    (folder / "rank0_memory.pickle").write_bytes(b"no snapshot")
    found = rows("ranks", old(folder), "--by", "memory")
    peaks = [(row["rank"], row["peak_allocated_bytes"], row["peak_reserved_bytes"], row["source"]) for row in found]
    assert peaks[:2] == [(3, 250, 500, "trace"), (1, 100, 200, "trace")]
    assert peaks[2][:3] == (0, None, None) and "rank0_memory.pickle" in peaks[2][3]
    assert found[0]["of_median"] == pytest.approx(250 / 175) and found[0]["end_allocated_bytes"] == 8
