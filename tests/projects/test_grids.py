"""Search spaces: what can be read, and what is refused."""

from __future__ import annotations

import json

import pytest
from scipy import stats

from mlflow_hp import UserError
from projects import grids


@pytest.mark.parametrize(
    ("asked", "name"), [(asked, name) for asked, known in grids.TUTORIALS.items() for name in known]
)
def test_the_tutorials_spaces_are_as_they_would_be_read(asked, name):
    given = grids.TUTORIALS[asked][name]
    read = grids.read(name, asked)
    assert {n: values for n, values in read.items() if isinstance(values, list)} == {
        n: values for n, values in given.items() if isinstance(values, list)
    }
    assert read.keys() == given.keys()


def test_the_initialisations_are_eight():
    assert len(set(grids.read("init", "grid")["initializer"])) == 8


def test_json_and_yaml_say_the_same(tmp_path):
    file = tmp_path / "mine.yaml"
    file.write_text("learning_rate: [1e-3, 0.01]\nepochs: 5\nhidden: [64-32, [8, 4], 16]\n", encoding="utf-8")
    text = json.dumps({"learning_rate": [0.001, "0.01"], "epochs": [5], "hidden": ["64-32", "8-4", "16"]})
    found = grids.read(str(file), "grid")
    assert found == grids.read(text, "grid")
    assert found == {"learning_rate": [0.001, 0.01], "epochs": [5], "hidden": ["64-32", "8-4", "16"]}


def test_a_value_that_comes_twice_is_tried_once():
    assert grids.read('{"optimizer": ["adam", "Adam", "sgd"]}', "grid") == {"optimizer": ["Adam", "SGD"]}


def test_values_can_be_drawn():
    space = {
        "learning_rate": {"low": 1e-4, "high": 1e-2, "log": True},
        "dropout": {"low": 0.1, "high": 0.3},
        "epochs": {"low": 3, "high": 5},
    }
    found = grids.read(json.dumps(space), "space")
    rate, dropout, epochs = found["learning_rate"], found["dropout"], found["epochs"]
    assert (rate.support(), rate.median()) == ((1e-4, 1e-2), pytest.approx(1e-3))
    assert dropout.support() == pytest.approx((0.1, 0.3))
    assert epochs.support() == (3, 5)
    assert isinstance(epochs.dist, type(stats.randint))


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("{}", "has to name parameters"),
        ("[1, 2]", "has to name parameters"),
        ('{"epochs": []}', "grid: epochs has no values"),
        ('{"learning_rat": [0.1]}', "'learning_rat', which does not exist; did you mean 'learning_rate'"),
        ('{"zzz": [1]}', "'zzz', which does not exist; there are activation, "),
        ('{"epochs": [5, "many"]}', "epochs='many' has to be a whole number"),
        ('{"epochs": [null]}', "epochs=None has to be a whole number"),
        ('{"dropout": [1]}', "dropout=1 has to be a number"),
        ('{"hidden": [[64, 0]]}', "has to be sizes"),
        ('{"initializer": ["he"]}', "initializer='he' has to be one of glorot_normal"),
        ('{"epochs": [5', "cannot be read as JSON"),
        ('{"learning_rate": {"low": 0.1, "high": 0.2}}', "a grid needs a list"),
        ("initt", "No such file or directory; name one of init, batch_epochs_init, lr_momentum_epochs"),
        ("/", "Is a directory"),
    ],
)
def test_what_is_no_grid(text, said):
    with pytest.raises(UserError) as raised:
        grids.read(text, "grid")
    assert said in str(raised.value)
    assert "\n" not in str(raised.value)


@pytest.mark.parametrize(
    "given",
    [
        {"low": 0.1},
        {"low": 0.2, "high": 0.1},
        {"low": 0.1, "high": 0.2, "log": "yes"},
        {"low": 0.1, "high": 0.2, "step": 1},
        {"low": "a little", "high": 1},
    ],
)
def test_what_is_no_distribution(given):
    with pytest.raises(UserError, match="learning_rate"):
        grids.read(json.dumps({"learning_rate": given}), "space")


@pytest.mark.parametrize(
    ("name", "given"),
    [("dropout", {"low": 0, "high": 0.5, "log": True}), ("optimizer", {"low": "Adam", "high": "SGD"}),
     ("epochs", {"low": 1, "high": 9, "log": True})],
)  # fmt: skip
def test_what_can_not_be_drawn_so(name, given):
    with pytest.raises(UserError, match="numbers are drawn from"):
        grids.read(json.dumps({name: given}), "space")


@pytest.mark.parametrize(
    ("content", "said"), [(b"a: [1", "cannot be read as YAML"), (b"\xff\xfe\x00", "cannot be read")]
)
def test_a_file_that_can_not_be_read(tmp_path, content, said):
    file = tmp_path / "broken.yaml"
    file.write_bytes(content)
    with pytest.raises(UserError, match=said) as raised:
        grids.read(str(file), "grid")
    assert "\n" not in str(raised.value)
