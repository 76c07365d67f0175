"""Pages of the API: a page for each public package, from the docstrings."""

from __future__ import annotations

import importlib
import inspect
import pkgutil
from types import ModuleType

import mlflow_hp

FOLDER = "docs/reference"


def packages() -> dict[str, list[str]]:
    """List the public packages, each with its public names; the package itself is first."""
    names = [each.name for each in pkgutil.iter_modules(mlflow_hp.__path__) if not each.name.startswith("_")]
    every = {name: importlib.import_module(name) for name in ["mlflow_hp", *(f"mlflow_hp.{each}" for each in names)]}
    return {name: list(package.__all__) for name, package in every.items() if getattr(package, "__all__", None)}


def page(package: str, names: list[str]) -> str:
    """Write the page of a package."""
    module = importlib.import_module(package)
    parts = [f"# `{package}`", "", inspect.getdoc(module) or "", ""]
    for name in names:
        thing = getattr(module, name)
        if isinstance(thing, ModuleType):
            parts += [
                f"## `{package}.{name}`", "", f"::: {thing.__name__}", "    options:", "      heading_level: 3",
                "      show_root_heading: false", "      show_root_toc_entry: false", *_members(thing), "",
            ]  # fmt: skip
        elif callable(thing):
            parts += [f"::: {thing.__module__}.{thing.__qualname__}", "    options:",
                      f'      heading: "{name}"', f'      toc_label: "{name}"', ""]  # fmt: skip
        else:
            parts += [f"## `{name}`", "", f"```python\n{name} = {_short(thing)}\n```", ""]
    return "\n".join(parts)


def _members(module: ModuleType) -> list[str]:
    own = [
        name for name, value in vars(module).items()
        if not name.startswith("_") and callable(value) and value.__module__ == module.__name__
    ]  # fmt: skip
    listed = list(getattr(module, "__all__", None) or own)
    return ["      members:", *(f"        - {name}" for name in listed)]


def _short(value: object) -> str:
    text = repr(value)
    return text if len(text) < 400 else f"{text[:400]} ..."
