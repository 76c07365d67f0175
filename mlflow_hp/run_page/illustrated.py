"""Illustrated report: sentences, a table and pictures as one HTML file that needs no server, network or other files."""

from __future__ import annotations

import base64
import re
from typing import TYPE_CHECKING, NamedTuple

from mlflow_hp.run_page.document import style, template
from mlflow_hp.tracking.params_and_tags import storable

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from pathlib import Path

MAX_BYTES = 2_500_000
"""Bytes of the pictures at most; those that come after are left out."""


class ReportPart(NamedTuple):
    """ReportPart of a report.

    Attributes
    ----------
    heading : str
        Its heading; none if empty.
    sentences : sequence of str
        Texts, the result first; marks of Markdown's bold and code are left out, and so are its escapes.
    columns : sequence of str
        Headings of the table.
    rows : sequence of sequence of str
        Cells of the table.
    is_result : bool
        Whether its first sentence is a result, which stands out. Defaults to True.
    """

    heading: str
    sentences: Sequence[str]
    columns: Sequence[str]
    rows: Sequence[Sequence[str]]
    is_result: bool = True


def illustrated(title: str, subtitle: str, parts: Sequence[ReportPart], pictures: Mapping[str, Path]) -> str:
    """Make the report.

    Parameters
    ----------
    title, subtitle : str
        What it is about.
    parts : sequence of ReportPart
        Texts and tables.
    pictures : mapping of str to Path
        PNG files by caption, the most important first.

    Returns
    -------
    str
        HTML, at most some 3 MB.
    """
    images, left_out, n_bytes = [], [], 0
    for caption, path in pictures.items():
        data = path.read_bytes()
        n_bytes += len(data) * 4 // 3
        if n_bytes <= MAX_BYTES:
            images.append((storable(caption), base64.b64encode(data).decode()))
        else:
            left_out.append(storable(caption))
    return template("illustrated.html").render(
        title=storable(title),
        subtitle=storable(subtitle),
        parts=[
            ReportPart(
                storable(part.heading),
                [_plain(sentence) for sentence in part.sentences],
                [storable(name) for name in part.columns],
                [[storable(cell) for cell in row] for row in part.rows],
                part.is_result,
            )
            for part in parts
        ],
        images=images,
        left_out=left_out,
        style=style(),
    )


def _plain(sentence: str) -> str:
    return re.sub(r"\\([\\`*\[\]<|])|\*\*|`", lambda mark: mark[1] or "", storable(sentence))
