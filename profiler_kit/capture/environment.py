"""Describe what a run ran on: versions, device, commit and command line."""

from __future__ import annotations

import importlib.metadata
import os
import platform
import re
import shlex
import subprocess
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import torch

from profiler_kit.errors import OptionError, WorkloadError
from profiler_kit.version import __version__

_PROBE_TIMEOUT_S: Final = 5.0
_DEVICE: Final = re.compile(r"cpu|cuda(?::(\d{1,4}))?")


@dataclass(frozen=True)
class Environment:
    """What a run ran on. A version that cannot be found has no key; git_commit ends in "-dirty" with local changes."""

    versions: Mapping[str, str]
    device: str
    device_name: str
    git_commit: str | None
    command: str


def describe_environment(device: torch.device | str) -> Environment:
    """Describe this process: versions, the device's name, the commit of the working folder, the command line.

    Nothing here fails because git, nvidia-smi or a package is missing: what cannot be found is left out.
    """
    target = torch.device(device)
    return Environment(
        versions=_versions(target),
        device=str(target),
        device_name=_device_name(target),
        git_commit=_git_commit(),
        command=command_line(sys.argv),
    )


def resolve_device(text: str) -> torch.device:
    """The torch device called `text`: cpu, cuda (the current device) or cuda:N.

    Raises OptionError for any other text, WorkloadError when the machine has no such device.
    """
    match = _DEVICE.fullmatch(text)
    if match is None:
        raise OptionError(f"device: found {text!r}, expected cpu, cuda or cuda:N. Use --device cpu.")
    if text == "cpu":
        return torch.device("cpu")
    if not torch.cuda.is_available():
        raise WorkloadError(
            f"device: found {text!r}, expected a device that is here: this build of torch ({torch.__version__}) sees "
            "no CUDA device; use --device cpu."
        )
    index = torch.cuda.current_device() if match[1] is None else int(match[1])
    count = torch.cuda.device_count()
    if index >= count:
        here = "cuda:0" if count == 1 else f"cuda:0 to cuda:{count - 1}"
        raise WorkloadError(f"device: found {text!r}, expected a device that is here: {here}. Use --device cuda:0.")
    return torch.device("cuda", index)


def command_line(arguments: Sequence[str]) -> str:
    """The command as one would type it: the program without its folder, home folders as `~`."""
    if not arguments:
        return ""
    program = Path(arguments[0]).name or arguments[0]
    if Path(arguments[0]).parts[-3:] == ("profiler_kit", "cli", "__main__.py"):  # python -m profiler_kit.cli
        program = "profiler-kit"
    typed = shlex.join([program, *arguments[1:]])
    homes = [r"/(?:home|Users)/[^/\s'\"]+"]
    own = str(Path.home())
    if len(Path(own).parts) > 1:
        homes.insert(0, re.escape(own))
    return re.sub(rf"(?<![\w./-])(?:{'|'.join(homes)})(?=[/\s'\":,]|$)", "~", typed)


def _versions(device: torch.device) -> dict[str, str]:
    found: dict[str, str | None] = {
        "python": platform.python_version(),
        "torch": str(torch.__version__),
        "cuda": torch.version.cuda,
        "hip": getattr(torch.version, "hip", None),
        "driver": _driver_version() if device.type == "cuda" else None,
        "cudnn": _cudnn_version() if device.type == "cuda" else None,
        "triton": _package_version("triton"),
        "torchvision": _package_version("torchvision"),
        "segment_anything": _package_version("segment-anything"),
        "profiler_kit": __version__,
    }
    return {name: version for name, version in found.items() if version}


def _package_version(name: str) -> str | None:
    try:
        return importlib.metadata.version(name)
    except importlib.metadata.PackageNotFoundError:
        return None


def _cudnn_version() -> str | None:
    number = torch.backends.cudnn.version()
    if number is None:
        return None
    major = 10_000 if number >= 90_000 else 1_000  # 9.1.2 is 90102, 8.9.7 is 8907 (cudnn_version.h)
    return f"{number // major}.{number % major // 100}.{number % 100}"


def _driver_version() -> str | None:
    kernel_module = Path("/proc/driver/nvidia/version")
    try:
        match = re.search(r"\s(\d{3}\.[\d.]+)\s", kernel_module.read_text(encoding="utf-8"))
        if match:
            return match[1]
    except OSError:
        pass
    lines = (_output_of("nvidia-smi", "--query-gpu=driver_version", "--format=csv,noheader") or "").splitlines()
    return lines[0].strip() if lines else None


def _device_name(device: torch.device) -> str:
    if device.type == "cuda":
        return str(torch.cuda.get_device_name(device))
    try:
        for line in Path("/proc/cpuinfo").read_text(encoding="utf-8", errors="replace").splitlines():
            key, _, value = line.partition(":")
            if key.strip() == "model name" and value.strip():
                return value.strip()
    except OSError:
        pass
    return platform.processor() or platform.machine() or "CPU"


def _git_commit() -> str | None:
    """The commit of the checkout we run in; what $GIT_COMMIT says where a copy runs without one (a build farm)."""
    # --exclude keeps tags out, so that the answer is always the full hash
    found = _output_of("git", "describe", "--always", "--dirty", "--abbrev=40", "--exclude=*")
    return found or os.environ.get("GIT_COMMIT") or None


def _output_of(*command: str) -> str | None:
    """What a command prints, or None when it is missing, fails, hangs or prints nothing."""
    try:
        done = subprocess.run(
            command,
            capture_output=True,
            text=True,
            timeout=_PROBE_TIMEOUT_S,
            check=True,
            env={**os.environ, "GIT_OPTIONAL_LOCKS": "0"},  # never touch the index of the user's checkout
        )
    except (OSError, subprocess.SubprocessError, UnicodeDecodeError):
        return None
    return done.stdout.strip() or None
