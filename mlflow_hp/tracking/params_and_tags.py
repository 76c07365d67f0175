"""Params, tags and descriptions as MLflow takes them: named, without secrets, short; the rest goes to artifacts."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Literal, NamedTuple

from mlflow_hp.tracking.names import distinct_metric_names, file_name
from mlflow_hp.tracking.redaction import masked

if TYPE_CHECKING:
    from collections.abc import Mapping

LONGEST = {"params": 6000, "tags": 8000}
"""Characters that MLflow takes in a value."""
DESCRIPTION = "mlflow.note.content"
"""The tag that holds a run's description."""


class Texts(NamedTuple):
    """Params or tags as MLflow takes them.

    Attributes
    ----------
    values : dict of str to str
        Distinct names that MLflow takes; values without secrets that are short enough.
    whole : dict of str to str
        Artifact path -> all of each text that was too long; what is left of it in `values` names this path.
    """

    values: dict[str, str]
    whole: dict[str, str]


def texts(kind: Literal["params", "tags"], given: Mapping[str, object]) -> Texts:
    """Params or tags, `given` under any names and with values of any length, as MLflow takes them."""
    values, whole = {}, {}
    for name, mapped in distinct_metric_names(given).items():
        text = storable(masked(str(given[name]), name))
        if len(text) > LONGEST[kind]:
            path = "description.md" if mapped == DESCRIPTION else f"{kind}/{file_name(mapped)}.txt"
            whole[path] = text
            rest = f" … ({len(text)} characters: all are in the artifact {path})"
            text = text[: LONGEST[kind] - len(rest)] + rest
        values[mapped] = text
    return Texts(values, whole)


def storable(text: str) -> str:
    r"""The text with ``\0`` and broken characters spelled out, which databases and UTF-8 don't take."""
    return text.replace("\0", r"\0").encode(errors="backslashreplace").decode()


def plain(text: str) -> str:
    """The text so that markdown shows its names as they are, in a line or in a cell of a table."""
    return re.sub(r"([\\`*\[\]<|])", r"\\\1", " ".join(text.split()))
