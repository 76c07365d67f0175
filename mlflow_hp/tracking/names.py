"""Names that MLflow and file systems accept."""

from __future__ import annotations

import hashlib
import re
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterable

LONGEST_NAME = 250
"""Characters that MLflow accepts in the name of a metric, param or tag."""
LONGEST_PART = 200
"""Bytes of one component of a path that every file system accepts, with room for a suffix."""


def metric_name(name: str) -> str:
    """Convert a name of a metric, param or tag to one that MLflow accepts.

    Each character that MLflow refuses becomes ``_``; empty, ``.`` and ``..`` parts between slashes are dropped;
    a name of over 250 characters is truncated, and ends in eight characters of its SHA-256.
    """
    clean = re.sub(r"[^\w/. :-]", "_", name)
    clean = "/".join(part for part in clean.split("/") if part.strip() not in ("", ".", ".."))
    clean = clean.replace("..", "__") or "_"
    if len(clean) > LONGEST_NAME:
        clean = f"{clean[: LONGEST_NAME - 9]}_{_digest(name)}"
    return clean


def distinct_metric_names(names: Iterable[str]) -> dict[str, str]:
    """Map each name to its `metric_name`; equal results are distinguished by ``_2``, ``_3``, ...

    Names that MLflow accepts are kept, so that the function is idempotent.
    """
    mapped_names = {name: metric_name(name) for name in names}
    used = {mapped for name, mapped in mapped_names.items() if name == mapped}
    distinct, counts = {}, dict.fromkeys(mapped_names.values(), 1)
    for name, mapped in mapped_names.items():
        candidate = mapped
        while name != mapped and candidate in used:
            counts[mapped] += 1
            suffix = f"_{counts[mapped]}"
            candidate = mapped[: LONGEST_NAME - len(suffix)] + suffix
        used.add(candidate)
        distinct[name] = candidate
    return distinct


def file_name(name: str) -> str:
    """Convert a name to a relative path with slashes, without ``..`` and with components of valid length.

    A path that differs from `name` ends in eight characters of its SHA-256, so that no two names share a file.
    """
    parts = re.sub(r"[^\w/. +=-]", "_", metric_name(name)).split("/")
    clean = "/".join(part.encode()[:LONGEST_PART].decode(errors="ignore").strip(" .") or "_" for part in parts)
    return clean if clean == name else f"{clean}_{_digest(name)}"


def _digest(name: str) -> str:
    return hashlib.sha256(name.encode(errors="backslashreplace")).hexdigest()[:8]
