"""Small files of data for networks, and the loading of them."""

from __future__ import annotations

import hashlib

import numpy as np
import pytest

from mlflow_hp.errors import UserError
from projects.datasets import samples

DEFAULTS = {p.name: p.read(p.default) for p in samples.PARAMETERS} | {"seed": 0}


def load(**settings):
    return samples.load(DEFAULTS | settings)


def parts(loaded):
    return loaded.x_train, loaded.x_validation, loaded.x_test


def rows_of(*arrays):
    """Digests of all rows of all arrays, sorted."""
    return sorted(hashlib.sha256(np.ascontiguousarray(row)).hexdigest() for array in arrays for row in array)


def refused(said, **settings):
    """The message of the error, which has to fit in a line or two of a terminal."""
    with pytest.raises(UserError, match=said) as told:
        load(**settings)
    assert len(str(told.value)) < 600
    assert "\n" not in str(told.value)
    return str(told.value)


def csv(tmp_path, text):
    path = tmp_path / "table.csv"
    path.write_bytes(text if isinstance(text, bytes) else text.encode())
    return {"data": str(path)}


def table(tmp_path, y):
    """A CSV with the target `y` and two features, one of them the row's number."""
    lines = [f"{i},{i * i},{value}\n" for i, value in enumerate(y)]
    return csv(tmp_path, "a,b,target\n" + "".join(lines))


def pictures(n, shape=(4, 3), dtype=np.uint8, high=256):
    return np.random.default_rng(n).integers(0, high, (n, *shape)).astype(dtype)


def npz(tmp_path, name="pictures.npz", **arrays):
    """An .npz of 40 + 10 pictures of 3 classes, but for the `arrays` given; None leaves one out."""
    made = {
        "x_train": pictures(40), "y_train": np.arange(40) % 3, "x_test": pictures(10), "y_test": np.arange(10) % 3
    } | arrays  # fmt: skip
    path = tmp_path / name
    np.savez(path, **{name: values for name, values in made.items() if values is not None})
    return {"data": str(path)}
