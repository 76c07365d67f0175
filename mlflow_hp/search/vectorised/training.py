"""Training of many members of one network, in groups that fit into memory."""

from __future__ import annotations

from collections import OrderedDict
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from mlflow_hp.search.vectorised.batches import batches, segments
from mlflow_hp.search.vectorised.compiled_network import CompiledNetwork
from mlflow_hp.search.vectorised.members import TrainedMember
from mlflow_hp.search.vectorised.settings import stacked

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from mlflow_hp.search.vectorised.members import Member
    from mlflow_hp.search.vectorised.network import Network

MAX_MEMBERS = 128
"""Most members in a group: more take more memory, and no less time."""
MAX_BYTES = 256 * 2**20
"""Limit of the weights of a group with what the optimizer keeps, in bytes; of more, one member at a time."""
MAX_PROGRAMS = 8
"""Most compiled programs to keep."""


def train(
    network: Network,
    members: Sequence[Member],
    x: np.ndarray,
    y: np.ndarray,
    *,
    on_trained: Callable[[int, TrainedMember], object] | None = None,
) -> list[TrainedMember]:
    """Train many members of one network at once.

    Each member is trained as Keras would train it alone: the same batches, dropout masks and updates, up to the order
    of floating-point sums. A member that diverges does not touch the others.

    Parameters
    ----------
    network : Network
        From `read_network`.
    members : sequence of Member
        In any order; those of one batch size are trained together.
    x, y : ndarray
        Inputs and targets of all members, who name their rows.
    on_trained : callable, optional
        Called with the index of a member (0-based) and its training, as soon as its group has ended. Defaults to None.

    Returns
    -------
    list of TrainedMember
        In the order of `members`.

    Examples
    --------
    >>> import keras, numpy as np
    >>> from mlflow_hp.search.vectorised import Member, member_of, read_network, train
    >>> x, y = np.random.default_rng(0).random((60, 3), "float32"), np.arange(60) % 2
    >>> model = keras.Sequential([keras.Input((3,)), keras.layers.Dense(2, "softmax")])
    >>> model.compile("sgd", "sparse_categorical_crossentropy")
    >>> network = read_network(model, x, y)
    >>> first = member_of(model, network, np.arange(60), batch_size=20, epochs=2)
    >>> rates = [0.01, 0.1, 1.0]
    >>> members = [first._replace(settings={**first.settings, "learning_rate": rate}) for rate in rates]
    >>> [len(trained.losses) for trained in train(network, members, x, y)]
    [6, 6, 6]
    """
    import tensorflow as tf

    data = (
        tf.constant(np.asarray(x, network.input_dtype)),
        tf.constant(np.asarray(y, np.float32).reshape(-1, *network.target_shape)),
    )
    trained: dict[int, TrainedMember] = {}
    for group in _groups(network, members):
        for index, each in zip(group, _MemberGroup(network, [members[i] for i in group], *data).train(), strict=True):
            trained[index] = each
            if on_trained is not None:
                on_trained(index, each)
    return [trained[index] for index in range(len(members))]


def outputs(network: Network, weights: Sequence[np.ndarray], x: np.ndarray) -> np.ndarray:
    """Compute the outputs of one member with these `weights` for inputs, as ``model.predict`` does."""
    import tensorflow as tf

    program = _program(network, ())
    packed = program.pack([each[None] for each in weights])
    return program.predict(packed, tf.constant(np.asarray(x, network.input_dtype)[None]))[0].numpy()


def _groups(network: Network, members: Sequence[Member]) -> list[list[int]]:
    """Indices of members of one batch size that fit into memory together; those with as many steps stand together."""
    n_bytes = 16 * sum(int(np.prod(variable.shape)) for variable in network.variables)
    most = max(1, min(MAX_MEMBERS, MAX_BYTES // n_bytes))
    by_size: dict[int, list[int]] = {}
    for index in sorted(range(len(members)), key=lambda i: (members[i].epochs, members[i].n_steps)):
        by_size.setdefault(members[index].batch_size, []).append(index)
    return [indices[i : i + most] for indices in by_size.values() for i in range(0, len(indices), most)]


class _GroupState(NamedTuple):
    """Stacked weights and optimizer's arrays of some members."""

    weights: tuple[Any, list[Any]]
    slots: dict[str, Any]


class _MemberGroup:
    """Members that are trained together."""

    def __init__(self, network: Network, members: Sequence[Member], x: Any, y: Any) -> None:
        import tensorflow as tf

        self.network, self.members, self.x, self.y = network, members, x, y
        self.settings = {
            name: tf.constant(value) for name, value in stacked([member.settings for member in members]).items()
        }
        self.program = _program(network, tuple(self.settings))
        stacks = [np.stack(each) for each in zip(*(member.weights for member in members), strict=True)]
        weights = tf.nest.map_structure(tf.constant, self.program.pack(stacks))
        self.state = _GroupState(weights, {name: tf.zeros_like(weights[0]) for name in self.program.slots})

    def train(self) -> list[TrainedMember]:
        names = ["loss", *self.network.objectives.metrics]
        losses: list[list[np.ndarray]] = [[] for _ in self.members]
        epochs: list[dict[str, list[float]]] = [{} for _ in self.members]
        for epoch in range(max(member.epochs for member in self.members)):
            running = [index for index, member in enumerate(self.members) if epoch < member.epochs]
            values, sizes = self._epoch(epoch, running)
            for index in running:
                losses[index].append(values[index][:, 0])
                means = (sizes[index] @ values[index]) / sizes[index].sum()
                for name, mean in zip(names, means, strict=True):
                    epochs[index].setdefault(name, []).append(float(mean))
            for index, evaluated in self._validate(running).items():
                for name, value in zip(names, evaluated, strict=True):
                    epochs[index].setdefault(f"val_{name}", []).append(float(value))
        weights = [each.numpy() for each in self.program.unpack(self.state.weights)]
        return [
            TrainedMember(
                [each[index] for each in weights],
                np.concatenate(losses[index]),
                {name: np.array(each) for name, each in epochs[index].items()},
            )
            for index in range(len(self.members))
        ]

    def _epoch(self, epoch: int, running: list[int]) -> tuple[dict[int, np.ndarray], dict[int, np.ndarray]]:
        """Take the steps of an epoch.

        Returns
        -------
        dict of int to ndarray of float, shape (n_steps, 1 + n_metrics)
            Loss and metrics of each running member's batches.
        dict of int to ndarray of int, shape (n_steps,)
            Sizes of the batches.
        """
        import tensorflow as tf

        members = [self.members[index] for index in running]
        rows, sizes = batches(members, epoch)
        n_steps = np.array([member.n_steps for member in members])
        values: dict[int, list[np.ndarray]] = {index: [] for index in running}
        for first, last, positions in segments(n_steps):
            indices = [running[position] for position in positions]
            state, settings = self._taken(indices)
            weights, slots, each = self.program.train(
                state.weights, state.slots, settings, self.x, self.y,
                tf.constant(rows[first:last, positions]), tf.constant(sizes[first:last, positions]),
                tf.constant(epoch * n_steps[positions] + first),
            )  # fmt: skip
            self._put_back(indices, _GroupState(weights, slots))
            for position, index in enumerate(indices):
                values[index].append(each.numpy()[:, :, position])
        return (
            {index: np.concatenate(each) for index, each in values.items()},
            {index: sizes[: n_steps[position], position] for position, index in enumerate(running)},
        )

    def _validate(self, running: list[int]) -> dict[int, np.ndarray]:
        """Loss and metrics of the running members that have validation rows."""
        import tensorflow as tf

        each_rows = {index: rows for index in running if (rows := self.members[index].validation_rows) is not None}
        if not each_rows:
            return {}
        indices = list(each_rows)
        sizes = np.array([len(rows) for rows in each_rows.values()], np.int32)
        rows = np.stack([np.resize(rows, sizes.max()) for rows in each_rows.values()]).astype(np.int32)
        state, settings = self._taken(indices)
        values = self.program.evaluate(state.weights, settings, self.x, self.y, tf.constant(rows), tf.constant(sizes))
        return dict(zip(indices, values.numpy().T, strict=True))

    def _taken(self, indices: list[int]) -> tuple[_GroupState, dict[str, Any]]:
        """State and settings of some members."""
        import tensorflow as tf

        if len(indices) == len(self.members):
            return self.state, self.settings
        state = tf.nest.map_structure(lambda each: tf.gather(each, indices), self.state)
        return state, {name: tf.gather(value, indices) for name, value in self.settings.items()}

    def _put_back(self, indices: list[int], state: _GroupState) -> None:
        """Store the state of some members."""
        import tensorflow as tf

        if len(indices) == len(self.members):
            self.state = state
        else:
            where = [[index] for index in indices]
            self.state = tf.nest.map_structure(
                lambda each, new: tf.tensor_scatter_nd_update(each, where, new), self.state, state
            )


_programs: OrderedDict[Any, CompiledNetwork] = OrderedDict()


def _program(network: Network, settings: tuple[str, ...]) -> CompiledNetwork:
    """Compiled program of a network, the same for networks with equal keys."""
    key = network.key, settings
    program = _programs.pop(key, None) or CompiledNetwork(network, settings)
    _programs[key] = program
    while len(_programs) > MAX_PROGRAMS:
        _programs.popitem(last=False)
    return program
