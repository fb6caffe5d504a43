"""Ten questions of a tired engineer, each answered within two clicks from the page of runs or of a run's overview."""

from __future__ import annotations

import re
import shutil
from collections.abc import Iterator

import pytest
from playwright.sync_api import Browser, Page, expect

from tests.app.samples import CHECKOUT, Address, make_job, serving
from tests.browser.drive import new_page, settle
from tests.builders import TraceBuilder

pytestmark = pytest.mark.browser
MOST_CLICKS = 2
SAMPLES = CHECKOUT / "traces"
EAGER = "h200-vit_b-eager-fp32"


@pytest.fixture(scope="module")
def address(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Address]:
    """The samples, the two ranks of a job, a trace with Python stacks and one of five steps, one of them long."""
    root = tmp_path_factory.mktemp("tasks") / "traces"
    for name in (EAGER, "h200-vit_b-bf16-compile", "h200-vit_small-serve"):
        shutil.copytree(SAMPLES / name, root / name)
    make_job(root)
    steps, stacks = TraceBuilder(), TraceBuilder()
    for step, longer in enumerate((0, 0, 50, 0, 0)):
        steps.region(f"ProfilerStep#{step}", 1000 * step, 200 + longer)
        steps.region("encoder", 1000 * step + 5, 100 + longer)
        steps.launch(step + 1, 1000 * step + 10)
        steps.kernel(step + 1, 1000 * step + 20, 100 + longer, name="gemm")
    steps.write(root / "steps.json.gz")
    stacks.span("python_function", "train.py(41): forward", 0, 100)
    stacks.launch(1, 10)
    stacks.kernel(1, 20, 300, name="gemm")
    stacks.write(root / "stacks.json.gz")
    with serving(root, "--no-token") as found:
        yield found


class Tired:
    """Someone who starts at the overview of a run and counts the clicks."""

    def __init__(self, page: Page, address: str) -> None:
        self.page, self.address, self.clicks = page, address, 0

    def opens(self, run: str) -> None:
        """The overview of a run, as the page of runs links it."""
        self.clicks = 0
        self.page.goto(f"{self.address}/overview?run={run}")
        settle(self.page)

    def goes_to(self, name: str) -> None:
        """Clicks on a page in the sidebar."""
        self.page.get_by_test_id("stSidebar").get_by_role("link", name=name, exact=True).click()
        expect(self.page.locator("h1").first).to_have_text(re.compile(f"^{name}"))
        self.clicks += 1
        settle(self.page)

    def reads(self, text: str) -> None:
        """Finds that text, within two clicks."""
        expect(self.page.get_by_test_id("stMain")).to_contain_text(re.compile(text))
        assert self.clicks <= MOST_CLICKS


@pytest.fixture(scope="module")
def tired(browser: Browser, address: Address) -> Iterator[Tired]:
    page = new_page(browser)
    yield Tired(page, address)
    page.context.close()


def test_which_region_is_slowest_and_why(tired: Tired) -> None:
    tired.opens(EAGER)
    tired.reads("image encoder accounts for 91 % of the GPU's work and is GPU-bound")
    tired.reads("matrix products 63 %")


def test_which_line_launches_the_longest_kernel(tired: Tired) -> None:
    tired.opens("stacks.json.gz")
    tired.goes_to("Kernels")
    tired.reads("gemm")
    expect(tired.page.locator("td", has_text="train.py(41): forward")).not_to_have_count(0)


def test_what_held_memory_at_the_peak(tired: Tired) -> None:
    tired.opens(EAGER)
    tired.goes_to("Memory")
    tired.reads("At its peak 5.14 GiB were allocated inside image encoder")
    expect(tired.page.locator("td", has_text="add_decomposed_rel_pos")).not_to_have_count(0)


def test_which_step_is_an_outlier_and_why(tired: Tired) -> None:
    tired.opens("steps.json.gz")
    tired.goes_to("Steps")
    tired.reads("5 steps, the median takes 200.00 µs; 1 outlier. Longest: step 2")
    tired.reads("encoder")


def test_is_b_faster_than_a_and_is_that_noise(tired: Tired) -> None:
    tired.opens(EAGER)
    tired.goes_to("Compare")
    tired.reads(r"B is 3\.71 × faster than A: 80\.517 → 21\.699 ms .* \(noise ± 1\.202 ms\)")


def test_who_holds_the_other_ranks_up(tired: Tired) -> None:
    tired.opens("job/rank0.json.gz")
    tired.goes_to("Ranks")
    tired.reads("[Rr]ank 1")


def test_what_would_cuda_graphs_gain(tired: Tired) -> None:
    tired.opens(EAGER)
    tired.reads("Launch-bound: the GPU waits for launches")
    tired.reads(r"up to *3\.457 ms of each batch")
    tired.reads("CUDA graphs")


def test_which_request_was_slowest_and_what_did_it_wait_for(tired: Tired) -> None:
    tired.opens("h200-vit_small-serve")
    tired.goes_to("Requests")
    tired.reads("the slowest took .* as long. The slowest one spent .* of it in")


def test_is_this_layer_worth_batching(tired: Tired) -> None:
    tired.opens(EAGER)
    tired.goes_to("Layers")
    tired.reads("From batch 1 to 8 the time per item goes from")


def test_can_i_trust_this_file(tired: Tired) -> None:
    tired.opens(EAGER)
    tired.goes_to("Doctor")
    tired.reads("Whole: all .* events could be read")
