"""Members of a vectorised training: what one needs, and what comes of it."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, NamedTuple

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    import numpy as np


class NotVectorisableError(Exception):
    """Raised for a training without a rule; the message says what it has none for."""


class Member(NamedTuple):
    """One training among those of one `Network`.

    Attributes
    ----------
    weights : sequence of ndarray
        Initial values of the network's variables, in the order of `Network.variables`.
    settings : mapping of str to float or ndarray
        Numbers in which members of one network may differ. Of the optimizer: ``"learning_rate"``, ``"weight_decay"``,
        ``"momentum"``, ``"beta_1"``, ``"beta_2"``, ``"rho"``, ``"epsilon"``, as it has them; ``"rate/2"`` and
        ``"seed/2"`` (two integers, of Keras' generator) of the dropout in layer 2 (0-based); ``"l1/0"`` and ``"l2/0"``
        of variable 0 (0-based). Those that are left out are 0.
    rows : ndarray of int, shape (n_rows,)
        Rows of the shared data that it trains on.
    batch_size : int
    epochs : int
    order : ndarray of int, shape (n_orders, n_rows), optional
        Orders of `rows` in its epochs, used in turn. Defaults to None: always as they are.
    validation_rows : ndarray of int, shape (n_validation_rows,), optional
        Rows to evaluate after each epoch. Defaults to None.
    """

    weights: Sequence[np.ndarray]
    settings: Mapping[str, Any]
    rows: np.ndarray
    batch_size: int
    epochs: int
    order: np.ndarray | None = None
    validation_rows: np.ndarray | None = None

    @property
    def n_steps(self) -> int:
        """Number of steps in an epoch."""
        return -(-len(self.rows) // self.batch_size)


class TrainedMember(NamedTuple):
    """The training of one member.

    Attributes
    ----------
    weights : list of ndarray
        Final values of the network's variables.
    losses : ndarray of float32, shape (n_steps,)
        Loss of each batch before its step, over all epochs, with the penalties of regularizers.
    epochs : dict of str to ndarray of float, each of shape (n_epochs,)
        Keras' logs by epoch: ``"loss"``, the metrics by name, and both with ``"val_"`` for the validation rows.
    """

    weights: list[np.ndarray]
    losses: np.ndarray
    epochs: dict[str, np.ndarray]
