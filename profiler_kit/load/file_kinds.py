"""Name the files that are given as a trace or a snapshot and are something else, by their first bytes."""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Final

LOOK_BYTES: Final = 64 << 10


@dataclass(frozen=True)
class FileKind:
    """What a file is, with its article, and what to do with it."""

    name: str
    what: str
    hint: str


_PICTURE: Final = "Give the file that was recorded, not a picture or a print of it."
_TABLE: Final = "Give the file that the profiler wrote."
_KINDS: Final = (  # the first that matches where the data begin
    (rb"\x80[\x02-\x05]", "pickle", "a pickle (a CUDA memory snapshot?)", "Open it with: profiler-kit memory FILE"),
    (
        rb"PK\x03\x04.{26}[^\0]{1,200}?/?data\.pkl",
        "torch_save",
        "a zip archive of torch.save (a memory snapshot or a checkpoint)",
        "Open a memory snapshot with: profiler-kit memory FILE",
    ),
    (rb"PK(?:\x03\x04|\x05\x06|\x07\x08)", "zip", "a zip archive", "Unpack it first: unzip FILE"),
    (rb".{257}ustar", "tar", "a tar archive", "Unpack it first: tar -xf FILE"),
    (rb"7z\xbc\xaf\x27\x1c", "7z", "a 7z archive", "Unpack it first: 7z x FILE"),
    (rb"Rar!\x1a\x07", "rar", "a rar archive", "Unpack it first: unrar x FILE"),
    (rb"\x04\x22\x4d\x18|\x02\x21\x4c\x18", "lz4", "data packed with lz4", "Unpack it first: lz4 -d FILE"),
    (rb"LZIP[\0\x01]", "lzip", "data packed with lzip", "Unpack it first: lzip -d FILE"),
    (rb"\x5d\0\0[\0-\xff]{2}(?:\xff{8}|.{5}\0{3})", "lzma", "data packed with lzma", "Unpack it first: xz -d FILE"),
    (rb"\xff\x06\0\0sNaPpY", "snappy", "data packed with snappy", "Unpack it first: snzip -d FILE"),
    (rb"\x89LZO\0\r\n", "lzop", "data packed with lzop", "Unpack it first: lzop -d FILE"),
    (rb"\x78[\x01\x5e\x9c\xda][^ -~]", "zlib", "data packed with zlib", "Unpack it first: pigz -dz < FILE"),
    (rb"\x1f[\x9d\xa0]", "compress", "data packed with compress", "Unpack it first: uncompress FILE"),
    (
        rb"SQLite format 3\0",
        "sqlite",
        "an SQLite database (what nsys export writes for Nsight Systems?)",
        "Read it with sqlite3 or Nsight Systems; nsys export makes no chrome trace.",
    ),
    (
        rb".{5}\0{3}\{\"",
        "safetensors",
        "a safetensors file (weights of a model)",
        _TABLE,
    ),
    (rb"\x89HDF\r\n\x1a\n", "hdf5", "an HDF5 file", _TABLE),
    (rb"PAR1", "parquet", "a Parquet table", _TABLE),
    (rb"ARROW1\0\0|\xff\xff\xff\xff[\0-\xff]{3}\0\x10\0\0\0", "arrow", "an Arrow table", _TABLE),
    (rb"\x93NUMPY", "npy", "a NumPy array", _TABLE),
    (rb"\x7fELF|MZ|\xca\xfe\xba\xbe", "program", "a program", _TABLE),
    (rb"\x89PNG\r\n\x1a\n", "png", "a picture (PNG)", _PICTURE),
    (rb"\xff\xd8\xff", "jpeg", "a picture (JPEG)", _PICTURE),
    (rb"GIF8[79]a", "gif", "a picture (GIF)", _PICTURE),
    (rb"RIFF.{4}WEBP", "webp", "a picture (WebP)", _PICTURE),
    (rb"%PDF-", "pdf", "a PDF document", _PICTURE),
    (
        rb"version https://(?:git-lfs\.github|hawser\.github)\.com/spec/",
        "git_lfs",
        "a git LFS pointer, not the file itself",
        "Fetch the file: git lfs pull",
    ),
    (
        rb"/annex/objects/|(?:\.\./)*\.git/annex/objects/",
        "git_annex",
        "a git-annex pointer, not the file itself",
        "Fetch the file: git annex get FILE",
    ),
    (
        rb"\xff\xfe\0\0|\0\0\xfe\xff|[\t\n\r {\[]\0{3}|\0{3}[\t\n\r {\[]",
        "utf32",
        "UTF-32 text",
        "Convert it first: iconv -f UTF-32 -t UTF-8 FILE (UTF-32LE or UTF-32BE where it has no byte order mark)",
    ),
    (
        rb"(?:[\t\n\r ]\0)*+[{\[]\0[^\0]\0",
        "utf16le",
        "UTF-16 text without a byte order mark",
        "Convert it first: iconv -f UTF-16LE -t UTF-8 FILE",
    ),
    (
        rb"(?:\0[\t\n\r ])*+\0[{\[]\0[^\0]",
        "utf16be",
        "UTF-16 text without a byte order mark",
        "Convert it first: iconv -f UTF-16BE -t UTF-8 FILE",
    ),
    (rb"\0{64}", "zeros", "nothing but NUL bytes where it begins (an unfinished copy?)", "Copy the file again."),
    (
        rb"(?i)(?:\xef\xbb\xbf)?\s*(?:<!--.{,2000}?-->\s*)?<(?:!doctype\s+html|html|head|body)[\s>]",
        "html",
        "an HTML page (of a download or a login?)",
        "Download the file itself, not the page that shows it.",
    ),
    (rb"(?:\xef\xbb\xbf)?\s*<(?:\?xml|[A-Za-z])", "xml", "an XML file", _TABLE),
)
_PATTERNS: Final = tuple((re.compile(pattern, re.DOTALL), FileKind(*kind)) for pattern, *kind in _KINDS)
_XPLANE: Final = FileKind(
    "xplane",
    "an XPlane file of TensorFlow or JAX (.xplane.pb)",
    "Give the trace.json.gz that their profiler writes beside it.",
)
_PERFETTO: Final = FileKind(
    "perfetto",
    "a Perfetto trace (protobuf)",
    "Convert it first with Perfetto's traceconv: traceconv json FILE OUT.json",
)
_NSIGHT: Final = FileKind(
    "nsight",
    "a report of Nsight Systems or Nsight Compute",
    "Read it with nsys-ui or ncu-ui; it holds no chrome trace.",
)
_NSIGHT_SUFFIXES: Final = (
    ".nsys-rep",
    ".qdrep",
    ".qdstrm",
    ".ncu-rep",
)  # whose beginnings differ from version to version
ARCHIVES: Final = frozenset({"zip", "torch_save", "tar"})  # whose files may stand in them as they are
_CONTROL: Final = re.compile(rb"[\0-\x08\x0e-\x1f]")


def kind_of(head: bytes, name: str = "") -> FileKind | None:
    """What a file that begins like this is, unpacked; None when its bytes do not say, as for a trace.

    head: at least its first 512 bytes, if it has so many; some kinds need more (LOOK_BYTES is enough). name: the
    file's, which tells kinds without a beginning of their own.
    """
    if head.startswith(b"NVR\0") or name.endswith(_NSIGHT_SUFFIXES):
        return _NSIGHT
    for pattern, kind in _PATTERNS:
        if pattern.match(head):
            return kind
    if _is_messages(head):
        return _XPLANE if re.search(rb"\x12.{1,2}/(?:host|device):", head[:256], re.DOTALL) else _PERFETTO
    return None


def _is_messages(head: bytes) -> bool:
    """Whether these are messages of protobuf as field 1, one after the other: packets of Perfetto, planes of XPlane."""
    if not _CONTROL.search(head, 0, 256):  # text that begins with a new line
        return False
    at = packets = 0
    while at < len(head):
        size = shift = 0
        if head[at] != 0x0A:
            return False
        while True:  # the length: seven bits a byte, low ones first
            at += 1
            if at >= len(head) or shift > 28:
                return packets > 0
            size |= (head[at] & 0x7F) << shift
            shift += 7
            if head[at] < 0x80:
                break
        # the first key in the message: a field from 1 to 127 of a type that exists
        if size and at + 1 < len(head) and head[at + 1] & 7 not in (0, 1, 2, 5):
            return False
        at += 1 + size
        packets += 1
    return packets > 1 or at >= len(head)
