"""Snapshots inside other files, and files that are none."""

from __future__ import annotations

import bz2
import gzip
import io
import lzma
import pickle
import struct
import zipfile
from pathlib import Path

import pytest
import zstandard

from profiler_kit.errors import KitError, SnapshotFormatError
from profiler_kit.load.snapshot import reader
from profiler_kit.load.snapshot.reader import read_snapshot
from profiler_kit.snapshot import load_snapshot
from tests import snapshots as s

CASES = s.ROOT / "tests" / "cases" / "snapshots"
PLAIN = pickle.dumps(s.snapshot([s.alloc(1, 0x1000, 77)]))
HINT = "Record one with profiler_kit.memory_runner or torch.cuda.memory._dump_snapshot."
OLD_TORCH = pickle.dumps(0x1950A86A20F9469CFC6C, 2) + pickle.dumps(1001, 2) + pickle.dumps({"little_endian": True}, 2)


def archive(compression: int = zipfile.ZIP_STORED, **members: bytes) -> bytes:
    out = io.BytesIO()
    with zipfile.ZipFile(out, "w", compression) as file:
        for name, data in members.items():
            file.writestr(name.replace("__", "/").replace("_dot_", "."), data)
    return out.getvalue()


def names(value: object) -> str:
    """Of a parameter: packed bytes hold the time, and would name each run's tests otherwise."""
    return value if isinstance(value, str) else ""


TORCH = archive(x__data_dot_pkl=PLAIN, x__version=b"3\n")


@pytest.mark.parametrize(
    "packed",
    [
        gzip.compress(PLAIN),
        bz2.compress(PLAIN),
        lzma.compress(PLAIN),
        zstandard.compress(PLAIN),
        zstandard.compress(gzip.compress(PLAIN)),
        TORCH,
        gzip.compress(TORCH),
        archive(zipfile.ZIP_DEFLATED, snapshot_dot_pickle=PLAIN, readme_dot_txt=b"x"),
        OLD_TORCH + PLAIN + pickle.dumps([], 2),
        pickle.dumps(pickle.loads(PLAIN), 0),
        pickle.dumps(pickle.loads(PLAIN), 1),
    ],
    ids=names,
)
def test_a_snapshot_is_found_inside(tmp_path: Path, packed: bytes) -> None:
    path = tmp_path / "m"
    path.write_bytes(packed)
    assert read_snapshot(path).events["size_bytes"].tolist() == [77]


@pytest.mark.parametrize("name", ["snapshot.pickle.gz", "torch_save.pt"])
def test_cases(name: str) -> None:
    (row,) = load_snapshot(CASES / name).summary()["devices"]
    assert (row["events"], row["end_allocated_bytes"]) == (29, 1 << 30)


@pytest.mark.parametrize(
    ("data", "said"),
    [
        (b"hello, these are notes\nsecond line\n", "this is a text file, expected a CUDA memory snapshot (a pickle)"),
        (b"Problem: it is slow.", "this is a text file, expected a CUDA memory snapshot (a pickle)"),
        (b"[INFO] step 1\n[INFO] step 2\n", "this is a text file, expected a CUDA memory snapshot (a pickle)"),
        ("Grüße an alle\n".encode(), "this is a text file, expected a CUDA memory snapshot (a pickle)"),
        ("notes\n".encode("utf-16"), "this is a text file, expected a CUDA memory snapshot (a pickle)"),
        (gzip.compress(b"notes\n"), "this is a text file, expected a CUDA memory snapshot (a pickle)"),
        (gzip.compress(b""), "this is nothing when it is unpacked, expected a CUDA memory snapshot (a pickle)"),
        (struct.pack("<Q", 40) + b'{"__metadata__":{}}'.ljust(99), "this is a safetensors file (weights of a model)"),
        (gzip.compress(PLAIN)[:-20], "the packed data end early or are damaged, expected a whole snapshot"),
        (TORCH[:200], "this is a damaged zip archive (File is not a zip file), expected a CUDA memory snapshot"),
        (archive(a=b"x"), "this is a zip archive without one pickle (a), expected a CUDA memory snapshot"),
        (archive(a_dot_pkl=PLAIN, b_dot_pkl=PLAIN), "this is a zip archive without one pickle (a.pkl, b.pkl)"),
        (archive(x__data_dot_pkl=b"ccollections\nOrderedDict\n)R."), "this is a checkpoint of torch.save (the pickle"),
        (archive(x__data_dot_pkl=b"Pstorage\n."), "this is a checkpoint of torch.save (the pickle holds a"),
        (OLD_TORCH + b"ccollections\nOrderedDict\n)R.", "this is a checkpoint of torch.save (the pickle asks for the"),
        (archive(x__data_dot_pkl=pickle.dumps({"epoch": 1})), "this is a checkpoint of torch.save (the pickle"),
    ],
    ids=names,
)  # fmt: skip
def test_what_is_no_snapshot_is_named(tmp_path: Path, data: bytes, said: str) -> None:
    path = tmp_path / "m"
    path.write_bytes(data)
    with pytest.raises(SnapshotFormatError) as caught:
        load_snapshot(path)
    assert str(caught.value).startswith(f"{path}: {said}")
    assert "\n" not in str(caught.value)


def test_a_trace_says_what_to_use(tmp_path: Path) -> None:
    path = tmp_path / "trace.json"
    event = b'{"ph": "X", "name": "k", "ts": 1, "dur": 1, "pid": 1, "tid": 1, "cat": "kernel"}'
    path.write_bytes(b'{"traceEvents": [' + event + b"]}")
    with pytest.raises(
        KitError, match=r"has no \[memory\] events, .* For what else it holds use: profiler-kit summary\.$"
    ):
        load_snapshot(path)


@pytest.mark.parametrize("packed", [gzip.compress, lambda data: archive(zipfile.ZIP_DEFLATED, x__data_dot_pkl=data)])
def test_what_unpacks_without_end_is_given_up(tmp_path: Path, packed: object, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(reader, "MEMORY_LIMIT_BYTES", 60 << 20)
    path = tmp_path / "m"
    path.write_bytes(packed(b"\x80\x04" + b"\0" * (20 << 20)))  # type: ignore[operator]
    with pytest.raises(SnapshotFormatError) as caught:
        read_snapshot(path)
    assert str(caught.value) == (
        f"{path}: it unpacks to more than 10 MiB, expected a CUDA memory snapshot. "
        "If you trust it, raise the limit with --memory-limit."
    )
