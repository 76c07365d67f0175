"""Document of an atlas: a map of descents as one HTML file, in which a click shows those of a point."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

from markupsafe import Markup

from mlflow_hp.analysis.atlas import OUTCOMES
from mlflow_hp.run_page.document import packed, plotly, script, style, template
from mlflow_hp.run_page.numbers import rounded

if TYPE_CHECKING:
    from collections.abc import Sequence

    import numpy as np

    from mlflow_hp.analysis.atlas import Atlas, Valley

SCRIPTS = ("plotting.js", "unpacking.js", "atlas.js")


def atlas_document(atlas: Atlas, valley: Valley, curves: np.ndarray, sentences: Sequence[str]) -> str:
    """Make the document.

    Parameters
    ----------
    atlas : Atlas
    valley : Valley
    curves : ndarray of shape (n_y, n_x, n_seeds, n_points)
        Shortened losses by step.
    sentences : sequence of str
        What it shows.

    Returns
    -------
    str
        HTML; plotly.js and the data are in it, compressed.
    """
    loss = atlas.mean_loss
    content: dict[str, Any] = {
        "names": [atlas.x_name, atlas.y_name],
        "lossName": atlas.loss_name,
        "words": list(OUTCOMES),
        "x": rounded(atlas.x),
        "y": rounded(atlas.y),
        "usual": atlas.usual_outcomes.tolist(),
        "outcomes": atlas.outcomes.tolist(),
        "loss": [rounded(row, 4) for row in loss],
        "valley": rounded(valley.best),
        "line": rounded(valley.factor * atlas.y**valley.slope),
        "curves": [[[rounded(curve, 4) for curve in cell] for cell in row] for row in curves],
    }
    text = json.dumps(content, separators=(",", ":"), allow_nan=False)
    title = f"How trainings end over {atlas.x_name} and {atlas.y_name}"
    return template("descents_map.html").render(
        title=title,
        sentences=sentences,
        style=style(),
        content=packed(text.encode()),
        plotly=plotly(),
        script=Markup(script(SCRIPTS)),  # noqa: S704 - ours
    )
