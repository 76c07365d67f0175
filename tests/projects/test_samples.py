"""Digits, the split into parts, a quick look, and what is logged of the data of a network."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

from mlflow_hp.tracking.datasets import describe
from projects.datasets import samples
from tests.helpers.samples import load, parts, refused, rows_of, table


def test_digits():
    loaded = load()
    assert [len(part) for part in parts(loaded)] == [1149, 288, 360]
    assert loaded.x_train.shape == (1149, 64)
    assert (loaded.image_shape, loaded.classes, loaded.features) == ((8, 8), list("0123456789"), [])
    assert (loaded.x_train.dtype, loaded.y_train.dtype) == (np.float32, np.int64)
    assert (loaded.x_train.min(), loaded.x_train.max()) == (0, 1)
    assert sum(loaded.counts.values()) == 1797
    assert loaded.sizes == "1,149 samples to train on, 288 to validate, 360 to test"


def test_parts_are_disjoint_and_together_everything():
    from sklearn.datasets import load_digits

    everything = load_digits().data / 16
    loaded = load()
    labelled = [np.column_stack([x, y]) for x, y in zip(parts(loaded), loaded[1:6:2], strict=True)]
    assert rows_of(*labelled) == rows_of(np.column_stack([everything, load_digits().target]))
    assert len(np.unique(everything, axis=0)) == len(everything)  # so that a row twice would have been seen


def test_the_split_is_the_seeds():
    one, same, other = load(), load(), load(seed=1)
    for a, b in zip(parts(one), parts(same), strict=True):
        np.testing.assert_array_equal(a, b)
    assert (one.digest, one.split_digest) == (same.digest, same.split_digest)
    assert one.digest == other.digest
    assert one.split_digest != other.split_digest
    assert not np.array_equal(one.x_train, other.x_train)


def test_classes_have_the_same_shares_in_each_part():
    loaded = load()
    everywhere = np.array(list(loaded.counts.values())) / 1797
    for y in (loaded.y_train, loaded.y_validation, loaded.y_test):
        np.testing.assert_allclose(np.bincount(y) / len(y), everywhere, atol=1 / len(y))


@pytest.mark.parametrize("n", [100, 500, 1796])
def test_a_quick_look(n):
    loaded = load(max_samples=n)
    assert abs(sum(map(len, parts(loaded))) - n) <= 2
    assert all(len(np.unique(y)) == 10 for y in (loaded.y_train, loaded.y_test))
    assert loaded.digest == load().digest
    assert load(max_samples=100_000).split_digest == load().split_digest


def test_too_quick_a_look():
    assert "raise max_samples" in refused("no sample of class '.' is left to train on", max_samples=10)


def test_log_input(store, tmp_path):
    import mlflow

    settings = table(tmp_path, ["cat", "dog"] * 15)
    for data, source in (("digits", "code"), (settings["data"], "local")):
        loaded = load(data=data)
        with mlflow.start_run() as run:
            samples.log_input(loaded, data)
        kept = store.get_run(run.info.run_id)
        (logged,) = kept.inputs.dataset_inputs
        assert logged.dataset.name.startswith(Path(data).name)
        assert logged.dataset.digest == describe(loaded.x_train, loaded.y_train).digest
        assert logged.dataset.source_type == source
        n = len(loaded.x_train), len(loaded.x_validation), len(loaded.x_test), loaded.x_train.shape[1]
        names = ("data/n_train", "data/n_validation", "data/n_test", "data/n_features")
        assert kept.data.params == dict(zip(names, map(str, n), strict=True))
        assert not kept.data.metrics
        counts = mlflow.artifacts.load_text(f"{kept.info.artifact_uri}/class_counts.json")
        assert json.loads(counts) == loaded.counts
    assert str(tmp_path) in logged.dataset.source
    with mlflow.start_run() as run:
        samples.log_input(loaded, "https://me:pa55@example.org/folder/a.csv?rows=5&token=t0ken")
    (logged,) = store.get_run(run.info.run_id).inputs.dataset_inputs
    assert logged.dataset.name == "a.csv"
    assert json.loads(logged.dataset.source) == {"url": "https://me:***@example.org/folder/a.csv?rows=5&token=***"}
