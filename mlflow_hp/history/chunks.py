"""Chunks of a history: reading them one after the other, each checked."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

from mlflow_hp.history.missing import stacked
from mlflow_hp.history.schema import STATISTICS, STEPS_FILE
from mlflow_hp.history.steps_file import StepsFile

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    import numpy as np


class Chunk(NamedTuple):
    """Consecutive steps of a history; arrays are masked where values are missing.

    Attributes
    ----------
    columns : dict of str to ndarray of shape (k,)
        Step columns.
    weights : dict of str to ndarray of shape (k, *shape) or (k, 4)
        Each tensor after each step, or its four statistics.

    Examples
    --------
    >>> from mlflow_hp.history import Chunk
    >>> chunk = Chunk({"batch_loss": [0.5, 0.4]}, {})
    >>> chunk.columns["batch_loss"]
    [0.5, 0.4]
    """

    columns: dict[str, np.ndarray]
    weights: dict[str, np.ndarray]


def chunk_from_arrays(arrays: Mapping[str, np.ndarray], header: Mapping[str, Any]) -> Chunk:
    """Make a chunk from the arrays of all its columns, and the header of its history."""
    columns = {name: arrays[name] for name in header["columns"]}
    names = [tensor["name"] for tensor in header["tensors"]]
    if header["weights"] == "statistics":
        return Chunk(columns, {name: stacked([arrays[f"{name}/{s}"] for s in STATISTICS]) for name in names})
    return Chunk(columns, {name: arrays[name] for name in names} if header["weights"] == "values" else {})


def read_initial(folder: Path | str) -> dict[str, np.ndarray]:
    """Read what is recorded of each tensor before the first step.

    Parameters
    ----------
    folder : path
        Folder that holds ``history.arrows``.

    Returns
    -------
    dict of str to ndarray
        Tensor -> its values, or its four statistics; empty if neither was recorded.

    Examples
    --------
    >>> import numpy as np
    >>> from mlflow_hp.history import HistoryWriter, read_initial
    >>> columns = {"batch_loss": "float32"}
    >>> writer = HistoryWriter("run", columns=columns, tensors=[], weights="none", initial=None, meta={})
    >>> _ = writer.append({"batch_loss": np.array([0.5, 0.25], np.float32)}, {})
    >>> writer.close()
    >>> read_initial("run")
    {}
    """
    file = StepsFile(Path(folder) / STEPS_FILE)
    first_row = chunk_from_arrays(file.read_chunk(0), file.header)
    return {name: values[0] for name, values in first_row.weights.items()}


def read_chunks(folder: Path | str) -> Iterator[Chunk]:
    """Read the complete chunks of a history in order, without the row before the first step.

    Parameters
    ----------
    folder : path
        Folder that holds ``history.arrows``.

    Yields
    ------
    Chunk
        The next steps.

    Raises
    ------
    OSError
        If the file does not exist.
    UserError
        If it is not a history, or a chunk is damaged.

    Examples
    --------
    >>> import numpy as np
    >>> from mlflow_hp.history import HistoryWriter, read_chunks
    >>> columns = {"batch_loss": "float32"}
    >>> writer = HistoryWriter("run", columns=columns, tensors=[], weights="none", initial=None, meta={})
    >>> _ = writer.append({"batch_loss": np.array([0.5, 0.25], np.float32)}, {})
    >>> writer.close()
    >>> [chunk.columns["batch_loss"] for chunk in read_chunks("run")]
    [array([0.5 , 0.25], dtype=float32)]
    """
    file = StepsFile(Path(folder) / STEPS_FILE)
    for number in range(1, len(file.chunk_rows)):
        yield chunk_from_arrays(file.read_chunk(number), file.header)


def sound_chunks(folder: Path | str) -> int:
    """Count the intact chunks of a history, up to the first damaged one.

    Parameters
    ----------
    folder : path
        Folder that holds ``history.arrows``.

    Returns
    -------
    int
        Number of chunks; 0 for a broken history.

    Examples
    --------
    >>> import numpy as np
    >>> from mlflow_hp.history import HistoryWriter, sound_chunks
    >>> columns = {"batch_loss": "float32"}
    >>> writer = HistoryWriter("run", columns=columns, tensors=[], weights="none", initial=None, meta={})
    >>> _ = writer.append({"batch_loss": np.array([0.5, 0.25], np.float32)}, {})
    >>> writer.close()
    >>> sound_chunks("run")
    1
    """
    try:
        file = StepsFile(Path(folder) / STEPS_FILE)
        file.drop_damaged()
    except (ValueError, OSError):
        return 0
    return len(file.chunk_rows) - 1  # the first is the row before the first step
