"""Small histories: columns, tensors, random numbers for them, and writers."""

from __future__ import annotations

import numpy as np

from mlflow_hp.history import HistoryWriter, Tensor, schema

COLUMNS = {"step": "int64", "batch_loss": "float64", "samples": "int32"}
KERNEL, BIAS = Tensor("dense/kernel", (3, 2), "float32", True), Tensor("dense/bias", (2,), "float32", True)
SCALAR = Tensor("scale", (), "float64", False)


def step_columns(k, start=0):
    steps = np.arange(start, start + k)
    return {"step": steps, "batch_loss": np.sin(steps) * 1e-3, "samples": (steps % 7).astype(np.int32)}


def random_weights(k, tensors=(KERNEL, BIAS, SCALAR), seed=0):
    rng = np.random.default_rng(seed)
    return {t.name: rng.normal(size=(k, *t.shape)).astype(schema.dtype_of(t.dtype)) for t in tensors}


def history_writer(folder, tensors=(KERNEL, BIAS, SCALAR), weights="values", initial=None, **kwargs):
    if initial is None and weights == "values":
        initial = {name: a[0] for name, a in random_weights(1, tensors, seed=99).items()}
    return HistoryWriter(
        folder,
        columns=COLUMNS,
        tensors=tensors,
        weights=weights,
        initial=initial,
        meta={"a": [1, "x"]},
        **kwargs,
    )


def write_history(folder, sizes=(4, 1, 5), tensors=(KERNEL, BIAS, SCALAR)):
    """Write a finished history of chunks with these numbers of rows; return its chunks."""
    chunks, start = [], 0
    with history_writer(folder, tensors) as w:
        for i, k in enumerate(sizes):
            chunks.append((step_columns(k, start), random_weights(k, tensors, seed=i)))
            assert w.append(*chunks[-1]) == i
            start += k
    return chunks


def same_bits(a, b):
    a, b = np.ascontiguousarray(a), np.ascontiguousarray(b)
    return a.dtype == b.dtype and a.shape == b.shape and a.tobytes() == b.tobytes()
