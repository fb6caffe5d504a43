"""Each page on full, host-only, bare, broken, vanished and empty input."""

from __future__ import annotations

import ast
import dataclasses
import json
import shutil
import subprocess
import sys
from pathlib import Path

import pandas as pd
import pytest
from streamlit.testing.v1 import AppTest

from profiler_kit.formats.request_file import write_requests
from tests import snapshots
from tests.allocator import Allocator
from tests.app.dashboard import dashboard
from tests.app.samples import CHECKOUT, PATIENCE_S, gpu_trace, host_trace, make_job, make_runs, record
from tests.builders import TraceBuilder
from tests.jobs import SimulatedJob
from tests.ladders import write_ladder

PAGES = (
    *("overview", "timeline", "regions", "kernels", "operators", "requests", "layers", "memory"),
    *("compare", "ranks", "tables", "perfetto", "doctor", "steps", "idle"),
)
# of whole jobs; reads the file itself; nothing repeats in the sample
WITH = {"compare": {"with": "host"}}  # which is of another kind of device: it is not chosen by itself
OF_A_RUN = tuple(page for page in PAGES if page not in ("ranks", "perfetto", "steps"))


@pytest.fixture
def runs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    root = make_runs(tmp_path / "traces")
    monkeypatch.setenv("PROFILER_KIT_DIR", str(root))
    return root


def show(page: str, run: str, **address: str) -> AppTest:
    test = dashboard()
    test.query_params["run"] = run
    test.switch_page(f"app_pages/{page}.py")
    for name, value in {"run": run, **address}.items():
        test.query_params[name] = value
    test.run()
    assert not test.exception, [e.value for e in test.exception]
    return test


def text(test: AppTest) -> str:
    parts = (*test.title, *test.caption, *test.markdown, *test.info, *test.warning, *test.code)
    return "\n".join(str(part.value) for part in parts).replace("\\", "")


def drawn(test: AppTest) -> str:
    """The page's bars and facts, as HTML."""
    return "\n".join(str(part.proto.body) for part in test.get("html"))


def errors(test: AppTest) -> list[str]:
    return [e.value.replace("\\", "") for e in test.error]


@pytest.mark.parametrize("page", OF_A_RUN)
def test_a_full_run_shows_without_an_error(runs: Path, page: str) -> None:
    test = show(page, "gpu", **WITH.get(page, {}))
    assert errors(test) == [] and not test.info
    assert test.query_params["run"] in ("gpu", ["gpu"])


def test_overview_says_where_the_time_went(runs: Path) -> None:
    test = show("overview", "gpu")
    assert (
        "The GPU works 1.000 ms of each 20.000 ms batch: **5 % busy** without the profiler, 83 % while recorded; "
        "**90 %** of its work came from **image encoder**. It is idle for 19.000 ms of each batch" in text(test)
    )
    assert "100 % is the recorded span, 1.200 ms" in text(test)
    assert "100 % is the time in which the GPU was busy, 1.000 ms" in text(test)
    shown = {metric.label: metric.value for metric in test.metric}
    assert shown == {
        "GPU busy": "5.0 %",
        "Busy while recorded": "83.3 %",
        "Recorded span": "1.200 ms",
        "Median latency": "20.000 ms",
        "Images a second": "100.0",
        "Peak memory": "3.00 GiB",
    }


def test_a_run_without_a_gpu_has_a_full_overview(runs: Path) -> None:
    test = show("overview", "host")
    assert "**image encoder** took **80 %** of the time in regions" in text(test)
    shown = [s.value for s in test.subheader]
    assert shown[:3] == ["Most worth fixing", "Time in each region", "Latency of each iteration"]
    assert errors(test) == []
    shown = {metric.label: metric.value for metric in test.metric}
    assert shown["Recorded span"] == "1.000 ms" and shown["Images a second"] == "100.0"
    assert "image encoder" in drawn(test) and "800.00 µs" in drawn(test)


def test_the_overview_says_what_to_fix_and_where_it_shows(runs: Path) -> None:
    test = show("overview", "gpu")
    said = text(test)
    assert "One kernel: gemm" in said and "It ran once and takes 600.00 µs, 60.0 % of all GPU time" in said
    assert "up to" in drawn(test) and "590.00 µs of each batch" in drawn(test)
    assert "The GPU was idle for **200.00 µs** while recorded: other 100 %." in said
    links = {link.proto.label: link.proto.query_string for link in test.get("page_link")}
    assert links["Show in Kernels"] == "run=gpu&kernel=gemm"


def test_a_kernel_in_the_address_is_the_one_that_is_shown(runs: Path) -> None:
    test = show("kernels", "gpu", kernel="softmax")
    table, origins = test.dataframe
    assert table.value["key"].tolist() == ["gemm", "softmax", "upsample"]
    assert table.value["sum_ns"].tolist() == [600, 300, 100]  # µs
    assert "softmax" in [s.value for s in test.subheader]
    assert origins.value["path"].tolist() == ["timed region > image encoder"]
    assert origins.value["operator"].tolist() == ["aten::linear"]
    assert "1 time · sum 300.00 µs · busy 300.00 µs" in text(test)


@pytest.mark.parametrize(("by", "group"), [("By kind of work", "matrix products"), ("By stream", "GPU 0, stream 7")])
def test_kernels_group_by_kind_and_by_stream(runs: Path, by: str, group: str) -> None:
    test = show("kernels", "gpu", by=by)
    assert group in test.dataframe[0].value["key"].tolist()


def test_operators_have_host_and_gpu_time(runs: Path) -> None:
    test = show("operators", "gpu")
    table, kernels = test.dataframe
    assert table.value["name"].tolist() == ["aten::linear", "(no operator)"]
    assert table.value["gpu_ns"].tolist() == [900, 100]  # µs
    assert kernels.value["name"].tolist() == ["gemm", "softmax"]
    host = show("operators", "host", operator="aten::sigmoid").dataframe[0].value
    assert host["self_ns"].tolist() == [600, 100, 100] and "gpu_ns" not in host


@pytest.mark.parametrize(
    ("view", "said"),
    [
        ("Modules", "No nn.Module names were recorded"),
        ("Shapes", "No input shapes were recorded"),
        ("Launches", "3 launch calls take 3.00 µs on the host; **0 %** of them take longer"),
        ("Sequences", "No operator launched so many kernels in a row"),
    ],
)
def test_each_view_of_the_operators_says_something(runs: Path, view: str, said: str) -> None:
    assert said in text(show("operators", "gpu", view=view))


def test_modules_are_a_tree(runs: Path) -> None:
    trace = gpu_trace()
    for name, start, dur in (("Net_0", 0, 500), ("Encoder_0", 5, 250), ("Linear_0", 35, 20), ("Decoder_0", 300, 100)):
        trace.span("python_function", f"nn.Module: {name}", start, dur)
    trace.launch(9, 600)
    trace.kernel(9, 1400, 900, name="outside")
    trace.launch(10, 50)
    trace.kernel(10, 2400, 250, name="inside")
    trace.write(runs / "modules.json")
    tree = show("operators", "modules.json", view="Modules").dataframe[0].value
    assert [name.replace("\u2003", "> ") for name in tree["path"]] == [
        "Net_0", "> Encoder_0", "> > Linear_0", "> Decoder_0", "(no module)",
    ]  # fmt: skip


def test_regions_say_what_bounds_them(runs: Path) -> None:
    test = show("regions", "gpu")
    assert "**image encoder** accounts for 90 % of the GPU's work and is **GPU-bound**" in text(test)
    tree = test.dataframe[0].value
    assert tree["verdict"].tolist() == ["mixed", "GPU-bound", "GPU-bound"]
    assert tree["utilization"].round(1).tolist() == [76.9, 90.9, 10.0]
    assert "Why the GPU was idle" in [header.value for header in test.subheader]
    assert test.dataframe[2].value["idle_ns"].tolist() == [200]  # µs
    other = show("regions", "gpu", **{"idle-scope": "all"})
    assert other.dataframe[2].value["cause"].tolist() == ["other"]


def test_kinds_of_layers_are_set_apart(runs: Path) -> None:
    test = show("layers", "gpu")
    assert (
        "At batch 2 one layer Block · global takes 18.000 ms per item, 2.0 × one layer Block · window 14 (9.000 ms). "
        "1 of Block · global hold 67 % of the forward, 1 of Block · window 14 hold 33 %." in text(test)
    )
    kinds = show("layers", "gpu", view="By kind").dataframe[0].value
    assert kinds["kind"].tolist() == ["Block · global"] * 2 + ["Block · window 14"] * 2


def test_depth_and_layers_are_in_the_address(runs: Path) -> None:
    test = show("layers", "gpu", depth="1", layer="blocks.0")
    assert test.multiselect[0].value == ["blocks.0"]
    assert test.query_params["layer"] in ("blocks.0", ["blocks.0"])
    top = show("layers", "gpu", depth="0")
    assert top.multiselect[0].value == ["(model)"] and "layer" not in top.query_params


def test_compare_names_what_changed_and_keeps_the_runs_in_the_address(runs: Path) -> None:
    slower = gpu_trace()
    slower.events[-1]["dur"] = 300.0  # upsample, in the mask decoder: 100 us before
    (runs / "slow").mkdir()
    slower.write(runs / "slow" / "trace.json.gz")
    record("slow").write(runs / "slow")
    test = show("compare", "gpu", **{"with": "slow"})
    assert errors(test) == [] and "B takes as long as A: 20.000 → 20.000 ms" in text(test)
    assert "GPU time changed most in **timed region > mask decoder**: 100.00 → 300.00 µs (3.00 × slower)." in text(test)
    tree = test.dataframe[0].value
    assert tree["a_ns"].tolist() == [1.0, 0.9, 0.1] and tree["b_ns"].round(3).tolist() == [1.2, 0.9, 0.3]  # ms
    assert tree["status"].tolist() == ["slower", "same", "slower"]
    assert test.query_params["with"] in ("slow", ["slow"])


@pytest.mark.parametrize(
    ("view", "column", "value"),
    [
        ("Kinds of work", "path", "matrix product"),
        ("Kernels", "path", "gemm"),
        ("Operators", "path", "aten::linear"),
        ("Layers", "path", "blocks.1"),
        ("Memory", "path", "image encoder"),
    ],
)
def test_each_view_of_a_comparison(runs: Path, view: str, column: str, value: str) -> None:
    shutil.copytree(runs / "gpu", runs / "again")
    test = show("compare", "gpu", **{"with": "again", "view": view})
    assert errors(test) == [] and value in test.dataframe[-1].value[column].tolist()


def test_compare_goes_on_without_what_one_run_lacks(runs: Path) -> None:
    test = dashboard()
    test.switch_page("app_pages/compare.py")
    test.query_params["run"], test.query_params["with"] = "gpu", ["broken", "host", "bare.json.gz"]
    test.run()
    assert not test.exception
    assert [str(runs / "broken") in line for line in errors(test)] == [True]
    assert "Host C " in str(test.dataframe[0].proto.columns)
    test.session_state["of"] = "D"
    test.run()
    assert "D ms" in str(test.dataframe[0].proto.columns)
    layers = show("compare", "gpu", **{"with": "host", "view": "Layers"})
    assert "No layers to compare" in text(layers) and errors(layers) == []
    assert "No trace, memory or layers to compare" in text(show("compare", "broken", **{"with": "bare.json.gz"}))


def table_with(test: AppTest, column: str) -> pd.DataFrame:
    """The first table of a page that has a column."""
    return next(one.value for one in test.dataframe if column in one.value)


def test_ranks_of_a_job_name_the_straggler(runs: Path) -> None:
    make_job(runs)
    test = show("ranks", "job/rank0.json.gz")
    assert errors(test) == []
    said = text(test)
    assert "**Rank 0** waits **100.00 µs** of its 150.00 µs of communication (67 %); **rank 1** arrives last at" in said
    totals, collectives = table_with(test, "wait_ns"), table_with(test, "last_rank")
    assert totals["wait_ns"].tolist() == [100, 0] and totals["arrived_last"].tolist() == [0, 1]
    assert collectives["last_rank"].tolist() == [1]


def test_the_job_of_the_run_is_shown_and_one_that_is_gone_is_said(runs: Path) -> None:
    make_job(runs)
    SimulatedJob(ranks=4, nodes=2).write(runs / "nodes")
    test = show("ranks", "nodes/node0/rank1.json")
    assert test.selectbox(key="job").value == "nodes" and errors(test) == []
    gone = show("ranks", "nodes/node0/rank1.json", job="nowhere")
    assert errors(gone) == ["nowhere: no job here (moved or deleted?). A different one is shown."]


def test_a_run_to_compare_with_that_is_gone_is_said(runs: Path) -> None:
    test = show("compare", "gpu", **{"with": "nowhere"})
    assert "nowhere: no run here (moved or deleted?). It is left out." in errors(test)


def test_a_broken_rank_leaves_the_others(runs: Path) -> None:
    folder = make_job(runs)
    (folder / "rank2.json.gz").write_bytes(b"not gzip")
    test = show("ranks", "job/rank0.json.gz")
    assert [str(folder / "rank2.json.gz") in line for line in errors(test)] == [True]
    assert table_with(test, "wait_ns")["rank"].tolist() == [0, 1]


def test_a_second_trace_of_a_rank_leaves_the_job(runs: Path) -> None:
    folder = make_job(runs)
    shutil.copy(folder / "rank1.json.gz", folder / "rank1_again.json.gz")
    test = show("ranks", "job/rank0.json.gz")
    assert [f"left out: {folder / 'rank1_again.json.gz'}: says it is rank 1" in line for line in errors(test)] == [True]
    assert table_with(test, "wait_ns")["rank"].tolist() == [0, 1]


def test_without_a_job_the_ranks_page_says_how_to_get_one(runs: Path) -> None:
    test = show("ranks", "gpu")
    assert "No ranks to compare" in text(test) and "rank{rank}.json.gz" in test.code[0].value


def test_the_doctor_says_what_is_missing_and_how_to_record_it(runs: Path) -> None:
    test = show("doctor", "gpu")
    assert "**Whole**: all" in text(test) and "No Python stacks" in text(test)
    assert "profiler_runner(path, with_stack=True)" in [code.value for code in test.code]
    assert "Not in this run" not in text(test)
    assert "Not in this run: memory.pickle (memory over time, live at the peak)" in text(show("doctor", "host"))


def test_the_doctor_says_where_a_file_is_damaged(runs: Path) -> None:
    whole = gpu_trace().kineto()
    (runs / "cut.json").write_bytes(whole[: whole.rindex(b'"cat": "kernel"')])
    test = show("doctor", "cut.json")
    assert "**Not whole**" in text(test)
    places = next(table.value for table in test.dataframe if "offset" in table.value)
    assert places["kind"].tolist() == ["the file ends in this event"]


def test_a_region_in_the_address_is_selected(runs: Path) -> None:
    test = show("regions", "gpu", region="timed region > mask decoder")
    assert "Kernels of timed region > mask decoder" in "\n".join(s.value for s in test.subheader).replace("\\", "")
    assert test.query_params["region"] in ("timed region > mask decoder", ["timed region > mask decoder"])


def test_one_sample_is_called_one(runs: Path) -> None:
    dataclasses.replace(record("host", device="cpu"), latency_ns=(20_000_000_000,), batch_size=1).write(runs / "host")
    test = show("overview", "host")
    shown = {metric.label: metric.value for metric in test.metric}
    assert shown["Latency, one sample"] == "20.000 s" and shown["Images a second"] == "0.05"
    assert "Only one timed iteration: 20.000 s" in text(test)
    assert "1 image of 1024 px" in drawn(test)


@pytest.mark.parametrize(
    ("category", "said"), [("", "1 span of an unknown category"), ("Trace", "The trace holds no events that took time")]
)
def test_a_trace_of_which_nothing_is_read_gets_no_empty_figures(runs: Path, category: str, said: str) -> None:
    span = {"ph": "X", "cat": category, "pid": 1, "tid": 2, "ts": 1, "dur": 2, "name": "fusion"}
    (runs / "other.json").write_text(json.dumps({"traceEvents": [span]}))
    for page in ("overview", "timeline", "regions", "operators"):
        test = show(page, "other.json")
        assert said in text(test)
        assert not test.dataframe and "0 ns" not in text(test) and "Most worth fixing" not in text(test)


@pytest.mark.parametrize("page", ["overview", "regions"])
def test_a_gpu_trace_that_is_cut_off_is_no_run_without_a_gpu(runs: Path, page: str) -> None:
    whole = gpu_trace().kineto()
    (runs / "cut.json").write_bytes(whole[: whole.index(b'"cat": "kernel"')])
    test = show(page, "cut.json")
    assert "The trace is cut off before its GPU events (1 call launches GPU work)" in text(test)
    assert "No GPU" not in text(test)


@pytest.mark.parametrize(
    ("kept", "headline", "missing", "link"),
    [
        ("memory.pickle", "At its peak **2.0 MiB**", "trace.json.gz", "Show in Memory"),
        (
            "layers.parquet",
            "the time per item goes from **30.000 ms** to **27.000 ms**",
            "memory.pickle",
            "Show in Layers",
        ),
    ],
)
def test_a_run_without_a_trace_says_what_is_there_and_what_would_add_the_rest(
    runs: Path, kept: str, headline: str, missing: str, link: str
) -> None:
    for file in (runs / "gpu").iterdir():
        if file.name not in (kept, "run.json"):
            file.unlink()
    said = dataclasses.replace(record("gpu"), command="profiler-kit capture --model vit_b --out there --device cuda")
    said.write(runs / "gpu")
    test = show("overview", "gpu")
    assert headline in text(test) and errors(test) == []
    assert link in [one.proto.label for one in test.get("page_link")]
    assert (
        f"Not in this run: {'' if missing[0] == 't' else 'trace.json.gz (regions, kernels, operators); '}{missing}"
        in text(test)
    )
    layers = "" if kept == "layers.parquet" else " --layers 1,2,4,8"
    (command,) = test.code
    assert command.value == f"profiler-kit capture --model vit_b --device cuda{layers} --out {runs}/gpu-more"
    (runs / "gpu" / "run.json").unlink()
    assert show("overview", "gpu").code[0].value.startswith(f'record_run("{runs}/gpu-more", step, batch)')


def test_steps_say_which_stands_out_and_why(runs: Path) -> None:
    trace = TraceBuilder()
    for step, longer in enumerate((0, 0, 50, 0, 0)):
        trace.region(f"ProfilerStep#{step}", 1000 * step, 200 + longer)
        trace.region("encoder", 1000 * step + 5, 100 + longer)
        trace.launch(step + 1, 1000 * step + 10)
        trace.kernel(step + 1, 1000 * step + 20, 100 + longer, name="gemm")
    trace.write(runs / "steps.json.gz")
    test = show("steps", "steps.json.gz")
    assert errors(test) == []
    assert "5 steps, the median takes **200.00 µs**; **1 outlier**. Longest: step **2**" in text(test)
    assert "Below: step 2." in text(test)
    assert test.dataframe[0].value["outlier"].tolist() == ["", "", "yes", "", ""]
    assert "Below: step 4." in text(show("steps", "steps.json.gz", step="4"))


def test_idle_time_by_cause_and_region_and_the_longest_gaps(runs: Path) -> None:
    test = show("idle", "gpu")
    assert errors(test) == [] and "The GPU was idle for **200.00 µs** while recorded: other 100 %." in text(test)
    assert [one.value for one in test.subheader] == [
        "By region and cause", "The longest gaps", "Timeline", "Idle time by cause", "What changes would save",
    ]  # fmt: skip
    assert test.dataframe[0].value["dur_ns"].tolist() == [200.0]  # µs
    assert "No GPU in this trace" in text(show("idle", "host"))


def test_a_folder_of_ladders_alone_links_to_them(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write_ladder(tmp_path / "vit_b")
    monkeypatch.setenv("PROFILER_KIT_DIR", str(tmp_path))
    test = dashboard().run()
    assert not test.exception and not test.info
    assert "vit\\_b" in [one.proto.label for one in test.get("page_link")]


def test_a_trace_that_is_no_json_stays_in_the_list(runs: Path) -> None:
    (runs / "hello.json").write_text("hello")
    test = show("overview", "hello.json")
    assert errors(test)[0].startswith(f"{runs / 'hello.json'}: found text that is not JSON")
    assert "hello.json" in test.sidebar.selectbox[0].options


def test_a_name_that_is_no_runs_says_so(runs: Path) -> None:
    (runs / "trace.txt").write_text("hello")
    assert errors(show("overview", "trace.txt")) == [
        f"{runs / 'trace.txt'}: found a file or folder whose name is not that of a run, expected a run folder, "
        "*.json, *.json.gz or *.pickle. Rename it, or choose another one on the left."
    ]


def test_regions_of_a_gpu_run(runs: Path) -> None:
    test = show("regions", "gpu")
    tree, kernels, _ = test.dataframe
    assert [name.strip() for name in tree.value["path"]] == ["timed region", "image encoder", "mask decoder"]
    assert tree.value["busy_ns"].tolist() == [1.0, 0.9, 0.1]  # ms
    assert kernels.value["name"].tolist() == ["gemm", "softmax", "upsample"]
    assert kernels.value["sum_ns"].tolist() == [600, 300, 100]  # µs


def test_regions_of_a_host_run(runs: Path) -> None:
    test = show("regions", "host")
    tree, operators = test.dataframe
    assert tree.value["host_ns"].tolist() == [800, 200]  # µs
    assert operators.value["name"].tolist() == ["aten::addmm", "aten::linear", "aten::sigmoid"]
    assert operators.value["self_ns"].tolist() == [600, 100, 100]


def test_layers_tell_windowed_and_global_blocks_apart(runs: Path) -> None:
    test = show("layers", "gpu")
    assert "From batch 1 to 2 the time per item goes from **30.000 ms** to **27.000 ms**" in text(test)
    assert "The layers explain at least 90.0 % of the forward run without hooks (batch 2)" in text(test)
    assert test.multiselect[0].value == ["blocks.1", "blocks.0"]
    assert not test.warning


def test_every_depth_has_layers_to_compare(runs: Path) -> None:
    test = show("layers", "gpu")
    for depth, names in (
        (0, ["(model)"]),
        (1, ["blocks.1", "blocks.0"]),
        (0, ["(model)"]),
        (1, ["blocks.1", "blocks.0"]),
    ):
        test.session_state["depth"] = depth
        test.run()
        assert test.multiselect[0].value == names


def test_layers_timed_in_another_way_say_so(runs: Path) -> None:
    note = "layers: timed without compile (with bf16), because a compiled encoder shows no layers inside"
    dataclasses.replace(record("gpu"), notes=("masks: noise", note)).write(runs / "gpu")
    assert (
        "Layers are timed without compile (with bf16), because a compiled encoder shows no layers inside. "
        "At batch 2 they take 27.000 ms per item, the run itself 10.000 ms." in text(show("layers", "gpu"))
    )


def test_the_layers_hint_is_for_the_model_of_the_run(runs: Path) -> None:
    assert f"capture --layers 1,2,4,8 --out {runs}/host-more" in show("layers", "host").code[0].value
    said = show("layers", "bare.json.gz").code[0].value
    assert said == f"profiler-kit layers mine.py:workload --batch-sizes 1,2,4,8 --out {runs}/bare-more"


def test_what_would_show_a_gpu_is_the_own_command_of_the_run_on_one(runs: Path) -> None:
    dataclasses.replace(record("host", device="cpu"), command="profiler-kit capture --model vit_t --device cpu").write(
        runs / "host"
    )
    said = show("idle", "host").code[0].value
    assert said == f"profiler-kit capture --model vit_t --device cuda --out {runs}/host-more"


def test_compare_chooses_no_run_that_is_not_known_to_be_of_the_same_work(runs: Path) -> None:
    test = show("compare", "gpu")
    assert test.multiselect[0].value == [] and "No other run here is known to be of the same model" in text(test)
    shutil.copytree(runs / "gpu", runs / "again")
    assert show("compare", "gpu").multiselect[0].value == ["again"]


def test_memory_names_the_peak(runs: Path) -> None:
    test = show("memory", "gpu")
    assert "At its peak **2.0 MiB** were allocated inside **image encoder**" in text(test)
    assert "run.json says 3.00 GiB: torch.cuda.max_memory_allocated" in text(test)
    shown = [metric.label for metric in test.metric]
    assert shown == ["Peak requested", "Reserved at the end", "Requested at the end", "Unused at the end", "Events"]


def test_memory_stands_beside_the_kernels_of_its_batch(runs: Path) -> None:
    test = show("memory", "gpu")
    assert "Kernels and memory" not in [header.value for header in test.subheader]  # the trace is of another time
    assert len(test.get("plotly_chart")) == 1
    golden = CHECKOUT / "tests" / "golden"
    shutil.copy(golden / "joined_h200.json.gz", runs / "gpu" / "memory_trace.json.gz")
    shutil.copy(golden / "joined_h200.pickle", runs / "gpu" / "memory.pickle")
    test = show("memory", "gpu")
    assert "Kernels and memory" in [header.value for header in test.subheader]
    assert len(test.get("plotly_chart")) == 1  # memory is drawn once
    assert "their clocks differ by 3.1 µs (median of 28 region boundaries; p99 30.9 µs, at most 38.5 µs)" in text(test)


def test_memory_of_a_cpu_has_no_reserve(runs: Path) -> None:
    sizes = {"Addr": 4096, "Bytes": 1 << 20, "Total Allocated": 1 << 20, "Total Reserved": 0, "Device Type": 0}
    moment = {"ph": "i", "s": "t", "name": "[memory]", "cat": "cpu_instant_event", "pid": 1, "tid": 1, "ts": 10.0}
    events = [{**moment, "args": {**sizes, "Device Id": -1}}, *host_trace().events]
    (runs / "gpu" / "memory.pickle").write_text(json.dumps({"baseTimeNanoseconds": 1, "traceEvents": events}))
    test = show("memory", "gpu")
    assert [metric.label for metric in test.metric] == ["Peak requested", "Requested at the end", "Events"]


def test_memory_draws_no_line_without_a_history(runs: Path) -> None:
    shutil.copy(CHECKOUT / "tests" / "cases" / "snapshots" / "state_only.pickle", runs / "gpu" / "memory.pickle")
    test = show("memory", "gpu")
    assert "No history of this device: only the state at the end is known." in text(test)
    assert not test.get("plotly_chart")


def test_an_out_of_memory_is_explained_once_for_every_page(runs: Path) -> None:
    one = Allocator()
    one.malloc(160 << 20)
    data = one.snapshot()
    failed = {"action": "oom", "size": 90 << 20, "stream": 0, "time_us": snapshots.T0 + 9, "frames": []}
    data["device_traces"][0] = [*data["device_traces"][0], {**failed, "device_free": 1 << 20}]
    snapshots.write(runs / "gpu" / "memory.pickle", data)
    said = [line for line in errors(show("memory", "gpu")) if line.startswith("**Out of memory:**")]
    assert len(said) == 1 and "fall short by **89.0 MiB**" in said[0] and "would not have helped" in said[0]
    assert [line for line in errors(show("overview", "gpu")) if line.startswith("**Out of memory:**")] == said


def test_requests_under_load(runs: Path) -> None:
    test = show("requests", "gpu")
    assert errors(test) == []
    assert "took less than **77 ns**, the slowest took **79 ns**" in text(test) and "in **the model**" in text(test)
    assert len(test.get("plotly_chart")) == 2
    assert list(test.dataframe[0].value["id"]) == [1, 0, 2]
    write_requests(runs / "gpu" / "requests.parquet", [])
    assert "The file of requests is empty" in text(show("requests", "gpu"))


@pytest.mark.parametrize(
    ("page", "said"),
    [
        ("kernels", "No kernels in this trace"),
        ("layers", "No layer timings in this run"),
        ("requests", "No requests in this run"),
        ("memory", "No memory snapshot in this run"),
    ],
)
def test_what_is_missing_says_how_to_record_it(runs: Path, page: str, said: str) -> None:
    test = show(page, "host")
    assert said in text(test) and errors(test) == []
    assert test.code[0].value


def test_allocations_of_a_trace_are_shown_where_there_is_no_snapshot(runs: Path) -> None:
    trace = gpu_trace()
    moment = {"ph": "i", "s": "t", "name": "[memory]", "cat": "cpu_instant_event", "pid": 100, "tid": 1}
    for ts, kind, device, size in ((5, 0, -1, 8), (6, 1, 0, 1 << 20), (7, 1, 0, -(1 << 20))):
        args = {"Addr": 4096, "Bytes": size, "Total Allocated": max(size, 0), "Total Reserved": 1 << 21}
        trace.events.append({**moment, "ts": ts, "args": {**args, "Device Type": kind, "Device Id": device}})
    trace.write(runs / "held.json")
    test = show("memory", "held.json")
    assert "There is no memory snapshot: this is what the trace's memory events say." in text(test)
    assert "At its peak **1.0 MiB** were allocated" in text(test)
    assert not test.get("iframe") and show("memory", "gpu").get("iframe")  # that page is of a snapshot
    assert show("memory", "bare.json.gz").code[0].value.startswith("with memory_runner")


@pytest.mark.parametrize("page", OF_A_RUN)
def test_broken_files_are_one_line_each(runs: Path, page: str) -> None:
    test = show(page, "broken", **WITH.get(page, {}))
    found = errors(test)
    assert found and all(str(runs / "broken") in line and "\n" not in line for line in found)
    assert len(test.sidebar.selectbox) == 1  # the rest of the app goes on


@pytest.mark.parametrize("page", PAGES)
def test_bare_files_show_or_say_what_is_missing(runs: Path, page: str) -> None:
    test = show(page, "bare.json.gz")
    assert errors(test) == [] and text(test)


@pytest.mark.parametrize("page", PAGES)
@pytest.mark.parametrize("run", ["gone", "../gpu", "/etc", "%2e%2e/x", "<b>x</b>"])
def test_an_unknown_run_is_one_line(runs: Path, page: str, run: str) -> None:
    assert errors(show(page, run)) == [
        f"{runs / run}: no run here (moved or deleted?). Choose another one on the left."
    ]


def test_a_run_that_vanishes_while_shown(runs: Path) -> None:
    test = show("overview", "gpu")
    shutil.rmtree(runs / "gpu")
    test.run()
    assert not test.exception
    assert errors(test) == [f"{runs / 'gpu'}: no run here (moved or deleted?). Choose another one on the left."]
    assert len(test.sidebar.selectbox) == 1


def test_every_table_of_a_run_has_a_page(runs: Path) -> None:
    for name in ("idle", "copy_totals", "communication_overlap", "incidents", "layer_kinds", "memory_devices"):
        test = show("tables", "gpu", table=name)
        assert errors(test) == [] and len(test.dataframe) == 1 and test.selectbox[0].value is not None
        assert f"({name})" in str(test.main.selectbox[0].options[test.main.selectbox[0].index])
        assert test.query_params["table"] in (name, [name])
    scoped = show("tables", "gpu", table="idle", **{"idle-scope": "all"})
    assert "stream" not in scoped.dataframe[0].value


@pytest.mark.parametrize("page", PAGES)
def test_an_empty_trace_is_no_empty_page(runs: Path, page: str) -> None:
    """A page of a trace says what is wrong with it, another page what it needs."""
    (runs / "none.json").write_text('{"traceEvents": []}')
    needs = {
        "requests": "profiler-kit sam serve",
        "layers": "profiler-kit layers",
        "ranks": "ranks of one job",
        "compare": "record_run(",
    }
    test = show(page, "none.json")
    assert needs.get(page, "a trace without a single event") in "\n".join((text(test), *errors(test)))


def test_a_folder_without_runs_says_what_to_do(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PROFILER_KIT_DIR", str(tmp_path))
    test = dashboard().run()
    assert not test.exception and test.title[0].value == "Runs"
    assert f"profiler-kit capture --out {tmp_path}/first" in test.code[0].value


def test_torch_is_never_imported(runs: Path) -> None:
    script = (
        "import sys; from tests.app.dashboard import dashboard\n"
        "t = dashboard()\n"
        "t.query_params['run'] = 'gpu'; t.run()\n"
        f"for p in {PAGES[1:]}: t.switch_page(f'app_pages/{{p}}.py').run(); assert not t.exception\n"
        "assert 'torch' not in sys.modules, 'torch was imported'\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", script], cwd=CHECKOUT, capture_output=True, text=True, timeout=10 * PATIENCE_S
    )
    assert done.returncode == 0, done.stderr


def test_a_page_makes_no_function_that_a_session_would_keep() -> None:
    """A widget's function on a page holds all names of that page, the trace among them, for as long as the session."""
    for page in (CHECKOUT / "app" / "app_pages").glob("*.py"):
        assert not [node for node in ast.walk(ast.parse(page.read_text())) if isinstance(node, ast.Lambda)], page.name
