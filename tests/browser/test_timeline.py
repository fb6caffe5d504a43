"""The timeline in a real browser: search, links, lanes, arrows, keys and fingers."""

from __future__ import annotations

import re
from collections.abc import Iterator
from urllib.parse import parse_qs, urlparse

import pytest
from playwright.sync_api import Browser, Locator, Page, expect

from tests.browser.drive import becomes, marked, new_page, place, settle, the_canvas, until, view, width

pytestmark = pytest.mark.browser


@pytest.fixture(scope="module")
def page(browser: Browser) -> Iterator[Page]:
    """One page for all of them: each goes to an address of its own."""
    page = new_page(browser)
    failures: list[str] = []
    page.context.on("weberror", lambda error: failures.append(str(error.error)))
    yield page
    page.context.close()
    assert failures == []


def opened(page: Page, url: str, query: str = "") -> Locator:
    """The canvas of the run `gpu`, once it is drawn and nothing above it moves any more."""
    page.goto(f"{url}/regions?run=gpu{query}")
    settle(page)
    canvas = the_canvas(page)
    expect(canvas).to_have_attribute("data-rows", re.compile("[1-9]"))
    return canvas


def query(page: Page) -> dict[str, list[str]]:
    return parse_qs(urlparse(page.url).query)


def test_a_link_opens_the_view_the_lanes_and_the_selection(page: Page, url: str) -> None:
    canvas = opened(page, url, "&t0=90000&t1=720000&sel=100000-700000&by=region")
    becomes(page, lambda: view(canvas), (90_000, 720_000))
    expect(canvas).to_have_attribute("data-by", "region")
    expect(canvas).to_have_attribute("data-range", "100000,700000")
    expect(page.get_by_text("Kernels in the selected 600.00 µs")).to_be_visible()
    page.get_by_title("Show everything (F)").click()
    expect(page).to_have_url(re.compile(r"^(?!.*t0=).*sel=100000-700000"))
    canvas.focus()
    page.keyboard.press("f")  # fits the selection
    expect(page).to_have_url(re.compile(r"t0="))
    until(page, lambda: 0 < view(canvas)[0] < 100_000 < 700_000 < view(canvas)[1] < 800_000)
    fitted = view(canvas)
    kept = query(page)
    assert kept["run"] == ["gpu"] and kept["sel"] == ["100000-700000"]
    canvas = opened(page, url, "&" + urlparse(page.url).query)  # the address is the link
    becomes(page, lambda: view(canvas), pytest.approx(fitted, abs=1))
    canvas.focus()
    page.keyboard.press("Escape")
    expect(page).to_have_url(re.compile(r"^(?!.*sel=)"))
    expect(page.get_by_text("Kernels of all regions")).to_be_visible()


@pytest.mark.parametrize(
    "link", ["&t0=9&t1=5&sel=9-5&by=x", "&t0=a&t1=b&sel=%3Cb%3E-1", "&sel=1-" + "9" * 30], ids=("turned", "text", "far")
)
def test_links_that_make_no_sense_show_everything(page: Page, url: str, link: str) -> None:
    canvas = opened(page, url, link)
    until(page, lambda: view(canvas)[1] >= 1_300_000)
    assert marked(canvas) == []
    expect(canvas).to_have_attribute("data-by", "stream")


def test_search_counts_marks_and_steps(page: Page, url: str) -> None:
    canvas = opened(page, url)
    page.keyboard.press("/")
    box = page.get_by_label("Search spans by name")
    expect(box).to_be_focused()
    box.fill("ENCODER")  # on the GPU and on the host
    found = page.locator(".tl .found")
    expect(found).to_have_text("1 of 2")
    box.press("Enter")
    expect(found).to_have_text("2 of 2")
    box.press("Enter")
    expect(found).to_have_text("1 of 2")
    box.press("Shift+Enter")
    expect(found).to_have_text("2 of 2")
    box.fill("softmax")
    expect(found).to_have_text("1 of 1")
    expect(canvas).to_have_attribute("data-range", "700000,1000000")  # what is found is selected
    expect(page.locator(".tl .details")).to_contain_text("softmax")
    expect(box).to_be_focused()
    hits = "c => c.closest('.tl').timeline.tile.rows.map(r => [...r.hit ?? []].reduce((a, b) => a + b, 0)).join()"
    becomes(page, lambda: sum(int(part) for part in str(canvas.evaluate(hits)).split(",")), 2)  # and its stretch
    box.fill("<b>nothing")
    expect(found).to_have_text("no match")
    box.press("Escape")
    expect(found).to_have_text("")
    expect(canvas).to_be_focused()


def test_a_kernel_picked_shows_its_launch_and_an_arrow_from_it(page: Page, url: str) -> None:
    canvas = opened(page, url)
    canvas.click(position=place(canvas, "Stream 7", 400_000))
    details = page.locator(".tl .details")
    expect(details).to_contain_text("gemm")
    expect(details).to_contain_text("Launched bycudaLaunchKernel, 1.00 µs, thread 1")
    expect(details).to_contain_text("Operatoraten::linear")
    expect(canvas).to_have_attribute("data-arrows", "1")
    expect(page.get_by_text("Kernels in the selected 600.00 µs")).to_be_visible()
    canvas.focus()
    page.keyboard.press(".")
    expect(details).to_contain_text("softmax")
    expect(canvas).to_have_attribute("data-range", "700000,1000000")
    page.keyboard.press(",")
    expect(details).to_contain_text("gemm")
    page.keyboard.press("Escape")
    expect(details).to_be_empty()
    page.mouse.move(5, 5)  # off the kernel, whose arrow shows while the pointer rests on it
    expect(canvas).to_have_attribute("data-arrows", "0")


def test_a_launch_picked_points_at_what_it_launched(page: Page, url: str) -> None:
    canvas = opened(page, url, "&t0=0&t1=120000")
    canvas.click(position=place(canvas, "Launches, thread 1", 30_500))
    expect(page.locator(".tl .details")).to_contain_text("Launched1 GPU events, 600.00 µs")
    expect(canvas).to_have_attribute("data-arrows", "1")


def test_lanes_are_grouped_hidden_and_folded(page: Page, url: str) -> None:
    canvas = opened(page, url)
    expect(canvas).to_have_attribute("data-lanes", "7")
    said = page.locator("#tl-lanes tbody tr").all_inner_texts()  # the picture as a table
    assert [" ".join(line.split()) for line in said[1:3]] == ["Regions on GPUs 3 1.200 ms", "Stream 7 3 1.000 ms"]
    page.get_by_label("Lanes of GPU work").select_option("region")
    expect(canvas).to_have_attribute("data-by", "region")
    expect(canvas).to_have_attribute("data-lanes", "8")  # image encoder and mask decoder for one stream
    for by, label in (("thread", "From thread 1"), ("operator", "aten::linear"), ("stream", "Stream 7")):
        page.get_by_label("Lanes of GPU work").select_option(by)
        expect(canvas).to_have_attribute("data-by", by)
        labels = canvas.evaluate("c => c.closest('.tl').timeline.lanes.tracks.map(t => t.label)")
        assert label in labels
    expect(canvas).to_have_attribute("data-rows", "9")
    page.get_by_label("Launches", exact=True).uncheck()
    expect(canvas).to_have_attribute("data-lanes", "6")
    expect(canvas).to_have_attribute("data-rows", "8")
    canvas.click(position={**place(canvas, "Regions on GPUs", 0), "x": 40})
    expect(canvas).to_have_attribute("data-rows", "7")


def test_colours_say_region_or_kind_of_work(page: Page, url: str) -> None:
    canvas = opened(page, url)
    legend = page.locator(".tl .legend")
    expect(legend).to_contain_text("image encoder")
    hue = "c => { const one = c.closest('.tl').timeline;"
    hue += " return one.painter.colour(one.meta.labels.findIndex(l => l[0] === 'gpu' && l[1] === 'softmax')); }"
    before = canvas.evaluate(hue)
    page.get_by_label("Colour of spans").select_option("work")
    expect(legend).to_contain_text("matrix product")
    assert canvas.evaluate(hue) != before
    expect(page).to_have_url(re.compile("colour=work"))
    canvas = opened(page, url, "&colour=operator")
    expect(legend.locator("li")).to_have_text(["matrix product", "other", "no work"])  # all of linear's kernels


def test_several_runs_are_drawn_on_one_clock(page: Page, url: str) -> None:
    page.goto(f"{url}/compare?run=gpu&with=bare.json.gz&view=Timeline")
    settle(page)
    canvas = the_canvas(page)
    lanes = "c => c.closest('.tl').timeline.lanes?.tracks.map(track => track.label) ?? []"
    until(page, lambda: {"A · Stream 7", "B · Stream 7"} <= set(canvas.evaluate(lanes)))
    start = "c => c.closest('.tl').timeline.meta.start"
    assert canvas.evaluate(start) == 0  # both begin with the region that they are aligned at
    canvas.click(position=place(canvas, "B · Stream 7", 600_000))
    until(page, lambda: len(marked(canvas)) == 2)
    expect(page.locator(".tl .details")).to_contain_text("Launched by")
    page.get_by_role("link", name="Open on the Timeline page").click()
    expect(page.locator("h1")).to_have_text(re.compile("^Timeline"))
    settle(page)
    assert query(page)["beside"] == ["0:bare.json.gz"]
    until(page, lambda: {"A · Stream 7", "B · Stream 7"} <= set(canvas.evaluate(lanes)))
    expect(page.get_by_text("Kernels in all of A")).to_be_visible()


def test_keys_move_and_help_explains(page: Page, url: str) -> None:
    canvas = opened(page, url)
    canvas.focus()
    whole = width(canvas)
    page.keyboard.press("w")
    page.keyboard.press("w")
    becomes(page, lambda: width(canvas), pytest.approx(whole * 0.49, rel=0.1))
    before, _ = view(canvas)
    page.keyboard.press("d")
    until(page, lambda: view(canvas)[0] > before)
    page.keyboard.press("?")
    expect(page.get_by_text("fit the selection, again for everything")).to_be_visible()
    page.keyboard.press("Escape")
    expect(page.get_by_text("fit the selection, again for everything")).to_be_hidden()


def test_arrows_and_enter_walk_from_span_to_span(page: Page, url: str) -> None:
    canvas = opened(page, url)
    details = page.locator(".tl .details")
    canvas.focus()
    for pressed, name in (
        ("Enter", "gemm"),  # the first of the stream
        ("ArrowRight", "softmax"),
        ("Enter", "cudaLaunchKernel"),  # its launch
        ("ArrowUp", "aten::linear"),
        ("ArrowDown", "cudaLaunchKernel"),
        ("ArrowLeft", "cudaLaunchKernel"),
        ("Enter", "gemm"),
    ):
        page.keyboard.press(pressed)
        expect(details.locator(".head")).to_contain_text(name)


def test_the_wheel_scrolls_the_page_unless_ctrl_or_the_canvas_asks_for_it(page: Page, url: str) -> None:
    canvas = opened(page, url)
    whole, scrolled = width(canvas), "document.querySelector('[data-testid=stMain]').scrollTop"
    canvas.hover(position=place(canvas, "Stream 7", 400_000))
    page.mouse.wheel(0, 120)
    until(page, lambda: page.evaluate(scrolled) > 0)
    assert width(canvas) == whole
    page.mouse.wheel(0, -2_000)
    becomes(page, lambda: page.evaluate(scrolled), 0)
    page.keyboard.down("Control")
    page.mouse.wheel(0, -120)
    page.keyboard.up("Control")
    until(page, lambda: width(canvas) < whole)
    canvas.focus()
    page.mouse.wheel(0, 2_000)
    until(page, lambda: width(canvas) >= whole)
    assert page.evaluate(scrolled) == 0


def test_back_undoes_a_zoom(page: Page, url: str) -> None:
    canvas = opened(page, url)
    whole = view(canvas)
    canvas.focus()
    # in quick succession, whatever else the machine does: one zoom
    canvas.evaluate("c => { for (let i = 0; i < 3; i++) c.dispatchEvent(new KeyboardEvent('keydown', { key: 'w' })); }")
    expect(page).to_have_url(re.compile("t0="))
    page.keyboard.press("d")  # moving on is no place to come back to
    canvas.dblclick(position=place(canvas, "Stream 7", 720_000))
    until(page, lambda: width(canvas) < 350_000)
    becomes(
        page, lambda: float(query(page)["t1"][0]) - float(query(page)["t0"][0]), pytest.approx(width(canvas), abs=1)
    )
    page.go_back()
    becomes(page, lambda: width(canvas), pytest.approx((whole[1] - whole[0]) * 0.343, rel=0.1))
    page.go_back()
    becomes(page, lambda: view(canvas), whole)
    page.go_forward()
    becomes(page, lambda: width(canvas), pytest.approx((whole[1] - whole[0]) * 0.343, rel=0.1))


def test_a_link_to_a_span_shows_its_facts_and_arrow(page: Page, url: str) -> None:
    canvas = opened(page, url)
    canvas.click(position=place(canvas, "Stream 7", 400_000))
    expect(page).to_have_url(re.compile("span=0"))
    canvas = opened(page, url, "&" + urlparse(page.url).query)
    expect(page.locator(".tl .details")).to_contain_text("Launched bycudaLaunchKernel, 1.00 µs, thread 1")
    expect(canvas).to_have_attribute("data-arrows", "1")
    copied = "navigator.clipboard.writeText = text => { window.copied = text; }"
    page.evaluate(copied)
    page.locator(".tl .details .copy").first.click()
    becomes(page, lambda: page.evaluate("window.copied"), "gemm")


def test_two_fingers_pinch(page: Page, url: str) -> None:
    canvas = opened(page, url)
    whole = width(canvas)
    canvas.evaluate(
        """canvas => {
          const box = canvas.getBoundingClientRect();
          canvas.setPointerCapture = () => {};
          const touch = (type, pointerId, x) => canvas.dispatchEvent(new PointerEvent(type,
            { pointerId, pointerType: 'touch', clientX: box.x + x, clientY: box.y + 80, button: 0, bubbles: true }));
          touch('pointerdown', 1, 500); touch('pointerdown', 2, 600);
          touch('pointermove', 1, 450); touch('pointermove', 2, 650);
          touch('pointerup', 1, 450); touch('pointerup', 2, 650);
        }"""
    )
    becomes(page, lambda: width(canvas), pytest.approx(whole / 2, rel=0.05))
