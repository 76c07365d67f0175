"""Names as MLflow and file systems take them."""

from __future__ import annotations

import hashlib
import re
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterable

LONGEST_NAME = 250
"""Characters that MLflow takes in the name of a metric, param or tag."""
LONGEST_PART = 200
"""Bytes of one part of a file's path that any file system takes, with some to spare for an ending."""


def metric_name(name: str) -> str:
    """The name under which MLflow takes the metric, param or tag `name`.

    Each character that MLflow refuses becomes ``_``; empty, ``.`` and ``..`` parts between slashes are dropped;
    a name over 250 characters is cut and ends in eight characters of its SHA-256.
    """
    clean = re.sub(r"[^\w/. :-]", "_", name)
    clean = "/".join(part for part in clean.split("/") if part.strip() not in ("", ".", ".."))
    clean = clean.replace("..", "__") or "_"
    if len(clean) > LONGEST_NAME:
        clean = f"{clean[: LONGEST_NAME - 9]}_{_digest(name)}"
    return clean


def distinct_metric_names(names: Iterable[str]) -> dict[str, str]:
    """`metric_name` of each of `names`; two that would meet in one are told apart by ``_2``, ``_3``, ...

    Names that MLflow takes as they are stay as they are; so what comes out stays the same if it goes in again.
    """
    wanted = {name: metric_name(name) for name in names}
    taken = {mapped for name, mapped in wanted.items() if name == mapped}
    result, counts = {}, dict.fromkeys(wanted.values(), 1)
    for name, mapped in wanted.items():
        chosen = mapped
        while name != mapped and chosen in taken:
            counts[mapped] += 1
            ending = f"_{counts[mapped]}"
            chosen = mapped[: LONGEST_NAME - len(ending)] + ending
        taken.add(chosen)
        result[name] = chosen
    return result


def file_name(name: str) -> str:
    """The path, with slashes, of a file called after `name`: it leads nowhere else, and no part of it is too long.

    What differs from `name` ends in eight characters of its SHA-256, so that no two names have one file.
    """
    parts = re.sub(r"[^\w/. +=-]", "_", metric_name(name)).split("/")
    clean = "/".join(part.encode()[:LONGEST_PART].decode(errors="ignore").strip(" .") or "_" for part in parts)
    return clean if clean == name else f"{clean}_{_digest(name)}"


def _digest(name: str) -> str:
    return hashlib.sha256(name.encode(errors="backslashreplace")).hexdigest()[:8]
