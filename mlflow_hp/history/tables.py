"""Tables of a training history for pandas."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

import numpy as np

from mlflow_hp.history.step_record import FEW_WEIGHTS

if TYPE_CHECKING:
    import pandas as pd

    from mlflow_hp.history.training_history import TrainingHistory


def step_table(history: TrainingHistory) -> pd.DataFrame:
    """Make the table of `TrainingHistory.to_pandas`."""
    import pandas as pd

    table = dict(history.steps)
    n_weights = sum(math.prod(tensor.shape) for tensor in history.tensors)
    by_weight = history.recorded == "values" and n_weights <= FEW_WEIGHTS
    for tensor in history.tensors if history.recorded != "none" else ():
        if by_weight:
            table |= _weight_columns(tensor.name, history.weights(tensor.name)[1:])
        else:
            table |= {f"{tensor.name}/{key}": values[1:] for key, values in history.statistics(tensor.name).items()}
    index = pd.Index(table.pop("step", np.arange(history.n_steps)), name="step")
    return pd.DataFrame(table, index=index)


def epoch_table(history: TrainingHistory) -> pd.DataFrame:
    """Make the table of `TrainingHistory.epochs_to_pandas`."""
    import pandas as pd

    table = dict(history.epochs)
    return pd.DataFrame(table, index=pd.Index(table.pop("epoch", np.arange(history.n_epochs)), name="epoch"))


def _weight_columns(name: str, values: np.ndarray) -> dict[str, np.ndarray]:
    """Split a tensor of shape (n_steps, *shape) into a column for each weight."""
    flat = values.reshape(len(values), math.prod(values.shape[1:]))
    if flat.dtype.itemsize < 4 and flat.dtype.kind in "fV":
        flat = flat.astype(np.float32)  # pandas cannot compute with bfloat16, nor print float16
    names = [name] if flat.shape[1] == 1 else [f"{name}/{i}" for i in range(flat.shape[1])]
    return dict(zip(names, flat.T, strict=True))
