"""Logged loss barriers between a run and others, for its page."""

from __future__ import annotations

import json
import math
import re
from typing import Any

from mlflow_hp.run_page.numbers import rounded
from mlflow_hp.terminal import count

WAYS = {"line": "straight line", "aligned": "line, units aligned", "curve": "trained curve"}
"""Ways between two ends, as the file and as the page name them."""
MAX_POINTS = 1000
"""Positions of a barrier at most; a file with more is none of `barrier`."""
LOW = 0.05
"""Height, as a share of the higher loss of the two ends, up to which a barrier is no ridge."""


def barrier_from(text: str, run_id: str) -> dict[str, Any] | None:
    """Read a file of ``barrier(..., log=True)``, and say in words what it found.

    Parameters
    ----------
    text : str
        Content of the file.
    run_id : str
        Id of the run whose page it is for.

    Returns
    -------
    dict of str to object, or None
        For strict JSON: ``other`` (id of the other run), ``is_first`` (whether the page's run is at position 0), ``t``,
        ``ways``, each with ``name``, ``losses`` and ``height`` (None if infinite); ``words``. None from a file that is
        no barrier of that run.

    Examples
    --------
    >>> import json
    >>> from mlflow_hp.run_page.barriers import barrier_from
    >>> losses = {"line": [1.0, 3.0, 1.0]}
    >>> file = {"run_ids": ["0f", "1a"], "t": [0.0, 0.5, 1.0], "losses": losses, "barriers": {"line": 2.0}}
    >>> barrier_from(json.dumps(file), "1a")["words"][0]
    'On the straight line, the loss rises by 2: there is a ridge between the two ends.'
    """
    try:
        read = json.loads(text)
        first, second = (str(each) for each in read["run_ids"])
        t = [float(value) for value in read["t"]]
        losses = {name: [float(value) for value in read["losses"][name]] for name in WAYS if name in read["losses"]}
        heights = {name: float(read["barriers"][name]) for name in losses}
        n_samples, curve_steps = (int(read.get(name, 0)) for name in ("n_samples", "curve_steps"))
        alignment, batch_norm = (str(read.get(name, "")) for name in ("alignment", "batch_norm"))
    except (ValueError, TypeError, KeyError, AttributeError, RecursionError):
        return None
    is_barrier = (
        all(re.fullmatch("[0-9a-zA-Z]{1,64}", each) for each in (first, second))
        and 2 <= len(t) <= MAX_POINTS
        and all(map(math.isfinite, t))
        and "line" in losses
    )
    if run_id not in (first, second) or not is_barrier or any(len(values) != len(t) for values in losses.values()):
        return None
    ends = losses["line"][0], losses["line"][-1]
    return {
        "other": second if run_id == first else first,
        "is_first": run_id == first,
        "t": rounded(t),
        "ways": [
            {
                "name": WAYS[name],
                "losses": rounded(values),
                "height": heights[name] if heights[name] < math.inf else None,
            }
            for name, values in losses.items()
        ],
        "words": [*_words(heights, max(ends), alignment, curve_steps), _about(n_samples, batch_norm)],
    }


def _words(heights: dict[str, float], loss: float, alignment: str, curve_steps: int) -> list[str]:
    low = {name: height <= LOW * abs(loss) for name, height in heights.items()}
    valley = "both trainings ended in one valley" if low["line"] else "there is a ridge between the two ends"
    sentences = [f"On the straight line, {_rise(heights['line'])}: {valley}."]
    if "aligned" in heights:
        sentence = f"With hidden units aligned ({alignment}), {_rise(heights['aligned'])}"
        if not low["line"]:
            sentence += (
                ": they differ by the order of their units"
                if low["aligned"]
                else ": their order does not explain all of it"
            )
        sentences.append(f"{sentence}.")
    elif alignment:
        sentences.append(f"Alignment of hidden units {alignment}.")
    if "curve" in heights:
        sentence = f"On the curve, trained for {count(curve_steps, 'step')}, {_rise(heights['curve'])}"
        if not low["line"]:
            sentence += ": the ends are connected, if not straight" if low["curve"] else ": no low way was found"
        sentences.append(f"{sentence}.")
    return sentences


def _rise(height: float) -> str:
    if not math.isfinite(height):
        return "the loss is not finite everywhere"
    return f"the loss rises by {height:.3g}" if height > 0 else "the loss does not rise"


def _about(n_samples: int, batch_norm: str) -> str:
    about = f"Loss over {count(n_samples, 'sample')}; it rises above the line between the losses of the two ends"
    normalised = f"; batch normalisation: {batch_norm}" if batch_norm else ""
    return f"{about}{normalised}. A rise of less than {LOW:.0%} of the higher of those two is no ridge."
