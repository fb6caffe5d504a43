"""Put off the import of a package until something in it is used: importing pandas takes longer than most commands.

Only the command line does this, in its own process and in those that read ranks for it: a library must not touch
sys.modules. The standard library's LazyLoader will not do, for its modules are loaded by the second `import` that
names them.
"""

from __future__ import annotations

import importlib
import importlib.util
import sys
import threading
from importlib.machinery import ModuleSpec
from types import ModuleType

_LOCK = threading.Lock()


class _Late(ModuleType):
    """A placeholder for a module that passes on what is asked of it; the first use imports the module."""

    def __init__(self, spec: ModuleSpec) -> None:
        super().__init__(spec.name)
        self.__spec__, self.__file__, self.__path__ = spec, spec.origin, spec.submodule_search_locations or []

    def __getattr__(self, name: str) -> object:
        with _LOCK:  # of a module in a package both go: one of its modules must not find this in the package's place
            for late in (self.__name__.rpartition(".")[0], self.__name__):
                if isinstance(sys.modules.get(late), _Late):
                    del sys.modules[late]
        value: object = getattr(importlib.import_module(self.__name__), name)
        setattr(self, name, value)  # found without this method from now on
        return value


def import_late(*names: str) -> None:
    """Let `import NAME` import nothing until it is used. A package is named before its modules."""
    for name in names:
        package, _, inner = name.rpartition(".")
        if name in sys.modules or (package and not isinstance(sys.modules.get(package), _Late)):
            continue
        spec = ModuleSpec(name, None) if package else importlib.util.find_spec(name)
        if spec is not None:  # else it is not installed: its import says so
            sys.modules[name] = module = _Late(spec)
            if package:
                setattr(sys.modules[package], inner, module)
