from __future__ import annotations

from html.parser import HTMLParser
from pathlib import Path

from profiler_kit.render.notebook import framed
from profiler_kit.snapshot import load_snapshot
from tests import snapshots as s

PAGE = '<!doctype html><p title="it\'s">&amp; <script>x = \'</iframe>\' && "é"</script>'


class Tags(HTMLParser):
    def __init__(self, text: str) -> None:
        super().__init__(convert_charrefs=True)
        self.seen: list[tuple[str, dict[str, str | None]]] = []
        self.feed(text)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.seen.append((tag, dict(attrs)))


def test_the_page_arrives_whole_in_one_frame_of_its_own() -> None:
    ((tag, attributes),) = Tags(framed(PAGE, instead="", height_px=300)).seen
    assert tag == "iframe"
    assert attributes["srcdoc"] == PAGE
    assert attributes["sandbox"] is not None
    assert "allow-same-origin" not in attributes["sandbox"]
    assert "height:300px" in (attributes["style"] or "")


def test_a_page_too_large_is_a_note() -> None:
    page = "é" * 1_000_000
    assert framed(page, instead="Write it with html('<x>').", largest_bytes=1_500_000) == (
        "<p>This page takes 2.0 MB, more than the 1.5 MB a notebook should keep. "
        "Write it with html(&#39;&lt;x&gt;&#39;).</p>"
    )
    assert framed(page, instead="", largest_bytes=2_000_000).startswith("<iframe ")


def test_a_snapshot_shows_its_page(tmp_path: Path) -> None:
    snapshot = load_snapshot(s.write(tmp_path / "m.pickle", s.snapshot([s.alloc(1, 0x1000, 10)])))
    ((tag, attributes),) = Tags(snapshot._repr_html_()).seen
    assert tag == "iframe"
    assert attributes["srcdoc"] == snapshot.html("m.pickle")
