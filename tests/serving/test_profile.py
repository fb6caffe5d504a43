"""A profile of requests under load: which request waited for what, on the clock of the trace, on every surface."""

from __future__ import annotations

import dataclasses
import errno
import io
import json
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from profiler_kit.analyses.serving.requests import REQUESTS, STAGES, idle_while_queued, request_waterfall
from profiler_kit.errors import InputError, RunFormatError
from profiler_kit.files import whole_file
from profiler_kit.findings.serving import slowest
from profiler_kit.formats.request_file import read_requests, write_requests
from profiler_kit.models.serving.worker import Job, Recording
from profiler_kit.render.figures.run import batch_occupancy
from profiler_kit.render.figures.run import request_waterfall as request_waterfall_figure
from profiler_kit.render.report.page import report_page
from profiler_kit.render.span_facts import span_facts
from profiler_kit.run import load_run
from profiler_kit.timeline.build import build_timeline
from profiler_kit.timeline.requests import with_requests
from tests.cli.run import profiler_kit
from tests.serving.conftest import HANGS_S, Client, Held, png, until
from tests.serving.samples import BASE_NS, rows_of, served, served_run
from tests.serving.test_server import SCENES, Start, packed

I64 = np.int64


def test_a_profile_under_load(small: Client, monkeypatch: pytest.MonkeyPatch) -> None:
    wanted = 6
    profile = small.later(b"", f"/profile?requests={wanted}")
    until(lambda: small.server.worker._recording is not None)
    assert small.said("/profile?requests=1") == (409, "Another profile is going on; wait for its end.\n")
    for number in range(wanted // 3):
        answers = [small.later(packed(SCENES[at])) for at in range(3)]
        assert [answer()[0] for answer in answers] == [200] * 3, number
    status, text = profile()
    assert status == 200, text
    folder = Path(json.loads(text)["run"])
    assert sorted(path.name for path in folder.iterdir()) == ["requests.parquet", "run.json", "trace.json.gz"]

    run = load_run(folder)
    assert run.problems == () and run.trace is not None and run.requests is not None and run.record is not None
    assert run.record.workload["served"] == "baseline, batches of 4, 5 ms at most, queue of 256"
    requests = run.requests
    assert len(requests) == json.loads(text)["requests"] >= wanted and set(requests["status"]) == {200}
    stages = requests[[f"{stage}_ns" for stage in STAGES]]
    assert stages.notna().all(axis=None) and (stages.sum(axis=1) == requests["latency_ns"]).all()
    paths = {tuple(path) for path in run.trace.regions()["path"]}
    assert ("batch", "image encoder") in paths and ("decode image",) in paths  # of another thread
    # the last ones too, before the trace is written
    assert len(run.trace.region_instances().query("name == 'encode answer'")) == len(requests)
    # each batch is a region, in the stretch that the file says
    batches = run.trace.region_instances().query("name == 'batch'")
    model = requests.drop_duplicates("batch").sort_values("batch")
    assert len(batches) == len(model)
    began = (model["arrival_ns"] + model[["receive_ns", "decode_ns", "queue_ns"]].sum(axis=1)).to_numpy(I64)
    slack_ns = 50_000_000  # the profiler sets its clock by the system's, less exactly where other work interrupts it
    assert (began <= batches["start_ns"].to_numpy() + slack_ns).all()
    ended = began + model["gpu_ns"].to_numpy(I64)
    assert (batches["start_ns"].to_numpy() < ended).all() and (ended <= batches["end_ns"].to_numpy() + slack_ns).all()

    printed = profiler_kit("requests", folder, "--json")
    assert (printed.code, printed.err) == (0, "")
    assert {row["id"] for row in json.loads(printed.out)} == set(requests["id"])
    (sentence,) = [one.sentence for one in run.findings if one.id == "slowest-requests"]
    assert "of at most 4 requests" in sentence
    assert sentence in profiler_kit("advice", folder).out and "Requests to a server" in report_page([run])
    assert len(pd.read_csv(io.StringIO(profiler_kit("requests", folder, "--csv").out))) == len(requests)


def test_a_profile_that_nobody_waits_for_ends(serve_held: Start, held: Held, tmp_path: Path) -> None:
    client = serve_held()
    asked = list[bool]()
    assert client.server.worker.record(Recording(tmp_path / "a.json.gz", 5, lambda: asked.append(True)))
    client.server.worker.end_recording()
    until(lambda: client.server.worker._recording is None)
    assert client.said("/upload_rle", png())[0] == 200 and not asked
    profile = client.later(b"", "/profile?requests=5")
    until(lambda: client.server.worker._recording is not None)
    client.server.close()
    assert profile() == (503, "The profile ended before it was complete; nothing is written.\n")
    assert [path.name for path in tmp_path.iterdir()] == ["a.json.gz"]


def test_a_request_that_comes_with_its_profile_is_in_it(serve_held: Start, tmp_path: Path) -> None:
    """The worker finds both at once: the profile of one request waited for another."""
    worker = serve_held().server.worker
    recording = Recording(tmp_path / "a.json.gz", 1, lambda: None)
    job = Job(0, 0, image=np.zeros((2, 2, 3), np.uint8))
    with worker._changed:
        assert worker.record(recording)
        worker.submit(job)
    recording.ended.result(HANGS_S)
    assert [one.id for one in recording.jobs] == [0]


def test_a_disk_that_is_full(serve_held: Start, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    client = serve_held()

    def full(path: Path, *_: object) -> None:
        with whole_file(path):
            raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr("profiler_kit.models.serving.server.write_requests", full)
    profile = client.later(b"", "/profile?requests=1")
    until(lambda: client.server.worker._recording is not None)
    assert client.said("/upload_rle", png())[0] == 200
    status, text = profile()
    assert (status, text.startswith(f"The profile failed: {tmp_path}/serve-")) == (500, True)
    assert text.endswith(
        "/requests.parquet: cannot be written (No space left on device). Free some space, or choose another path.\n"
    )
    assert not list(tmp_path.iterdir())
    assert client.said("/upload_rle", png())[0] == 200


# Times of `served`, less its base: in the queue from 15 (and 25, and 22 for the one that hung up) until 30.
@pytest.mark.parametrize(
    ("events", "idle", "whole"),
    [
        ([], [None, None, None], (0, 0)),
        ([(20, 90)], [0, 0, None], (10, 0)),  # before the first event nothing is known
        ([(10, 18), (28, 90)], [10, 3, None], (15, 10)),
        ([(10, 16), (15, 20), (24, 26), (40, 90)], [8, 4, None], (15, 8)),
        ([(10, 12)], [0, 0, None], (0, 0)),
    ],
)
def test_what_each_request_waited_for(
    events: list[tuple[int, int]], idle: list[int | None], whole: tuple[int, int]
) -> None:
    start, end = (np.array([event[at] for event in events], dtype=I64) for at in (0, 1))
    found = request_waterfall(served(base_ns=7_000), 7_000, start, end)
    assert list(found) == list(REQUESTS.columns)
    rows = found[[f"{name}_ns" for name in ("arrival", "latency", *STAGES)]].astype(object).to_numpy().tolist()
    assert [[None if value is pd.NA else value for value in row] for row in rows] == [
        [10, 75, 2, 3, 15, 50, 5],
        [11, 79, 2, 12, 5, 50, 10],
        [20, 40, 1, 1, None, None, 38],
    ]
    assert [None if value is pd.NA else value for value in found["gpu_idle_ns"]] == idle
    assert idle_while_queued(found, start, end) == whole


def test_the_slowest_requests_in_a_sentence() -> None:
    frame = request_waterfall(served(), 1_000, *np.zeros((2, 0), I64))
    found = slowest(frame, None)
    assert found is not None and found.sentence == (
        "Half of 2 requests took less than 77 ns, the slowest took 79 ns, 1.0 × as long. The slowest one spent 63 % "
        "of it in the model. 2 batches held 1.5 requests on average."
    )
    many = pd.concat([frame.iloc[:1]] * 99 + [frame.iloc[1:2].assign(latency_ns=7_500, queue_ns=7_426)])
    many = many.assign(id=range(100))
    found = slowest(REQUESTS.check(many.astype(REQUESTS.dtypes()).reset_index(drop=True)), None)
    assert found is not None and "of 100 requests took less than 75 ns, 99 % took less than " in found.sentence
    assert slowest(frame[frame["status"] == 499], None) is None


def test_the_file_of_requests(tmp_path: Path) -> None:
    path = tmp_path / "requests.parquet"
    write_requests(path, reversed(rows_of(served())))
    assert read_requests(path).equals(served())
    with pytest.raises(InputError, match=r"no such file, expected a requests.parquet of profiler-kit"):
        read_requests(tmp_path / "none.parquet")


def _negative(frame: pd.DataFrame) -> pd.DataFrame:
    return frame.assign(batch=-1)


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        (lambda frame: frame.drop(columns="status"), "column 'status' is missing"),
        (lambda frame: frame.assign(done_ns=5), "its times are missing or run backwards"),
        (lambda frame: frame.assign(arrival_ns=None), "its times are missing or run backwards"),
        (lambda frame: frame.assign(arrival_ns=-(1 << 62)), "its times are missing or run backwards"),
        (_negative, "a number is below what it counts from"),
        (lambda frame: frame.assign(id="x"), "invalid literal"),
        (lambda frame: frame.assign(queued_ns=1.5), ""),
    ],
)
def test_a_file_of_something_else(change: Callable[[pd.DataFrame], pd.DataFrame], reason: str, tmp_path: Path) -> None:
    path = tmp_path / "requests.parquet"
    change(served()).to_parquet(path)
    with pytest.raises(RunFormatError, match=rf"^{path}: cannot be read \(.*{reason}") as caught:
        read_requests(path)
    assert str(caught.value).count("\n") == 0
    path.write_bytes(b"PAR1 and nothing else")
    with pytest.raises(RunFormatError):
        read_requests(path)


def test_a_broken_file_of_requests_does_not_stop_the_run(tmp_path: Path) -> None:
    (tmp_path / "requests.parquet").write_bytes(b"PAR1 and nothing else")
    (tmp_path / "trace.json").write_text("{}")
    printed = profiler_kit("requests", tmp_path)
    assert printed.code == 1 and printed.err.count("\n") == 1 and "Traceback" not in printed.err


def test_the_waterfall_is_drawn_in_stages_and_parts_of_the_batch(tmp_path: Path) -> None:
    run = load_run(served_run(tmp_path))
    assert run.served is not None
    drawn = request_waterfall_figure(run.served, most=2)
    bars = {bar.name: list(bar.x) for bar in drawn.data}
    assert all(list(bar.y) == ["request 1", "request 0"] for bar in drawn.data)
    assert bars == {
        **{"receive": [2, 2], "decode": [12, 3], "queue": [5, 15]},
        **{"image encoder": [25, 25], "nms": [4, 4], "(rest)": [2, 2], "model, GPU idle": [19, 19]},
        "encode": [10, 5],
    }
    alone = dataclasses.replace(run.served, shares=run.served.shares.iloc[:0])
    assert {bar.name: list(bar.x) for bar in request_waterfall_figure(alone, most=2).data}["model"] == [50, 50]
    (occupancy,) = batch_occupancy(run.served.batches, 4).data
    assert (list(occupancy.x), list(occupancy.y)) == (["1", "2", "3", "4"], [0, 1, 0, 0])


def test_requests_above_the_streams_and_in_an_export(tmp_path: Path) -> None:
    run = load_run(served_run(tmp_path))
    trace, requests = run.trace, run.requests
    assert trace is not None and requests is not None
    frames = (trace.gpu_events(), trace.region_instances(), trace.operators(), trace.launch_calls())
    bare = build_timeline(*frames, trace.threads)
    timeline = with_requests(bare, requests)
    assert [track.kind for track in timeline.tracks[:3]] == ["request", "gpu_region", "gpu"]
    lanes = [row.start.tolist() for row in timeline.rows[: timeline.tracks[0].rows]]
    assert lanes == [[10, 12, 15, 30, 80], [11, 13, 25, 30, 80], [20, 21, 22]]  # all three are under way at 30
    facts = span_facts(trace, timeline, 1, 3, run.served)
    assert (facts["name"], facts["start"], facts["dur"]) == ("request 1: model", 30, 50)
    assert dict(facts["facts"])["Batch, image encoder"] == "20 ns, on the GPU 25 ns"
    ((_, batch),) = facts["arrows"]
    assert (batch["start"], batch["dur"]) == (31, 48) and timeline.tracks[0].rows == 3
    assert span_facts(trace, timeline, 2, 0, run.served)["arrows"] == []  # it hung up
    assert with_requests(timeline, requests.iloc[:0]) is timeline
    of_another_time = requests.assign(arrival_ns=requests["arrival_ns"] - BASE_NS)
    assert with_requests(timeline, of_another_time) is timeline  # else the view would reach from one to the other
    unanswered = requests.assign(latency_ns=requests["latency_ns"].where(requests["status"] == 200))
    drawn = with_requests(bare, unanswered).rows[: timeline.tracks[0].rows]
    assert [row.start.tolist() for row in drawn] == lanes
    out = tmp_path / "out.json"
    assert profiler_kit("export", tmp_path, "--time", "31ns:40ns", "--output", out).code == 0
    events = [event for event in json.loads(out.read_bytes())["traceEvents"] if event.get("cat") == "request"]
    assert [event["name"] for event in events[:4]] == ["request 0", "request 1", "request 2", "receive"]
    model = next(event for event in events if event["name"] == "model")
    assert (model["ts"], model["dur"], model["args"]["batch"]) == (0.03, 0.05, 0)
