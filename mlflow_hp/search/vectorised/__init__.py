"""Training of many members of one architecture in one compiled program.

`read_network` reads the architecture of a compiled Keras model, `member_of` one training of it, and `train` trains
many; `outputs` computes what a member predicts. The rules are in `layers`, `optimizers` and `objectives`.
"""

from mlflow_hp.search.vectorised.batches import keras_order
from mlflow_hp.search.vectorised.members import Member, NotVectorisableError, TrainedMember
from mlflow_hp.search.vectorised.network import Network, assign_weights, member_of, read_network
from mlflow_hp.search.vectorised.training import outputs, train

__all__ = [
    "Member",
    "Network",
    "NotVectorisableError",
    "TrainedMember",
    "assign_weights",
    "keras_order",
    "member_of",
    "outputs",
    "read_network",
    "train",
]
