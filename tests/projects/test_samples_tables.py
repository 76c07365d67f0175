"""Tables with a target of classes or numbers: their scaling, and each fault that is refused."""

from __future__ import annotations

import numpy as np
import pytest

from mlflow_hp.errors import UserError
from projects.datasets import targets
from tests.helpers.samples import csv, load, parts, refused, table


@pytest.mark.parametrize(
    ("y", "classes"),
    [
        (["cat", "dog", "über"] * 10, ["cat", "dog", "über"]),
        ([5, 3, 10] * 10, ["3", "5", "10"]),
        ([True, False] * 15, ["False", "True"]),
        ([7, 8] * targets.MIN_CLASS_MEAN, ["7", "8"]),
        (list(range(targets.MAX_CLASSES)) * 10, [str(i) for i in range(targets.MAX_CLASSES)]),
    ],
)
def test_classes(tmp_path, y, classes):
    settings = table(tmp_path, y)
    loaded = load(**settings)
    assert loaded.classes == classes
    assert loaded.features == ["a", "b"]
    assert loaded.counts == {name: len(y) // len(classes) for name in classes}
    assert loaded.y_train.dtype == np.int64
    everywhere = load_rows(loaded)
    np.testing.assert_array_equal([loaded.classes[label] for label in everywhere], list(map(str, y)))


def load_rows(loaded):
    """All labels in the order of the file, which is that of the feature "a"."""
    a = np.concatenate([part[:, 0] for part in parts(loaded)])
    return np.concatenate([loaded.y_train, loaded.y_validation, loaded.y_test])[np.argsort(a)]


@pytest.mark.parametrize(
    "y",
    [
        np.arange(30) / 8,
        np.arange(targets.MAX_CLASSES + 1).repeat(2),
        [1.0, 2.0] * 15,
        np.arange(10).repeat(targets.MIN_CLASS_MEAN - 1),
    ],
)
def test_numbers_to_predict(tmp_path, y):
    loaded = load(**table(tmp_path, y))
    assert (loaded.classes, loaded.y_train.dtype, loaded.counts) == ([], np.float32, {})
    np.testing.assert_allclose(loaded.in_units(load_rows(loaded)), y, rtol=1e-6, atol=1e-5 * np.ptp(y))
    assert loaded.y_train.mean() == pytest.approx(0, abs=1e-6)
    assert loaded.y_train.std() == pytest.approx(1, abs=1e-6)
    assert abs(sum(map(len, parts(load(max_samples=20, **table(tmp_path, y))))) - 20) <= 1


def test_standardised_by_the_training_part(tmp_path):
    n = 50
    values = np.random.default_rng(0).normal(7, 3, n)
    lines = "".join(f"{value!r},{i % 2 == 0},{i % 2}\n" for i, value in enumerate(values.tolist()))
    loaded = load(**csv(tmp_path, "a,flag,target\n" + lines))
    column = np.concatenate([part[:, 0] for part in parts(loaded)]).astype(float)
    assert loaded.x_train[:, 0].mean() == pytest.approx(0, abs=1e-6)
    assert loaded.x_train[:, 0].std() == pytest.approx(1, abs=1e-6)
    assert abs(column.mean()) > 1e-3  # so the others had no part in it
    slope, offset = np.polyfit(np.sort(column), np.sort(values), 1)
    np.testing.assert_allclose(np.sort(column) * slope + offset, np.sort(values), atol=1e-5)


def test_one_rare_class_makes_no_numbers_of_the_others(tmp_path):
    settings = table(tmp_path, [0, 1] * 100 + [2])
    seeds = range(20)
    told = []
    for seed in seeds:
        try:
            assert load(seed=seed, **settings).classes == ["0", "1", "2"]
        except UserError as error:
            told.append(str(error))
    assert 0 < len(told) < len(seeds)
    assert all("no sample of class '2' is left to train on: lower test_size" in message for message in told)
    assert all("give task=regression" in message for message in told)


def test_the_index_that_pandas_writes_is_no_feature(tmp_path):
    lines = "".join(f"{i},{i % 7},{i % 2}\n" for i in range(1, 31))
    assert load(**csv(tmp_path, ",a,target\n" + lines)).features == ["a"]
    lines = "".join(f"{i % 5},{i % 7},{i % 2}\n" for i in range(30))
    assert load(**csv(tmp_path, ",a,target\n" + lines)).features == ["Unnamed: 0", "a"]


def test_a_byte_order_mark_is_no_part_of_a_name(tmp_path):
    lines = "".join(f"{i},{i % 2}\n" for i in range(30))
    assert load(**csv(tmp_path, b"\xef\xbb\xbfa,target\n" + lines.encode())).features == ["a"]


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("", "is empty"),
        ("a,target\n", "has a header and no rows"),
        ("a,target\n1,2.5\n", "is 2.5 in all rows"),
        ("a,target\n1,2\n3,4\n", "has 2 samples: too few for the requested shares; lower test_size"),
        ("a,b\n1,2\n3,4\n", "target='target': .* has the columns a, b; choose one"),
        ("target\n1\n2\n", "has only the column 'target': features are needed"),
        ("a,target\nred,1\nblue,2\n", "no column to learn from .a: text that differs in all 2 rows"),
        ("a,target\n,1\n,2\n", "no column to learn from .a: all values are missing"),
        ("a,target\n" + "".join(f"{i}.5,1\n" for i in range(30)) + "1.o,2\n", "column 'a' of .* is '1.o' in row 31"),
        ("a,target\n2020-01-02,1\n2020-01-03,2\n", "column 'a' of .* has dates or times .*drop=a"),
        ("a,target\n1,12:30\n2,13:30\n", "column 'target' of .* has dates or times"),
        ("a,target\n1,1\n1e39,2\n", r"column 'a' of .* is 1e\+39 in row 2"),
        ("a,target\n1,\n2,\n", "target='target' of .* is missing in all rows"),
        ("a,target\n1,1\n2\n3,3\n4,4\n", r"row 3 \('2'\) has 1 value, and most have 2: fix such rows"),
        (b"PK\x03\x04 and more", "is a zip archive or an Excel workbook"),
        (b"\x1f\x8b and more", "cannot be unpacked by gzip"),
        (b"a,target\n1,\x00\n", "is not text"),
        ("1,2\n3,4\n5,6\n", "has no header, so its columns are numbered, 1, 2: .*target=2 is the last"),
        ("a,target,target\n1,1,1\n2,2,2\n", "has it twice, and one reveals the other"),
        ("a,target\n1,1\n2,inf\n", "column 'target' of .* is inf in row 2"),
        ("a,target\n1,x\n2,x\n3,x\n", "target='target' of .* is x in all rows: choose a target"),
        ("a,target\n1,7\n2,7\n3,7\n", "target='target' of .* is 7 in all rows: choose a target"),
        ("a,target\n1,1.5\n2,o.5\n3,2\n", "column 'target' of .* is 'o.5' in row 2 .of 1 such"),
        (
            "a,target\n1,x\n2,y\n3,z\n",
            "has 3 different values in 3 rows, such as 'x': too few rows for each to be a class",
        ),
        ("a,target\n1,2,3\n1,2,3\n", "more values in its rows"),
    ],
)
def test_a_csv_that_can_not_be_trained_on(tmp_path, text, said):
    refused(said, **csv(tmp_path, text))
