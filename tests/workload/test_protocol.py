"""A user's workload: what it may be, what it gets for nothing, and one line for everything that is wrong with it."""

from __future__ import annotations

import dataclasses
import math
from pathlib import Path

import pytest
import torch

from profiler_kit.errors import OptionError, WorkloadError
from profiler_kit.workload.optimizations import GENERAL, LadderRow
from profiler_kit.workload.protocol import Bench, Workload, load_workload, make_model, relative_error_and_cosine

CPU = torch.device("cpu")
MODEL, BATCH, STEP = (
    "def model(device): return torch.nn.Linear(3, 2)",
    "def batch(size, device): return torch.randn(size, 3)",
    "def step(model, batch): return model(batch)",
)
EXPECTED = "expected model(device), batch(size, device) and step(model, batch)"
OUTPUT = "a tensor, or a list, tuple, dict or dataclass of tensors"


def write(folder: Path, *lines: str, name: str = "mine.py") -> str:
    (folder / name).write_text("import torch\n" + "\n".join(lines) + "\n")
    return str(folder / name)


def as_class(*lines: str) -> str:
    return "\n".join(["class workload:", *(f"    {line}" for line in lines)])


def problem(spec: str, batch_size: int = 2) -> str:
    """What is said when the workload is loaded and run once."""
    with pytest.raises(WorkloadError) as caught:
        run(load_workload(spec), batch_size)
    assert "\n" not in str(caught.value)
    return str(caught.value)


def run(workload: Workload, batch_size: int = 2) -> object:
    bench = Bench(workload, make_model(workload, CPU), CPU, batch_size)
    return bench.run(bench.item(0))


@pytest.mark.parametrize(
    ("text", "name"),
    [
        ("\n".join((MODEL, BATCH, STEP)), ""),  # the module's own functions
        (as_class(MODEL, BATCH, STEP), ":workload"),
        (as_class(*(f"@staticmethod\n    {line}" for line in (MODEL, BATCH, STEP))), ""),
        (as_class(*(line.replace("(", "(self, ", 1) for line in (MODEL, BATCH, STEP))), ":workload"),
        (as_class(*(line.replace("(", "(self, ", 1) for line in (MODEL, BATCH, STEP))) + "\nit = workload()", ":it"),
        ("from types import SimpleNamespace as N\n" + "\n".join((MODEL, BATCH, STEP))
         + "\ndef made(): return N(model=model, batch=batch, step=step)", ":made"),
    ],
)  # fmt: skip
def test_what_a_workload_may_be(tmp_path: Path, text: str, name: str) -> None:
    spec = write(tmp_path, text) + name
    workload = load_workload(spec, {"seed": 3})
    output = run(workload)
    assert isinstance(output, torch.Tensor) and output.shape == (2, 2) and not output.requires_grad
    assert torch.equal(output, run(load_workload(spec, {"seed": 3})))  # the same weights and input each time
    assert not torch.equal(output, run(load_workload(spec, {"seed": 4})))
    assert workload.name == (name[1:] if name in (":it", ":made") else "mine")
    assert workload.facts() == {"spec": spec, "unit": "items"} and workload.optimizations is GENERAL


def test_a_module_of_the_current_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    write(tmp_path, MODEL, BATCH, STEP, name="my_own_module_of_models.py")
    assert load_workload("my_own_module_of_models").name == "my_own_module_of_models"


def test_what_else_it_may_say(tmp_path: Path) -> None:
    own = (
        "from profiler_kit.workload.optimizations import Optimization",
        as_class(
            "name, unit, weights, train, image_size = 'net', 'rows', 'random', True, 8",
            "optimizations = ['bf16', Optimization('twice', '', lambda model: torch.nn.Sequential(model))]",
            MODEL, BATCH, STEP,
            "def agreement(mine, base): return {'same': 1.0}",
            "def at_image_size(side): return workload",
        ),
    )  # fmt: skip
    workload = load_workload(write(tmp_path, *own), {"seed": 5})
    assert (workload.name, workload.unit, workload.weights, workload.image_size) == ("net", "rows", "random:5", 8)
    assert list(workload.optimizations) == ["bf16", "twice"] and workload.image_step == 1
    assert workload.ladder(CPU) == (LadderRow("fp32"), LadderRow("bf16", ("bf16",), alternative=True))
    assert workload.agreement(1, 2) == {"same": 1.0}
    assert run(workload).requires_grad  # type: ignore[attr-defined]
    assert workload.at_image_size(64).name == "net"


def test_one_line_for_what_cannot_be_loaded(tmp_path: Path) -> None:
    spec = write(tmp_path, MODEL, BATCH)
    assert problem(f"{tmp_path}/no.py:workload") == (
        f"{tmp_path}/no.py: no such file, expected a Python file with a workload. Write FILE.py:NAME."
    )
    (tmp_path / "mine.ipynb").write_text("{}")
    for other in (tmp_path / "mine.ipynb", tmp_path):
        assert problem(f"{other}:workload") == (
            f"{other}: not a Python file, expected one with a workload, or a module's name. Write FILE.py:NAME or "
            "package.module:NAME."
        )
    assert problem(f"{spec}:workload") == (
        f"{spec}: no 'workload' in it, found torch, model, batch; expected a workload with model, batch and step. "
        "Name it: FILE.py:NAME."
    )
    assert problem(spec) == f"{spec}: no step in it (found model, batch), {EXPECTED}."
    broken = write(tmp_path, "", "import not_a_package_of_anyone", name="broken.py")
    assert problem(broken) == (
        f"{broken}: cannot be imported (ModuleNotFoundError: No module named 'not_a_package_of_anyone'; line 3), "
        f"expected a module that defines a workload. Try: python {broken}"
    )
    wrong = write(tmp_path, "def f(:", name="wrong.py")
    assert problem(wrong) == (
        f"{wrong}: cannot be imported (SyntaxError: invalid syntax; line 2), expected a module that defines a "
        f"workload. Try: python {wrong}"
    )
    script = write(tmp_path, "", "import sys; sys.exit(2)", name="script.py")  # as argparse does
    assert problem(script).startswith(f"{script}: cannot be imported (SystemExit: 2; line 3), expected a module")
    assert problem("not_a_package_of_anyone.mine:workload") == (
        "not_a_package_of_anyone.mine: cannot be imported (ModuleNotFoundError: No module named "
        "'not_a_package_of_anyone'), expected a module that defines a workload. Try: "
        'python -c "import not_a_package_of_anyone.mine"'
    )


def test_one_line_for_what_is_lacking(tmp_path: Path) -> None:
    spec = write(tmp_path, as_class(MODEL)) + ":workload"
    assert problem(spec) == f"{spec}: no batch and no step in it (found model), {EXPECTED}."
    spec = write(tmp_path, "workload = 3", name="three.py")
    assert problem(spec) == f"{spec}: no model and no batch and no step in it (found none of them), {EXPECTED}."
    spec = write(tmp_path, as_class(MODEL, BATCH, STEP, "layers = 12"), name="layers.py")
    assert problem(spec) == f"{spec}: layers is int, expected a method. Choose another name for it."
    spec = write(tmp_path, as_class(MODEL, BATCH, STEP, "optimizations = ['int4']"), name="int4.py")
    assert problem(spec) == f"{spec}: optimizations lists 'int4', expected names from {', '.join(GENERAL)}."
    spec = write(tmp_path, "def workload(): raise ValueError('not today')", name="raises.py")
    assert problem(spec) == f"{spec}: workload() failed (ValueError: not today; line 2), {EXPECTED}."


def test_one_line_for_what_fails_when_it_runs(tmp_path: Path) -> None:
    spec = write(tmp_path, "def model(device): return [1]", BATCH, STEP, name="list.py")
    assert problem(spec) == f"{spec}: model(device) returned list, expected a torch.nn.Module."
    spec = write(tmp_path, MODEL, "def batch(size): return 1", STEP, name="batch.py")
    assert problem(spec) == (
        f"{spec}: batch(size, device) failed (TypeError: batch() takes 1 positional argument but 2 were given), "
        "expected a batch of 2 for cpu."
    )
    spec = write(tmp_path, MODEL, "def batch(size, device): return torch.randn(size, 4)", STEP, name="shape.py")
    assert problem(spec) == (
        f"{spec}: step(model, batch) failed (RuntimeError: mat1 and mat2 shapes cannot be multiplied (2x4 and 3x2); "
        f"line 4), expected it to run one batch and return {OUTPUT}."
    )
    spec = write(tmp_path, MODEL, BATCH, "def step(model, batch): model(batch)", name="none.py")
    assert problem(spec) == f"{spec}: step(model, batch) returned NoneType, expected {OUTPUT}."


def test_out_of_memory_is_not_taken_for_a_fault_of_the_step(tmp_path: Path) -> None:
    spec = write(tmp_path, MODEL, BATCH, "def step(model, batch): return torch.empty(1 << 60, dtype=torch.uint8)")
    with pytest.raises(RuntimeError, match="DefaultCPUAllocator"):
        run(load_workload(spec))


def test_without_at_image_size(tmp_path: Path) -> None:
    spec = write(tmp_path, MODEL, BATCH, STEP)
    with pytest.raises(OptionError) as caught:
        load_workload(spec).at_image_size(64)
    assert str(caught.value) == f"--study image-size: {spec} has no at_image_size(side). Choose other studies."


@dataclasses.dataclass
class Answer:
    """An output in a form of its own."""

    scores: torch.Tensor
    more: dict[str, list[torch.Tensor]]


def test_agreement_of_nested_outputs() -> None:
    def answer(*values: float) -> Answer:
        return Answer(torch.tensor(values[:2]), {"x": [torch.tensor(values[2:])]})

    base = answer(3.0, 0.0, 4.0)
    assert relative_error_and_cosine(base, base) == {"relative_error": 0.0, "cosine": 1.0}
    found = relative_error_and_cosine(answer(3.0, 5.0, 4.0), base)  # off by 5 of 5, at 45 degrees
    assert found["relative_error"] == pytest.approx(1.0) and found["cosine"] == pytest.approx(math.sqrt(0.5))
    assert relative_error_and_cosine(answer(math.nan, 0.0, 1.0), base) == {"relative_error": None, "cosine": None}
    assert relative_error_and_cosine(base, answer(0.0, 0.0, 0.0)) == {"relative_error": None, "cosine": None}
    bits = torch.tensor([True, False])
    assert relative_error_and_cosine([bits], (bits,))["cosine"] == pytest.approx(1.0)
    with pytest.raises(WorkloadError) as caught:
        relative_error_and_cosine([torch.ones(2)], [torch.ones(3)])
    assert str(caught.value) == "output: found tensors of shapes [(2,)], expected those of the baseline, [(3,)]."
