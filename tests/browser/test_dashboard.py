"""The dashboard in a real browser: every page draws, the timeline answers, nothing leaves the machine."""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal
from urllib.parse import quote, urlparse

import pytest
from axe_playwright_python.sync_playwright import Axe
from playwright.sync_api import Browser, Page, ViewportSize, expect

from profiler_kit.load.discover.runs import key_of
from profiler_kit.trace import load_trace
from tests.app.samples import CHECKOUT, Address, gpu_trace, make_job, make_runs, serving
from tests.browser.drive import (
    answered,
    becomes,
    cells,
    drag,
    marked,
    new_page,
    place,
    settle,
    the_canvas,
    until,
    view,
    width,
)
from tests.builders import TraceBuilder
from tests.jobs import SimulatedJob
from tests.ladders import write_ladder

pytestmark = pytest.mark.browser
PAGES = sorted(file.stem for file in (CHECKOUT / "app" / "app_pages").glob("[a-z]*.py"))
HOSTILE = '<img src=x onerror=boom()> & "quoted" $x$ `y` __main__'
INK = """canvas => {
    const pixels = canvas.getContext('2d').getImageData(0, 0, canvas.width, canvas.height).data;
    const colours = new Set();
    for (let i = 0; i < pixels.length; i += 4) if (pixels[i + 3] > 200) colours.add(pixels.slice(i, i + 3).join());
    return colours.size;
}"""


@dataclass
class Watched:
    """A page, and what it has asked for and complained about since it was last looked at."""

    page: Page
    requests: list[str] = field(default_factory=list)
    failures: list[str] = field(default_factory=list)

    def looked_at(self) -> tuple[list[str], list[str]]:
        """Both, once."""
        both = [*self.requests], [*self.failures]
        self.requests.clear()
        self.failures.clear()
        return both


@pytest.fixture(scope="module")
def watched(browser: Browser) -> Iterator[Watched]:
    """One page for all of them, since a fresh profile reads and compiles all scripts anew: each goes to an address."""
    made = Watched(new_page(browser))
    made.page.context.on("request", lambda request: made.requests.append(request.url))
    made.page.context.on("weberror", lambda error: made.failures.append(str(error.error)))
    yield made
    made.page.context.close()


@pytest.fixture
def page(watched: Watched) -> Iterator[Page]:
    """That page; at the end no request may have left this machine and no script may have failed."""
    watched.looked_at()
    yield watched.page
    requests, failures = watched.looked_at()
    away = [r for r in requests if urlparse(r).scheme in ("http", "https", "ws", "wss")]
    assert away and {urlparse(r).hostname for r in away} == {"127.0.0.1"}
    assert failures == []


@pytest.fixture(scope="module")
def crowd_url(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """20,000 kernels on one stream, far more than pixels; a hostile name; a job of two ranks and a ladder."""
    folder = tmp_path_factory.mktemp("crowd")
    make_job(folder)
    SimulatedJob(ranks=4, layout="tp", slow=2, cause="compute", since=2).write(folder / "jobs_of_four")
    write_ladder(folder / "vit_b")
    trace = TraceBuilder()
    for number in range(20_000):
        trace.kernel(None, number * 1.0, 0.5, name=f"k{number % 5}")
    trace.write(folder / "crowd.json")
    hostile = TraceBuilder()
    hostile.kernel(None, 0, 100, name=HOSTILE)
    hostile.write(folder / f"{HOSTILE}.json")
    with serving(folder, "--no-token") as address:
        yield address


def timeline(page: Page, url: str, run: str = "gpu") -> None:
    page.goto(f"{url}/regions?run={run}")
    settle(page)
    expect(the_canvas(page)).to_have_attribute("data-rows", re.compile("[1-9]"))


@pytest.mark.parametrize(("scheme", "width"), [("light", 2560), ("dark", 1280)])
def test_the_overview_draws(page: Page, url: str, scheme: Literal["light", "dark"], width: int) -> None:
    size = page.viewport_size
    assert size is not None
    page.emulate_media(color_scheme=scheme)
    page.set_viewport_size(ViewportSize(width=width, height=1000))
    try:
        page.goto(f"{url}/overview?run=gpu")
        settle(page)
        expect(page.locator(".js-plotly-plot")).to_have_count(2)
        expect(page.get_by_text("The GPU works 1.000 ms of each 20.000 ms batch")).to_be_visible()
        back = page.evaluate("getComputedStyle(document.querySelector('[data-testid=stApp]')).backgroundColor")
        red = int(re.findall(r"\d+", back)[0])
        assert red < 60 if scheme == "dark" else red > 200
    finally:
        page.emulate_media(color_scheme="null")
        page.set_viewport_size(size)


def barriers(page: Page, *rules: str) -> list[str]:
    """What axe-core calls serious or critical, of all its rules or of some."""
    # a sidebar without its links yet is one that a keyboard does not reach
    expect(page.get_by_test_id("stSidebar").get_by_role("link", name="Doctor", exact=True)).to_be_visible()
    # what was drawn before is paler until it is drawn anew, and darkens in a transition
    page.wait_for_function(
        "!document.querySelector('[data-stale=true]')"
        " && !document.getAnimations().some(one => one instanceof CSSTransition)"
    )
    only = {"runOnly": {"type": "rule", "values": rules}} if rules else {}
    found = Axe().run(page, options={"resultTypes": ["violations"], "iframes": False, **only}).response["violations"]
    grave = [one for one in found if one["impact"] in ("serious", "critical")]
    return [f"{one['impact']}: {one['id']} at {node['html'][:200]}" for one in grave for node in one["nodes"]]


@pytest.mark.parametrize("name", ["", *PAGES])
def test_every_page_has_an_address(page: Page, url: Address, name: str) -> None:
    for run in ("gpu", "host", "bare.json.gz", "broken") if name == "timeline" else ("gpu",):
        page.goto(f"{url}/{name}?run={run}")
        settle(page)
        assert name == "ladder" or f"run={run}" in page.url
        main = page.locator('[data-testid="stMain"]')
        if name == "perfetto":  # it says itself what it cannot open
            expect(main.locator("iframe")).to_be_visible()
        else:
            expect(main).to_contain_text(re.compile(r"[\s\S]{40}"))  # never an empty page
        if run == "gpu" and name != "runs":  # which is the start page
            if name == "timeline":  # with a span picked, and the keys explained
                expect(the_canvas(page)).to_have_attribute("data-rows", re.compile("[1-9]"))
                the_canvas(page).focus()
                page.keyboard.press("Enter")
                expect(page.locator(".tl .details .head")).to_have_count(1)
                page.keyboard.press("?")
            assert barriers(page) == []
            page.emulate_media(color_scheme="dark")
            settle(page)
            assert barriers(page, "color-contrast") == []
            page.emulate_media(color_scheme="null")
    loaded = Path(f"/proc/{url.pid}/maps")
    assert not loaded.is_file() or "libtorch" not in loaded.read_text()


def test_ranks_and_ladders_draw_and_ask_nobody(page: Page, crowd_url: str) -> None:
    page.goto(f"{crowd_url}/ranks")
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
    until(page, lambda: picture.evaluate("image => image.naturalWidth") > 100)


def test_a_cell_of_the_heat_map_opens_its_rank_and_step_with_its_group_on_one_clock(page: Page, crowd_url: str) -> None:
    page.goto(f"{crowd_url}/ranks?job=jobs_of_four")
    settle(page)
    expect(page.locator('[data-testid="stMain"]')).to_contain_text("Rank 2 holds the job up")
    # the map that takes the place of the first one begins without a width
    order = [page.get_by_role(role, name="tp", exact=True) for role in ("radio", "button")]
    order[0].or_(order[1]).first.click()
    expect(page).to_have_url(re.compile("order=tp"))
    settle(page)
    heat = page.locator(".st-key-heat-tp-4 .heat canvas")
    expect(heat).to_be_visible()
    expect(page.locator(".heat canvas")).to_have_count(1)  # the one by rank is gone
    size = heat.bounding_box()
    assert size is not None
    # the third of four ranks, the fourth of four steps
    heat.click(position={"x": size["width"] * 0.9, "y": 7 + (size["height"] - 27) * 0.6})
    expect(page.locator("h1").first).to_have_text("Timeline")
    settle(page)
    expect(page.locator('[data-testid="stMain"]')).to_contain_text("B jobs_of_four/rank3.json")
    expect(the_canvas(page)).to_have_attribute("data-rows", re.compile("[1-9]"))
    page.go_back()
    expect(page.locator(".st-key-heat-tp-4 .heat canvas")).to_be_visible()  # in the order that it was left in


def test_the_heat_map_by_keys(page: Page, crowd_url: str) -> None:
    page.goto(f"{crowd_url}/ranks?job=jobs_of_four")
    settle(page)
    heat = page.locator(".heat canvas")
    expect(heat).to_be_visible()
    becomes(page, lambda: int(heat.evaluate("c => c.width")) > 300, True)  # it is drawn
    heat.focus()
    for key in ("ArrowDown", "ArrowDown", "ArrowRight", "ArrowRight", "ArrowRight", "ArrowRight"):
        page.keyboard.press(key)
    expect(page.locator(".heat .tip")).to_contain_text("rank 2, step 3: ")
    page.keyboard.press("Enter")
    expect(page.locator("h1").first).to_have_text("Timeline")
    expect(page).to_have_url(re.compile("run=jobs_of_four%2Frank2"))


HELD = """
import os, time
from profiler_kit import trace
load = trace.load_trace
def held(path, report, **how):
    while os.path.exists({!r}):
        report(1, 4, "reading")
        time.sleep(0.01)
    return load(path, report=report, **how)
trace.load_trace = held
"""


def test_a_long_load_shows_how_far_it_is_and_can_be_stopped(page: Page, tmp_path: Path) -> None:
    hold = tmp_path / "hold"
    hold.touch()
    (tmp_path / "runs").mkdir()
    gpu_trace().write(tmp_path / "runs" / "long.json.gz")
    with serving(tmp_path / "runs", "--no-token", first=HELD.format(str(hold))) as url:
        page.goto(url)
        cancel = page.get_by_role("button", name="Cancel")
        progress = page.locator('[data-testid="stProgress"]')
        expect(progress).to_contain_text("long.json.gz, 0 MB: reading, 25 %")
        cancel.click()
        expect(page.get_by_text("Loading long.json.gz was cancelled.")).to_be_visible()
        expect(cancel).to_have_count(0)
        page.get_by_role("button", name="Load it again").click()
        expect(progress).to_contain_text("reading, 25 %")
        hold.unlink()
        expect(page.locator(".js-plotly-plot").first).to_be_visible()


def test_the_run_stays_from_page_to_page_and_in_the_address(page: Page, url: str) -> None:
    page.goto(f"{url}/?run=host")
    settle(page)
    page.get_by_role("link", name="Regions").click()
    expect(page.locator("h1").first).to_have_text("Regions")
    settle(page)
    page.wait_for_url(re.compile(r"/regions\?run=host$"))
    expect(the_canvas(page)).to_have_attribute("data-rows", re.compile("[1-9]"))


def test_the_timeline_has_pixels_zooms_pans_and_fits(page: Page, url: str) -> None:
    timeline(page, url)
    canvas = the_canvas(page)
    assert canvas.evaluate(INK) >= 3
    whole = width(canvas)
    canvas.focus()
    canvas.hover(position=place(canvas, "Stream 7", 800_000))
    page.mouse.wheel(0, -600)
    until(page, lambda: width(canvas) < whole * 0.9)
    before, _ = view(canvas)
    canvas.focus()
    page.keyboard.press("d")
    until(page, lambda: view(canvas)[0] > before)
    page.get_by_title("Show everything (F)").click()
    until(page, lambda: width(canvas) >= whole * 0.99)


def test_hovering_names_the_kernel(page: Page, url: str) -> None:
    timeline(page, url)
    canvas = the_canvas(page)
    canvas.hover(position=place(canvas, "Stream 7", 400_000))
    tip = page.locator(".tl .tip")
    expect(tip).to_contain_text("gemm")
    expect(tip).to_contain_text("Launch delay")  # the server knows it, once the pointer rests
    for said in ("600.00 µs", "70.00 µs", "timed region › image encoder"):
        expect(tip).to_contain_text(said)


def test_a_range_selected_on_the_axis_gets_its_kernels(page: Page, url: str) -> None:
    timeline(page, url)
    canvas = the_canvas(page)
    drag(page, 0.3, 0.5, y=8, shift=False)
    expect(page.get_by_text(re.compile(r"Kernels in the selected"))).to_be_visible()
    canvas.focus()
    page.keyboard.press("Escape")
    expect(page.get_by_text("Kernels of all regions")).to_be_visible()


def test_picture_and_table_agree_on_every_selection(page: Page, url: str) -> None:
    timeline(page, url)
    canvas = the_canvas(page)
    for first, last in ((0.1, 0.3), (0.5, 0.8), (0.2, 0.25)):
        wanted = drag(page, first, last)
        answered(page)
        found = marked(canvas)
        assert found == pytest.approx(wanted, abs=4_000)
        said = f"{(found[1] - found[0]) / 1000:.2f} µs"
        expect(page.get_by_text(f"Kernels in the selected {said}")).to_be_visible()
    canvas.focus()
    page.keyboard.press("Escape")
    answered(page)
    assert marked(canvas) == []
    expect(page.get_by_text("Kernels of all regions")).to_be_visible()
    wanted = drag(page, 0.4, 0.6)
    answered(page)
    assert marked(canvas) == pytest.approx(wanted, abs=4_000)  # after Esc a new one is drawn again


def test_quick_selections_end_with_the_last_one(page: Page, url: str) -> None:
    timeline(page, url)
    drag(page, 0.1, 0.3)
    drag(page, 0.3, 0.5)
    wanted = drag(page, 0.5, 0.8)
    answered(page)
    assert marked(the_canvas(page)) == pytest.approx(wanted, abs=4_000)


def test_a_selection_does_not_follow_to_another_run(page: Page, url: str) -> None:
    timeline(page, url)
    drag(page, 0.1, 0.3)
    answered(page)
    page.get_by_test_id("stSidebar").get_by_role("combobox").click()
    page.get_by_role("option", name=re.compile(r"^host\b")).click()
    page.wait_for_url(re.compile("run=host"))
    expect(page.get_by_text("Operators of all regions")).to_be_visible()
    answered(page)
    assert marked(the_canvas(page)) == []


def test_a_region_picked_and_a_range_count_together(page: Page, url: str) -> None:
    timeline(page, url)
    canvas = the_canvas(page)
    whole = width(canvas)
    drag(page, 0.02, 0.98)
    answered(page)
    table = page.get_by_test_id("stDataFrame").first
    expect(table.locator("[role=gridcell]", has_text="mask decoder")).to_be_attached()  # the rows are drawn
    table.click(position={"x": 18, "y": 35 * 3.5})  # the tick of the third row: mask decoder
    expect(page.get_by_text("Kernels of timed region > mask decoder")).to_be_visible()
    until(page, lambda: width(canvas) < whole * 0.5)  # the view has moved to the region
    answered(page)
    assert marked(canvas) == []
    page.get_by_title("Show everything (F)").click()
    until(page, lambda: width(canvas) >= whole * 0.99)
    drag(page, 0.02, 0.98)
    expect(page.get_by_text(re.compile(r"Kernels in the selected .* of timed region > mask decoder"))).to_be_visible()
    expect(page.get_by_text(re.compile(r"^1 GPU events"))).to_be_visible()


def test_a_click_on_spans_too_short_to_see_selects_the_longest(page: Page, crowd_url: str) -> None:
    timeline(page, crowd_url, "crowd.json")
    canvas = the_canvas(page)
    canvas.click(position=place(canvas, "Stream 7", 8_000_000))
    until(page, lambda: len(marked(canvas)) == 2)
    first, last = marked(canvas)
    assert last - first == 500  # a kernel of 500 ns, of 20,000


def shares(page: Page) -> dict[str, float]:
    """How much of the icicle's width each of its boxes has that is drawn."""
    found: list[list[float]] = page.evaluate("""() => {
        const whole = document.querySelector('.iciclelayer').getBoundingClientRect().width;
        return [...document.querySelectorAll('.iciclelayer .slice')]
            .map(box => [box.querySelector('text')?.textContent, box.getBoundingClientRect().width / whole]);
    }""")
    return {str(name): round(share, 1) for name, share in found if name}


@pytest.mark.parametrize(
    "where", ["tables?run=gpu&table=call_tree", "compare?run=gpu&with=bare.json.gz&view=Call+tree"]
)
def test_a_click_on_an_icicle_zooms_and_another_goes_back(page: Page, url: str, where: str) -> None:
    page.goto(f"{url}/{where}")
    settle(page)
    expect(page.locator(".iciclelayer .slice").first).to_be_visible()
    whole = {"timed region": 1, "image encoder": 0.9, "mask decoder": 0.1, "aten::linear": 0.9, "upsample": 0.1}
    whole |= {"gemm": 0.6, "softmax": 0.3}
    becomes(page, lambda: shares(page), whole)
    box = page.locator(".iciclelayer .slice", has_text="image encoder").first
    box.click()
    becomes(page, lambda: shares(page), {"image encoder": 1, "aten::linear": 1, "gemm": 0.7, "softmax": 0.3})
    box.click()
    becomes(page, lambda: shares(page), whole)


def test_files_download_and_the_memory_page_opens(page: Page, url: str, tmp_path: Path) -> None:
    page.goto(f"{url}/memory?run=gpu")
    settle(page)
    with page.expect_popup() as popup:
        page.get_by_role("link", name="Open memory page").first.click()
    expect(popup.value.locator("body")).not_to_be_empty()
    popup.value.close()
    trace = page.request.get(f"{url}/kit/trace?run=gpu")
    assert trace.body()[:2] == b"\x1f\x8b"
    with page.expect_download() as download:
        page.locator('a[href*="/kit/trace"]').first.evaluate("link => { location.href = link.href; }")
    download.value.save_as(tmp_path / "trace.json.gz")
    assert (tmp_path / "trace.json.gz").read_bytes() == trace.body()


def test_perfetto_opens_at_the_range_selected_offline(page: Page, url: str) -> None:
    page.goto(f"{url}/timeline?run=gpu&sel=300000-700000")
    settle(page)
    page.get_by_role("link", name="Open this range in Perfetto").click()
    expect(page).to_have_url(re.compile(r"/perfetto\?run=gpu&sel=300000-700000"))
    outer = page.frame_locator("iframe")
    expect(outer.locator("body[data-sent]")).to_be_attached()
    expect(outer.frame_locator("#ui").get_by_text("Process 100").first).to_be_visible()
    ui = next(frame for frame in page.frames if "perfetto-ui" in frame.url)
    shown = "(({ start, duration }) => [Number(start.integral), duration])(window.app.trace.timeline.visibleWindow)"
    becomes(page, lambda: ui.evaluate(shown), [220_000, 560_000])  # a fifth more each side


def test_a_part_of_a_trace_is_a_trace(page: Page, url: str, tmp_path: Path) -> None:
    page.goto(f"{url}/perfetto?run=gpu")
    settle(page)
    part = page.request.get(f"{url}/kit/window?run=gpu&cut=1&t0=100000&t1=700000")
    assert part.ok
    (tmp_path / "part.json.gz").write_bytes(part.body())
    assert len(load_trace(tmp_path / "part.json.gz").gpu_events()) == 2  # gemm, and softmax launched by then
    assert page.request.get(f"{url}/kit/window?run=gpu&cut=1&t0=9000000&t1=9000001").status == 422


def test_hostile_names_stay_text(page: Page, crowd_url: str) -> None:
    timeline(page, crowd_url, quote(key_of(Path("/runs"), Path("/runs") / f"{HOSTILE}.json"), safe=""))
    canvas = the_canvas(page)
    canvas.click(position=place(canvas, "Stream 7", 60_000))
    expect(page.locator(".tl .details .head .copy")).to_have_text(HOSTILE)
    assert page.locator("img[src=x]").count() == 0


def test_a_browser_shows_the_token_once(browser: Browser, tmp_path: Path) -> None:
    with serving(make_runs(tmp_path / "traces")) as url:
        page = new_page(browser)
        refused: list[str] = []
        page.context.on("response", lambda one: refused.append(one.url) if one.status in (401, 403) else None)
        page.goto(f"{url}/?run=gpu")
        expect(page.locator("body")).to_contain_text("The token is missing or wrong.")
        assert refused.pop(0) == f"{url}/?run=gpu" and all("favicon" in one for one in refused)
        refused.clear()
        page.goto(f"{url.link}&run=gpu")
        settle(page)
        becomes(page, lambda: "token" in page.url, False)  # a link that is sent around does not give it away
        timeline(page, url)
        page.goto(f"{url}/kit/perfetto?run=gpu")
        expect(page.locator("body[data-sent]")).to_have_count(1)
        assert refused == []
        _open_from_elsewhere(page, url.link, tmp_path)
        page.context.close()


def _open_from_elsewhere(page: Page, link: str, folder: Path) -> None:
    """The page of runs: a new run appears by itself, a click on its row opens it, and so does a file dropped there."""
    page.goto(link)
    settle(page)
    until(page, lambda: "bare.json.gz" in cells(page))
    (folder / "traces" / "bare.json.gz").rename(folder / "traces" / "fresh.json.gz")
    until(page, lambda: "fresh.json.gz" in cells(page))
    settle(page)
    row = cells(page).index("fresh.json.gz")
    page.locator(".dvn-scroller").first.click(position={"x": 120, "y": 35 * (row + 1) + 17})
    expect(page.locator("h1").first).to_have_text("fresh.json.gz")
    page.get_by_role("link", name="Runs").click()
    page.locator('input[type="file"]').set_input_files(folder / "traces" / "gpu" / "memory.pickle")
    expect(page.locator("h1").first).to_have_text("opened:1/memory.pickle")
    expect(page.get_by_text("At its peak 2.0 MiB were allocated")).to_be_visible()
