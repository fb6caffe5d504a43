"""What a user sets once for all commands: a TOML file in the folder of their settings.

PROFILER_KIT_SETTINGS names the file ($XDG_CONFIG_HOME/profiler_kit/settings.toml otherwise, which is
~/.config/profiler_kit/settings.toml where that variable is not set). Its one key so far: `communication =
["my_ring", "mylib::"]`, regular expressions for names of kernels and operators that communicate, beside those that
are known (profiler_kit.attribute.gpu_work).
"""

from __future__ import annotations

import os
from pathlib import Path
from typing import Final

from profiler_kit.errors import InputError

VARIABLE: Final = "PROFILER_KIT_SETTINGS"
GIVEN: Final = "PROFILER_KIT_COMMUNICATION"  # names given to one command, a line each; what it starts has them too
CAPTURES: Final = "PROFILER_KIT_CAPTURES"  # likewise traces with the captures of CUDA graphs
_TRY: Final = 'Try: communication = ["my_ring_kernel"]'


def settings_file() -> Path:
    """Where the settings are, whether or not there are any."""
    chosen = os.environ.get(VARIABLE, "").strip()
    base = os.environ.get("XDG_CONFIG_HOME", "").strip() or "~/.config"
    return (Path(chosen) if chosen else Path(base) / "profiler_kit" / "settings.toml").expanduser()


def communication_names() -> tuple[str, ...]:
    """The user's names of communication, those given to the command first.

    Raises InputError when the settings cannot be read or are wrong.
    """
    return (*filter(None, os.environ.get(GIVEN, "").splitlines()), *names_of_settings())


def capture_files() -> tuple[Path, ...]:
    """The traces, or folders of them, with captures of CUDA graphs that were given to the command."""
    return tuple(Path(line) for line in os.environ.get(CAPTURES, "").splitlines() if line)


def names_of_settings() -> tuple[str, ...]:
    """The names of communication in the settings alone; raises InputError likewise."""
    file = settings_file()
    try:
        text = file.read_bytes().decode("utf-8")
    except (FileNotFoundError, NotADirectoryError):
        if os.environ.get(VARIABLE, "").strip():
            raise InputError(
                f"{file}: no such file, expected the settings that {VARIABLE} names. Unset {VARIABLE}."
            ) from None
        return ()
    except (OSError, UnicodeDecodeError) as error:
        raise InputError(f"{file}: cannot be read ({error}), expected settings in TOML. {_TRY}") from error
    import tomllib

    try:
        found = tomllib.loads(text)
    except tomllib.TOMLDecodeError as error:
        raise InputError(f"{file}: {error}, expected settings in TOML. {_TRY}") from error
    names = found.pop("communication", [])
    if found:
        raise InputError(f"{file}: unknown setting {next(iter(found))!r}, expected communication alone. {_TRY}")
    if not isinstance(names, list) or not all(isinstance(name, str) and name for name in names):
        raise InputError(f"{file}: communication is {names!r}, expected a list of names. {_TRY}")
    return tuple(names)
