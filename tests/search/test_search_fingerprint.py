"""Values are known again by another process, and told from others."""

from __future__ import annotations

import contextvars
import decimal
import functools
import os
import subprocess
import threading
import weakref
from pathlib import Path

import numpy as np
import pytest
import sklearn
from scipy.stats import loguniform
from sklearn.preprocessing import StandardScaler
from sklearn.svm import SVC

import mlflow_hp
from mlflow_hp.search.resume.fingerprint import Fingerprinter, NoFingerprintError
from mlflow_hp.search.resume.referenced import digest, referenced_values
from tests.helpers.forked_python import python

PROGRAM = """
import functools, sys
sys.path.insert(0, sys.argv[1])
import numpy as np
from mlflow_hp.search.resume.referenced import digest

NAMES = ("one", "two")

class Layer:
    kind = "dense"
    def call(self, x):
        return helper(x) + len(NAMES)

def helper(x, known=frozenset({"a", "b", "c"})):
    return x if x in {"d", "e", "f", "g"} else 0

def outer(rate):
    def build(units=4):
        return Layer().call(units) * rate
    return build

value = {"build": outer(0.1), "part": functools.partial(outer, rate=2), "names": {"x", "y", "z"},
         "array": np.arange(5.0), "kind": Layer, "object": Layer()}
print(digest(value))
"""


def test_another_process_finds_the_same(tmp_path):
    found = set()
    for seed, lines in (("1", ""), ("2", "# the same code on other lines\n\n")):
        script = tmp_path / "program.py"
        script.write_text(lines + PROGRAM)
        done = subprocess.run(
            [python(), str(script), str(Path(mlflow_hp.__file__).parents[1])],
            env={**os.environ, "PYTHONHASHSEED": seed}, capture_output=True, text=True, check=True,
        )  # fmt: skip
        found.add(done.stdout)
    (text,) = found
    assert len(text.strip()) == 16


def codes(value):
    fingerprinter = Fingerprinter()
    fingerprinter.of(value)
    return referenced_values(fingerprinter)


def built(units):
    return lambda x: x * units


def used(x):
    return built(x)


def test_code_counts_with_what_it_refers_to(monkeypatch):
    before = codes(used)
    assert codes(used) == before
    monkeypatch.setitem(globals(), "built", lambda units: units)
    assert codes(used) != before


@pytest.mark.parametrize(
    ("one", "other"),
    [
        (1, True), (1, 1.0), ([1], (1,)), (np.float64(1), 1.0), (np.zeros(2), np.zeros(3)), (built(1), built(2)),
        (functools.partial(max, 1), functools.partial(max, 2)), (SVC(C=1), SVC(C=2)), (SVC(), StandardScaler()),
        (loguniform(1, 2), loguniform(1, 3)), ({"a": 1}, {"a": 2}), (lambda: 1, lambda: 2),
    ],
)  # fmt: skip
def test_other_values_are_told_apart(one, other):
    assert digest(one) == digest(one)
    assert digest(one) != digest(other)


class Holder:
    """What weak references refer to."""

    def method(self):
        return self.width


HOLDER, LOCAL, VARIABLE = Holder(), threading.local(), contextvars.ContextVar("width")
REFERENCE, PROXY, METHOD = weakref.ref(HOLDER), weakref.proxy(HOLDER), weakref.WeakMethod(HOLDER.method)
WEAK_SET, WEAK_VALUES = weakref.WeakSet([HOLDER]), weakref.WeakValueDictionary(a=HOLDER)
REFERS = {
    "a context variable": lambda: VARIABLE.get(0),
    "attributes of a thread": lambda: LOCAL.width,
    "a weak reference": lambda: REFERENCE().width,
    "a weak proxy": lambda: PROXY.width,
    "a weak set": lambda: [each.width for each in WEAK_SET],
    "a weak dictionary": lambda: WEAK_VALUES["a"].width,
    "a weak method": lambda: METHOD()() + 0,
    "settings of scikit-learn": lambda: sklearn.get_config()["assume_finite"],
    "settings of numpy": lambda: np.geterr()["over"],
    "settings of decimals": lambda: decimal.Decimal(1) / 3,
}


@pytest.mark.parametrize("name", REFERS)
def test_what_is_only_referred_to_counts(name):
    found = []
    for width in (1, 2, 1):
        HOLDER.width = LOCAL.width = width
        VARIABLE.set(width)
        with (
            sklearn.config_context(assume_finite=width == 2),
            np.errstate(over="raise" if width == 2 else "warn"),
            decimal.localcontext(prec=27 + width),
        ):
            found.append(digest(REFERS[name]))
    assert found[0] == found[2] != found[1]


def read_width():
    return os.environ.get("WIDTH", "1")


def test_a_variable_that_code_names_counts_and_no_other(monkeypatch):
    monkeypatch.delenv("WIDTH", raising=False)
    before = digest(read_width)
    monkeypatch.setenv("ANOTHER", "1")
    monkeypatch.setenv("_MLFLOW_TELEMETRY_SESSION_ID", "2")
    assert digest(read_width) == before
    monkeypatch.setenv("WIDTH", "2")
    assert digest(read_width) != before


def test_order_and_identity_do_not_count():
    assert digest({"a": 1, "b": {2, 3}}) == digest({"b": {3, 2}, "a": 1})
    assert digest(SVC(C=0.1)) == digest(SVC(C=0.1))
    within: list = []
    within.append(within)
    assert digest(within) == digest(within)


def test_code_of_libraries_is_known_by_the_library():
    fingerprinter = Fingerprinter()
    fingerprinter.of([SVC, np.mean, functools.lru_cache])
    assert not fingerprinter.entries
    assert not fingerprinter.functions
    assert {"sklearn", "numpy", "functools"} <= fingerprinter.packages


class Unlike:
    __slots__ = ()

    def __reduce__(self):
        raise TypeError("not to be pickled")


def test_what_can_not_be_known_again():
    with pytest.raises(NoFingerprintError, match="Unlike cannot be fingerprinted: TypeError: not to be pickled"):
        digest([Unlike()])


class Node:
    """Objects that refer to one another, as those of a user's program do."""

    def __init__(self, number):
        self.number, self.others = number, []


def connected(n, number=None):
    """Objects that refer to one another in circles, every one to five."""
    nodes = [Node(i) for i in range(n)]
    for i, node in enumerate(nodes):
        node.others = [nodes[(7 * i + k * k) % n] for k in range(5)]
    if number is not None:
        nodes[number].number = -1
    return nodes


@pytest.mark.parametrize("of_code", [False, True])
def test_objects_that_refer_to_one_another_are_looked_at_once(of_code):
    def look_at(value):
        fingerprinter = Fingerprinter()
        return (fingerprinter.of_code if of_code else fingerprinter.of)(value), fingerprinter

    found, fingerprinter = look_at(connected(60))
    assert fingerprinter._n_objects < 60 * 4  # each with its attributes; not once for each way that leads to it
    assert found == look_at(connected(60))[0]
    assert len({look_at(connected(60, changed))[0] for changed in range(60)} | {found}) == 61


def test_what_an_object_is_does_not_depend_on_what_was_looked_at_before():
    fresh, used = Fingerprinter(), Fingerprinter()
    used.of([connected(9), Node(3), Node, connected])
    nodes, others = connected(40), connected(40)
    assert [fresh.of(each) for each in nodes] == [used.of(each) for each in others]
    assert fresh.of([nodes[3], {"a": nodes[5]}]) == used.of([others[3], {"a": others[5]}])


def test_one_value_in_many_places():
    def nested(value):
        for _ in range(3000):
            value = [value, value] if isinstance(value, list) else {"a": value, "b": value}
        return value

    with pytest.raises(NoFingerprintError, match="RecursionError"):
        digest(nested(1))
    shared = [1]
    for _ in range(60):
        shared = [shared, shared]
    other = [2]
    for _ in range(60):
        other = [other, other]
    assert digest(shared) != digest(other)


def test_too_much_to_look_at(monkeypatch):
    monkeypatch.setattr("mlflow_hp.search.resume.fingerprint.MAX_OBJECTS", 1000)
    with pytest.raises(NoFingerprintError, match="it refers to more than 1,000 objects"):
        digest([[i] for i in range(1000)])
    assert digest([[i] for i in range(900)])
