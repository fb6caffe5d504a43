"""`profiler-kit serve`: show the runs of a folder in a dashboard on one local port."""

from __future__ import annotations

import contextlib
import errno
import getpass
import importlib.util
import os
import secrets
import socket
import sys
import threading
import webbrowser
from pathlib import Path
from typing import Annotated, Final, Protocol, cast
from urllib.parse import urlencode

import typer

from profiler_kit.errors import OptionError, WorkloadError
from profiler_kit.load.discover.runs import default_root, require_root

DEFAULT_PORT: Final = 8501
PORTS_TRIED: Final = 50
EVERYONE: Final = ("0.0.0.0", "::")

# Nothing leaves the machine and nothing is watched; app/.streamlit/config.toml says the same for `streamlit run`.
OFFLINE: Final = {
    "browser.gatherUsageStats": False,
    "server.headless": True,
    "server.fileWatcherType": "none",
    "server.runOnSave": False,
    "client.toolbarMode": "minimal",
    "client.showErrorDetails": "none",
    "logger.hideWelcomeMessage": True,
    "logger.level": "error",
    "theme.light.primaryColor": "#38689A",
    "theme.dark.primaryColor": "#5B93C9",
}


class _Main(Protocol):
    def serve(self, listening: socket.socket, config: dict[str, object]) -> None: ...


Host = Annotated[str, typer.Option(help="Address to listen on; the default is this machine only.")]


def command(
    folder: Annotated[
        Path | None,
        typer.Argument(metavar="[DIR]", help="Folder that holds runs. Default: ./traces, else the bundled samples."),
    ] = None,
    port: Annotated[
        int | None, typer.Option(help=f"Port to listen on. Default: {DEFAULT_PORT}, or the next free one.")
    ] = None,
    host: Host = "127.0.0.1",
    browser: Annotated[bool, typer.Option("--browser/--no-browser", help="Open the page in a browser.")] = True,
    token: Annotated[
        bool, typer.Option("--token/--no-token", help="Ask each browser once for the token in the printed link.")
    ] = True,
) -> None:
    """Show the runs of a folder in the browser; nothing leaves the machine."""
    serve(folder, port=port, host=host, browser=browser, token=token)


def serve(
    folder: Path | None = None,
    *,
    port: int | None = None,
    host: str = "127.0.0.1",
    browser: bool = True,
    token: bool = True,
    show: str | None = None,
) -> None:
    """Serve the dashboard until interrupted; `show` is the key of the run that the printed address opens.

    token: answer only who brings the one that is made now, in the printed address or in the cookie it leaves.

    Raises InputError when the folder is missing, OptionError when the port or the address cannot be used.
    """
    root = require_root(folder if folder is not None else default_root())
    main = dashboard()
    listening = take_port(host, port)
    chosen = listening.getsockname()[1]
    os.environ["PROFILER_KIT_DIR"] = str(root)
    os.environ["PROFILER_KIT_HOST"] = host
    os.environ["PROFILER_KIT_TOKEN"] = secret = secrets.token_urlsafe(24) if token else ""
    query = urlencode({name: value for name, value in (("run", show), ("token", secret)) if value})
    url = f"http://{shown_host(host)}:{chosen}" + (f"/?{query}" if query else "")
    for line in announcement(root, url, host, chosen):
        print(line, flush=True)
    if browser and _has_display():
        threading.Thread(target=webbrowser.open, args=(url,), daemon=True).start()
    sys.argv = [str(main)]  # streamlit looks for its configuration beside the script it is told it runs
    _load(main).serve(listening, {**OFFLINE, "server.address": host, "server.port": chosen})


def dashboard() -> Path:
    """app/main.py: in a checkout beside the package, in a wheel bundled with it; raises WorkloadError when neither."""
    package = Path(__file__).resolve().parents[1]
    candidates = (package.parent / "app" / "main.py", package / "_bundle" / "app" / "main.py")
    found = next((path for path in candidates if path.is_file()), None)
    if found is None:
        raise WorkloadError(f"{candidates[-1]}: the dashboard is not installed. Try: pip install --force-reinstall .")
    return found


def take_port(host: str, port: int | None, *, first: int = DEFAULT_PORT) -> socket.socket:
    """A socket that listens on the port asked for, or on the first free one from `first` on when none was.

    Whoever comes meanwhile waits until it is served, and no other process takes the port.

    Raises OptionError when it is out of range or taken, or when `host` is no address of this machine.
    """
    if port is not None and not 1 <= port <= 65535:
        raise OptionError(f"--port {port}: out of range, expected 1 to 65535")
    wanted = [port] if port is not None else list(range(first, first + PORTS_TRIED))
    for candidate in wanted:
        found = _listen(host, candidate)
        if found is not None:
            return found
    if port is not None:
        raise OptionError(f"--port {port}: taken by another process. Leave --port out to use the next free one")
    raise OptionError(f"--port: {wanted[0]} to {wanted[-1]} are all taken. Name a free one")


def _listen(host: str, port: int) -> socket.socket | None:
    """A socket that listens there; None where another one does."""
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    try:
        address = socket.getaddrinfo(host, port, family, socket.SOCK_STREAM)[0][4]
    except (OSError, UnicodeError) as error:
        raise OptionError(f"--host {host}: no such address, expected one of this machine, such as 127.0.0.1") from error
    with contextlib.ExitStack() as stack:
        try:
            found = stack.enter_context(socket.socket(family))
            found.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            if family == socket.AF_INET6:
                found.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 0)
            found.bind(address)
            found.listen(_BACKLOG)
        except PermissionError as error:
            raise OptionError(f"--port {port}: not permitted for this user, expected 1024 or above") from error
        except OSError as error:
            if error.errno in _NOT_OURS:
                raise OptionError(
                    f"--host {host}: not an address of this machine, expected one such as 127.0.0.1"
                ) from error
            return None
        stack.pop_all()
    return found


_BACKLOG: Final = 2048
_NOT_OURS: Final = (errno.EADDRNOTAVAIL, errno.EAFNOSUPPORT, 10049)  # the last: on Windows


def shown_host(host: str) -> str:
    """The host as written in a URL for this machine's own browser."""
    if host in EVERYONE:
        return "127.0.0.1"
    return f"[{host}]" if ":" in host else host


def announcement(root: Path, url: str, host: str, port: int) -> list[str]:
    """What is printed on start: what is served, the address, and how to reach it from another machine."""
    lines = [
        f"profiler_kit serves {root}",
        f"  open           {url}",
        f"  from elsewhere {ssh_line(port, os.environ.get('SSH_CONNECTION', ''))}",
        "  stop           Ctrl+C",
    ]
    if host in EVERYONE:
        whom = "who has this link" if "token=" in url else "everyone on the network"
        lines.append(f"  note           --host {host} lets {whom} read these runs")
    return lines


def ssh_line(port: int, connection: str) -> str:
    """The command that brings the dashboard to another machine.

    connection: SSH_CONNECTION of this session (client address and port, server address and port), so that the line
    names the address this machine was reached at; "" without one, when its own name has to do.
    """
    parts = connection.split()
    host, ssh_port = (parts[2], parts[3]) if len(parts) == 4 else (socket.gethostname(), "22")
    other = "" if ssh_port == "22" else f"-p {ssh_port} "
    return f"ssh -N -L {port}:127.0.0.1:{port} {other}{_user()}@{host}"


def _user() -> str:
    try:
        return getpass.getuser()
    except (KeyError, OSError):  # a container whose user has no name
        return "user"


def _has_display() -> bool:
    if os.environ.get("SSH_CONNECTION"):
        return False
    return sys.platform in ("win32", "darwin") or bool(os.environ.get("DISPLAY") or os.environ.get("WAYLAND_DISPLAY"))


def _load(main: Path) -> _Main:
    """Import app/main.py from its file."""
    spec = importlib.util.spec_from_file_location("profiler_kit_dashboard", main)
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return cast(_Main, module)
