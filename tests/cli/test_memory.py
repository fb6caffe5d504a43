from __future__ import annotations

import bz2
import gzip
import json
import lzma
from pathlib import Path

import pytest
import zstandard

from profiler_kit.findings.out_of_memory import out_of_memory
from profiler_kit.snapshot import load_snapshot
from tests import snapshots as s
from tests.cli.run import profiler_kit

KEYS = {
    "device",
    "events",
    "peak_allocated_bytes",
    "peak_time_us",
    "end_allocated_bytes",
    "reserved_bytes",
    "fragmentation",
    "history_truncated",
    "history_followed",
    "peak_bound",
    "memory_stats",
    "oom",
    "regions",
    "device_type",
    "left_out_blocks",
    "left_out_segments",
    "missing_allocations",
}


@pytest.fixture
def snapshot(tmp_path: Path) -> Path:
    stack = [s.frame("linear", "torch/nn/functional.py", 7), s.frame("step", "work/train.py", 12)]
    trace = [
        s.event("segment_alloc", 1000, 0, 8 << 20),
        s.alloc(2000, 0, 3 << 20, frames=stack),
        s.alloc(3000, 3 << 20, 1 << 20),
        {"action": "oom", "size": 6 << 20, "device_free": 3 << 20, "stream": 0, "time_us": s.T0 + 4000},
        *s.free(5000, 0, 3 << 20),
    ]
    marks = [
        s.mark("START", "outer", 0),
        s.mark("START", "in[red]ner\x1b", 1500),
        s.mark("END", "in[red]ner\x1b", 6000),
        s.mark("END", "outer", 7000),
    ]
    blocks = [(0, 3, 0, "inactive"), (3, 1, 1, "active_allocated"), (4, 4, 0, "inactive")]
    segments = [
        s.segment(0, 8 << 20, *(s.block(a << 20, size << 20, req << 20, state) for a, size, req, state in blocks))
    ]
    return s.write(tmp_path / "m.pickle", s.snapshot(trace, [], segments=segments, marks=marks))


def test_tables(snapshot: Path) -> None:
    done = profiler_kit("memory", snapshot)
    assert (done.code, done.err) == (0, "")
    lines = [line.rstrip() for line in done.out.splitlines()]
    shown = [line for line in lines if not line.startswith("─")]
    (failed,) = out_of_memory(load_snapshot(snapshot), 0)
    assert shown == [
        f"{snapshot}: memory",
        "",
        "device   type   events   recorded      peak         at                    in   at the end   reserved   "
        "unused   failed   cut off   missing",
        "0        cuda        6   5.000 ms   4.0 MiB   3.000 ms   outer > in[red]ner\N{REPLACEMENT CHARACTER}      "
        "1.0 MiB    8.0 MiB   87.5 %        1                   0",
        "1        cuda        0          –         –          –                     –          0 B        0 B"
        "    0.0 %        0                   0",
        "",
        failed.line,
        *(f"  {detail}" for detail in failed.details),
        "",
        "In the words of torch.cuda.memory_stats",
        "",
        "quantity       at the end   highest",
        "requested         1.0 MiB   4.0 MiB",
        "allocated         1.0 MiB   4.0 MiB",
        "active            1.0 MiB   4.0 MiB",
        "reserved          8.0 MiB   8.0 MiB",
        "pending free          0 B       0 B",
        "",
        "Memory by region",
        "",
        "region             peak   allocated     freed       net   instances     churn   largest",
        "outer           4.0 MiB     4.0 MiB   3.0 MiB   1.0 MiB           1   3.0 MiB   3.0 MiB",
        "  in[red]ner\N{REPLACEMENT CHARACTER}   4.0 MiB     4.0 MiB   3.0 MiB   1.0 MiB           1   3.0 MiB   "
        "3.0 MiB",
        "(no region)     1.0 MiB         0 B       0 B       0 B           0       0 B       0 B",
        "",
        "Live at the peak, by stack",
        "",
        "allocated by                                   allocations      size   of size",
        "step (work/train.py:12) › linear                         1   3.0 MiB    75.0 %",
        "(no Python stack, as on the backward thread)             1   1.0 MiB    25.0 %",
        "",
    ]


def test_json_is_the_contract(snapshot: Path) -> None:
    done = profiler_kit("memory", snapshot, "--json")
    assert (done.code, done.err) == (0, "")
    (first, second) = json.loads(done.out)["devices"]
    assert set(first) == set(second) == KEYS
    assert first["oom"] == [
        {"time_us": s.T0 + 4000, "requested_bytes": 6 << 20, "device_free_bytes": 3 << 20},
    ]
    assert first["regions"][1]["path"] == ["outer", "in[red]ner\x1b"]
    assert second["peak_time_us"] is None


def test_one_device(snapshot: Path) -> None:
    done = profiler_kit("memory", snapshot, "--json", "--device", "1")
    assert [row["device"] for row in json.loads(done.out)["devices"]] == [1]


def test_unknown_device(snapshot: Path) -> None:
    done = profiler_kit("memory", snapshot, "--device", "7", "--html", snapshot.with_name("out.html"))
    assert (done.code, done.out) == (1, "")
    assert done.err == f"profiler-kit: device 7: not in {snapshot}, found 0, 1. Choose one of these with --device.\n"
    assert not snapshot.with_name("out.html").exists()


def test_pinned_host_memory_by_its_name() -> None:
    host = s.ROOT / "tests" / "cases" / "snapshots" / "host_pinned.pickle"
    by_name, by_number = (profiler_kit("memory", host, "--json", "--device", one) for one in ("host", "-2"))
    assert (by_name.code, by_name.err, by_name.out) == (0, "", by_number.out)
    assert [row["device"] for row in json.loads(by_name.out)["devices"]] == [-2]
    wrong = profiler_kit("memory", host, "--device", "gpu")
    assert wrong.code == 2 and "expected the number of a device, or host" in wrong.err
    assert "found 0, host." in profiler_kit("memory", host, "--device", "4").err


def test_html_replaces_the_file_whole(snapshot: Path) -> None:
    page = snapshot.with_name("out.html")
    page.write_text("old")
    done = profiler_kit("memory", snapshot, "--html", page)
    assert (done.code, done.err) == (0, f"wrote {page}\n")
    assert page.read_text(encoding="utf-8").startswith("<!doctype html>")
    assert sorted(found.name for found in page.parent.iterdir()) == ["m.pickle", "out.html"]


def test_bad_input_writes_nothing(tmp_path: Path) -> None:
    trace, page = tmp_path / "trace.json", tmp_path / "out.html"
    trace.write_text('{"traceEvents": [{"ph": "X", "name": "a", "cat": "cpu_op", "ts": 1, "dur": 1}]}')
    page.write_text("old")
    done = profiler_kit("memory", trace, "--html", page)
    assert (done.code, done.out) == (1, "")
    assert done.err == (
        f"profiler-kit: {trace}: this chrome trace has no [memory] events, expected some, or a CUDA memory snapshot "
        "(a pickle). Record them with profiler_runner(path, profile_memory=True), or a snapshot with "
        "profiler_kit.memory_runner. For what else it holds use: profiler-kit summary.\n"
    )
    assert page.read_text() == "old"


@pytest.mark.parametrize("packed", ["gz", "zst", "xz", "bz2"])
def test_a_run_folder_may_hold_a_packed_snapshot(snapshot: Path, tmp_path: Path, packed: str) -> None:
    folder = tmp_path / "run"
    folder.mkdir()
    data = snapshot.read_bytes()
    pack = {"gz": gzip.compress, "zst": zstandard.compress, "xz": lzma.compress, "bz2": bz2.compress}[packed]
    file = folder / f"memory.pickle.{packed}"
    file.write_bytes(pack(data))
    plain, of_folder = profiler_kit("memory", snapshot, "--json"), profiler_kit("memory", folder, "--json")
    assert (of_folder.code, of_folder.err, of_folder.out) == (0, "", plain.out)
    for path in (folder, file):
        assert "peak" in profiler_kit("advice", path).out
        count = profiler_kit("query", path, "SELECT count(*) AS n FROM allocator_events", "--json")
        assert (count.code, count.err) == (0, "") and json.loads(count.out)[0]["n"] > 0
        said = profiler_kit("report", path, "-o", tmp_path / "r.html")
        assert (said.code, said.err) == (0, "") and "By region" in (tmp_path / "r.html").read_text()
    assert f"this folder holds {file.name}, a memory snapshot" in profiler_kit("doctor", folder).err


def test_nothing_there(tmp_path: Path) -> None:
    for path, found in ((tmp_path / "no.pickle", "no such file"), (tmp_path, "this is a folder")):
        done = profiler_kit("memory", path)
        assert (done.code, done.out, len(done.err.splitlines())) == (1, "", 1)
        assert done.err.startswith(f"profiler-kit: {path}: {found}, expected a CUDA memory snapshot. Record one with ")


def test_html_must_be_a_file_and_the_limit_a_number(snapshot: Path) -> None:
    folder = snapshot.parent
    done = profiler_kit("memory", snapshot, "--html", folder)
    assert done.code == 1
    assert done.err == (
        f"profiler-kit: --html: {folder} is a folder, expected a file. Try --html {folder / 'memory.html'}.\n"
    )
    done = profiler_kit("memory", snapshot, "--memory-limit", "-1")
    assert done.code == 1
    assert done.err == (
        "profiler-kit: --memory-limit: -1 GiB cannot be used, expected a positive number up to 1048576. "
        "Try --memory-limit 6.\n"
    )


def test_warnings(tmp_path: Path) -> None:
    path = s.write(tmp_path / "m.pickle", [s.segment(0, 512, s.block(0, 512, 512))])
    done = profiler_kit("memory", path)
    assert "No history of this device: only the state at the end is known." in done.out
    assert (done.code, done.err) == (0, "")
    assert "Live at the end, by stack" in done.out
    assert "peak" not in done.out and "before the recording" not in done.out
    done = profiler_kit("memory", s.write(path, s.snapshot([])))
    assert (done.code, done.err) == (
        1,
        f"profiler-kit: {path}: it holds no event and no memory, expected a snapshot of a run. Record with "
        "profiler_kit.memory_runner, or call torch.cuda.memory._record_memory_history() before the run.\n",
    )
    kit = {"source": "torch.profiler", "max_entries": 1, "error": "ValueError: bad"}
    s.write(path, {**s.snapshot([s.alloc(1, 1, 1)]), "profiler_kit": kit})
    done = profiler_kit("memory", path)
    columns, _, row = done.out.splitlines()[2:5]
    assert "reserved" not in columns and "unused" not in columns
    assert row.split()[:2] == ["cpu", "1"]
    assert "The history lost its beginning: what was recorded before it is missing" in done.out
    assert "The recorded function raised: ValueError: bad" in done.out


def test_the_page_never_replaces_the_snapshot_or_another_kind_of_file(snapshot: Path, tmp_path: Path) -> None:
    before = snapshot.read_bytes()
    other = tmp_path / "run.json"
    other.write_text("{}")
    link = tmp_path / "link.html"
    link.symlink_to(snapshot)
    for target, found in ((snapshot, "m.pickle"), (other, "run.json")):
        done = profiler_kit("memory", snapshot, "--html", target)
        assert (done.code, done.out) == (1, "")
        assert done.err == (
            f"profiler-kit: --html: {tmp_path / found} does not end in .html, expected a page. "
            f"Try --html {target.with_suffix('.html')}.\n"
        )
    done = profiler_kit("memory", snapshot, "--html", link)
    assert (done.code, done.out) == (1, "")
    assert done.err == f"profiler-kit: --html: {link} is the snapshot itself, expected another file.\n"
    assert (snapshot.read_bytes(), other.read_text(), link.is_symlink()) == (before, "{}", True)


def test_a_name_that_is_no_utf_8_can_be_shown(snapshot: Path, tmp_path: Path) -> None:
    odd = snapshot.rename(snapshot.with_name("m\udcff.pickle"))
    done = profiler_kit("memory", odd, "--html", tmp_path / "page.html")
    assert (done.code, done.err) == (0, f"wrote {tmp_path / 'page.html'}\n")
    assert "<title>m\N{REPLACEMENT CHARACTER}.pickle" in (tmp_path / "page.html").read_text(encoding="utf-8")


def test_a_memory_limit_beyond_any_machine_is_refused(snapshot: Path) -> None:
    done = profiler_kit("memory", snapshot, "--memory-limit", "1e30")
    assert (done.code, done.out) == (1, "")
    assert done.err == (
        "profiler-kit: --memory-limit: 1e+30 GiB cannot be used, expected a positive number up to 1048576. "
        "Try --memory-limit 6.\n"
    )


def test_a_page_name_that_is_too_long_is_one_line(snapshot: Path) -> None:
    done = profiler_kit("memory", snapshot, "--html", snapshot.with_name("x" * 300 + ".html"))
    assert (done.code, done.out, len(done.err.splitlines())) == (1, "", 1)
    assert done.err.endswith(
        "x.html: cannot be written (File name too long). Free some space, or choose another path.\n"
    )


def test_tables_asked_for(snapshot: Path) -> None:
    done = profiler_kit(
        "memory", snapshot, "--live-at-peak", "--leaks", "--lifetimes", "--fragmentation", "--fits", "2MiB"
    )
    assert (done.code, done.err) == (0, "")
    titles = [line for line, rule in zip(done.out.splitlines(), done.out.splitlines()[1:], strict=False) if not rule]
    for title in (
        "Live at the peak, by stack",
        "Live at the peak, by the region that allocated",
        "Live at the peak, by the layer that allocated",
        "Left behind at the end, by stack and region",
        "Lifetimes, most allocated first",
        "Fragmentation at the moments that tell most",
        "What an allocation would have found, default pool and stream (--fits 2MiB)",
    ):
        assert title in titles
    assert "Memory by region" not in titles
    rows = [" ".join(line.split()) for line in done.out.splitlines()]
    assert "out of memory 1 4.000 ms 4.0 MiB 4.0 MiB 8.0 MiB 4.0 MiB 4.0 MiB 50.0 %" in rows
    assert "2.0 MiB peak 2.0 MiB 4.0 MiB 85.7 %" in rows and "2.0 MiB end 2.0 MiB 3.0 MiB 85.7 %" in rows


def test_json_of_the_tables_asked_for(snapshot: Path) -> None:
    options = ("--live-at-peak", "--leaks", "--lifetimes", "--fragmentation", "--oom", "--fits", "2MiB", "--json")
    (row, _) = json.loads(profiler_kit("memory", snapshot, *options).out)["devices"]
    assert set(row) - KEYS == {
        *("live_at_peak", "live_by_region", "live_by_layer", "leaks", "growth", "lifetimes"),
        *("fragmentation_timeline", "oom_reports", "fits"),
    }
    assert row["live_at_peak"][0]["frames"] == ["linear (torch/nn/functional.py:7)", "step (work/train.py:12)"]
    assert row["live_by_region"][1]["path"] == ["outer", "in[red]ner\x1b"]
    assert row["oom_reports"][0]["advice"][0]["setting"] == "expandable_segments"
    assert row["lifetimes"][1]["median_us"] is None
    assert row["fits"][0]["block_bytes"] == 2 << 20


@pytest.mark.parametrize("size", ["lots", "0", "-1MiB", "9999999TB"])
def test_a_size_must_be_one(snapshot: Path, size: str) -> None:
    done = profiler_kit("memory", snapshot, f"--fits={size}")
    assert (done.code, done.out) == (1, "")
    assert done.err == (
        f"profiler-kit: --fits {size}: not a size, expected a number with KiB, MiB or GiB. Try: --fits 512MiB\n"
    )


def test_what_the_file_says_of_allocations() -> None:
    """Printed without being asked for, and grouped by what is asked for; on the memory page too."""
    path = s.ROOT / "tests" / "cases" / "snapshots" / "host_pinned.pickle"
    done = profiler_kit("memory", path)
    assert done.code == 0
    assert "device 0: what the program wrote into the history" in done.out
    assert "retained by autograd" in done.out
    assert "pinned host memory: live at the peak, by stack" in done.out
    first, host = json.loads(profiler_kit("memory", path, "--json", "--by", "annotation").out)["devices"]
    assert [(row["group"], row["peak_bytes"]) for row in first["groups"]] == [
        ("retained by autograd", 300 << 20), ("(none)", 200 << 20),
    ]  # fmt: skip
    assert [row["text"] for row in first["notes"]] == ["retained by autograd"]
    assert (host["device"], host["device_type"], host["peak_allocated_bytes"]) == (-2, "host", 500 << 20)
    assert [row["group"] for row in host["groups"]] == ["(none)"]
    done = profiler_kit("memory", path, "--by", "colour")
    assert (done.code, done.out) == (1, "")
    assert done.err == (
        "profiler-kit: --by colour: expected one of stack, metadata, category, compile_context, annotation. "
        "Try: --by metadata\n"
    )
