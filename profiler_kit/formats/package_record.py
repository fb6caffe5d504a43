"""manifest.json: what a model that was compiled ahead is made for, and the files beside it."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from profiler_kit.errors import InputError, RunFormatError
from profiler_kit.files import require_file
from profiler_kit.formats.checked import FORMAT, Count, Positive, read_as

MANIFEST: Final = "manifest.json"
CACHES: Final = "caches.bin"
_WHAT: Final = "a file of profiler-kit sam export"
_HINT: Final = "Write them with: profiler-kit sam export DIR MODEL"


@dataclass(frozen=True)
class PackageRecord:
    """What was exported. weights: as a run's record has them. shapes: of the images that each package of the encoder
    takes. without: why there is no package, "" where there is. sha256: of each file; CACHES is what torch's compilers
    kept of everything that the mode compiles.
    """

    model: str
    weights: str
    mode: str
    device: str
    device_name: str
    torch: str
    batch_size: Positive
    image_size: Positive
    points_per_side: Positive
    points_per_batch: Positive
    shapes: Mapping[str, tuple[Positive, ...]]
    sha256: Mapping[str, str]
    without: str = ""
    format: Count = FORMAT


def read_package(folder: Path) -> PackageRecord:
    """Read the manifest and check every file; raises InputError or RunFormatError."""
    path = folder / MANIFEST
    found = read_as(path, PackageRecord, _WHAT, _HINT)
    if strange := next((name for name in found.sha256 if Path(name).name != name or name == ".."), None):
        raise RunFormatError(f"{path}: names the file {strange!r}, expected names without a folder. {_HINT}")
    if unknown := next((name for name in found.shapes if name not in found.sha256), None):
        raise RunFormatError(f"{path}: has no sha256 of {unknown}, expected one of each file. {_HINT}")
    for name, wanted in found.sha256.items():
        if digest(folder / name) != wanted:
            raise RunFormatError(
                f"{folder / name}: found another sha256 than {MANIFEST} says, expected {wanted}. {_HINT}"
            )
    return found


def digest(path: Path) -> str:
    """The sha256 of a file; raises InputError when it cannot be read."""
    require_file(path, _WHAT, _HINT)
    try:
        with path.open("rb") as handle:
            return hashlib.file_digest(handle, "sha256").hexdigest()
    except OSError as error:
        raise InputError(f"{path}: cannot be read ({error.strerror}), expected {_WHAT}. {_HINT}") from error
