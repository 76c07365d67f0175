"""Header of a figure: a title that says what it shows; in small print the run, its settings, and a note."""

from __future__ import annotations

import functools
import warnings
import weakref
from typing import TYPE_CHECKING, Any, NamedTuple

from mlflow_hp.plots.wording import escaped

if TYPE_CHECKING:
    from matplotlib.figure import Figure

TITLE_SIZE, SUBTITLE_SIZE = 12.0, 8.5
"""Font sizes, in points."""
SUBTITLE_COLOUR = "#555555"
LINE_SPACING = 1.35
"""Height of a line, in font sizes."""
TEXT_SPACING = 1.2
"""The same as Matplotlib counts it, in heights of letters with their room below."""
MARGIN_INCHES = 0.08
"""Space around the header."""
MAX_TITLE_LINES, MAX_SUBTITLE_LINES = 2, 3
"""Longer texts are cut."""
POINTS_PER_INCH = 72
TITLE_ID, SUBTITLE_ID = "title", "subtitle"
"""Ids (gid) of the texts of a header in their figure, which are literal and fit its width."""


class _Header(NamedTuple):
    """Texts of a header, and size in inches of the figure without it."""

    title: str
    subtitle: str
    note: str
    width: float
    height: float


_headers: weakref.WeakKeyDictionary[Figure, _Header] = weakref.WeakKeyDictionary()


def add_header(figure: Figure) -> None:
    """Let `figure`, which has a constrained layout, have a header; it grows by the height of the header's texts."""
    width, height = figure.get_size_inches()
    _headers[figure] = _Header("", "", "", float(width), float(height))


def has_header(figure: Any) -> bool:
    """Whether `figure` was made with `add_header`."""
    return figure in _headers


def set_header(
    figure: Figure, *, title: str | None = None, subtitle: str | None = None, note: str | None = None
) -> None:
    """Set title, subtitle, or a note on what is drawn, of a figure that has a header; None leaves what it has."""
    texts: dict[str, Any] = {"title": title, "subtitle": subtitle, "note": note}
    header = _headers[figure]
    texts = {name: getattr(header, name) if text is None else text for name, text in texts.items()}
    header = header._replace(title=texts["title"], subtitle=texts["subtitle"], note=texts["note"])
    _headers[figure] = header
    room = (header.width - 2 * MARGIN_INCHES) * POINTS_PER_INCH
    lines = _wrapped(header.title, room, TITLE_SIZE, MAX_TITLE_LINES)
    small_lines = [
        line
        for text in (header.subtitle, header.note)
        for line in _wrapped(text, room, SUBTITLE_SIZE, MAX_SUBTITLE_LINES)
    ]
    title_inches = len(lines) * TITLE_SIZE * LINE_SPACING / POINTS_PER_INCH
    band = title_inches + len(small_lines) * SUBTITLE_SIZE * LINE_SPACING / POINTS_PER_INCH + MARGIN_INCHES
    height = header.height + band
    figure.set_size_inches(header.width, height)
    engine: Any = figure.get_layout_engine()
    engine.set(rect=(0.0, 0.0, 1.0, header.height / height))
    left = MARGIN_INCHES / header.width
    common: dict[str, Any] = {
        "x": left,
        "ha": "left",
        "va": "top",
        "in_layout": False,
        "linespacing": LINE_SPACING - 0.15,
    }
    figure.suptitle(
        escaped("\n".join(lines)),
        y=1 - MARGIN_INCHES / height,
        fontsize=TITLE_SIZE,
        fontweight="bold",
        gid=TITLE_ID,
        **common,
    )
    for old in [old for old in figure.texts if old.get_gid() == SUBTITLE_ID]:
        old.remove()
    if small_lines:
        top = 1 - (MARGIN_INCHES + title_inches) / height
        text = escaped("\n".join(small_lines))
        figure.text(y=top, s=text, fontsize=SUBTITLE_SIZE, color=SUBTITLE_COLOUR, gid=SUBTITLE_ID, **common)


def _wrapped(text: str, room: float, size: float, max_lines: int) -> list[str]:
    """Break `text` between words into lines not wider than `room` points; cut what does not fit."""
    lines: list[str] = []
    for word in text.split():
        longer = f"{lines[-1]} {word}" if lines else word
        if lines and _width(longer, size) <= room:
            lines[-1] = longer
        elif len(lines) < max_lines:
            lines.append(_cut(word, room, size))
        else:
            lines[-1] = _cut(f"{lines[-1]} …", room, size)
            break
    return lines


def _cut(line: str, room: float, size: float) -> str:
    """Cut the end of a line that is wider than `room` points."""
    if len(line) <= room and _width(line, size) <= room:
        return line
    beginning = line.rstrip("…").rstrip()[: int(room)]  # a letter is wider than a point
    fits, too_many = 0, len(beginning)
    while too_many - fits > 1:
        middle = (fits + too_many) // 2
        if _width(f"{beginning[:middle]}…", size) <= room:
            fits = middle
        else:
            too_many = middle
    return f"{beginning[:fits]}…"


def _width(text: str, size: float) -> float:
    """Width of a line in points; in the title's weight, the wider one."""
    from matplotlib.font_manager import FontProperties

    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", "Glyph .* missing from", UserWarning)
        width, _, _ = _renderer().get_text_width_height_descent(
            text, FontProperties(size=size, weight="bold"), ismath=False
        )
    return float(width)


@functools.cache
def _renderer() -> Any:
    from matplotlib.backends.backend_agg import RendererAgg

    return RendererAgg(1, 1, POINTS_PER_INCH)
