"""Params, tags and descriptions in the form MLflow accepts: valid names, redacted, truncated to its limits."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Literal, NamedTuple

from mlflow_hp.tracking.artifact_paths import DESCRIPTION_FILE
from mlflow_hp.tracking.names import distinct_metric_names, file_name
from mlflow_hp.tracking.redaction import masked
from mlflow_hp.tracking.tags import DESCRIPTION_TAG

if TYPE_CHECKING:
    from collections.abc import Mapping

LONGEST = {"params": 6000, "tags": 8000}
"""Characters that MLflow accepts in a value."""


class Texts(NamedTuple):
    """Params or tags in the form MLflow accepts.

    Attributes
    ----------
    values : dict of str to str
        Valid, distinct name -> redacted and truncated value.
    whole : dict of str to str
        Artifact path -> full text of a value that was truncated; the value in `values` names this path.
    """

    values: dict[str, str]
    whole: dict[str, str]


def texts(kind: Literal["params", "tags"], items: Mapping[str, object]) -> Texts:
    """Convert params or tags with any names and values to the form MLflow accepts."""
    values, whole = {}, {}
    for name, mapped in distinct_metric_names(items).items():
        text = storable(masked(str(items[name]), name))
        if len(text) > LONGEST[kind]:
            path = DESCRIPTION_FILE if mapped == DESCRIPTION_TAG else f"{kind}/{file_name(mapped)}.txt"
            whole[path] = text
            suffix = f" … ({len(text)} characters: all are in the artifact {path})"
            text = text[: LONGEST[kind] - len(suffix)] + suffix
        values[mapped] = text
    return Texts(values, whole)


def storable(text: str) -> str:
    r"""Escape ``\0``, which databases refuse, and lone surrogates, which UTF-8 cannot encode."""
    return text.replace("\0", r"\0").encode(errors="backslashreplace").decode()


def without_markup(text: str) -> str:
    r"""Remove the markdown of a text that `plain` has escaped: emphasis, code spans and backslashes.

    Parameters
    ----------
    text : str
        Markdown.

    Returns
    -------
    str
        Text for a terminal, on one line.

    Examples
    --------
    >>> from mlflow_hp.tracking.params_and_tags import without_markup
    >>> without_markup(r"**loss 1.5** after `fold_\*`")
    'loss 1.5 after fold_*'
    """
    text = re.sub(r"(?<!\\)(\*\*|`)", "", " ".join(text.split()))
    return re.sub(r"\\([\\`*\[\]<|])", r"\1", text)


def plain(text: str) -> str:
    r"""Escape a text for markdown, on one line, also in a cell of a table.

    Parameters
    ----------
    text : str
        Any text.

    Returns
    -------
    str
        Escaped text.

    Examples
    --------
    >>> from mlflow_hp.tracking import plain
    >>> print(plain("fold_*_loss"))
    fold_\*_loss
    """
    return re.sub(r"([\\`*\[\]<|])", r"\\\1", " ".join(text.split()))
