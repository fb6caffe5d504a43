"""`profiler-kit serve`: what it prints and refuses, and that nothing outside the folder can be had from it."""

from __future__ import annotations

import gzip
import http.client
import json
import socket
import struct
from collections.abc import Iterator
from pathlib import Path
from urllib.parse import quote, urlencode, urlparse

import pytest
import zstandard

from profiler_kit.cli.serve import DEFAULT_PORT, announcement, dashboard, ssh_line, take_port
from profiler_kit.errors import OptionError
from tests.app.samples import PATIENCE_S, Address, make_runs, serving
from tests.cli.run import profiler_kit


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    base = tmp_path_factory.mktemp("serve")
    root = make_runs(base / "traces")
    secret = base / "secret"
    secret.mkdir()
    (secret / "trace.json.gz").write_bytes(b"secret")
    hidden = root / ".hidden"
    hidden.mkdir()
    for name in ("token.json", "trace.json.gz", "run.json"):
        (hidden / name).write_bytes(b"secret")
    (root / "gpu" / "config.json").write_bytes(b"secret")
    (root / "inside").symlink_to(hidden)
    (root / "inside.json").symlink_to(hidden / "token.json")
    (root / "stolen").mkdir()
    (root / "stolen" / "trace.json.gz").symlink_to(hidden / "token.json")
    deep = root / "a" / "b" / "c" / "d"
    deep.mkdir(parents=True)
    (deep / "deep.json").write_bytes(b"secret")
    (root / "link").symlink_to(secret)
    (root / "link.json.gz").symlink_to(secret / "trace.json.gz")
    return root


@pytest.fixture(scope="module")
def server(root: Path) -> Iterator[Address]:
    with serving(root) as found:
        yield found


def get(
    url: Address, path: str, host: str | None = None, token: str | None = None, **more: str
) -> tuple[int, dict[str, str], bytes]:
    """One request with the path sent exactly as it is written, with the cookie of the token; more: headers."""
    where = urlparse(url)
    connection = http.client.HTTPConnection(where.hostname or "", where.port, timeout=PATIENCE_S)
    connection.putrequest("GET", path, skip_host=True)
    connection.putheader("Host", host or where.netloc)
    connection.putheader("Cookie", f"profiler_kit_{where.port}={url.token if token is None else token}")
    for name, value in more.items():
        connection.putheader(name.replace("_", "-"), value)
    connection.endheaders()
    answer = connection.getresponse()
    body = answer.read()
    connection.close()
    return answer.status, {key.lower(): value for key, value in answer.getheaders()}, body


def test_it_starts_and_answers(server: Address) -> None:
    assert get(server, "/_stcore/health")[::2] == (200, b"ok")
    assert get(server, "/")[0] == 200


def test_the_trace_comes_untouched(server: Address, root: Path) -> None:
    status, headers, body = get(server, "/kit/trace?run=gpu")
    assert status == 200 and body == (root / "gpu" / "trace.json.gz").read_bytes()
    assert "content-encoding" not in headers
    assert headers["content-type"] == "application/octet-stream"
    assert headers["x-content-type-options"] == "nosniff"
    assert headers["content-disposition"] == 'attachment; filename="gpu-trace.json.gz"'


def test_a_trace_that_perfetto_cannot_unpack_comes_as_gzip(server: Address, root: Path) -> None:
    trace = gzip.decompress((root / "gpu" / "trace.json.gz").read_bytes())
    (root / "packed.json.zst").write_bytes(zstandard.compress(gzip.compress(trace)))
    status, headers, body = get(server, "/kit/trace?run=packed.json.zst")
    assert status == 200 and gzip.decompress(body) == trace
    assert headers["content-disposition"] == 'attachment; filename="packed.json.gz"'


@pytest.mark.parametrize(
    "route", ["trace", "snapshot", "timeline", "tiles", "search", "span", "memory", "perfetto", "at", "window"]
)
@pytest.mark.parametrize(
    "run",
    [
        "../secret",
        "..%2fsecret",
        "%2e%2e/secret",
        "%252e%252e%252fsecret",
        "....//secret",
        "gpu/../../secret",
        "link",
        "link.json.gz",
        "/etc/passwd",
        "%2fetc%2fpasswd",
        "ABSOLUTE",
        "%00",
        "",
        "gone",
        "gpu/run.json",
        "gpu/config.json",
        "gpu/trace.json.gz",
        ".hidden",
        ".hidden/token.json",
        ".hidden%2ftoken.json",
        "%252ehidden/token.json",
        "./.hidden/token.json",
        "gpu/../.hidden/token.json",
        "inside",
        "inside.json",
        "stolen",
        "a/b/c/d/deep.json",
        "GPU",
        "gpu/",
        "/gpu",
        "./gpu",
        "gpu/../gpu",
        "g%2570u",
        "gpu%00",
        "gpu%0a",
        "%ff%fe",
        "a" * 5000,
    ],
)
def test_nothing_outside_the_folder(server: Address, root: Path, route: str, run: str) -> None:
    if run == "ABSOLUTE":
        run = quote(str(root.parent / "secret" / "trace.json.gz"), safe="")
    status, _, body = get(server, f"/kit/{route}?run={run}&t0=0&t1=10&px=10")
    assert status == 404 and b"secret" not in body


@pytest.mark.parametrize(
    "path", ["/kit/../../etc/passwd", "/kit/perfetto-ui/../../../etc/passwd", "/kit/perfetto-ui/%2e%2e/%2e%2e/x"]
)
def test_no_way_out_by_the_path(server: Address, path: str) -> None:
    status, _, body = get(server, path)
    assert b"root:" not in body
    assert status in (400, 404) or b"<title>" in body  # Streamlit answers unknown paths with its start page


def test_other_host_names_are_refused(server: Address) -> None:
    assert get(server, "/kit/trace?run=gpu", host="evil.example")[0] == 400
    assert get(server, "/", host="evil.example")[0] == 400
    assert get(server, "/", host=" ")[0] == get(server, "/", host="127.0.0.1.evil.example")[0] == 400
    assert get(server, "/", host="[::1")[0] == get(server, "/", host="localhost@evil.example")[0] == 400
    assert get(server, "/", host="evil.example@127.0.0.1")[0] == get(server, "/", host="127.0.0.1/x")[0] == 400
    assert get(server, "/", host="localhost")[0] == get(server, "/", host="[::1]:1")[0] == 200


def test_every_answer_keeps_the_browser_here(server: Address) -> None:
    for path in ("/", "/kit/trace?run=gone", "/kit/memory?run=gpu", "/kit/perfetto?run=gpu"):
        _, headers, _ = get(server, path)
        assert headers["x-content-type-options"] == "nosniff"
        assert "default-src 'self'" in headers["content-security-policy"]


ROUTES = {
    "trace": "", "snapshot": "", "memory": "download", "perfetto": "", "timeline": "by",
    "tiles": "t0 t1 px rows q by", "search": "q t row back rows by", "span": "row index by", "at": "t0 t1 by",
    "window": "t0 t1",
}  # fmt: skip
GOOD = {"t0": "0", "t1": "1000", "px": "100", "t": "0", "row": "0", "index": "0", "q": "a", "by": "stream"}
VALUES = (
    *("", "a", "NaN", "nan", "inf", "-inf", "1e400", "1e3", "1.5", "0x10", "1_0", "-1", "-9223372036854775808"),
    *("9223372036854775807", "9223372036854775808", "18446744073709551616", str(1 << 60), str(-(1 << 60))),
    *("9" * 400, "9" * 5000, "[1,2]", "1,2", "{}", "null", "true", "%00", "%ff", "%F0%9F%92%A9", "%D9%A1", "%C2%B2"),
    *("+1", "%201"),
)  # fmt: skip


@pytest.mark.parametrize("route", ROUTES)
def test_no_query_is_a_fault_of_the_server(server: Address, route: str) -> None:
    names = ROUTES[route].split()
    queries = [urlencode({name: GOOD[name] for name in names if name in GOOD})]
    for name in names:
        others = urlencode({other: GOOD[other] for other in names if other in GOOD and other != name})
        queries += [f"{others}&{name}={value}" for value in VALUES]
        queries += [others, f"{others}&{name}=1&{name}=2", f"{others}&{name}[]=1&{name}[0]=2"]
    if "t0" in names:
        queries += [f"t0={a}&t1={b}&px=9" for a, b in (("5", "1"), (-(1 << 60), 1 << 60), ("0", 1 << 60), ("-5", "-1"))]
    for query in queries:
        status, _, body = get(server, f"/kit/{route}?run=gpu&{query}")
        assert status in (200, 422), (query, status, body)
        assert status == 200 or (body and b"\n" not in body), query
    assert get(server, f"/kit/{route}?run=gpu&run=host")[0] in (200, 404, 422)
    assert get(server, f"/kit/{route}")[0] == get(server, f"/kit/{route}?run[]=gpu")[0] == 404


# ---- who may ask


def test_the_token_is_asked_for_and_kept_in_a_cookie(server: Address) -> None:
    port = urlparse(server).port
    assert server.link == f"{server}/?token={server.token}" and len(server.token) >= 30
    for path in ("/", "/kit/trace?run=gpu", "/static/none.js", "/_stcore/host-config", "/kit/perfetto-ui/index.html"):
        for wrong in ("", "x", server.token[:-1], server.token + "x", "é", server.token.swapcase()):
            status, headers, body = get(server, path, token=wrong)
            assert status == 403 and body.startswith(b"The token is missing or wrong. Open the link ")
            assert "set-cookie" not in headers
    assert get(server, "/?token=x", token="")[0] == get(server, "/?token=", token="")[0] == 403
    status, headers, _ = get(server, f"/?token={server.token}", token="")
    assert status == 200
    assert headers["set-cookie"] == f"profiler_kit_{port}={server.token}; HttpOnly; Path=/; SameSite=Lax"
    assert get(server, f"/kit/trace?run=gpu&token={server.token}", token="")[0] == 200
    assert "set-cookie" not in get(server, "/kit/trace?run=gpu")[1]
    assert get(server, "/_stcore/health", token="")[0] == 200


def test_without_a_token_when_asked_so(tmp_path: Path) -> None:
    with serving(make_runs(tmp_path / "runs"), "--no-token") as address:
        assert address.link == address
        assert get(address, "/kit/trace?run=gpu", token="")[0] == 200
        assert "101" in shake_hands(address, address, cookie="")
        assert " 403 " in shake_hands(address, "http://127.0.0.1:1", cookie="")


def shake_hands(url: Address, origin: str | None, *, host: str | None = None, cookie: str | None = None) -> str:
    """The first line of the answer to a WebSocket's opening."""
    where = urlparse(url)
    cookie = f"profiler_kit_{where.port}={url.token}" if cookie is None else cookie
    lines = [
        "GET /_stcore/stream HTTP/1.1", f"Host: {host or where.netloc}", "Upgrade: websocket", "Connection: Upgrade",
        "Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==", "Sec-WebSocket-Version: 13", f"Cookie: {cookie}",
        *([] if origin is None else [f"Origin: {origin}"]),
    ]  # fmt: skip
    with socket.create_connection((where.hostname, where.port), timeout=PATIENCE_S) as connection:
        connection.sendall(("\r\n".join(lines) + "\r\n\r\n").encode())
        return connection.recv(200).decode("latin-1").splitlines()[0]


def test_a_socket_is_of_a_page_of_this_server(server: Address) -> None:
    port = urlparse(server).port
    assert " 101 " in shake_hands(server, server)
    assert " 101 " in shake_hands(server, f"http://LOCALHOST:{port}", host=f"localhost:{port}")
    assert " 101 " in shake_hands(server, "http://localhost:9000", host="localhost:9000")  # of a tunnel
    assert " 101 " in shake_hands(server, "http://localhost", host="localhost:80")
    others = (
        f"http://127.0.0.1:{(port or 0) + 1}", "http://127.0.0.1", f"http://localhost:{port}", "http://evil.example",
        f"http://evil.example:{port}", "null", "", "127.0.0.1", f"ftp://127.0.0.1:{port}", "http://127.0.0.1:x",
        f"http://127.0.0.1:{port}.evil.example", f"http://127.0.0.1:{port}@evil.example", "http://[::1", "https://127.0.0.1",
    )  # fmt: skip
    for origin in others:
        assert " 403 " in shake_hands(server, origin), origin
        assert get(server, "/kit/trace?run=gpu", Origin=origin)[0] == 403
    assert " 403 " in shake_hands(server, server, cookie="") and " 403 " in shake_hands(server, None, cookie="")
    assert " 403 " in shake_hands(server, f"http://evil.example:{port}", host=f"evil.example:{port}")


def test_the_policy_names_no_socket_elsewhere(server: Address) -> None:
    policy = get(server, "/")[1]["content-security-policy"]
    assert "ws:" not in policy and "wss:" not in policy and "*" not in policy
    assert "connect-src 'self' data: blob:;" in policy


def test_timeline_tiles(server: Address) -> None:
    about = json.loads(gzip.decompress(get(server, "/kit/timeline?run=gpu")[2]))
    assert [track["label"] for track in about["tracks"]] == [
        "Critical path", "Regions on GPUs", "Stream 7", "Queue, stream 7",
        "Regions, thread 1", "Operators, thread 1", "Launches, thread 1",
    ]  # fmt: skip
    status, _, body = get(server, f"/kit/tiles?run=gpu&t0=0&t1={about['end']}&px=800")
    (size,) = struct.unpack_from("<I", body)
    head = json.loads(body[4 : 4 + size])
    assert status == 200 and sorted(row["row"] for row in head["rows"]) == list(range(9))


@pytest.mark.parametrize(
    ("query", "said"),
    [
        ("t0=5&t1=5&px=100", b"view 5 to 5 ns, 100 pixels: expected an end after its start"),
        ("t0=a&t1=5&px=100", b"t0: expected a whole number"),
        ("", b"t0: expected a whole number"),
        ("t0=0&t1=5&px=100&rows=a", b"rows: expected whole numbers, separated by commas"),
        ("t0=0&t1=5&px=100&by=name", b"by: expected one of stream, region, thread, operator"),
    ],
)
def test_views_that_are_none(server: Address, query: str, said: bytes) -> None:
    assert get(server, f"/kit/tiles?run=gpu&{query}")[::2] == (422, said)


def test_broken_files_answer_with_one_line(server: Address, root: Path) -> None:
    for route in ("timeline", "memory"):
        status, _, body = get(server, f"/kit/{route}?run=broken")
        assert status == 422 and body.startswith(str(root / "broken").encode()) and b"\n" not in body


def test_memory_page_opens_and_downloads(server: Address) -> None:
    status, headers, body = get(server, "/kit/memory?run=gpu")
    assert status == 200 and headers["content-type"].startswith("text/html") and b"<html" in body
    assert "content-disposition" not in headers
    headers = get(server, "/kit/memory?run=gpu&download=1")[1]
    assert headers["content-disposition"] == 'attachment; filename="memory.html"'


def test_a_missing_folder_is_one_line(tmp_path: Path) -> None:
    done = profiler_kit("serve", tmp_path / "missing", "--no-browser")
    assert (done.code, done.out) == (1, "")
    assert done.err == (
        f"profiler-kit: {tmp_path / 'missing'}: no such folder, expected a folder of runs. "
        "Name a folder that holds runs, or record one with: profiler-kit capture\n"
    )


def test_a_taken_port_is_one_line_or_the_next_one(tmp_path: Path) -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = taken.getsockname()[1]
        done = profiler_kit("serve", tmp_path, "--port", str(port))
        assert done.code == 1
        assert done.err == (
            f"profiler-kit: --port {port}: taken by another process. Leave --port out to use the next free one\n"
        )
    with take_port("127.0.0.1", None) as one, take_port("127.0.0.1", None) as other:
        ports = one.getsockname()[1], other.getsockname()[1]
        assert DEFAULT_PORT <= min(ports) < max(ports)


@pytest.mark.parametrize("port", [0, -1, 70000])
def test_ports_that_are_none(port: int) -> None:
    with pytest.raises(OptionError) as error:
        take_port("127.0.0.1", port)
    assert str(error.value) == f"--port {port}: out of range, expected 1 to 65535"


def test_addresses_that_are_none() -> None:
    with pytest.raises(OptionError) as error:
        take_port("no such host", None)
    assert str(error.value) == "--host no such host: no such address, expected one of this machine, such as 127.0.0.1"
    with pytest.raises(OptionError) as error:
        take_port("192.0.2.1", None)
    assert str(error.value) == "--host 192.0.2.1: not an address of this machine, expected one such as 127.0.0.1"


def test_what_is_printed() -> None:
    lines = announcement(Path("/runs"), "http://127.0.0.1:8501", "127.0.0.1", 8501)
    assert lines[0] == "profiler_kit serves /runs"
    assert "http://127.0.0.1:8501" in lines[1]
    assert "ssh -N -L 8501:127.0.0.1:8501 " in lines[2]
    assert ssh_line(8501, "203.0.113.9 50000 198.51.100.4 2222").startswith("ssh -N -L 8501:127.0.0.1:8501 -p 2222 ")
    assert ssh_line(8501, "203.0.113.9 50000 198.51.100.4 22").endswith("@198.51.100.4")
    assert "everyone on the network" in announcement(Path("/r"), "http://127.0.0.1:1", "0.0.0.0", 1)[-1]


def test_no_answer_waits_for_an_acknowledgement() -> None:
    from streamlit.web.server.starlette import starlette_server

    from app.listening import listen_on

    listen_on()
    listen_on()  # as often as it likes
    with starlette_server._bind_socket("127.0.0.1", 0, 5) as listening:
        with socket.create_connection(listening.getsockname()), listening:
            listening.setblocking(True)
            accepted, _ = listening.accept()
        with accepted:
            assert accepted.getsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY)


def test_the_dashboard_is_found() -> None:
    assert dashboard().name == "main.py"
