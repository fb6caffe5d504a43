"""Loading in the background: shared, watched, stopped, kept within bounds; files that change while they are shown."""

from __future__ import annotations

import gc
import json
import os
import shutil
import threading
import weakref
from collections import OrderedDict
from collections.abc import Iterator
from pathlib import Path

import pytest
from streamlit.runtime.scriptrunner import RerunData, RerunException
from streamlit.testing.v1 import AppTest

from app import cache
from app.loading import Cancelled, Job
from app.parts import widgets
from profiler_kit.comparing import compared_apart
from profiler_kit.errors import InputError, KitError
from profiler_kit.load.discover.runs import RunFolder, find_run
from profiler_kit.load.trace.cached import SMALLEST_JSON_BYTES
from profiler_kit.load.trace.file_facts import read_file_facts
from profiler_kit.progress import Report
from profiler_kit.run import compare_runs, load_run
from profiler_kit.trace import Trace, load_trace
from tests.app.dashboard import dashboard
from tests.app.samples import PATIENCE_S, gpu_trace, make_runs


@pytest.fixture
def runs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    root = make_runs(tmp_path / "traces")
    monkeypatch.setenv("PROFILER_KIT_DIR", str(root))
    return root


class Gate:
    """Work that reports until it is let through."""

    def __init__(self, result: Trace | int = 7) -> None:
        self.open, self.begun, self.result = threading.Event(), threading.Event(), result

    def __call__(self, report: Report) -> Trace | int:
        while not self.open.wait(0.002):
            report(30, 40, "attributing")
            self.begun.set()
        return self.result


@pytest.fixture
def gate() -> Iterator[Gate]:
    made = Gate()
    yield made
    made.open.set()


def test_work_is_watched_and_its_result_waited_for(gate: Gate) -> None:
    job = Job("t.json", gate)
    assert gate.begun.wait(PATIENCE_S) and not job.ended() and (job.share, job.note) == (0.75, "attributing")
    gate.open.set()
    assert job.result() == 7 and job.ended() and not job.failed


def test_work_stops_at_its_next_report(gate: Gate) -> None:
    job = Job("t.json", gate)
    job.cancel()
    with pytest.raises(Cancelled) as error:
        job.result()
    assert str(error.value) == "t.json: loading was cancelled." and job.failed


def test_a_real_load_stops_when_cancelled(tmp_path: Path) -> None:
    file = gpu_trace().write(tmp_path / "t.json")
    hold = threading.Event()

    def work(report: Report) -> Trace:
        assert hold.wait(PATIENCE_S)
        return load_trace(file, report=report)

    job = Job(str(file), work)
    job.cancel()
    hold.set()
    with pytest.raises(Cancelled):
        job.result()


def test_a_file_that_goes_while_it_is_read_is_one_line() -> None:
    def work(report: Report) -> int:
        raise FileNotFoundError(2, "No such file or directory")

    with pytest.raises(InputError) as error:
        Job("t.json", work).result()
    assert str(error.value) == (
        "t.json: changed or gone while it was read (No such file or directory). Reload the page."
    )


def of_key(root: Path, key: str) -> RunFolder:
    found = find_run(root, key)
    assert found is not None
    return found


def test_two_readers_share_a_run_and_a_load_that_was_stopped_begins_anew(runs: Path, gate: Gate) -> None:
    folder = of_key(runs, "gpu")
    run = cache.run(folder)
    assert cache.run(folder) is run and cache.opening(folder) is cache.opening(folder)
    assert cache.trace(folder) is run.trace
    job = cache._open(folder).job = Job("t.json", gate)
    job.cancel()
    assert job.ended(PATIENCE_S) and job.given_up
    assert cache.run(folder) is not run and len(cache.trace(folder).gpu_events()) == 3


def test_a_load_on_its_way_to_stopping_is_not_waited_for(runs: Path) -> None:
    folder, hold = of_key(runs, "gpu"), threading.Event()

    def deaf(report: Report) -> Trace:  # reads on for a while before it reports again
        hold.wait()
        report(1, 2)
        raise AssertionError("it was asked to stop")

    stopping = cache._open(folder).job = Job("t.json", deaf)
    stopping.cancel()
    assert not stopping.ended() and len(cache.trace(folder).gpu_events()) == 3
    hold.set()
    assert stopping.ended(PATIENCE_S) and stopping.given_up


def test_a_load_that_ended_before_it_was_stopped_keeps_its_result(runs: Path) -> None:
    folder = of_key(runs, "gpu")
    kept = cache.trace(folder)
    cache.opening(folder).cancel()
    assert cache.trace(folder) is kept


def test_what_is_kept_is_bounded(runs: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    gpu, host, bare = (of_key(runs, key) for key in ("gpu", "host", "bare.json.gz"))
    for name, bound in (("MOST_EVENTS", 1), ("MOST_RUNS", 2)):
        monkeypatch.setattr(cache, "_opened", OrderedDict())
        with monkeypatch.context() as bounds:
            bounds.setattr(cache, name, bound)
            cache.trace(gpu)
            first, second = cache.run(gpu), cache.run(host)
            cache.trace(host)
            cache.run(bare)
            assert cache.run(gpu) is not first
            assert (cache.run(host) is second) is (name != "MOST_RUNS")


def test_what_is_dropped_is_gone_when_the_next_one_is_loaded(runs: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(cache, "_opened", OrderedDict())
    monkeypatch.setattr(cache, "MOST_EVENTS", 1)
    dropped = weakref.ref(cache.trace(of_key(runs, "gpu")))
    for thread in threading.enumerate():
        if thread.name == "load":  # it knows its result until it has ended
            thread.join()
    cache.trace(of_key(runs, "host"))
    assert dropped() is None


def test_what_a_page_compares_stays_while_it_is_drawn(runs: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    gpu, host = (of_key(runs, key) for key in ("gpu", "host"))
    monkeypatch.setattr(cache, "_opened", OrderedDict())
    monkeypatch.setattr(cache, "MOST_EVENTS", 1)
    with cache.in_use():
        cache.trace(gpu)
        first = cache.run(gpu)
        second = cache.trace(host)
        assert cache.run(gpu) is first and compare_runs(first, cache.run(host)) is not None
    with pytest.raises(RerunException), cache.in_use():
        cache.run(gpu)
        raise RerunException(RerunData())  # drawn anew before it came to the other one
    assert cache.run(gpu) is first and cache.trace(host) is second  # and after it, until a page is of one of them
    with cache.in_use():
        assert cache.run(gpu) is first
    assert cache.run(gpu) is first and cache.trace(host) is not second
    cache.trace(of_key(runs, "bare.json.gz"))
    assert cache.run(gpu) is not first


@pytest.mark.parametrize(("most", "stay"), [(1, ["gpu"]), (1000, ["gpu", "host"])])
def test_of_two_large_runs_only_the_comparison_stays(
    runs: Path, monkeypatch: pytest.MonkeyPatch, most: int, stay: list[str]
) -> None:
    gpu, host = (of_key(runs, key) for key in ("gpu", "host"))
    cache.comparison.clear()  # type: ignore[attr-defined]  # Streamlit's
    monkeypatch.setattr(cache, "_opened", OrderedDict())
    monkeypatch.setattr(cache, "MOST_EVENTS", most)
    with cache.in_use():
        first = cache.trace(gpu)
        found = cache.comparison(gpu, host)
        assert [one.run.name for one in cache._opened.values()] == stay
        assert cache.trace(gpu) is first and cache.comparison(gpu, host) is found
    record = json.loads((gpu.path / "run.json").read_text())
    (gpu.path / "run.json").write_text(json.dumps({**record, "latency_ns": [1, 2, 3]}))
    assert cache.comparison(of_key(runs, "gpu"), host) is not found


def test_a_process_of_its_own_compares_alike_and_says_what_it_cannot_read(runs: Path) -> None:
    gpu, host, broken = (of_key(runs, key) for key in ("gpu", "host", "broken"))
    here, apart = compare_runs(load_run(gpu.path), load_run(host.path)), compared_apart(gpu.path, host.path)
    assert here is not None and here.changes and apart.of("total")[0].change == here.of("total")[0].change
    told = [
        [(row.kind, row.metric, row.path, row.status, row.delta_ns) for row in one.changes] for one in (here, apart)
    ]
    assert told[0] == told[1]
    with pytest.raises(KitError) as expected:
        load_run(broken.path).parts.trace.required()
    with pytest.raises(InputError) as said:
        compared_apart(gpu.path, broken.path)
    assert str(said.value) == " ".join(str(expected.value).split())


@pytest.mark.parametrize(("large", "kept"), [(True, 2), (False, 3)])
def test_of_large_traces_two_timelines_are_kept(
    runs: Path, monkeypatch: pytest.MonkeyPatch, large: bool, kept: int
) -> None:
    monkeypatch.setattr(cache, "_is_large", lambda path: large)
    for name in ("a", "b", "c"):
        gpu_trace().write(runs / f"{name}.json")
    made = [weakref.ref(cache.timeline(of_key(runs, f"{name}.json"))[0]) for name in ("a", "b", "c")]
    gc.collect()
    assert sum(one() is not None for one in made) == kept


def test_small_traces_stay_when_another_page_is_drawn(runs: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(cache, "_opened", OrderedDict())
    trace = of_key(runs, "bare.json.gz").trace
    assert trace is not None
    folders = [of_key(runs, Path(shutil.copy(trace, runs / f"copy{number}.json.gz")).name) for number in range(5)]
    with cache.in_use():
        compared = [cache.trace(folder) for folder in folders]
    with cache.in_use():
        cache.trace(folders[0])
    assert all(cache.trace(folder) is one for folder, one in zip(folders, compared, strict=True))


def page(name: str, run: str) -> AppTest:
    test = dashboard()
    test.query_params["run"] = run
    test.run()
    test.switch_page(f"app_pages/{name}.py")
    test.query_params["run"] = run
    return test.run()


def test_a_long_load_shows_how_far_it_is_and_can_be_stopped(
    runs: Path, monkeypatch: pytest.MonkeyPatch, gate: Gate
) -> None:
    monkeypatch.setattr(widgets, "PATIENCE_S", 0.01)
    job = cache._open(of_key(runs, "gpu")).job = Job("t.json", gate)
    assert gate.begun.wait(PATIENCE_S)
    test = page("regions", "gpu")
    assert not test.exception and not test.error
    bar = test.get("progress")[0].proto
    assert bar.value == 75 and "attributing, 75 %" in bar.text
    next(button for button in test.button if button.label == "Cancel").click().run()
    assert job.ended(PATIENCE_S) and job.failed
    assert "was cancelled" in test.info[0].value
    monkeypatch.setattr(widgets, "PATIENCE_S", PATIENCE_S)
    next(button for button in test.button if button.label == "Load it again").click().run()
    assert not test.exception and not test.info and "Kernels of all regions" in [s.value for s in test.subheader]


def test_a_trace_that_changes_is_read_anew(runs: Path) -> None:
    test = page("regions", "gpu")
    assert any("3 GPU events" in caption.value for caption in test.caption)
    more = gpu_trace()
    more.launch(9, 320)
    more.kernel(9, 1400, 5)
    more.write(runs / "gpu" / "trace.json.gz")
    test.run()
    assert any("4 GPU events" in caption.value for caption in test.caption)
    (runs / "gpu" / "trace.json.gz").write_bytes(b"\x1f\x8b gone wrong")
    test.run()
    assert not test.exception and len(test.error) == 1


def test_what_a_large_file_is_is_read_ahead(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """So that Doctor, which reads the file a second time, finds the answer in the cache."""
    monkeypatch.setenv("PROFILER_KIT_CACHE", str(tmp_path / "cache"))
    path = tmp_path / "trace.json"
    path.write_bytes(gpu_trace().kineto() + b" " * SMALLEST_JSON_BYTES)
    os.utime(path, (1e9, 1e9))  # nobody is writing it
    cache.trace(of_key(tmp_path, path.name))
    (ahead,) = (process for key, process in cache._looking.items() if key[0] == str(path))
    facts = cache._file_facts(path)
    assert ahead.returncode == 0 and len(list((tmp_path / "cache").glob("*.facts"))) == 1
    assert facts == read_file_facts(path) and facts.of_category("kernel") > 0
