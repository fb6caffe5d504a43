"""The version of the package, for what is written into files and reports."""

from typing import Final

__version__: Final = "0.1.0"
