"""Who may ask: a request by a name of this machine, from a page of this server, that brings the token of the link."""

from __future__ import annotations

import secrets
from collections.abc import Collection
from urllib.parse import parse_qs, urlsplit

from starlette.datastructures import Headers, MutableHeaders
from starlette.requests import HTTPConnection
from starlette.responses import PlainTextResponse
from starlette.types import ASGIApp, Message, Receive, Scope, Send

OPEN = "/_stcore/health"  # says that the server is up, and nothing else
_PORTS = {"http": 80, "https": 443}


class Gate:
    """Lets a request through when its Host is one of `hosts`, its Origin is this server, and it has the token.

    The token is in the address of the first visit and in a cookie from then on. hosts: None for any; token: "" for
    none.
    """

    def __init__(self, app: ASGIApp, hosts: Collection[str] | None, token: str) -> None:
        self._app, self._hosts, self._token = app, hosts, token.encode()

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Pass the request on, or answer why not: a page with a sentence, and a WebSocket with a refusal."""
        if scope["type"] not in ("http", "websocket"):
            await self._app(scope, receive, send)
            return
        headers = Headers(scope=scope)
        problem = self._problem(scope, headers)
        if problem is None:
            await self._app(scope, receive, self._keeping_token(scope, send))
        elif scope["type"] == "websocket":
            await send({"type": "websocket.close", "code": 1008})
        else:
            await PlainTextResponse(problem[1], problem[0])(scope, receive, send)

    def _problem(self, scope: Scope, headers: Headers) -> tuple[int, str] | None:
        host, origin = headers.get("host", ""), headers.get("origin")
        if self._hosts is not None and _place("http", host)[0] not in self._hosts:
            return 400, "This is not the server's address. Open the one that it printed."
        if origin is not None and not _is_of(origin, host):
            return 403, "The request came from a page of another server. Open the address that this one printed."
        if scope["path"] != OPEN and not (self._asks(scope) or self._matches(_cookie(scope))):
            return 403, (
                "The token is missing or wrong. Open the link that was printed when the server started "
                "(it ends in token=...), or start it with --no-token."
            )
        return None

    def _asks(self, scope: Scope) -> bool:
        """Whether the address has the token."""
        given = parse_qs(scope.get("query_string", b"").decode("latin-1")).get("token", [])
        return any(map(self._matches, given)) or not self._token

    def _matches(self, given: str) -> bool:
        """In a time that does not tell how much of it is right."""
        return secrets.compare_digest(given.encode("utf-8", "replace"), self._token)

    def _keeping_token(self, scope: Scope, send: Send) -> Send:
        """Adds the cookie to the answer of a request that has the token in its address."""

        async def sending(message: Message) -> None:
            if message["type"] == "http.response.start":
                MutableHeaders(scope=message).append(
                    "Set-Cookie", f"{_cookie_name(scope)}={self._token.decode()}; HttpOnly; Path=/; SameSite=Lax"
                )
            await send(message)

        return sending if self._token and scope["type"] == "http" and self._asks(scope) else send


def _cookie_name(scope: Scope) -> str:
    """One for each port: a browser gives the cookies of one server to all the others of the machine."""
    server = scope.get("server") or ("", 0)
    return f"profiler_kit_{server[1]}"


def _cookie(scope: Scope) -> str:
    return HTTPConnection(scope).cookies.get(_cookie_name(scope), "")


def _place(scheme: str, netloc: str) -> tuple[str, int | None]:
    """Name and port; no name when they cannot be told."""
    try:
        found = urlsplit(f"//{netloc}")
        if found.netloc != netloc or "@" in netloc:  # a path, or a user, which no browser sends
            return "", None
        return found.hostname or "", found.port or _PORTS.get(scheme)
    except ValueError:
        return "", None


def _is_of(origin: str, host: str) -> bool:
    """Whether a page of that origin was served under that Host: the same name and the same port."""
    scheme, colon, netloc = origin.partition("://")
    return bool(colon) and scheme in _PORTS and _place(scheme, netloc) == _place(scheme, host) != ("", None)
