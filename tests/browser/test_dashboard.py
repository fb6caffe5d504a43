"""The dashboard in a real browser: every page draws, the timeline answers, nothing leaves the machine."""

from __future__ import annotations

import gzip
import os
import re
from collections.abc import Iterator
from pathlib import Path
from urllib.parse import quote, urlparse

import pytest
from playwright.sync_api import Browser, Page, expect

from profiler_kit.load.discover.runs import key_of
from profiler_kit.trace import load_trace
from tests.app.samples import CHECKOUT, Address, make_job, serving
from tests.builders import TraceBuilder
from tests.ladders import write_ladder

pytestmark = pytest.mark.browser
PAGES = sorted(file.stem for file in (CHECKOUT / "app" / "app_pages").glob("[a-z]*.py"))
MOST_OPENED = ("", "overview", "timeline", "regions", "layers", "memory")
HOSTILE = '<img src=x onerror=boom()> & "quoted" $x$ `y` __main__'
INK = """canvas => {
    const pixels = canvas.getContext('2d').getImageData(0, 0, canvas.width, canvas.height).data;
    const colours = new Set();
    for (let i = 0; i < pixels.length; i += 4) if (pixels[i + 3] > 200) colours.add(pixels.slice(i, i + 3).join());
    return colours.size;
}"""


@pytest.fixture
def page(browser: Browser) -> Iterator[Page]:
    """A page of a fresh profile; at the end no request may have left this machine and no script may have failed."""
    context = browser.new_context(viewport={"width": 1280, "height": 900})
    context.set_default_timeout(20_000)
    requests: list[str] = []
    failures: list[str] = []
    context.on("request", lambda request: requests.append(request.url))
    context.on("weberror", lambda error: failures.append(str(error.error)))
    yield context.new_page()
    context.close()
    away = [r for r in requests if urlparse(r).scheme in ("http", "https", "ws", "wss")]
    assert away and {urlparse(r).hostname for r in away} == {"127.0.0.1"}
    assert failures == []


@pytest.fixture(scope="module")
def crowd_url(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """20,000 kernels on one stream, far more than pixels."""
    folder = tmp_path_factory.mktemp("crowd")
    trace = TraceBuilder()
    for number in range(20_000):
        trace.kernel(None, number * 1.0, 0.5, name=f"k{number % 5}")
    trace.write(folder / "crowd.json")
    hostile = TraceBuilder()
    hostile.kernel(None, 0, 100, name=HOSTILE)
    hostile.write(folder / f"{HOSTILE}.json")
    with serving(folder) as address:
        yield address


def settle(page: Page) -> None:
    expect(page.locator("h1").first).to_be_visible()
    expect(page.locator('[data-testid="stStatusWidget"]')).to_have_count(0)
    expect(page.locator('[data-testid="stException"]')).to_have_count(0)


def canvas_number(page: Page, name: str) -> float:
    return float(page.locator("canvas[aria-label]").get_attribute(f"data-{name}") or "nan")


def timeline(page: Page, url: str, run: str = "gpu") -> None:
    page.goto(f"{url}/regions?run={run}")
    settle(page)
    expect(page.locator("canvas[aria-label]")).to_have_attribute("data-rows", re.compile("[1-9]"))


@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize("width", [1280, 2560])
def test_the_overview_draws(browser: Browser, url: str, scheme: str, width: int) -> None:
    context = browser.new_context(viewport={"width": width, "height": 1000}, color_scheme=scheme)  # type: ignore[arg-type]
    page = context.new_page()
    page.goto(f"{url}/overview?run=gpu")
    settle(page)
    expect(page.locator(".js-plotly-plot")).to_have_count(2)
    expect(page.get_by_text("GPU work 1.000 ms of a 20.000 ms batch")).to_be_visible()
    back = page.evaluate("getComputedStyle(document.querySelector('[data-testid=stApp]')).backgroundColor")
    red = int(re.findall(r"\d+", back)[0])
    assert red < 60 if scheme == "dark" else red > 200
    context.close()


@pytest.mark.parametrize("name", ["", *PAGES])
def test_every_page_of_every_run_has_an_address(page: Page, url: Address, name: str) -> None:
    for run in ("gpu", "host", "bare.json.gz", "broken") if name in MOST_OPENED else ("gpu", "broken"):
        page.goto(f"{url}/{name}?run={run}")
        settle(page)
        assert name == "ladder" or f"run={run}" in page.url
        main = page.locator('[data-testid="stMain"]')
        if name == "perfetto":  # it says itself what it cannot open
            expect(main.locator("iframe")).to_be_visible()
        else:
            expect(main).to_contain_text(re.compile(r"[\s\S]{40}"))  # never an empty page
    loaded = Path(f"/proc/{url.pid}/maps")
    assert not loaded.is_file() or "libtorch" not in loaded.read_text()


def test_ranks_and_ladders_draw_and_ask_nobody(page: Page, tmp_path: Path) -> None:
    make_job(tmp_path)
    write_ladder(tmp_path / "vit_b")
    with serving(tmp_path) as url:
        page.goto(f"{url}/ranks")
        settle(page)
        expect(page.locator(".js-plotly-plot")).to_have_count(3)
        expect(page.get_by_text("waits")).not_to_have_count(0)
        page.get_by_role("link", name="Ladder").click()
        expect(page.locator("h1").first).to_have_text("Ladder")
        settle(page)
        expect(page.locator('[data-testid="stMain"]')).to_contain_text("The fastest row is int8: 400.0 images/s")
        expect(page.locator(".js-plotly-plot")).to_have_count(1)
        page.get_by_role("radio", name="Trade-offs").or_(page.get_by_role("button", name="Trade-offs")).first.click()
        expect(page.locator(".js-plotly-plot")).to_have_count(2)
        page.get_by_role("radio", name="Masks").or_(page.get_by_role("button", name="Masks")).first.click()
        picture = page.locator('[data-testid="stImage"] img, [data-testid="stImageContainer"] img').first
        expect(picture).to_be_visible()
        assert picture.evaluate("image => image.naturalWidth") > 100


def test_a_long_load_shows_how_far_it_is_and_can_be_stopped(page: Page, tmp_path: Path) -> None:
    event = b'{"ph": "X", "cat": "cpu_op", "name": "aten::mm", "pid": 1, "tid": 1, "ts": %d, "dur": 1, "args": {}},\n'
    block = b"".join(event % at for at in range(5000))
    with gzip.open(tmp_path / "long.json.gz", "wb", compresslevel=1) as file:
        file.write(b'{"traceEvents": [\n')
        for _ in range(400):
            file.write(block)
        file.write(event[:-2] % 1 + b"]}")
    os.utime(tmp_path / "long.json.gz", (1e9, 1e9))  # nobody is writing it
    with serving(tmp_path) as url:
        page.goto(url)
        cancel = page.get_by_role("button", name="Cancel")
        expect(page.locator('[data-testid="stProgress"]')).to_contain_text(re.compile(r"long\.json\.gz, \d+ MB: .*%"))
        cancel.click()
        expect(page.get_by_text("Loading long.json.gz was cancelled.")).to_be_visible()
        expect(cancel).to_have_count(0)
        page.get_by_role("button", name="Load it again").click()
        expect(page.locator('[data-testid="stProgress"]')).to_be_visible()


def test_the_run_stays_from_page_to_page_and_in_the_address(page: Page, url: str) -> None:
    page.goto(f"{url}/?run=host")
    settle(page)
    page.get_by_role("link", name="Regions").click()
    expect(page.locator("h1").first).to_have_text("Regions")
    settle(page)
    page.wait_for_url(re.compile(r"/regions\?run=host$"))
    expect(page.locator("canvas[aria-label]")).to_have_attribute("data-rows", re.compile("[1-9]"))


def test_the_timeline_has_pixels_zooms_pans_and_fits(page: Page, url: str) -> None:
    timeline(page, url)
    canvas = page.locator("canvas[aria-label]")
    assert canvas.evaluate(INK) >= 3
    first, last = canvas_number(page, "t0"), canvas_number(page, "t1")
    box = canvas.bounding_box()
    assert box is not None
    page.mouse.move(box["x"] + box["width"] * 0.6, box["y"] + 60)
    page.mouse.wheel(0, -600)
    expect(canvas).not_to_have_attribute("data-t1", str(last))
    zoomed = canvas_number(page, "t1") - canvas_number(page, "t0")
    assert zoomed < (last - first) * 0.9
    before = canvas_number(page, "t0")
    page.keyboard.press("d")
    canvas.focus()
    page.keyboard.press("d")
    page.wait_for_timeout(200)
    assert canvas_number(page, "t0") > before
    page.get_by_title("Show everything (F)").click()
    page.wait_for_timeout(200)
    assert canvas_number(page, "t1") - canvas_number(page, "t0") >= (last - first) * 0.99


def test_hovering_names_the_kernel(page: Page, url: str) -> None:
    timeline(page, url)
    canvas = page.locator("canvas[aria-label]")
    box = canvas.bounding_box()
    assert box is not None
    for y in range(30, int(box["height"]), 6):
        page.mouse.move(box["x"] + box["width"] * 0.5, box["y"] + y)
        tip = page.locator(".tl .tip")
        if tip.is_visible() and "gemm" in tip.inner_text():
            expect(tip).to_contain_text("Launch delay")  # the server knows it, once the pointer rests
            said = tip.inner_text()
            assert "600.00 µs" in said and "70.00 µs" in said
            assert "timed region › image encoder" in said
            return
    pytest.fail("no kernel under the pointer")


def test_a_range_selected_on_the_axis_gets_its_kernels(page: Page, url: str) -> None:
    timeline(page, url)
    canvas = page.locator("canvas[aria-label]")
    box = canvas.bounding_box()
    assert box is not None
    page.mouse.move(box["x"] + box["width"] * 0.3, box["y"] + 8)
    page.mouse.down()
    page.mouse.move(box["x"] + box["width"] * 0.5, box["y"] + 8, steps=4)
    page.mouse.up()
    expect(page.get_by_text(re.compile(r"Kernels in the selected"))).to_be_visible()
    canvas.focus()
    page.keyboard.press("Escape")
    expect(page.get_by_text("Kernels of all regions")).to_be_visible()


def drag(page: Page, first: float, last: float, *, shift: bool = True) -> tuple[float, float]:
    """Shift-drag over those shares of the plot; returns what the drag covers, in ns of the timeline."""
    canvas = page.locator("canvas[aria-label]")
    box = canvas.bounding_box()
    assert box is not None
    gutter = min(210.0, max(152.0, box["width"] * 0.13))
    places = [box["x"] + gutter + (box["width"] - gutter) * share for share in (first, last)]
    t0, t1 = canvas_number(page, "t0"), canvas_number(page, "t1")
    canvas.focus()
    page.keyboard.down("Shift")
    page.mouse.move(places[0], box["y"] + 60)
    page.mouse.down()
    page.mouse.move(places[1], box["y"] + 60, steps=4)
    page.mouse.up()
    page.keyboard.up("Shift")
    return t0 + first * (t1 - t0), t0 + last * (t1 - t0)


def marked(page: Page) -> list[float]:
    """The range the picture marks, in ns of the timeline."""
    text = page.locator("canvas[aria-label]").get_attribute("data-range") or ""
    return [float(part) for part in text.split(",") if part]


def rest(page: Page) -> None:
    """Wait until the server has answered the last selection."""
    page.wait_for_timeout(600)
    settle(page)
    page.wait_for_timeout(300)


def test_picture_and_table_agree_on_every_selection(page: Page, url: str) -> None:
    timeline(page, url)
    for first, last in ((0.1, 0.3), (0.5, 0.8), (0.2, 0.25)):
        wanted = drag(page, first, last)
        rest(page)
        found = marked(page)
        assert found == pytest.approx(wanted, abs=4_000)
        said = f"{(found[1] - found[0]) / 1000:.2f} µs"
        expect(page.get_by_text(f"Kernels in the selected {said}")).to_be_visible()
    page.locator("canvas[aria-label]").focus()
    page.keyboard.press("Escape")
    rest(page)
    assert marked(page) == []
    expect(page.get_by_text("Kernels of all regions")).to_be_visible()
    wanted = drag(page, 0.4, 0.6)
    rest(page)
    assert marked(page) == pytest.approx(wanted, abs=4_000)  # after Esc a new one is drawn again


def test_quick_selections_end_with_the_last_one(page: Page, url: str) -> None:
    timeline(page, url)
    drag(page, 0.1, 0.3)
    drag(page, 0.3, 0.5)
    wanted = drag(page, 0.5, 0.8)
    rest(page)
    assert marked(page) == pytest.approx(wanted, abs=4_000)


def test_a_selection_does_not_follow_to_another_run(page: Page, url: str) -> None:
    timeline(page, url)
    drag(page, 0.1, 0.3)
    rest(page)
    page.get_by_test_id("stSidebar").get_by_role("combobox").click()
    page.get_by_role("option", name="host", exact=True).click()
    page.wait_for_url(re.compile("run=host"))
    rest(page)
    assert marked(page) == []
    expect(page.get_by_text("Operators of all regions")).to_be_visible()


def test_a_region_picked_and_a_range_count_together(page: Page, url: str) -> None:
    timeline(page, url)
    drag(page, 0.02, 0.98)
    rest(page)
    table = page.get_by_test_id("stDataFrame").first.bounding_box()
    assert table is not None
    page.mouse.click(table["x"] + 18, table["y"] + 35 * 3.5)  # the tick of the third row: mask decoder
    rest(page)
    expect(page.get_by_text("Kernels of timed region > mask decoder")).to_be_visible()
    assert marked(page) == []  # the view has moved to the region
    page.get_by_title("Show everything (F)").click()
    page.wait_for_timeout(300)
    drag(page, 0.02, 0.98)
    rest(page)
    expect(page.get_by_text(re.compile(r"Kernels in the selected .* of timed region > mask decoder"))).to_be_visible()
    expect(page.get_by_text(re.compile(r"^1 GPU events"))).to_be_visible()


def test_a_click_on_spans_too_short_to_see_selects_the_longest(page: Page, crowd_url: str) -> None:
    timeline(page, crowd_url, "crowd.json")
    canvas = page.locator("canvas[aria-label]")
    box = canvas.bounding_box()
    assert box is not None
    page.mouse.click(box["x"] + box["width"] * 0.5, box["y"] + 45)
    rest(page)
    found = marked(page)
    assert len(found) == 2 and found[1] - found[0] == 500  # a kernel of 500 ns, of 20,000


def test_files_download_and_the_memory_page_opens(page: Page, url: str, tmp_path: Path) -> None:
    page.goto(f"{url}/memory?run=gpu")
    settle(page)
    with page.expect_popup() as popup:
        page.get_by_role("link", name="Open memory page").first.click()
    expect(popup.value.locator("body")).not_to_be_empty()
    trace = page.request.get(f"{url}/kit/trace?run=gpu")
    assert trace.body()[:2] == b"\x1f\x8b"
    with page.expect_download() as download:
        page.evaluate("location.href = document.querySelector('a[href*=\"/kit/trace\"]').href")
    download.value.save_as(tmp_path / "trace.json.gz")
    assert (tmp_path / "trace.json.gz").read_bytes() == trace.body()


def test_perfetto_opens_at_the_range_selected_offline(page: Page, url: str) -> None:
    page.goto(f"{url}/timeline?run=gpu&sel=300000-700000")
    settle(page)
    page.get_by_role("link", name="Open this range in Perfetto").click()
    expect(page).to_have_url(re.compile(r"/perfetto\?run=gpu&sel=300000-700000"))
    outer = page.frame_locator("iframe")
    expect(outer.locator("body[data-sent]")).to_be_attached(timeout=60_000)
    expect(outer.frame_locator("#ui").get_by_text("Process 100").first).to_be_visible(timeout=60_000)
    ui = next(frame for frame in page.frames if "perfetto-ui" in frame.url)
    view = "window.app.trace.timeline.visibleWindow"
    ui.wait_for_function(f"() => {view}.duration < 1_000_000")  # of 1,300,000 ns
    assert ui.evaluate(f"[Number({view}.start.integral), {view}.duration]") == [
        220_000,
        560_000,
    ]  # a fifth more each side


def test_a_part_of_a_trace_is_a_trace(page: Page, url: str, tmp_path: Path) -> None:
    page.goto(f"{url}/perfetto?run=gpu")
    settle(page)
    part = page.request.get(f"{url}/kit/window?run=gpu&t0=100000&t1=700000")
    assert part.ok
    (tmp_path / "part.json.gz").write_bytes(part.body())
    assert len(load_trace(tmp_path / "part.json.gz").gpu_events()) == 2  # gemm, and softmax launched by then
    assert page.request.get(f"{url}/kit/window?run=gpu&t0=9000000&t1=9000001").status == 422


def test_hostile_names_stay_text(page: Page, crowd_url: str) -> None:
    timeline(page, crowd_url, quote(key_of(Path("/runs"), Path("/runs") / f"{HOSTILE}.json"), safe=""))
    canvas = page.locator("canvas[aria-label]")
    box = canvas.bounding_box()
    assert box is not None
    page.mouse.click(box["x"] + box["width"] * 0.6, box["y"] + 40)
    expect(page.locator(".tl .details b")).to_have_text(HOSTILE)
    assert page.locator("img[src=x]").count() == 0
