"""Compile the native reader beside its source, with Python's own library alone: the build hook runs it too."""

from __future__ import annotations

import hashlib
import os
import shlex
import shutil
import subprocess
import sysconfig
from pathlib import Path

HERE = Path(__file__).parent
COMPILED = (HERE / "scan.c", HERE / "unpickle.c")
SOURCES = (*COMPILED, HERE / "mend.h", HERE / "json.h", HERE / "table.h")
LIBRARY = HERE / "scan.so"  # on macOS too, where ctypes does not mind the name
# Strict: no fused multiply-add, which would round times otherwise than numpy does.
FLAGS = ("-std=c11", "-O3", "-ffp-contract=off", "-fPIC", "-shared")


def flags(platform: str = sysconfig.get_platform()) -> tuple[str, ...]:
    """How to compile for a platform as a wheel's tag names it: on macOS that is a version and one or two processors."""
    if not platform.startswith("macosx-"):
        return FLAGS
    _, oldest, processors = platform.split("-")
    both = ("x86_64", "arm64") if processors == "universal2" else (processors,)
    return (*FLAGS, f"-mmacosx-version-min={oldest}", *(word for one in both for word in ("-arch", one)))


def source_hash() -> str:
    """A digest of the source, which a library made of it carries."""
    return hashlib.sha256(b"".join(file.read_bytes() for file in SOURCES)).hexdigest()[:16]


def compiler() -> list[str] | None:
    """The C compiler: $CC, else cc; None when there is none."""
    command = shlex.split(os.environ.get("CC", "cc"))
    return command if command and shutil.which(command[0]) else None


def build() -> str:
    """Compile the library anew; return "" when it is there, else why not, on one line."""
    LIBRARY.unlink(missing_ok=True)
    command = compiler()
    if command is None:
        return "no C compiler (cc) was found"
    temporary = LIBRARY.with_suffix(f".tmp-{os.getpid()}")
    try:
        done = subprocess.run(
            [*command, *flags(), f'-DSOURCE="{source_hash()}"', *map(str, COMPILED), "-o", str(temporary), "-lm"],
            capture_output=True,
            text=True,
            check=False,
        )
        if done.returncode:
            lines = done.stderr.strip().splitlines() or [f"exit code {done.returncode}"]
            return f"{command[0]} failed: {lines[0]}"
        temporary.replace(LIBRARY)
    except OSError as error:
        return f"{command[0]} could not be run: {error.strerror}"
    finally:
        temporary.unlink(missing_ok=True)
    return ""


if __name__ == "__main__":
    print(build() or f"compiled {LIBRARY}")
