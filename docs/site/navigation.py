"""Hook of mkdocs: a line ``NAME: folder/*`` of the navigation stands for all pages of that folder.

They are ordered by name, but entry points as in MLproject.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import yaml

PROJECT = Path(__file__).parents[2] / "MLproject"


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
    project = yaml.safe_load(PROJECT.read_text(encoding="utf-8"))
    first = ["README", *(project["entry_points"] if "entry_points" in pattern else ())]
    files = sorted(pages.glob(f"{pattern}.md"), key=lambda file: ([*first, file.stem].index(file.stem), file.stem))
    return [file.relative_to(pages).as_posix() for file in files]
