"""A quantized student: attention in float, the rest in int8, learning with rounded values, beside its teacher."""

from __future__ import annotations

import dataclasses
import math
from collections import Counter
from collections.abc import Iterator
from importlib.util import find_spec
from pathlib import Path

import pytest
import torch
from torch import nn

from profiler_kit.errors import CheckpointError, InputError, OptionError, WorkloadError
from profiler_kit.models.sam.train_data import Sample, make_sample
from profiler_kit.models.student import quantize as quantizing
from profiler_kit.models.student.backbones import BACKBONES, CasBlock, Level, Made, StudentEncoder, conv
from profiler_kit.models.student.quantize import MODES, QuantizeOptions, chains, keep_norms, quantize, read_facts
from profiler_kit.models.student.workload import StudentWorkload
from profiler_kit.workload.optimizations import optimized, parse_optimizations
from profiler_kit.workload.protocol import Bench, make_model
from tests.student.test_students import CPU, TINY, file_of

pytestmark = [
    pytest.mark.skipif(find_spec("torchao") is None, reason="torchao is not installed"),
    pytest.mark.filterwarnings("ignore"),  # torchao's and torch's own advice
]


def drawn(_images: Path | None, _teacher: object, _family: object, count: int, *_: object) -> Iterator[Sample]:
    return (make_sample(number, 256) for number in range(count))


@pytest.fixture
def one_block(monkeypatch: pytest.MonkeyPatch) -> None:
    """A backbone of one block of CAS-ViT: each convolution more takes a second."""

    def build() -> Made:
        stages = [nn.Sequential(*conv(inside, 8, 3, stride)) for inside, stride in ((3, 4), (8, 2), (8, 2), (8, 2))]
        stages[2].append(CasBlock(8))
        return nn.ModuleList(stages), (8, 8, 8, 8)

    monkeypatch.setitem(BACKBONES, "one_block", build)  # type: ignore[misc]  # a dict all the same


@pytest.mark.usefixtures("one_block")
@pytest.mark.parametrize("mode", MODES)
def test_one_runs_in_int8_beside_its_teacher(mode: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(quantizing, "samples_of", drawn)
    student, out = file_of(tmp_path / "s.pt", "one_block"), tmp_path / "int8.pt2"
    options = QuantizeOptions(student=student, mode=mode, scenes=2, batch_size=2, steps=4, out=out)
    facts = read_facts(quantize(options))
    assert (facts["backbone"], facts["mode"], facts["side"]) == ("one_block", mode, 256)
    assert len(facts["losses"]) == (4 if mode == "qat" else 0)
    program = torch.export.load(options.out)
    graph = program.module()
    called = Counter(str(node.target) for node in graph.graph.nodes if node.op == "call_function")
    # the nine convolutions of the attention are in float, the other four of the block are not
    rounded = called["quantized_decomposed.dequantize_per_channel.default"]
    assert (called["aten.conv2d.default"], rounded) == (22, 13)
    kept = [tensor.is_floating_point() for tensor in program.state_dict.values() if tensor.dim() == 4]
    assert (kept.count(True), kept.count(False)) == (9, 13)  # no weight is in the file twice
    monkeypatch.setattr(torch, "compile", lambda module, **_: module)  # the compiler takes minutes
    named = {**TINY, "name": "student_one_block", "checkpoint": str(student), "int8": str(out)}
    chosen = StudentWorkload(**named, beside=True)  # type: ignore[arg-type]
    answers = []
    for text in ("student", "student,int8,compile_decoder"):
        with optimized(make_model(chosen, CPU), parse_optimizations(text, chosen.optimizations), CPU) as model:
            bench = Bench(chosen, model, CPU, 1)
            answers.append(bench.run(bench.item(0))[0])
    assert bench.dtype == "int8"
    torch.testing.assert_close(answers[1].iou, answers[0].iou, rtol=0.05, atol=0.01)
    with pytest.raises(OptionError, match=r"int8.pt2: made for images of 256 px, found 320. Leave one out."):
        other = chosen.at_image_size(320)
        other.optimizations["int8"].apply(other.optimizations["student"].apply(make_model(other, CPU)))


@pytest.mark.usefixtures("one_block")
def test_batch_norm_keeps_its_eps_and_momentum_where_torchao_writes_its_own() -> None:
    from torchao.quantization.pt2e import move_exported_model_to_eval, move_exported_model_to_train

    torch.manual_seed(0)
    encoder = StudentEncoder("one_block", (Level(8, 16),), 64).requires_grad_(False)
    for module in encoder.modules():
        if isinstance(module, nn.BatchNorm2d):  # as in MobileNetV3, with variances that are as small
            module.eps, module.momentum = 1e-3, 0.01
            module.running_var.uniform_(1e-3, 1e-2)
    images = torch.randn(2, 3, 64, 64)
    wanted = encoder.eval()(images)
    graph = torch.export.export(encoder.train(), (images,)).module()
    assert isinstance(graph, torch.fx.GraphModule)

    def error(wanted: torch.Tensor) -> float:
        return float((graph(images) - wanted).norm() / wanted.norm())

    move_exported_model_to_eval(graph)
    assert error(wanted) > 0.1
    keep_norms(graph, encoder)
    assert error(wanted) < 1e-5
    move_exported_model_to_train(graph)
    keep_norms(graph, encoder)
    assert error(encoder(images)) < 1e-5
    move_exported_model_to_eval(graph)
    wanted = encoder.eval()(images)
    keep_norms(graph, encoder, folds=True)  # the variances are the encoder's own tensors
    assert error(wanted) < 1e-4


@pytest.mark.usefixtures("one_block")
def test_chains_are_those_that_torchao_finds() -> None:
    from torchao.quantization.pt2e.graph_utils import find_sequential_partitions

    encoder = StudentEncoder("one_block", (Level(8, 16),), 64)
    graph = torch.export.export(encoder.train(), (torch.zeros(2, 3, 64, 64),), strict=True).module()
    assert isinstance(graph, torch.fx.GraphModule)
    counts = []
    for kinds in ([nn.Conv2d, nn.BatchNorm2d], [nn.Conv2d, nn.BatchNorm2d, nn.ReLU], [nn.Conv2d, nn.GELU]):
        found, wanted = chains(graph, kinds), find_sequential_partitions(graph, kinds)
        assert [[part.nodes for part in one] for one in found] == [[part.nodes for part in one] for one in wanted]
        counts.append(len(found))
    assert counts[0] > counts[1] > 0 and counts[2] == 1


def test_what_cannot_be_quantized_is_said(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    options = QuantizeOptions(student=file_of(tmp_path / "s.pt", teacher_weights="random:7"), out=tmp_path / "o.pt2")
    with pytest.raises(CheckpointError) as teacher:
        quantize(options)
    assert str(teacher.value) == (
        f"{tmp_path / 's.pt'}: a student of vit_tiny (random:7), found the teacher (random:0). "
        "Give its own --teacher-checkpoint."
    )
    with pytest.raises(OptionError, match=r"--mode int4: not known, expected ptq or qat."):
        quantize(dataclasses.replace(options, mode="int4"))
    with pytest.raises(OptionError, match=r"--rate nan: expected more than 0, less than 1."):
        quantize(dataclasses.replace(options, rate=math.nan))
    with pytest.raises(OptionError, match=r"s.pt: this exists already. Choose another --out."):
        quantize(dataclasses.replace(options, out=options.student))
    with pytest.raises(InputError, match=r"s.pt/x: cannot make the folder \(Not a directory\). Choose a path"):
        quantize(dataclasses.replace(options, out=options.student / "x"))
    with pytest.raises(CheckpointError, match=r"s.pt: cannot be read .* expected a student in int8. Make one with"):
        read_facts(options.student)
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    with pytest.raises(WorkloadError) as lacking:
        quantize(options)
    said = "needs torchao, which is not installed. Try: pip install 'profiler-kit[quantize]'"
    assert str(lacking.value) == f"int8: {said}"
