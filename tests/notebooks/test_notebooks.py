"""The notebooks run from top to bottom on a machine without a GPU, define nothing, and are kept without outputs."""

from __future__ import annotations

import ast
import asyncio
import json
import re
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest

FOLDER = Path(__file__).parents[2] / "notebooks"
HANGS_S = 1800  # as long as no machine takes
# ladders in the kernel itself
QUICK = f"""import sys
sys.path.insert(0, {str(FOLDER.parent)!r})
from profiler_kit.workload import ceilings, ladder
from tests.workload.rows import LOW_CEILINGS, row_here
vars(ceilings).update(LOW_CEILINGS)
ladder._process = row_here
"""
NAMES = ("01_capture", "02_regions", "03_memory", "04_batch_size", "05_compare", "06_your_own_model")


async def run_all(names: Sequence[str], sockets: Path) -> dict[str, Any]:
    """The notebooks with their outputs; a cell that fails raises.

    They follow each other in one kernel, which forgets all names in between: most of a kernel's time is its start.
    """
    with pytest.MonkeyPatch.context() as patch:
        patch.setitem(sys.modules, "rfc3987_syntax", None)  # a grammar of addresses, which takes two seconds
        import nbformat
        from nbclient import NotebookClient
    from traitlets.config import Config

    notebooks = {name: nbformat.read(FOLDER / f"{name}.ipynb", as_version=4) for name in names}
    client = NotebookClient(
        nbformat.v4.new_notebook(), timeout=HANGS_S, startup_timeout=HANGS_S, kernel_name="python3",
        resources={"metadata": {"path": str(FOLDER)}},
        # not ports, which are free now and may be taken when the kernel binds them
        config=Config(KernelManager={"transport": "ipc", "ip": str(sockets)}),
    )  # fmt: skip
    async with client.async_setup_kernel():
        for notebook in notebooks.values():
            forget = nbformat.v4.new_code_cell(QUICK + "get_ipython().reset()")
            client.nb = nbformat.v4.new_notebook(cells=[forget])
            await client.async_execute_cell(forget, 0)
            client.nb = notebook
            client.reset_execution_trackers()
            for index, cell in enumerate(notebook.cells):
                await client.async_execute_cell(cell, index, execution_count=client.code_cells_executed + 1)
    return notebooks


@pytest.fixture(scope="module")
def executed(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    """All of them."""
    return asyncio.run(run_all(NAMES, tmp_path_factory.mktemp("kernel") / "k"))


def outputs(notebook: Any, kind: str) -> Sequence[str]:
    found = []
    for cell in notebook.cells:
        for output in cell.get("outputs", ()):
            data = output.get("data", {})
            found += ["".join(data[kind])] if kind in data else []
    return found


@pytest.mark.parametrize("name", NAMES)
def test_outputs_are_stripped_and_nothing_is_defined(name: str) -> None:
    cells = json.loads((FOLDER / f"{name}.ipynb").read_text(encoding="utf-8"))["cells"]
    for cell in cells:
        if cell["cell_type"] == "code":
            assert cell["outputs"] == [] and cell["execution_count"] is None
            tree = ast.parse("".join(cell["source"]))
            assert not [node for node in ast.walk(tree) if isinstance(node, DEFINITIONS)]
    assert cells[0]["cell_type"] == "markdown" and "".join(cells[0]["source"]).startswith("# ")


DEFINITIONS = (ast.FunctionDef, ast.AsyncFunctionDef, ast.ClassDef)


@pytest.mark.parametrize("name", NAMES)
def test_it_runs_from_top_to_bottom(executed: dict[str, Any], name: str) -> None:
    notebook = executed[name]
    code = [cell for cell in notebook.cells if cell.cell_type == "code"]
    assert [cell.execution_count for cell in code] == list(range(1, len(code) + 1))
    said = [output.text for cell in code for output in cell.outputs if output.get("name") == "stderr"]
    # what memory_runner says on a machine without a GPU is for the reader; nothing else may be
    assert [line for text in said for line in text.splitlines() if not line.startswith("memory_runner: ")] == []
    shown = outputs(notebook, "text/html")
    assert shown and not re.search(r"(src|href)=.?https?://|url\(", "".join(shown))
    assert len("".join(shown)) < 1_500_000


def test_the_story_of_each_is_true(executed: dict[str, Any]) -> None:
    """What the prose says of the samples, checked in what the cells show."""
    regions = "".join(outputs(executed["02_regions"], "text/html"))
    assert "host-bound" in regions and "Matrix products in fp32 without tensor cores" in regions
    memory = "".join(outputs(executed["03_memory"], "text/plain"))
    assert "5,264 MiB" in memory or "5,265 MiB" in memory
    layers = "".join(outputs(executed["04_batch_size"], "text/html"))
    assert "prompt_encoder" in layers and "Block · global" in layers
    compared = "".join(outputs(executed["05_compare"], "text/html"))
    assert "B is 3.71 × faster than A" in compared and "srcdoc" in compared
    own = "".join(outputs(executed["06_your_own_model"], "text/html"))
    assert "ResNet · no optimizations · float32 · batch 4 · 64 px" in own and "transformer · bf16 · bfloat16" in own
    assert "relative_error" in own and "2 sequences" in own
    captured = "".join(outputs(executed["01_capture"], "text/plain"))
    assert "layers.parquet" in captured and "trace.json.gz" in captured


def test_every_notebook_is_tested() -> None:
    assert {path.stem for path in FOLDER.glob("*.ipynb")} == set(NAMES)
