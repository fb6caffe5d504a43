"""Compile the native reader while the package is built; without a C compiler the package is pure Python."""

from __future__ import annotations

import re
import runpy
import sysconfig
from pathlib import Path
from typing import Any

from hatchling.builders.hooks.plugin.interface import BuildHookInterface

BUILD = Path("profiler_kit") / "load" / "trace" / "native" / "build.py"


class NativeReader(BuildHookInterface[Any]):
    """Runs for wheels and for editable installs, whose library stays beside its source."""

    def initialize(self, version: str, build_data: dict[str, Any]) -> None:
        """Compile, and name the platform in the wheel's tag: the library knows nothing of Python's version."""
        reason = runpy.run_path(str(Path(self.root) / BUILD))["build"]()
        if reason:
            self.app.display_warning(f"{reason}: Python alone will read traces and snapshots, 3 to 7 times slower")
            return
        build_data["pure_python"] = False
        build_data["tag"] = "py3-none-" + re.sub("[-.]", "_", sysconfig.get_platform())
