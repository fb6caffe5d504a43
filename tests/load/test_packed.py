"""Packed files are read whatever packed them and however often; what is no trace is named, with what to do."""

from __future__ import annotations

import bz2
import contextlib
import functools
import gzip
import io
import lzma
import pickle
import tarfile
import threading
import zipfile
import zlib
from collections.abc import Callable
from pathlib import Path

import pytest
import zstandard

from profiler_kit.errors import InputError, TraceFormatError
from profiler_kit.load.trace import decompress
from profiler_kit.load.trace.chrome import read_chrome_trace
from profiler_kit.load.trace.decompress import MOST_LAYERS, Blocks, first_bytes
from profiler_kit.load.trace.file_facts import load_file_facts
from profiler_kit.load.trace.read_ahead import BlocksAhead
from tests.builders import TraceBuilder

both_readers = pytest.mark.usefixtures("both_readers")

CASES = Path(__file__).parents[1] / "cases" / "traces"


def zstd_long(data: bytes) -> bytes:
    """As `zstd --long=31` packs what comes through a pipe: a window of 2 GB, and no size in the head."""
    parameters = zstandard.ZstdCompressionParameters(window_log=31, enable_ldm=True)
    packer = zstandard.ZstdCompressor(compression_params=parameters).compressobj()
    return packer.compress(data) + packer.flush()


def zstd_checked(data: bytes) -> bytes:
    return zstandard.ZstdCompressor(write_checksum=True).compress(data)


def zstd_skipping(data: bytes) -> bytes:
    """As pzstd packs: a frame to skip comes first."""
    return b"\x50\x2a\x4d\x18\x04\0\0\0size" + zstandard.compress(data)


PACK: dict[str, Callable[[bytes], bytes]] = {
    "gzip": gzip.compress,
    "zstd": zstandard.compress,
    "zstd, long": zstd_long,
    "zstd, checksum": zstd_checked,
    "zstd, a frame to skip": zstd_skipping,
    "xz": lzma.compress,
    "bz2": bz2.compress,
}


@functools.cache
def trace_of(events: int = 3) -> bytes:
    trace = TraceBuilder()
    for number in range(events):
        trace.region(f"region {number * 7919 % 1000}", number, 0.5)
    return trace.kineto()


@pytest.mark.parametrize("pack", PACK)
def test_every_packing_gives_the_bytes_back(pack: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path, data = tmp_path / "t.json", trace_of(2000)
    packed = PACK[pack](data)
    head = PACK[pack](data[:1000]) + PACK[pack](b"")  # members one after the other, one of them empty
    for whole, what in {
        packed: "one member",
        head + PACK[pack](data[1000:]): "three members",
        packed + b"\0" * 512: "padding",
        packed + b"junk": "junk behind it",
    }.items():
        for block in (decompress.BLOCK_BYTES, 5000):
            monkeypatch.setattr(decompress, "BLOCK_BYTES", block)
            path.write_bytes(whole)
            blocks = Blocks(path)
            assert b"".join(blocks) == data, what
            assert not blocks.cut_off and blocks.packing == (pack.partition(",")[0],)


@both_readers
@pytest.mark.parametrize("outer", PACK)
@pytest.mark.parametrize("inner", PACK)
def test_packed_twice(outer: str, inner: str, tmp_path: Path) -> None:
    path = tmp_path / "t.json"
    path.write_bytes(PACK[outer](PACK[inner](trace_of())))
    assert len(read_chrome_trace(path).columns) == 3
    assert load_file_facts(path).packing == f"{inner.partition(',')[0]} in {outer.partition(',')[0]}"
    assert first_bytes(path, 20) == trace_of()[:20]


@both_readers
def test_packed_too_often_is_named(tmp_path: Path) -> None:
    path, data = tmp_path / "t.json", trace_of()
    for _ in range(MOST_LAYERS):
        data = gzip.compress(data)
    path.write_bytes(data)
    assert len(read_chrome_trace(path).columns) == 3
    path.write_bytes(gzip.compress(data))
    assert refused(path) == "data packed with gzip more than 4 times; Unpack it first."


@both_readers
@pytest.mark.parametrize("pack", PACK)
def test_a_cut_or_damaged_file_keeps_what_comes_before(pack: str, tmp_path: Path) -> None:
    path, data = tmp_path / "t.json", trace_of(20_000)
    packed = bytearray(PACK[pack](data))
    path.write_bytes(packed[: len(packed) // 2])
    blocks = Blocks(path)
    kept = b"".join(blocks)
    assert blocks.cut_off and data.startswith(kept) and len(kept) > len(data) / 4
    loaded = read_chrome_trace(path)
    assert loaded.quality.truncated and loaded.quality.incidents[-1].kind == "corrupt"
    assert loaded.quality.events in (kept.count(b'"ph"'), kept.count(b'"ph"') - 1)
    packed[len(packed) * 3 // 4 :] = b"\xff" * (len(packed) // 4)
    path.write_bytes(packed)
    assert read_chrome_trace(path).quality.events > 5_000 and load_file_facts(path).damaged_compression


def test_what_unpacks_without_bounds_is_read_in_blocks(tmp_path: Path) -> None:
    """Blocks by the hundred in a few kB: zstd itself has no bound on what one step makes."""
    path = tmp_path / "t.json"
    for pack in PACK.values():
        path.write_bytes(pack(bytes(16 << 20)))
        sizes = {len(block) for block in Blocks(path)}
        assert decompress.BLOCK_BYTES // 4 <= min(sizes) <= max(sizes) <= decompress.BLOCK_BYTES


def test_a_large_window_is_given_to_what_has_the_bytes_for_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(decompress, "USUAL_WINDOW", 4 << 20)
    path = tmp_path / "t.json"
    path.write_bytes(zstd_long(bytes(64 << 20)))
    blocks = Blocks(path)
    assert sum(map(len, blocks)) < 32 << 20 and blocks.cut_off
    packer = zstandard.ZstdCompressor().compressobj()
    path.write_bytes(packer.compress(bytes(64 << 20)) + packer.flush())
    assert sum(map(len, Blocks(path))) == 64 << 20


def archive(kind: str) -> bytes:
    out = io.BytesIO()
    if kind == "tar":
        with tarfile.open(fileobj=out, mode="w") as tar:
            member = tarfile.TarInfo("trace.json")
            member.size = len(trace_of())  # as it is, which must not be taken for the file
            tar.addfile(member, io.BytesIO(trace_of()))
    else:
        with zipfile.ZipFile(out, "w") as file:
            file.writestr("archive/data.pkl" if kind == "torch" else "trace.json", trace_of())
    return out.getvalue()


def protobuf(*messages: bytes) -> bytes:
    return b"".join(b"\n" + bytes([len(one) & 0x7F | 0x80, len(one) >> 7]) + one for one in messages)


OTHERS: dict[str, tuple[bytes, str, str]] = {
    "zip": (archive("zip"), "a zip archive", "Unpack it first: unzip FILE"),
    "torch.save": (
        archive("torch"),
        "a zip archive of torch.save (a memory snapshot or a checkpoint)",
        "Open a memory snapshot with: profiler-kit memory FILE",
    ),
    "tar": (archive("tar"), "a tar archive", "Unpack it first: tar -xf FILE"),
    "pickle": (
        pickle.dumps({"segments": []}),
        "a pickle (a CUDA memory snapshot?)",
        "Open it with: profiler-kit memory FILE",
    ),
    "sqlite": (
        b"SQLite format 3\0" + bytes(84),
        "an SQLite database (what nsys export writes for Nsight Systems?)",
        "Read it with sqlite3 or Nsight Systems; nsys export makes no chrome trace.",
    ),
    "perfetto": (
        protobuf(b"\x32\x08\x12\x06\x08\x06\x10\xb0\x98\x01", b"\x40\x01\x50\x01"),
        "a Perfetto trace (protobuf)",
        "Convert it first with Perfetto's traceconv: traceconv json FILE OUT.json",
    ),
    "perfetto, one large packet": (
        b"\n\xff\xff\x03\x40" + bytes(range(1, 256)) * 20,
        "a Perfetto trace (protobuf)",
        "Convert it first with Perfetto's traceconv: traceconv json FILE OUT.json",
    ),
    "xplane": (
        protobuf(b"\x08\x01\x12\x0d/device:GPU:0" + bytes(300)),
        "an XPlane file of TensorFlow or JAX (.xplane.pb)",
        "Give the trace.json.gz that their profiler writes beside it.",
    ),
    "perfetto, empty packets": (b"\n\0" * 400, "a Perfetto trace (protobuf)", "traceconv"),
    "utf-16, little": (trace_of().decode().encode("utf-16-le"), "UTF-16 text without a byte order mark", "UTF-16LE"),
    "utf-16, big": (trace_of().decode().encode("utf-16-be"), "UTF-16 text without a byte order mark", "UTF-16BE"),
    "utf-16, a list": (' [{"ph": "X"}]'.encode("utf-16-le"), "UTF-16 text without a byte order mark", "UTF-16LE"),
    "utf-32": (trace_of().decode().encode("utf-32"), "UTF-32 text", "UTF-32"),
    "utf-32, little": (trace_of().decode().encode("utf-32-le"), "UTF-32 text", "UTF-32"),
    "utf-32, big": (trace_of().decode().encode("utf-32-be"), "UTF-32 text", "UTF-32"),
    "html": (b"\n<!DOCTYPE html>\n<html>", "an HTML page (of a download or a login?)", "Download the file itself"),
    "html, comment": (b"<!-- saved --><HTML lang='en'>", "an HTML page (of a download or a login?)", "Download"),
    "xml": (b"<?xml version='1.0'?><Error>", "an XML file", "Give the file that the profiler wrote."),
    "git lfs": (
        b"version https://git-lfs.github.com/spec/v1\noid sha256:00\nsize 9\n",
        "a git LFS pointer, not the file itself",
        "Fetch the file: git lfs pull",
    ),
    "git-annex": (
        b"/annex/objects/SHA256E-s9--00.json\n",
        "a git-annex pointer, not the file itself",
        "Fetch the file: git annex get FILE",
    ),
    "png": (b"\x89PNG\r\n\x1a\n", "a picture (PNG)", "Give the file that was recorded"),
    "jpeg": (b"\xff\xd8\xff\xe0", "a picture (JPEG)", "Give the file that was recorded"),
    "pdf": (b"%PDF-1.7\n", "a PDF document", "Give the file that was recorded"),
    "parquet": (b"PAR1\x15\x04", "a Parquet table", "Give the file that the profiler wrote."),
    "lz4": (b"\x04\x22\x4d\x18\x64", "data packed with lz4", "Unpack it first: lz4 -d FILE"),
    "lz4, old": (b"\x02\x21\x4c\x18\x64", "data packed with lz4", "Unpack it first: lz4 -d FILE"),
    "zlib": (zlib.compress(trace_of()), "data packed with zlib", "Unpack it first: pigz -dz < FILE"),
    "nsight": (
        b"NVR\0\x01",
        "a report of Nsight Systems or Nsight Compute",
        "Read it with nsys-ui or ncu-ui",
    ),
    "lzma": (lzma.compress(b"{}", lzma.FORMAT_ALONE), "data packed with lzma", "Unpack it first: xz -d FILE"),
    "zeros": (bytes(5000), "nothing but NUL bytes where it begins (an unfinished copy?)", "Copy the file again."),
    "text": (
        b"\nhi",
        "text that is not JSON, or cut off before its events (it starts with '\\nhi')",
        "Record one",
    ),
    "nothing": (gzip.compress(b""), "packed data that are empty or cannot be unpacked", "Record one"),
}


def refused(path: Path) -> str:
    """What the message says that was found, and what to try."""
    with pytest.raises(TraceFormatError) as raised:
        read_chrome_trace(path)
    message = str(raised.value).removeprefix(f"{path}: found ")
    return message.replace(", expected a chrome trace: {'traceEvents': [...]}. ", "; ")


@pytest.mark.parametrize("pack", ["", "gzip", "zstd"])
@pytest.mark.parametrize("case", OTHERS)
def test_what_is_no_trace_is_named_with_what_to_do(case: str, pack: str, tmp_path: Path) -> None:
    path = tmp_path / "trace.json"
    data, what, hint = OTHERS[case]
    path.write_bytes(PACK[pack](data) if pack else data)
    found, _, todo = refused(path).partition("; ")
    assert found == what and hint in todo
    assert "\n" not in str(refused(path))


def test_reports_of_nsight_are_told_by_their_name(tmp_path: Path) -> None:
    (tmp_path / "a.nsys-rep").write_bytes(b"\1\2\3\4")
    assert refused(tmp_path / "a.nsys-rep").startswith("a report of Nsight Systems or Nsight Compute; ")


@both_readers
@pytest.mark.parametrize("case", ["packed.json.zst", "packed_twice.json.gz"])
def test_the_cases_are_read(case: str) -> None:
    loaded = read_chrome_trace(CASES / case)
    assert loaded.quality.events == len(loaded.columns) and not loaded.quality.truncated


@pytest.mark.parametrize(
    ("leads", "todo"),
    [
        ("../.git/annex/objects/xx/SHA256E-s9--00.json", "Fetch the file: git annex get {path}"),
        ("gone.json", "Copy the file it stands for."),
    ],
)
def test_a_link_that_leads_nowhere_says_where(leads: str, todo: str, tmp_path: Path) -> None:
    path = tmp_path / "t.json"
    path.symlink_to(leads)
    with pytest.raises(InputError) as raised:
        read_chrome_trace(path)
    assert str(raised.value) == (
        f"{path}: this is a link to {leads}, which does not exist, expected a chrome trace. {todo.format(path=path)}"
    )


def test_a_thread_that_unpacks_ahead_ends_with_its_reader(tmp_path: Path) -> None:
    path = tmp_path / "t.json.gz"
    path.write_bytes(gzip.compress(bytes(40 << 20), 1))
    whole, seen = BlocksAhead(path), 0
    for block in whole:
        seen += len(block)
    assert (seen, whole.packing, whole.cut_off) == (40 << 20, ("gzip",), False)

    def stop(done: float, total: float, note: str = "") -> None:
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        next(iter(BlocksAhead(path, report=stop)))
    with contextlib.closing(iter(BlocksAhead(path))) as blocks:
        next(blocks)
    path.write_bytes(path.read_bytes()[:-9])
    cut = BlocksAhead(path)
    assert sum(map(len, cut)) > 39 << 20 and cut.cut_off
    assert not [thread for thread in threading.enumerate() if thread.name == "unpack"]
