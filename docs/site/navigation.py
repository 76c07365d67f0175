"""Hook of mkdocs: a line ``NAME: folder/*`` of the navigation stands for all pages of that folder, by name."""

from __future__ import annotations

from pathlib import Path
from typing import Any


def on_config(config: Any) -> Any:
    """Put the pages of each folder in the place of its pattern."""
    config.nav = [_expanded(entry, Path(config.docs_dir)) for entry in config.nav]
    return config


def _expanded(entry: Any, pages: Path) -> Any:
    if isinstance(entry, dict):
        ((title, value),) = entry.items()
        return {title: _of(value, pages)}
    return entry


def _of(value: Any, pages: Path) -> Any:
    if isinstance(value, str):
        return _files(value, pages) if value.endswith("/*") else value
    flat: list[Any] = []
    for each in value:
        is_pattern = isinstance(each, str) and each.endswith("/*")
        flat += _files(each, pages) if is_pattern else [each]
    return flat


def _files(pattern: str, pages: Path) -> list[str]:
    files = sorted(pages.glob(f"{pattern}.md"), key=lambda file: (file.stem != "README", file.name))
    return [file.relative_to(pages).as_posix() for file in files]
