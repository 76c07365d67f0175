"""Small multiples: pictures of several trainings next to each other, with the same axes."""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

from mlflow_hp.plots.curves import draw_curves, on_one_scale
from mlflow_hp.plots.figure import figure_of
from mlflow_hp.plots.header import set_header
from mlflow_hp.plots.panel_grid import outer_labels, panel_grid, title_panel
from mlflow_hp.plots.wording import capitalized

if TYPE_CHECKING:
    from collections.abc import Mapping

    from matplotlib.axes import Axes

    from mlflow_hp.plots.curves import CurvesInfo

MAX_PANELS = 12
"""Of more, the first are drawn."""
PANEL_INCHES = (4.2, 3.0)
"""Width and height of a panel."""


class PanelsInfo(NamedTuple):
    """Pictures of curves to draw next to each other.

    Attributes
    ----------
    panels : dict of str to CurvesInfo
        Title -> picture, all on one scale.
    title : str
        Title of the figure.
    n : int
        How many there are; more than `panels` where these are the first.
    """

    panels: dict[str, CurvesInfo]
    title: str
    n: int


def panels_info(infos: Mapping[str, CurvesInfo], title: str) -> PanelsInfo:
    """Bring pictures of curves, title -> picture, on one scale; of many, the first ``MAX_PANELS``.

    Parameters
    ----------
    infos : mapping of str to CurvesInfo
        Title -> picture.
    title : str
        Title of the figure.

    Returns
    -------
    PanelsInfo
        Numbers for `draw_panels`.
    """
    shown = dict(list(infos.items())[:MAX_PANELS])
    return PanelsInfo(dict(zip(shown, on_one_scale(shown.values()), strict=True)), title, len(infos))


def draw_panels(info: PanelsInfo) -> Axes:
    """Draw each picture in a panel of its own, with the same axes, and one legend where they have the same labels.

    Parameters
    ----------
    info : PanelsInfo
        Numbers to draw.

    Returns
    -------
    Axes
        The first panel.
    """
    panels = panel_grid(len(info.panels), *PANEL_INCHES)
    for axes, (title, curves) in zip(panels, info.panels.items(), strict=True):
        draw_curves(curves, axes)
        title_panel(axes, title)
    labels = {tuple(curve.label for curve in each.curves) for each in info.panels.values()}
    if len(labels) == 1:
        for axes in panels[1:]:
            if (legend := axes.get_legend()) is not None:
                legend.remove()
    outer_labels(panels)
    more = f" (the first {len(info.panels)} of {info.n})" if info.n > len(info.panels) else ""
    set_header(figure_of(panels[0]), title=capitalized(f"{info.title}{more}"))
    return panels[0]
