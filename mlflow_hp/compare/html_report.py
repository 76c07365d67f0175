"""The report: sections as one HTML file that needs nothing else, no network, no storage of the browser."""

from __future__ import annotations

import html
import json
import math
from importlib import resources
from typing import TYPE_CHECKING, NamedTuple

from mlflow_hp.compare.formatting import number
from mlflow_hp.compare.section import Cell, RunCell, finite
from mlflow_hp.tracking.params_and_tags import storable

if TYPE_CHECKING:
    from collections.abc import Sequence

    from mlflow_hp.compare.section import Section, Table

POLICY = "default-src 'none'; script-src 'unsafe-inline'; style-src 'unsafe-inline'; img-src data: blob:"
"""What the browser is to refuse: everything that is not in the file."""
ABOUT = (
    "Runs are compared where tags or logged datasets say that they had the same data and the same split, and one "
    "metric judges them. Differences over folds are tested paired, with the variance of Nadeau and Bengio (Machine "
    "Learning 52, 2003) and Holm's correction. Importance is PED-ANOVA as in Optuna (Watanabe, Bansal and Hutter 2023)."
)


class Head(NamedTuple):
    """What stands above a report.

    Attributes
    ----------
    title : str
    lines : list of str
        What was asked, when and of what store.
    server : str
        The tracking server's address, to which runs are linked; ``""`` for none.
    """

    title: str
    lines: list[str]
    server: str


def page(head: Head, sections: Sequence[Section]) -> str:
    """The whole file."""
    from plotly.offline import get_plotlyjs

    figures = {section.key: section.figure for section in sections if section.figure is not None}
    files = resources.files("mlflow_hp.compare")
    style, script = ((files / name).read_text(encoding="utf-8") for name in ("report.css", "report.js"))
    body = "\n".join(_section(section, head.server) for section in sections)
    asked = "\n".join(f'<p class="asked">{_text(line)}</p>' for line in head.lines)
    return f"""<!DOCTYPE html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta http-equiv="Content-Security-Policy" content="{POLICY}">
<meta name="viewport" content="width=device-width, initial-scale=1">
<title>{_text(head.title)}</title>
<style>{style}</style>
</head>
<body>
<header>
<h1>{_text(head.title)}</h1>
{asked}
</header>
{_contents(sections)}
<main>
{body}
</main>
<footer><p>{_text(ABOUT)}</p></footer>
<script type="application/json" id="figures">{embedded(figures)}</script>
<script>{get_plotlyjs()}</script>
<script>{script}</script>
</body>
</html>
"""


def embedded(value: object) -> str:
    """JSON that stays within the element that it is put into, whatever its texts say."""
    text = json.dumps(finite(value), allow_nan=False, separators=(",", ":"))
    return text.replace("<", "\\u003c").replace(">", "\\u003e").replace("&", "\\u0026")


def _text(words: str) -> str:
    return html.escape(storable(words), quote=True)


def _contents(sections: Sequence[Section]) -> str:
    lines = [
        f'<li{" class=group" if section.level == 2 else ""}><a href="#{section.key}">{_text(section.title)}</a></li>'
        for section in sections
    ]
    return f'<nav aria-label="Contents"><ul>{"".join(lines)}</ul></nav>'


def _section(section: Section, server: str) -> str:
    parts = [f'<section id="{section.key}" aria-labelledby="{section.key}-title">']
    parts.append(f'<h{section.level} id="{section.key}-title">{_text(section.title)}</h{section.level}>')
    parts += [f"<p>{_text(words)}</p>" for words in section.words]
    if section.figure is not None:
        height = int(section.figure["layout"].get("height", 400))
        alt = _text(section.alt)
        parts.append(
            f'<figure><div class="plot" data-key="{section.key}" role="group" aria-label="{alt}" '
            f'style="height:{height}px"><noscript>{alt} It is drawn by JavaScript.</noscript></div></figure>'
        )
    if section.table is not None:
        parts.append(_table(section.table, server))
    return "\n".join([*parts, "</section>"])


def _table(table: Table, server: str) -> str:
    columns = list(zip(*table.rows, strict=True))
    numeric = [
        any(isinstance(cell, (int, float)) for cell in column)
        and all(cell is None or isinstance(cell, (int, float)) for cell in column)
        for column in columns
    ]
    head = "".join(
        f'<th scope="col"{" class=number" if is_number else ""}>{_text(name)}</th>'
        for name, is_number in zip(table.columns, numeric or [False] * len(table.columns), strict=True)
    )
    rows = "\n".join(f"<tr>{''.join(_cell(cell, server) for cell in row)}</tr>" for row in table.rows)
    caption = _text(table.caption)
    return (
        f'<div class="scroll" tabindex="0" role="region" aria-label="{caption}"><table><caption>{caption}</caption>'
        f"<thead><tr>{head}</tr></thead>\n<tbody>\n{rows}\n</tbody></table></div>"
    )


def _cell(cell: Cell, server: str) -> str:
    if cell is None or (isinstance(cell, float) and math.isnan(cell)):
        return "<td></td>"
    if isinstance(cell, RunCell):
        name = _text(cell.name)
        if server:
            address = _text(f"{server}/#/experiments/{cell.experiment_id}/runs/{cell.run_id}")
            name = f'<a href="{address}" target="_blank" rel="noopener noreferrer">{name}</a>'
        return f'<td title="run {_text(cell.run_id)}">{name}</td>'
    if isinstance(cell, (int, float)):
        return f'<td class="number" title="{cell!r}">{number(cell)}</td>'
    return f"<td>{_text(cell)}</td>"
