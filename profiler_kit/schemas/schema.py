"""What a frame must look like to cross a module boundary (a frame in, the same frame checked out)."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

from profiler_kit.errors import SchemaError

if TYPE_CHECKING:
    import pandas as pd


@dataclass(frozen=True)
class Schema:
    """Names and dtypes of a frame's columns, in order.

    dtypes are pandas names; "category" is a categorical of strings, "str" an object column of strings, "path"
    an object column of tuples of region names, "paths" the same as a categorical, "list" an object column of
    anything else.
    """

    name: str
    columns: Mapping[str, str]

    def check(self, frame: pd.DataFrame) -> pd.DataFrame:
        """Return `frame` with just these columns in this order; raises SchemaError on a mismatch."""
        missing = [column for column in self.columns if column not in frame.columns]
        if missing:
            raise SchemaError(f"{self.name}: column {missing[0]!r} is missing, found {list(frame.columns)}")
        for column, wanted in self.columns.items():
            found = str(frame[column].dtype)
            if found != _PANDAS.get(wanted, wanted) and not (wanted == found == "str"):  # pandas 3 has a str dtype
                raise SchemaError(f"{self.name}: column {column!r} is {found}, want {wanted}")
        return frame[list(self.columns)]

    def empty(self) -> pd.DataFrame:
        """A frame with these columns and no rows."""
        import pandas as pd

        return pd.DataFrame(
            {c: pd.Series(dtype=_PANDAS.get(t, t)) for c, t in self.columns.items()},
            columns=list(self.columns),
        )


_PANDAS: Final = {"str": "object", "path": "object", "paths": "category", "list": "object"}
