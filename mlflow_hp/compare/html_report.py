"""Report: sections as one self-contained HTML file, which needs neither network nor browser storage."""

from __future__ import annotations

import functools
from typing import TYPE_CHECKING, Any, NamedTuple

import jinja2
from markupsafe import Markup
from plotly.offline import get_plotlyjs

from mlflow_hp.compare.formatting import number
from mlflow_hp.compare.section import finite
from mlflow_hp.tracking.params_and_tags import storable

if TYPE_CHECKING:
    from collections.abc import Sequence

    from mlflow_hp.compare.section import Section


class Head(NamedTuple):
    """Title block of a report.

    Attributes
    ----------
    title : str
    lines : list of str
        Date, store and arguments of the comparison.
    server : str
        Address of the tracking server, for links to runs; ``""`` for no links.
    """

    title: str
    lines: list[str]
    server: str


def page(head: Head, sections: Sequence[Section]) -> str:
    """Render the report as HTML."""
    environment = _environment()
    style, script = (Markup(_source(environment, name)) for name in ("report.css", "report.js"))  # noqa: S704 - ours
    return environment.get_template("page.html").render(
        head=head,
        sections=sections,
        figures={section.key: finite(section.figure) for section in sections if section.figure is not None},
        style=style,
        script=script,
        plotly=Markup(get_plotlyjs()),  # noqa: S704 - plotly's own
    )


@functools.cache
def _environment() -> jinja2.Environment:
    """Make the template environment, in which texts are escaped and JSON cannot leave its script element."""
    environment = jinja2.Environment(
        loader=jinja2.PackageLoader("mlflow_hp.compare"),
        autoescape=True,
        undefined=jinja2.StrictUndefined,
        finalize=_finalize,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.policies["json.dumps_kwargs"] = {"allow_nan": False, "separators": (",", ":")}
    environment.filters |= {"number": number, "repr": repr}
    environment.tests["numeric"] = _is_numeric
    return environment


def _source(environment: jinja2.Environment, name: str) -> str:
    assert environment.loader is not None
    return environment.loader.get_source(environment, name)[0]


def _finalize(value: Any) -> Any:
    """Replace characters that UTF-8 cannot encode."""
    return storable(value) if isinstance(value, str) and not isinstance(value, Markup) else value


def _is_numeric(column: Sequence[object]) -> bool:
    """Whether a column of a table holds numbers and empty cells only."""
    filled = [cell for cell in column if cell is not None]
    return bool(filled) and all(isinstance(cell, (int, float)) for cell in filled)
