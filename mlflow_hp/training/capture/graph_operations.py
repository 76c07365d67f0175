"""Operations of a traced graph that would affect the training if it ran next to it."""

from __future__ import annotations

from typing import Any

_CHANGING = ("Assign", "EagerPyFunc", "LookupTableI", "PyFunc", "Random", "Resource", "Rng", "Stateful", "Truncated")
"""Beginnings of the types of operations that change a state, are random, or call Python."""
_READING = ("RandomShape", "ResourceGather", "StatefulPartitionedCall")
"""Beginnings of those among them that do not."""


def changing_operations(graph: Any) -> list[str]:
    """Types of the operations of a `GraphDef` and its functions that change a state, are random or call Python."""
    nodes = [*graph.node, *(node for function in graph.library.function for node in function.node_def)]
    types = {node.op for node in nodes}
    return sorted(type_ for type_ in types if type_.startswith(_CHANGING) and not type_.startswith(_READING))
