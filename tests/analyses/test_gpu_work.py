"""What a GPU event is (communication, copy, computation), and times that cannot be believed."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from profiler_kit.attribute.gpu_work import rule_of_name
from profiler_kit.errors import InputError, OptionError
from profiler_kit.findings.doctor import describe
from profiler_kit.findings.quality import flaws, losses
from profiler_kit.load.trace.file_facts import read_file_facts
from profiler_kit.settings import VARIABLE
from profiler_kit.trace import Trace, load_trace
from tests.builders import TraceBuilder

CASES = Path(__file__).parents[1] / "cases" / "traces"
YEAR_US = 365 * 86_400 * 1_000_000.0


def loaded(trace: TraceBuilder, tmp_path: Path, **options: Any) -> Trace:
    return load_trace(trace.write(tmp_path / "t.json"), **options)


def launched(trace: TraceBuilder, correlation: int, at: float, dur: float, launch: float = 0.0, **options: Any) -> None:
    trace.launch(correlation, launch)
    trace.kernel(correlation, at, dur, **options)


def said(trace: Trace) -> dict[str, int]:
    return {flaw.key: flaw.largest_ns for flaw in flaws(trace, read_file_facts(trace.path))}


# communication


@pytest.mark.parametrize(
    ("name", "rule"),
    [
        ("ncclDevKernel_AllReduce_Sum_f32_RING_LL(ncclDevKernelArgsStorage<4096ul>)", "NCCL, RCCL"),
        ("ncclKernel_AllReduce_RING_LL_Sum_float(ncclWorkElem)", "NCCL, RCCL"),
        ("void rcclGenericKernel<1, false>(ncclDevKernelArgsStorage<4096ul>)", "NCCL, RCCL"),
        ("_Z17rcclGenericKernelv", "NCCL, RCCL"),
        ("_ZN7deep_ep9intranode8dispatchILi8EEEvPi", "DeepEP"),
        ("_ZN12_GLOBAL__N_126multimem_all_reduce_kernelE", "multimem"),
        ("_ZN2at6native13reduce_kernelILi512E8ncclCommEEv", ""),
        ("_Z", ""),
        ("void mscclpp_allreduce<x>(y)", "MSCCL"),
        ("void nvshmem_reduce_kernel<int>(int)", "NVSHMEM"),
        ("void deep_ep::internode::dispatch<true>(x)", "DeepEP"),
        ("hcom_allReduce__123_0_1", "HCCL"),
        ("oneccl_allreduce_large", "oneCCL"),
        ("multimem_all_reduce_kernel<c10::BFloat16, 16>", "multimem"),
        ("void (anonymous namespace)::multimem_one_shot_all_reduce_kernel<float>(float*)", "multimem"),
        ("void vllm::cross_device_reduce_2stage<float, 8>(vllm::RankData*)", "custom all-reduce"),
        ("void quickreduce::allreduce_prototype_twoshot<x>(y)", "custom all-reduce"),
        ("void c10d::symmetric_memory::two_shot_all_reduce_kernel<4>(int)", "named after a collective"),
        ("void flashinfer::trtllm::allreduce_fusion_kernel_oneshot_lamport<x>(y)", "named after a collective"),
        ("void tensorrt_llm::kernels::oneShotAllReduceKernel<float>(float*)", "named after a collective"),
        ("void mori::moe::EpCombineInterNodeKernel<float>(x)", "MORI, pplx"),
        ("_ZN4mori3moe26EpDispatchIntraNodeKernelIfEEvi", "MORI, pplx"),
        ("void pplx::a2a_dispatch_send_kernel<8>(x)", "MORI, pplx"),
        ("ishmem_put_kernel", "NVSHMEM"),
        ("ucc_ec_cuda_reduce_kernel", "UCC, Gloo"),
        ("mcclKernel_SendRecv_RING_LL", "other libraries"),
        ("CNCL_Broadcast", "other libraries"),
        ("void c10d::symmetric_memory::barrier_kernel(unsigned int**)", "symmetric memory"),
        ("void flashinfer::trtllm_mnnvl_allreduce::oneshotAllreduceFusionKernel<8>(x)", "named after a collective"),
        ("void aiter::reduce_scatter_cross_device_store<float>(x)", "named after a collective"),
        ("PGAllReduce", "named after a collective"),
        ("a2a_combine_recv", "named after a collective"),
        # work of one device, whatever it is called after or is given
        ("void at::native::reduce_kernel<512, 1, at::native::ReduceOp<float> >(x)", ""),
        ("triton_poi_fused_all_gather_into_tensor_cat_3", ""),
        ("void block_all_reduce<float>(float*)", ""),
        ("void softmax_warpAllReduce<float>(float*)", ""),
        ("void gemm<ncclComm, all_reduce_tag>(x)", ""),
        ("void scatter_gather_elementwise_kernel<128>(x)", ""),
        ("nvjet_tst_64x8", ""),
        ("void small_reduce<float>(float*)", ""),
        ("SMALL_REDUCE", ""),
        ("overall_gather", ""),
        ("subgroup_all_reduce", ""),
        ("cluster_all_reduce", ""),
        ("hcom", "HCCL"),
        ("hcomplex_mul", ""),
    ],
)  # fmt: skip
def test_communication_is_told_by_the_name_of_the_function(name: str, rule: str) -> None:
    assert rule_of_name(name) == rule


def test_kernels_of_libraries_other_than_nccl_communicate() -> None:
    trace = load_trace(CASES / "custom_allreduce.json")
    time = trace.summary()["gpu_timeline"]
    assert (time["communication_ns"], time["computation_ns"]) == (350_000, 50_000)
    listed = trace.communication()
    assert (len(listed), int(listed["sum_ns"].sum())) == (7, 350_000)
    assert trace.kernel_groups("kind").set_index("key")["sum_ns"].to_dict() == {
        "communication": 350_000,
        "matrix products": 50_000,
    }
    custom = load_trace(CASES / "vllm_custom_ar.json").summary()["gpu_timeline"]
    assert (custom["communication_ns"], custom["computation_ns"]) == (100_000, 50_000)


@pytest.mark.parametrize("piece", [2, 1 << 17])
def test_what_the_trace_says_comes_before_names(piece: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("profiler_kit.attribute.gpu_work._PIECE", piece)
    trace = TraceBuilder()
    trace.region("all_reduce", 0, 1000)  # a user's word: says nothing
    trace.operator("c10d::allgather_", 90, 100)
    trace.operator("aten::copy_", 150, 10)
    trace.operator("mylib::send", 290, 20, **{"Collective name": "send"})
    trace.operator("symm_mem::one_shot_all_reduce", 390, 20)
    trace.operator("symm_mem::fused_all_gather_matmul", 490, 20)
    launched(trace, 1, 1000, 10, 100, name="plain")  # c10d's own kernel
    launched(trace, 2, 1100, 10, 155, name="elementwise")  # aten::copy_ of a bucket
    launched(trace, 3, 1200, 10, 300, name="sender")
    launched(trace, 4, 1300, 10, 400, name="barrier")
    launched(trace, 5, 1400, 10, 500, name="nvjet")
    launched(trace, 6, 1500, 10, 600, name="alone")
    trace.events[-1]["args"]["Collective name"] = "allreduce"
    launched(trace, 7, 1600, 10, 180, name="Memcpy DtoD (Device -> Device)")
    trace.events[-1]["cat"] = "gpu_memcpy"
    launched(trace, 8, 1700, 10, 700, name="ncclDevKernel_Broadcast")
    for options in ({}, {"arguments": ["collective_name"]}):
        found = loaded(trace, tmp_path, **options)
        assert dict(found.communication()[["name", "rule"]].itertuples(index=False)) == {
            "plain": "operator",
            "sender": "collective arguments",
            "barrier": "operator",
            "alone": "collective arguments",
            "ncclDevKernel_Broadcast": "NCCL, RCCL",
        }
        time = found.summary()["gpu_timeline"]
        assert (time["communication_ns"], time["computation_ns"], time["memcpy_ns"]) == (50_000, 20_000, 10_000)


def test_users_add_names(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    trace = TraceBuilder()
    trace.operator("mylib::exchange", 240, 20)
    for number, name in enumerate(("ring_step", "gemm", "anything"), 1):
        launched(trace, number, 1000 * number, 10, 100 * number - 50, name=name)
    settings = tmp_path / "settings.toml"
    settings.write_text('communication = ["^ring_"]\n', encoding="utf-8")
    monkeypatch.setenv(VARIABLE, str(settings))
    assert loaded(trace, tmp_path).communication()["name"].tolist() == ["ring_step"]
    both = loaded(trace, tmp_path, communication=["gemm", "::exchange"]).communication()
    assert dict(both[["name", "rule"]].itertuples(index=False)) == {
        "anything": "operator",
        "gemm": "user's name",
        "ring_step": "user's name",
    }
    with pytest.raises(OptionError) as wrong:
        loaded(trace, tmp_path, communication=["a("])
    assert str(wrong.value) == (
        "--communication 'a(': missing ), unterminated subpattern at position 1, expected a part of a kernel's or an "
        "operator's name, as a regular expression. Try: --communication 'a\\\\('"
    )


@pytest.mark.parametrize(
    ("text", "found"),
    [
        ("communication = 3", "communication is 3, expected a list of names."),
        ("comunication = []", "unknown setting 'comunication', expected communication alone."),
        ("communication = [", "Invalid value (at end of document), expected settings in TOML."),
    ],
)
def test_wrong_settings_are_one_line(text: str, found: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    settings = tmp_path / "settings.toml"
    settings.write_text(text, encoding="utf-8")
    monkeypatch.setenv(VARIABLE, str(settings))
    with pytest.raises(InputError) as wrong:
        load_trace(CASES / "half_at_zero.json")
    assert str(wrong.value) == f'{settings}: {found} Try: communication = ["my_ring_kernel"]'


@pytest.mark.parametrize(("outer", "inner", "rule"), [(1, 2, {"collective arguments"}), (2, 1, set())])
def test_of_operators_that_begin_and_end_together_the_inner_one_tells(
    outer: int, inner: int, rule: set[str], tmp_path: Path
) -> None:
    trace = TraceBuilder()  # in the file the collective is the first
    trace.operator("record_param_comms", 0, 10, **{"External id": inner, "Collective name": "allreduce"})
    trace.operator("aten::add_", 0, 10, **{"External id": outer})
    launched(trace, 1, 20, 5, launch=1)
    found = loaded(trace, tmp_path)
    operator = "record_param_comms" if rule else "aten::add_"
    assert found.kernel_details()["operator"].tolist() == [operator]
    assert set(found.communication()["rule"]) == rule


# copies


def test_copies_of_rocm_and_mtia_are_copies(tmp_path: Path) -> None:
    copied = load_trace(CASES / "rocclr_copy.json").summary()["gpu_timeline"]
    assert (copied["memcpy_ns"], copied["computation_ns"]) == (100_000, 50_000)
    named = load_trace(CASES / "rocm_copy_names.json")
    copies = named.copies().assign(name=named.gpu_events()["name"].astype(str).to_numpy()).set_index("name")
    assert copies["kind"].to_dict() == {
        "CopyHostToDevice": "HtoD",
        "CopyDeviceToHost": "DtoH",
        "Memcpy HtoD (Host -> Device)": "HtoD",
        "MemcpyDtoD": "DtoD",
        "FillBuffer": "Memset",
        "MEMORY_COPY_HOST_TO_DEVICE": "HtoD",
        "Memcpy HtoD (Pinned -> Device)": "HtoD",
    }
    assert copies["size_bytes"].tolist() == [1000, 2000, 4000, 500, 64, 100, 8]
    assert named.summary()["gpu_timeline"]["computation_ns"] == 10_000  # FillBuffer sets memory

    trace = TraceBuilder()
    for number, name in enumerate(("dma_request_h2d", "dma_request", "fc_kernel", "dmabuf_kernel"), 1):
        trace.kernel(number, 100.0 * number, 10, name=name)["cat"] = "mtia_ccp_events"
    trace.kernel(5, 600, 10, name="dma_request")  # a kernel of a GPU may be called so
    trace.kernel(6, 700, 10, name="__amd_rocclr_fillBufferAligned.kd")
    found = loaded(trace, tmp_path)
    assert found.copies()["kind"].tolist() == ["HtoD", "unknown", "Memset"]
    time = found.summary()["gpu_timeline"]
    assert (time["memcpy_ns"], time["computation_ns"]) == (20_000, 40_000)


# times


def test_events_without_a_recorded_time_are_in_no_total() -> None:
    trace = load_trace(CASES / "half_at_zero.json")
    summary = trace.summary()
    time, quality = summary["gpu_timeline"], summary["quality"]
    assert (time["total_ns"], time["busy_ns"], time["idle_ns"]) == (390_000, 360_000, 30_000)
    assert (summary["gpu_events"], quality["untimed_gpu_events"], quality["impossible_durations"]) == (8, 4, 0)
    assert trace.kernels()[["count", "sum_ns", "min_ns"]].to_numpy().tolist() == [[4, 360_000, 90_000]]
    assert trace.idle(scope="all")["idle_ns"].sum() == 30_000
    assert trace.regions()[["gpu_events", "sum_ns", "span_ns"]].to_numpy().tolist() == [[4, 360_000, 390_000]]
    assert trace.launch_calls()["gpu_events"].tolist() == [1] * 8  # what they launched is there
    assert trace.left_out()["why"].tolist() == ["no time"] * 4
    assert "no time" in said(trace) and "early starts" not in said(trace)
    assert [one.sentence for one in losses(trace)] == [
        "4 of 8 GPU events have no time: the trace says 0, -1, nothing, or a moment days away from the others."
    ]
    contents = describe(trace, read_file_facts(trace.path), None)["contents"]
    assert (contents["span_ns"], contents["gpu_events"]) == (2_000_000, 8)


def test_a_duration_past_its_successors_is_impossible() -> None:
    trace = load_trace(CASES / "overrun_duration.json")
    summary = trace.summary()
    assert summary["quality"]["impossible_durations"] == 1
    assert (summary["gpu_events"], summary["gpu_timeline"]["busy_ns"]) == (6, 50_000)
    left = trace.left_out()
    assert left[["why", "overrun_ns", "room_ns"]].to_numpy().tolist() == [["duration", 89_980_000, 20_000]]
    assert said(trace)["impossible durations"] == 89_980_000
    assert [one.sentence for one in losses(trace)] == [
        "1 of 6 GPU events have an impossible duration: up to 89.980 ms past the next event of their stream."
    ]


def test_a_start_of_zero_and_a_duration_of_zero_may_be_right(tmp_path: Path) -> None:
    trace = TraceBuilder()
    launched(trace, 1, 0, 10)  # the trace begins here
    launched(trace, 2, 20, 0, 5)  # too short for the clock
    launched(trace, 3, 30, 10, 6)
    found = loaded(trace, tmp_path)
    assert found.summary()["gpu_timeline"]["total_ns"] == 40_000
    assert found.summary()["quality"]["untimed_gpu_events"] == 0


@pytest.mark.parametrize("at", [0.0, 1.7e15, -1.7e15], ids=["zero", "absolute in relative", "less the base"])
def test_a_moment_years_away_is_no_time(at: float, tmp_path: Path) -> None:
    trace = TraceBuilder()
    trace.region("step", 3 * YEAR_US if at == 0 else 0, 500)
    first = trace.events[0]["ts"]
    for number in range(3):
        launched(trace, number, first + 100 + 20 * number, 10, first + number)
    launched(trace, 9, at, 10, first + 5)
    found = loaded(trace, tmp_path)
    summary = found.summary()
    assert (summary["gpu_timeline"]["total_ns"], summary["quality"]["untimed_gpu_events"]) == (50_000, 1)
    assert describe(found, read_file_facts(found.path), None)["contents"]["span_ns"] == 500_000


def test_a_gpu_clock_of_its_own_is_believed_and_said(tmp_path: Path) -> None:
    trace = TraceBuilder()
    for number in range(3):
        launched(trace, number, YEAR_US + 20 * number, 10, 2 * YEAR_US + number)
    found = loaded(trace, tmp_path)
    summary = found.summary()
    assert (summary["gpu_timeline"]["total_ns"], summary["quality"]["untimed_gpu_events"]) == (50_000, 0)


@pytest.mark.parametrize(
    ("first", "at", "dur", "untimed"),
    [
        (5_000_000, 0, 10, 1),  # a start of 0 long before the launch
        (1_000, 0, 10, 1),
        (1_000, 0.001, 10, 0),  # a clock that is another one
        (50, 0, 10, 0),
        (1_000, 1_110, 4_294_967.295, 1),  # -1 in 32 bits
        (1_000, 1_110, 4_294_967_295, 1),
        (1_000, 1_110, 4_294_967.296, 0),
    ],
)
def test_a_placeholder_is_no_time(first: float, at: float, dur: float, untimed: int, tmp_path: Path) -> None:
    trace = TraceBuilder()
    launched(trace, 1, at, dur, first)
    launched(trace, 2, first + 100, 10, first + 1)
    found = loaded(trace, tmp_path).summary()
    assert (found["gpu_timeline"]["total_ns"] == 10_000, found["quality"]["untimed_gpu_events"]) == (untimed, untimed)


@pytest.mark.parametrize(
    ("value", "untimed", "impossible"),
    [
        ({"dur": -1}, 1, 0),
        ({"dur": None}, 1, 0),
        ({"dur": "N/A"}, 1, 0),
        ({"ts": None}, 1, 0),
        ({"dur": -0.001, "cat": "Memcpy"}, 1, 0),
        ({"dur": 1e19, "cat": "gpu_memset"}, 0, 1),
        ({"dur": -1, "cat": "cpu_op"}, 0, 0),
    ],
)
def test_gpu_work_without_a_time_is_not_lost(
    value: dict[str, object], untimed: int, impossible: int, tmp_path: Path
) -> None:
    trace = TraceBuilder()
    for number in (1, 2):
        trace.launch(number, 10 * number)
        trace.kernel(number, 10 * number + 5, 4)
    trace.events[-1] |= value
    found = load_trace(trace.write(tmp_path / "t.json")).summary()
    quality = found["quality"]
    assert (quality["untimed_gpu_events"], quality["impossible_durations"]) == (untimed, impossible)
    assert quality["dropped_events"] == 1 - untimed - impossible
    assert (found["gpu_timeline"]["total_ns"], found["gpu_timeline"]["busy_ns"]) == (4_000, 4_000)


def test_a_duration_of_years_is_impossible_also_at_the_end_of_a_stream(tmp_path: Path) -> None:
    trace = TraceBuilder()
    launched(trace, 1, 100, 10)
    launched(trace, 2, 200, 53 * YEAR_US, 5)
    found = loaded(trace, tmp_path)
    summary = found.summary()
    assert (summary["gpu_timeline"]["total_ns"], summary["quality"]["impossible_durations"]) == (10_000, 1)
    assert said(found)["endless"] == int(53 * YEAR_US * 1000)
    span = describe(found, read_file_facts(found.path), None)["contents"]["span_ns"]
    assert span == 110_000  # not 53 years


def test_no_time_at_all_is_said_and_is_not_the_lack_of_a_gpu(tmp_path: Path) -> None:
    trace = TraceBuilder()
    for number in range(1, 4):
        launched(trace, number, 0, 0, 10 * number)
    found = loaded(trace, tmp_path)
    assert found.summary()["gpu_events"] == 3
    assert found.presence.ran == "without times"
    headline = found.findings()[0].sentence
    assert headline.startswith("The trace holds 3 GPU events, but none has a plausible time")


Overlap = tuple[list[tuple[int, float, float]], int]


@pytest.mark.parametrize(
    ("events", "impossible"),
    [
        ([(1, 10, 50), (2, 20, 5), (3, 30, 5)], 1),  # past two that ended before it
        ([(1, 10, 50), (2, 59, 0.5)], 0),  # by 1 us: a clock of whole microseconds
        ([(1, 10, 50), (2, 57, 2)], 1),  # by 3 us, and the other ended before
        ([(1, 10, 50), (2, 50, 50)], 0),  # overlaps the next, which ends later: launched while the first ran out
        ([(1, 10, 5000), (2, 50, 50_000)], 1),  # the same by 5 ms
        ([(1, 10, 50), (1, 20, 5), (1, 30, 5)], 0),  # branches of one graph launch
        ([(1, 10, 50), (1, 20, 5), (2, 30, 5)], 1),  # a branch that outlives the next launch
        ([(1, 10, 50), (2, 20, 0)], 0),  # what has no duration proves nothing
        ([(1, 10, 90), (2, 20, 60), (3, 30, 5), (4, 200, 5)], 2),
    ],
)
def test_which_overlaps_make_a_duration_impossible(
    events: list[tuple[int, float, float]], impossible: int, tmp_path: Path
) -> None:
    trace = TraceBuilder()
    for correlation in sorted({event[0] for event in events}):
        trace.launch(correlation, correlation)
    for correlation, start, dur in events:
        trace.kernel(correlation, start, dur)
    found = loaded(trace, tmp_path)
    assert found.summary()["quality"]["impossible_durations"] == impossible
    apart = TraceBuilder()
    for number, (correlation, start, dur) in enumerate(events):
        apart.kernel(correlation, start, dur, stream=number)  # streams of their own
    assert loaded(apart, tmp_path).summary()["quality"]["impossible_durations"] == 0


def test_copies_of_rocm_share_a_queue_that_is_not_theirs(tmp_path: Path) -> None:
    for call, impossible in (("hipMemcpyAsync", 0), ("cudaMemcpyAsync", 1)):
        trace = TraceBuilder()
        for number, (start, dur) in enumerate(((10, 500), (20, 50), (90, 50)), 1):
            trace.launch(number, number, name=call)
            trace.kernel(number, start, dur, name="Memcpy HtoD (Host -> Device)")["cat"] = "gpu_memcpy"
        assert loaded(trace, tmp_path).summary()["quality"]["impossible_durations"] == impossible


@pytest.mark.parametrize(
    "text",
    ['"dur": -5.0', '"dur": NaN', '"dur": Infinity', '"dur": 1e400', '"dur": null', '"ts": NaN', '"ts": 1e300'],
)
def test_a_time_that_is_no_number_is_out_of_every_total_and_counted(text: str, tmp_path: Path) -> None:
    trace = TraceBuilder()
    launched(trace, 1, 100, 10)
    launched(trace, 2, 200, 7, 5)
    path = trace.write(tmp_path / "t.json")
    key = text[1:].partition('"')[0]
    value = {"ts": "200", "dur": "7"}[key]
    path.write_text(path.read_text().replace(f'"{key}": {value},', f"{text},"), encoding="utf-8")
    found = load_trace(path)
    assert (found.quality.untimed_gpu_events, found.quality.dropped_events) == (1, 0)
    assert found.summary()["gpu_timeline"]["total_ns"] == 10_000


def test_no_infinite_bandwidth(tmp_path: Path) -> None:
    trace = TraceBuilder()
    for number, dur in ((1, 0.0), (2, 10.0)):
        trace.launch(number, number, name="cudaMemcpyAsync")
        event = trace.kernel(number, 100.0 * number, dur, name="Memcpy HtoD (Pinned -> Device)")
        event["cat"] = "gpu_memcpy"
        event["args"] |= {"bytes": 200, "memory bandwidth (GB/s)": float("inf")}
    found = loaded(trace, tmp_path)
    totals = found.copy_totals().iloc[0]
    assert (totals["min_bytes_per_s"], totals["max_bytes_per_s"]) == (20_000_000, 20_000_000)
    for name in ("copies", "copy_rate", "copy_totals", "kernels"):
        printed = json.dumps(found.table(name).records()) if name != "copies" else found.copies().to_json()
        assert "Infinity" not in str(printed) and "NaN" not in str(printed)
