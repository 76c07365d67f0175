"""Public names of a package, imported on first use: importing the package loads nothing heavy."""

from __future__ import annotations

import sys
from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping


def lazy_names(package: str, modules: Mapping[str, str]) -> tuple[Callable[[str], Any], Callable[[], list[str]]]:
    """Make the ``__getattr__`` and ``__dir__`` of a package.

    Parameters
    ----------
    package : str
        Name of the package.
    modules : mapping of str to str
        Public name -> module that defines it, relative to the package. A public module maps to itself.

    Returns
    -------
    tuple of callable
        ``__getattr__`` and ``__dir__``.
    """

    def get(name: str) -> Any:
        if name not in modules:
            raise AttributeError(f"module {package!r} has no attribute {name!r}; it has {', '.join(modules)}")
        from mlflow_hp._extras import needed_by

        with needed_by(name):
            module = import_module(f"{package}.{modules[name]}")
        return module if name == modules[name] else getattr(module, name)

    def names() -> list[str]:
        return sorted({*vars(sys.modules[package]), *modules})

    return get, names
