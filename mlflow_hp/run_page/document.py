"""Document: the page of a run as one HTML file that needs no server, network or other files."""

from __future__ import annotations

import base64
import functools
import gzip
import json
import re
from datetime import UTC, datetime
from importlib.resources import files
from typing import TYPE_CHECKING, Any

import jinja2
from markupsafe import Markup

from mlflow_hp.run_page.descent import descent
from mlflow_hp.run_page.landscape_view import landscape_view
from mlflow_hp.run_page.microscope import microscope
from mlflow_hp.tracking.params_and_tags import storable

if TYPE_CHECKING:
    from mlflow_hp.analysis.surfaces.landscape_file import StoredLandscape
    from mlflow_hp.history import TrainingHistory
    from mlflow_hp.history.weight_snapshots import Snapshots

SCRIPTS = ("plotting.js", "copying.js", "answer.js", "descent.js", "microscope.js", "unpacking.js", "report.js")
"""Scripts of the document, each after those that it imports."""
STYLES = ("page.css", "run_page.css")
MAX_COLUMNS = 200
"""Columns of a heatmap, which keeps the file below 3 MB."""
MAX_PATH = 2000
"""Points of a path."""


def training_content(
    run_id: str,
    history: TrainingHistory,
    snapshots: Snapshots | None = None,
    landscape: StoredLandscape | None = None,
) -> dict[str, Any]:
    """Compute what the document of a training shows of it, which takes most of the time.

    Parameters
    ----------
    run_id : str
        Id of its run.
    history : TrainingHistory
        Recorded training.
    snapshots : Snapshots, optional
        Weights that it has kept. Defaults to None.
    landscape : StoredLandscape, optional
        Loss around its path, which the descent is drawn on. Defaults to None.

    Returns
    -------
    dict of str to object
        For `document`.
    """
    plotly()
    shown = descent({run_id: history}, {run_id: snapshots}) if landscape is None else landscape_view(landscape)
    for path in [] if shown is None else shown["paths"]:
        every = -(-len(path["steps"]) // MAX_PATH)
        for name in ("steps", "x", "y", "z"):
            path[name] = [*path[name][:-1:every], *path[name][-1:]]
    return {"descent": shown, "training": microscope(history, columns=MAX_COLUMNS)}


def document(summary: dict[str, Any], shown: dict[str, Any]) -> str:
    """Make the document of a training.

    Parameters
    ----------
    summary : dict of str to object
        As `mlflow_hp.run_page.summary.summary` returns.
    shown : dict of str to object
        As `training_content` returns.

    Returns
    -------
    str
        HTML, at most some 3 MB: plotly.js and the data are in it, compressed.
    """
    run = summary["run"]
    content = {"summary": summary, "names": {run["id"]: run["name"]}, **shown}
    text = json.dumps(content, separators=(",", ":"), allow_nan=False)
    return template("training.html").render(
        title=storable(run["name"]),
        state=storable(f"{run['kind'] or 'run'} of {_day(run['started'])}, by {run['author']}"),
        params=[(storable(name), storable(value)) for name, value in summary["params"]],
        style=style(),
        content=packed(text.encode()),
        plotly=plotly(),
        script=Markup(script(SCRIPTS)),  # noqa: S704 - ours
    )


def _day(milliseconds: int) -> str:
    return f"{datetime.fromtimestamp(milliseconds / 1000, UTC):%Y-%m-%d %H:%M} UTC"


@functools.cache
def template(name: str) -> jinja2.Template:
    """Get a template of the documents, in which texts are escaped.

    Parameters
    ----------
    name : str
        Name of its file.
    """
    environment = jinja2.Environment(
        loader=jinja2.PackageLoader(__package__),
        autoescape=True,
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    return environment.get_template(name)


@functools.cache
def style() -> Markup:
    """Style sheet of the documents, that of the page."""
    return Markup("\n".join(_static(name) for name in STYLES))  # noqa: S704 - ours


def packed(data: bytes) -> str:
    """Compress data and encode them as text for a document; ``unpacking.js`` reads it.

    Parameters
    ----------
    data : bytes
        The data.
    """
    return base64.b64encode(gzip.compress(data, 9, mtime=0)).decode()


@functools.cache
def plotly() -> str:
    """Compressed plotly.js."""
    return packed(files("plotly").joinpath("package_data", "plotly.min.js").read_bytes())


@functools.cache
def _static(name: str) -> str:
    return files(__package__).joinpath("static", name).read_text(encoding="utf-8")


@functools.cache
def script(names: tuple[str, ...]) -> str:
    """Join scripts as one module: their imports of one another are left out.

    Parameters
    ----------
    names : tuple of str
        Names of the files, each after those that it imports.
    """
    return re.sub(r"^import .*\n", "", "\n".join(_static(name) for name in names), flags=re.MULTILINE)
