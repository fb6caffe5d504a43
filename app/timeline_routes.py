"""What the timeline in the browser asks the server: tiles of a view, matches of a search, facts of one span."""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal, get_args

from starlette.datastructures import QueryParams
from starlette.requests import Request
from starlette.responses import JSONResponse, PlainTextResponse, Response
from starlette.routing import BaseRoute, Route

from app import cache
from profiler_kit.errors import KitError, OptionError
from profiler_kit.load.discover.runs import RunFolder
from profiler_kit.render.span_facts import span_facts
from profiler_kit.timeline.build import By
from profiler_kit.timeline.index import Timeline
from profiler_kit.timeline.search import Found, step
from profiler_kit.timeline.tiles import tile

FRESH = {"Cache-Control": "no-cache"}
LONGEST_SEARCH = 200
_WHOLE = re.compile(r"-?[0-9]{1,30}")
_MOST = 1 << 60  # ns: 36 years


def routes() -> list[BaseRoute]:
    """The routes; plain functions, so that they run in the thread pool and never hold up the event loop."""
    return [
        Route("/kit/timeline", answering(_description)),
        Route("/kit/tiles", answering(_tile)),
        Route("/kit/search", answering(_search)),
        Route("/kit/span", answering(_span)),
    ]


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

    @property
    def timeline(self) -> Timeline:
        return cache.timeline(self.run, self.by)[0]

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
    return Response(cache.timeline(asked.run, asked.by)[1], media_type="application/json", headers=packed)


def _tile(asked: Asked) -> Response:
    """One view: t0, t1 in ns of the timeline, px wide, of `rows`; with q its matches are marked."""
    view = (asked.number("t0"), asked.number("t1"), asked.number("px"))
    found = cache.matches(asked.run, asked.by, asked.text()) if asked.text() else None
    data = tile(asked.timeline, *view, rows=asked.rows(), matches=found)
    plain = {"Content-Encoding": "identity"}  # or Streamlit's server packs it once more, for longer than all the rest
    return Response(data, media_type="application/octet-stream", headers=plain)


def _search(asked: Asked) -> Response:
    """How many spans match q, and the next one (or with back=1 the one before) from time t and row `row` on."""
    if not asked.text():
        return JSONResponse({"total": 0})
    timeline, rows = asked.timeline, asked.rows()
    found = cache.matches(asked.run, asked.by, asked.text())
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
    """Facts and arrows of the span `index` of row `row`."""
    return JSONResponse(span_facts(cache.trace(asked.run), asked.timeline, asked.number("row"), asked.number("index")))
