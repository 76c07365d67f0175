"""What comes from the command line."""

from __future__ import annotations

import pytest

from mlflow_hp.errors import UserError
from projects import arguments, models
from projects.arguments import Parameter
from projects.cost_contour import PARAMETERS


def chosen(parameters=PARAMETERS, **written):
    defaults = {parameter.name: parameter.default for parameter in parameters}
    return arguments.combinations(defaults | written, parameters)


def test_defaults_are_the_tutorials():
    (settings,) = chosen()
    assert settings.items() >= {
        "data": "diabetes", "optimizer": "RMSprop", "learning_rate": 0.01, "batch_size": 10, "epochs": 10,
        "test_size": 0.2, "standardize": False, "weight": None, "bias": None, "momentum": 0.0,
    }.items()  # fmt: skip


def test_several_values_make_every_combination_once():
    combinations = chosen(learning_rate="0.1, 1e-3,0.001", batch_size="10,160", optimizer="sgd")
    assert arguments.varying_names(combinations) == ["learning_rate", "batch_size"]
    labels = [arguments.label(c, ["learning_rate", "batch_size"]) for c in combinations]
    assert labels == [
        "learning_rate=0.1 batch_size=10",
        "learning_rate=0.1 batch_size=160",
        "learning_rate=0.001 batch_size=10",
        "learning_rate=0.001 batch_size=160",
    ]
    assert combinations[0]["optimizer"] == "SGD"


def test_a_path_with_a_comma_is_one_value():
    assert chosen(data="a,b.csv")[0]["data"] == "a,b.csv"


@pytest.mark.parametrize(
    ("name", "text", "wanted"),
    [
        ("learning_rate", "fast", "a number over 0"),
        ("learning_rate", "0", "a number over 0"),
        ("learning_rate", "-0.1", "a number over 0"),
        ("learning_rate", "nan", "a number over 0"),
        ("learning_rate", "inf", "a number over 0"),
        ("learning_rate", "0.1,,0.2", "a number"),
        ("batch_size", "0", "a whole number"),
        ("batch_size", "2.5", "a whole number of 1 or more"),
        ("batch_size", "-3", "a whole number"),
        ("epochs", "many", "a whole number of 1 or more"),
        ("epochs", "", "a whole number of 1 or more"),
        ("test_size", "1", "a number over 0 and under 1"),
        ("test_size", "0", "a number over 0 and under 1"),
        ("momentum", "1", "a number of 0 or more and under 1"),
        ("seed", "-1", "a whole number from 0"),
        ("standardize", "maybe", "true or false"),
        ("weight", "heavy", "a number"),
        ("optimizer", "Adamant", "Adam, Adamax"),
    ],
)
def test_a_value_that_can_not_be(name, text, wanted):
    with pytest.raises(UserError) as told:
        chosen(**{name: text})
    assert str(told.value).startswith(f"{name}=")
    assert wanted in str(told.value)
    assert "\n" not in str(told.value)


def test_optional_values():
    assert [s["weight"] for s in chosen(weight="none,1.5")] == [None, 1.5]
    assert arguments.label({"weight": None, "standardize": True, "x": 1e-5}, ["weight", "standardize", "x"]) == (
        "weight=none standardize=true x=1e-05"
    )


def test_a_value_is_shown_as_it_reads_back():
    close = chosen(learning_rate="0.0123456789012,0.0123456789013")
    assert [arguments.label(c, arguments.varying_names(close)) for c in close] == [
        "learning_rate=0.0123456789012",
        "learning_rate=0.0123456789013",
    ]


def test_parse_takes_what_is_declared_and_nothing_else(capsys):
    parameters = [Parameter("rate", "0.1", arguments.number(), "how fast")]
    assert arguments.parse(["--rate", "7"], parameters, "") == {"rate": "7"}
    with pytest.raises(SystemExit) as ended:
        arguments.parse(["--rat", "7"], parameters, "")
    assert ended.value.code == 2
    assert "--rat" in capsys.readouterr().err


def test_optimizers_by_name():
    names = models.optimizer_names()
    assert {"SGD", "RMSprop", "Adam", "Adagrad", "Nadam"} <= set(names)
    for name in names:
        assert float(models.optimizer(name, 0.25, momentum=0).learning_rate) == 0.25
    assert models.optimizer("SGD", 0.1, momentum=0.9).momentum == 0.9
    with pytest.raises(UserError, match=r"momentum=0.9: Adam takes none; those that do are .*RMSprop, SGD"):
        models.optimizer("Adam", 0.1, momentum=0.9)
