"""The socket of Streamlit's server: one that listens already, whose answers come without a wait.

Streamlit binds its socket itself, to the next port where another process has taken the one that was announced. And it
does not name the protocol, so asyncio does not take it for TCP and leaves Nagle's algorithm on: an answer's head and
body are two writes; the second one then waits for the browser's delayed acknowledgement, 40 ms on Linux, on every
request.
"""

from __future__ import annotations

import socket
from collections.abc import Callable

from streamlit.web.server.starlette import starlette_server


def listen_on(taken: socket.socket | None = None) -> None:
    """Have Streamlit serve that socket, or its own, and hand TCP_NODELAY on to every connection.

    Where it binds in another way it binds that port itself.
    """
    bind: Callable[..., socket.socket] | None = getattr(starlette_server, "_bind_socket", None)
    if bind is None:
        if taken is not None:
            taken.close()
        return

    def bound(*args: object, **more: object) -> socket.socket:
        listening = bind(*args, **more) if taken is None else taken
        listening.setblocking(False)
        listening.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)  # accepted connections inherit it
        return listening

    starlette_server._bind_socket = bound
