"""History of one training: columns by step and by epoch, and the weights of each tensor over all steps.

A history is a folder of two files: ``history.arrows``, an Arrow IPC stream to which chunks of steps are appended during
training, and ``epochs.csv``. docs/history_format.md describes and explains the format.
"""

from __future__ import annotations

from mlflow_hp.history.chunks import Chunk, read_chunks, read_initial, sound_chunks
from mlflow_hp.history.epoch_table import write_epochs
from mlflow_hp.history.schema import EPOCHS_FILE, STATISTICS, STEPS_FILE, VERSION, Tensor, statistics_of
from mlflow_hp.history.training_history import TrainingHistory
from mlflow_hp.history.weight_snapshots import Snapshots
from mlflow_hp.history.writer import HistoryWriter

__all__ = [
    "EPOCHS_FILE",
    "STATISTICS",
    "STEPS_FILE",
    "VERSION",
    "Chunk",
    "HistoryWriter",
    "Snapshots",
    "Tensor",
    "TrainingHistory",
    "read_chunks",
    "read_initial",
    "sound_chunks",
    "statistics_of",
    "write_epochs",
]
