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


def pages() -> dict[str, str]:
    """Write a page for each package. What several packages have is described by the first, to which the others lead."""
    homes: dict[str, str] = {}
    return {package: page(package, names, homes) for package, names in packages().items()}


def page(package: str, names: list[str], homes: dict[str, str]) -> str:
    """Write the page of a package; `homes` says, of what is described already, on the page of which package."""
    module = importlib.import_module(package)
    parts = [f"# `{package}`", "", inspect.getdoc(module) or "", ""]
    for name in names:
        thing = getattr(module, name)
        full = _full_name(thing)
        home = homes.setdefault(full, package)
        if home != package and full:
            parts += [f"## `{name}`", "", f"[`{home}.{name}`]({home}.md#{full})", ""]
        elif isinstance(thing, ModuleType):
            parts += [
                f"## `{package}.{name}`", "", f"::: {full}", "    options:", "      heading_level: 3",
                "      show_root_heading: false", "      show_root_toc_entry: false", *_members(thing), "",
            ]  # fmt: skip
        elif callable(thing):
            parts += [f"::: {full}", "    options:", f'      heading: "{name}"', f'      toc_label: "{name}"', ""]
        else:
            parts += [f"## `{name}`", "", f"```python\n{name} = {_short(thing)}\n```", ""]
    return "\n".join(parts)


def _full_name(thing: object) -> str:
    """Return where a module, class or function is defined; empty for a value."""
    if isinstance(thing, ModuleType):
        return thing.__name__
    return f"{thing.__module__}.{thing.__qualname__}" if callable(thing) else ""


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
