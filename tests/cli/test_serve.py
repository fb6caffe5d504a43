"""`profiler-kit serve`: what it prints and refuses, and that nothing outside the folder can be had from it."""

from __future__ import annotations

import gzip
import http.client
import json
import socket
import struct
from collections.abc import Iterator
from pathlib import Path
from urllib.parse import quote, urlparse

import pytest

from profiler_kit.cli.serve import DEFAULT_PORT, announcement, dashboard, free_port, ssh_line
from profiler_kit.errors import OptionError
from tests.app.samples import PATIENCE_S, make_runs, serving
from tests.cli.run import profiler_kit


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    base = tmp_path_factory.mktemp("serve")
    root = make_runs(base / "traces")
    secret = base / "secret"
    secret.mkdir()
    (secret / "trace.json.gz").write_bytes(b"secret")
    (root / "link").symlink_to(secret)
    (root / "link.json.gz").symlink_to(secret / "trace.json.gz")
    return root


@pytest.fixture(scope="module")
def server(root: Path) -> Iterator[str]:
    with serving(root) as found:
        yield found


def get(url: str, path: str, host: str | None = None) -> tuple[int, dict[str, str], bytes]:
    """One request with the path sent exactly as it is written."""
    where = urlparse(url)
    connection = http.client.HTTPConnection(where.hostname or "", where.port, timeout=PATIENCE_S)
    connection.putrequest("GET", path, skip_host=True)
    connection.putheader("Host", host or where.netloc)
    connection.endheaders()
    answer = connection.getresponse()
    body = answer.read()
    connection.close()
    return answer.status, {key.lower(): value for key, value in answer.getheaders()}, body


def test_it_starts_and_answers(server: str) -> None:
    assert get(server, "/_stcore/health")[::2] == (200, b"ok")
    assert get(server, "/")[0] == 200


def test_the_trace_comes_untouched(server: str, root: Path) -> None:
    status, headers, body = get(server, "/kit/trace?run=gpu")
    assert status == 200 and body == (root / "gpu" / "trace.json.gz").read_bytes()
    assert "content-encoding" not in headers
    assert headers["content-type"] == "application/octet-stream"
    assert headers["x-content-type-options"] == "nosniff"
    assert headers["content-disposition"] == 'attachment; filename="gpu-trace.json.gz"'


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
    ],
)
def test_nothing_outside_the_folder(server: str, root: Path, route: str, run: str) -> None:
    if run == "ABSOLUTE":
        run = quote(str(root.parent / "secret" / "trace.json.gz"), safe="")
    status, _, body = get(server, f"/kit/{route}?run={run}&t0=0&t1=10&px=10")
    assert status == 404 and b"secret" not in body


@pytest.mark.parametrize(
    "path", ["/kit/../../etc/passwd", "/kit/perfetto-ui/../../../etc/passwd", "/kit/perfetto-ui/%2e%2e/%2e%2e/x"]
)
def test_no_way_out_by_the_path(server: str, path: str) -> None:
    status, _, body = get(server, path)
    assert b"root:" not in body
    assert status in (400, 404) or b"<title>" in body  # Streamlit answers unknown paths with its start page


def test_other_host_names_are_refused(server: str) -> None:
    assert get(server, "/kit/trace?run=gpu", host="evil.example")[0] == 400
    assert get(server, "/", host="evil.example")[0] == 400
    assert get(server, "/", host="localhost")[0] == 200


def test_every_answer_keeps_the_browser_here(server: str) -> None:
    for path in ("/", "/kit/trace?run=gone", "/kit/memory?run=gpu", "/kit/perfetto?run=gpu"):
        _, headers, _ = get(server, path)
        assert headers["x-content-type-options"] == "nosniff"
        assert "default-src 'self'" in headers["content-security-policy"]


def test_timeline_tiles(server: str) -> None:
    about = json.loads(gzip.decompress(get(server, "/kit/timeline?run=gpu")[2]))
    assert [track["label"] for track in about["tracks"]] == [
        "Regions on the GPU", "Stream 7", "Regions, thread 1", "Operators, thread 1", "Launches, thread 1",
    ]  # fmt: skip
    status, _, body = get(server, f"/kit/tiles?run=gpu&t0=0&t1={about['end']}&px=800")
    (size,) = struct.unpack_from("<I", body)
    head = json.loads(body[4 : 4 + size])
    assert status == 200 and sorted(row["row"] for row in head["rows"]) == list(range(7))


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
def test_views_that_are_none(server: str, query: str, said: bytes) -> None:
    assert get(server, f"/kit/tiles?run=gpu&{query}")[::2] == (422, said)


def test_broken_files_answer_with_one_line(server: str, root: Path) -> None:
    for route in ("timeline", "memory"):
        status, _, body = get(server, f"/kit/{route}?run=broken")
        assert status == 422 and body.startswith(str(root / "broken").encode()) and b"\n" not in body


def test_memory_page_opens_and_downloads(server: str) -> None:
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
    assert free_port("127.0.0.1", None) >= DEFAULT_PORT


@pytest.mark.parametrize("port", [0, -1, 70000])
def test_ports_that_are_none(port: int) -> None:
    with pytest.raises(OptionError) as error:
        free_port("127.0.0.1", port)
    assert str(error.value) == f"--port {port}: out of range, expected 1 to 65535"


def test_addresses_that_are_none() -> None:
    with pytest.raises(OptionError) as error:
        free_port("no such host", None)
    assert str(error.value) == "--host no such host: no such address, expected one of this machine, such as 127.0.0.1"
    with pytest.raises(OptionError) as error:
        free_port("192.0.2.1", None)
    assert str(error.value) == "--host 192.0.2.1: not an address of this machine, expected one such as 127.0.0.1"


def test_what_is_printed() -> None:
    lines = announcement(Path("/runs"), "http://127.0.0.1:8501", "127.0.0.1", 8501)
    assert lines[0] == "profiler_kit serves /runs"
    assert "http://127.0.0.1:8501" in lines[1]
    assert "ssh -N -L 8501:127.0.0.1:8501 " in lines[2]
    assert ssh_line(8501, "203.0.113.9 50000 198.51.100.4 2222").startswith("ssh -N -L 8501:127.0.0.1:8501 -p 2222 ")
    assert ssh_line(8501, "203.0.113.9 50000 198.51.100.4 22").endswith("@198.51.100.4")
    assert "everybody on the network" in announcement(Path("/r"), "http://127.0.0.1:1", "0.0.0.0", 1)[-1]


def test_no_answer_waits_for_an_acknowledgement() -> None:
    from streamlit.web.server.starlette import starlette_server

    from app.nodelay import send_at_once

    send_at_once()
    send_at_once()  # once is enough
    with starlette_server._bind_socket("127.0.0.1", 0, 5) as listening:
        with socket.create_connection(listening.getsockname()), listening:
            listening.setblocking(True)
            accepted, _ = listening.accept()
        with accepted:
            assert accepted.getsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY)


def test_the_dashboard_is_found() -> None:
    assert dashboard().name == "main.py"
