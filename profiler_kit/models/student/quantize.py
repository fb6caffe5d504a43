"""A student in int8: quantized after training or in some more of it, converted, and run as int8 on a CPU."""

from __future__ import annotations

import contextlib
import json
import math
import zipfile
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any, Final, cast

import torch

from profiler_kit.capture.device import choose_device
from profiler_kit.errors import CheckpointError, OptionError, WorkloadError
from profiler_kit.files import require_file, require_folder, whole_file
from profiler_kit.models.checkpoints import without_torchaos_advice
from profiler_kit.models.sam.scenes import load_images
from profiler_kit.models.sam.train_data import default_workers
from profiler_kit.models.student.backbones import AdditiveAttention, StudentEncoder
from profiler_kit.models.student.models import KIND, load_encoder, read_student
from profiler_kit.models.student.train import Losses, TaughtStore, family_of, samples_of, student_losses
from profiler_kit.progress import Report, silent
from profiler_kit.workload.capture import require_count
from profiler_kit.workload.protocol import LARGEST_SEED

Tensor = torch.Tensor
MODES: Final = ("ptq", "qat")
INT8: Final = "int8.pt2"
_FACTS: Final = "student.json"  # in the file
_HINT: Final = "Make one with: profiler-kit sam student quantize"
_NORM_FROZEN, _OBSERVED = 1 / 4, 1 / 2  # of the steps of qat: until when statistics move, and ranges


@dataclass(frozen=True, kw_only=True)
class QuantizeOptions:
    """mode: ptq looks at the ranges of activations in `scenes` images; qat learns with rounded values, `steps` times.

    images: a folder; without, scenes are generated. rate: of qat. device: where it looks or learns, a GPU if there is
    one; what is written runs on a CPU.
    """

    student: Path
    mode: str = "ptq"
    teacher_checkpoint: Path | None = None
    images: Path | None = None
    scenes: int = 32
    steps: int = 200
    batch_size: int = 4
    prompts: int = 2
    rate: float = 1e-4
    seed: int = 0
    device: str | None = None
    out: Path = Path(INT8)
    workers: int = field(default_factory=default_workers)

    def check(self) -> None:
        """Raises OptionError for what cannot be used, WorkloadError without torchao."""
        if self.mode not in MODES:
            raise OptionError(f"--mode {self.mode}: not known, expected {' or '.join(MODES)}.")
        for name, least in (("scenes", 1), ("steps", 4), ("batch_size", 2)):
            if getattr(self, name) < least:
                raise OptionError(f"--{name.replace('_', '-')} {getattr(self, name)}: expected {least} or more.")
        require_count("--seed", self.seed, 0, LARGEST_SEED)
        if not 0 < self.rate < 1:
            raise OptionError(f"--rate {self.rate:g}: expected more than 0, less than 1.")
        if self.images is not None:
            load_images(self.images, limit=1)
        if self.out.exists():
            raise OptionError(f"--out {self.out}: this exists already. Choose another --out.")
        require_folder(self.out)
        choose_device(self.device)
        require_torchao()


def require_torchao() -> None:
    """Load it with its operators; raises WorkloadError where it is not installed."""
    from importlib.util import find_spec

    if find_spec("torchao") is None:
        raise WorkloadError("int8: needs torchao, which is not installed. Try: pip install 'profiler-kit[quantize]'")
    with without_torchaos_advice():
        import torchao.quantization.pt2e  # noqa: F401


def quantize(options: QuantizeOptions, *, report: Report = silent) -> Path:
    """Write the student in int8, for images of its own side and batches of any size; returns the file."""
    options.check()
    from torchao.quantization.pt2e import move_exported_model_to_eval
    from torchao.quantization.pt2e.quantize_pt2e import convert_pt2e

    found = read_student(options.student)
    family = family_of(found.teacher)
    loaded = family.load(found.teacher, checkpoint=options.teacher_checkpoint)
    if loaded.weights != found.teacher_weights:
        raise CheckpointError(
            f"{options.student}: a student of {found.teacher} ({found.teacher_weights[:23]}), found the teacher "
            f"({loaded.weights[:23]}). Give its own --teacher-checkpoint."
        )
    teacher = loaded.model.requires_grad_(False)
    encoder, weights = load_encoder(teacher, found.backbone, options.student, options.seed)
    with contextlib.ExitStack() as stack:
        samples = samples_of(options.images, teacher, family, options.scenes, options.workers, stack)
        device = choose_device(options.device)  # once the processes that draw have begun
        store = TaughtStore(options.scenes, teacher.to(device), family, device)
        for number, sample in enumerate(samples, 1):
            store.add([sample])
            report(number, options.scenes, "images")
    torch.manual_seed(options.seed)
    report(0, 1, "prepare")
    prepared = prepare(encoder, learns=options.mode == "qat").to(device)
    if options.mode == "qat":
        store.teach(torch.float32, report)
        learn = partial(student_losses, prepared, teacher, family)
        losses = _learn(prepared, encoder, learn, store, options, report)
    else:
        losses = []
        with torch.no_grad():
            for done in range(0, len(store), options.batch_size):
                report(done, len(store), "ranges of activations")
                last = min(done + options.batch_size, len(store))
                prepared(store.images_of(torch.arange(done, last, device=device)))
    report(1, 1, "convert")
    with _fewer_patterns(learned=options.mode == "qat"):
        converted = convert_pt2e(prepared.to("cpu"))
    move_exported_model_to_eval(converted)
    drop_unused(converted)
    facts = {
        "backbone": found.backbone,
        "teacher": found.teacher,
        "student": weights,
        "side": found.side,
        "mode": options.mode,
        "images": found.taught_on if options.images is None else options.images.name,
        "losses": losses,
    }
    example = torch.zeros(2, 3, found.side, found.side)
    with whole_file(options.out) as temporary:
        program = torch.export.export(converted, (example,), dynamic_shapes=({0: _batch()},))
        program.example_inputs = None  # the zeros above would be in the file, 6.3 MB of 512 px
        torch.export.save(program, temporary, extra_files={_FACTS: json.dumps(facts)})
    return options.out


def _batch() -> Any:
    return torch.export.Dim("batch", min=1, max=4096)


def prepare(encoder: StudentEncoder, *, learns: bool) -> torch.fx.GraphModule:
    """The encoder as a graph with observers: convolutions and linear layers in int8, weights per channel.

    Batch norm is folded into the convolution before it. Additive attention stays in float.
    """
    from torchao.quantization.pt2e.quantize_pt2e import prepare_pt2e, prepare_qat_pt2e
    from torchao.quantization.pt2e.quantizer import x86_inductor_quantizer
    from torchao.quantization.pt2e.quantizer.x86_inductor_quantizer import (
        X86InductorQuantizer,
        get_default_x86_inductor_quantization_config,
    )

    class Quantizer(X86InductorQuantizer):  # type: ignore[misc]  # torchao has no types
        def annotate(self, model: torch.fx.GraphModule) -> torch.fx.GraphModule:
            """As published, but what stays in float has no annotation: folding batch norm for qat stumbles over it."""
            with _put(x86_inductor_quantizer, find_sequential_partitions=chains):
                super().annotate(model)
            for node in model.graph.nodes:
                note = node.meta.get("quantization_annotation")
                if note is not None and not note.input_qspec_map and note.output_qspec is None:
                    del node.meta["quantization_annotation"]
            return model

    example = torch.zeros(2, 3, encoder.img_size, encoder.img_size)
    encoder.train(learns).requires_grad_(learns)
    # strict: a ReLU that a block calls twice is then two, as the quantizer needs them
    graph = torch.export.export(encoder, (example,), dynamic_shapes=({0: _batch()},), strict=True).module()
    quantizer = Quantizer().set_global(get_default_x86_inductor_quantization_config(is_qat=learns))
    for name, module in encoder.named_modules():
        if isinstance(module, AdditiveAttention):
            quantizer.set_module_name_qconfig(name, None)
    with _fewer_patterns(learned=learns):
        return cast("torch.fx.GraphModule", (prepare_qat_pt2e if learns else prepare_pt2e)(graph, quantizer))


def chains(
    graph: torch.fx.GraphModule, kinds: Sequence[Any], include_functional_equivalent: bool = True, keep: Any = None
) -> list[tuple[Any, ...]]:
    """As torchao's find_sequential_partitions: parts of the graph of those kinds, each feeding the next, in its order.

    That one tries all combinations: 5 million for four blocks of CAS-ViT, with the third power of their number.
    """
    from torch.fx.passes.utils.source_matcher_utils import check_subgraphs_connected, get_source_partitions
    from torchao.quantization.pt2e.graph_utils import _get_matching_types

    found: list[tuple[Any, ...]] = [()]
    for kind in kinds:
        parts = get_source_partitions(graph.graph, _get_matching_types(kind), keep)
        following = [part for some in parts.values() for part in some]
        found = [
            (*chain, part)
            for chain in found
            for part in following
            if not chain or check_subgraphs_connected(chain[-1], part)
        ]
    return found


@contextlib.contextmanager
def _put(module: Any, **functions: Any) -> Iterator[None]:
    """Those functions stand in a module of torchao inside the block."""
    published = {name: getattr(module, name) for name in functions}
    vars(module).update(functions)
    try:
        yield
    finally:
        vars(module).update(published)


@contextlib.contextmanager
def _fewer_patterns(*, learned: bool) -> Iterator[None]:
    """torchao looks for convolutions of images with batch norm alone inside the block, and only where a model learns.

    It traces each pattern that it looks for: as published also those of three other convolutions, which no student has,
    and after training too, when batch norm has long been folded.
    """
    from torchao.quantization.pt2e import qat_utils

    def searching(published: Callable[..., Any]) -> Callable[..., Any]:
        def search(graph: torch.fx.GraphModule, convolution: Any, *rest: Any, **named: Any) -> Any:
            wanted = learned and convolution is torch.nn.functional.conv2d
            return published(graph, convolution, *rest, **named) if wanted else graph

        return search

    names = ("_fuse_conv_bn_qat_helper", "_fold_conv_bn_qat_helper")
    with _put(qat_utils, **{name: searching(getattr(qat_utils, name)) for name in names}):
        yield


_WRITTEN_EPS: Final = 1e-5  # by torchao, with momentum 0.1, into each batch norm that it rewrites


def keep_norms(prepared: torch.fx.GraphModule, encoder: StudentEncoder, *, folds: bool = False) -> None:
    """Give batch norms the eps and momentum of the encoder again, which torchao's rewrites lose.

    folds: converting writes that eps once more; what the encoder's is larger goes into the variance, which stays now.
    """
    norms = {name: module for name, module in encoder.named_modules() if isinstance(module, torch.nn.BatchNorm2d)}
    aten = torch.ops.aten
    for node in prepared.graph.nodes:
        if node.target == aten.batch_norm.default:
            norm = norms[node.args[3].target.removesuffix(".running_mean")]
            eps = _WRITTEN_EPS if folds else norm.eps
            node.args = (*node.args[:6], norm.momentum, eps, *node.args[8:])
            if folds:
                prepared.get_buffer(node.args[4].target).add_(norm.eps - eps)
        elif node.target == aten.add.Tensor and str(node.args[0].target).endswith(".running_var"):
            node.args = (node.args[0], norms[node.args[0].target.removesuffix(".running_var")].eps)
    prepared.recompile()


def _learn(
    prepared: torch.fx.GraphModule,
    encoder: StudentEncoder,
    losses_of: Callable[..., Losses],
    store: TaughtStore,
    options: QuantizeOptions,
    report: Report,
) -> list[float]:
    """Some more training with rounded values; returns the losses. Raises WorkloadError when one is not a number."""
    from torchao.quantization.pt2e import disable_observer, move_exported_model_to_eval, move_exported_model_to_train

    move_exported_model_to_train(prepared)
    keep_norms(prepared, encoder)
    optimizer = torch.optim.AdamW(prepared.parameters(), lr=options.rate)
    losses = []
    for step in range(options.steps):
        if step == int(options.steps * _NORM_FROZEN):
            move_exported_model_to_eval(prepared)
            keep_norms(prepared, encoder)
        if step == int(options.steps * _OBSERVED):
            prepared.apply(disable_observer)
        total = losses_of(*store.draw(options.batch_size, options.prompts)).total
        losses.append(round(float(total.detach()), 5))
        if not math.isfinite(losses[-1]):
            raise WorkloadError(f"step {step}: the loss is {losses[-1]}, expected a number. Try a lower --rate.")
        total.backward()
        torch.nn.utils.clip_grad_norm_(prepared.parameters(), 1.0)
        optimizer.step()
        optimizer.zero_grad()
        report(step + 1, options.steps, f"step {step + 1}, loss {losses[-1]:.3f}")
    keep_norms(prepared, encoder, folds=True)
    return losses


def drop_unused(graph: torch.fx.GraphModule) -> None:
    """Take out parameters and buffers that no node reads: torchao leaves the weights in float, four times as large."""
    used = {node.target for node in graph.graph.nodes if node.op == "get_attr"}
    tensors = [*graph.named_parameters(remove_duplicate=False), *graph.named_buffers(remove_duplicate=False)]
    for name, _ in tensors:
        if name not in used:
            holder, _, own = name.rpartition(".")
            delattr(graph.get_submodule(holder), own)


class Int8Encoder(torch.nn.Module):
    """A quantized encoder from its file, compiled: int8 products come from the compiler, which needs frozen weights."""

    def __init__(self, path: Path, side: int) -> None:
        super().__init__()
        require_torchao()
        facts = read_facts(path)
        if side != facts["side"]:
            raise OptionError(f"--int8 {path}: made for images of {facts['side']} px, found {side}. Leave one out.")
        self.img_size = side
        self.program = torch.compile(torch.export.load(path).module(), dynamic=False)

    def forward(self, images: Tensor) -> Any:
        """As the student's encoder."""
        return self.program(images)


def read_facts(path: Path) -> dict[str, Any]:
    """What a quantized student says of itself; raises CheckpointError."""
    require_file(path, "a student in int8", _HINT)
    try:
        with zipfile.ZipFile(path) as archive:
            name = next((name for name in archive.namelist() if name.endswith(f"/{_FACTS}")), _FACTS)
            facts: dict[str, Any] = json.loads(archive.read(name))
    except (zipfile.BadZipFile, LookupError, ValueError, OSError) as error:
        raise CheckpointError(f"{path}: cannot be read ({error}), expected a student in int8. {_HINT}") from error
    return facts


@contextlib.contextmanager
def frozen() -> Iterator[None]:
    """The compiler takes weights for constants inside the block."""
    from torch._inductor import config

    with config.patch(freezing=True):
        yield


def put_int8(sam: Any, path: Path) -> tuple[Any, str]:
    """Give a student its quantized encoder; also its "checkpoint:<sha256>". Raises WorkloadError on a GPU."""
    if sam.device.type != "cpu":
        raise WorkloadError(f"int8: found {sam.device}, expected a CPU. Use --device cpu.")
    sam.image_encoder = Int8Encoder(path, int(sam.image_encoder.img_size))
    return sam, KIND.weights(path, None)
