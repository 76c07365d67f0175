"""Digests of code tell an edit from one that only moves it to other lines."""

from __future__ import annotations

import sys
import textwrap

import pytest

from mlflow_hp.search.resume.bytecode import code_digest

FORMS = {
    "a class": "class A:\n    x = 5\n    def f(self):\n        self.b, self.a = 1, 2\n",
    "an empty class": "class A:\n    pass\n",
    "a decorated class": "@decorate\n@decorate(1)\nclass A:\n    x = 5\n",
    "a dataclass": "@dataclass\nclass A:\n    x: int = 5\n    y: float = field(default=2.0)\n",
    "a class in a class": "class A:\n    class B:\n        x = 5\n",
    "a class in a function": "def f(n):\n    class A(Base, kind=3):\n        x = n\n    return A\n",
    "a function": "def f(x, *, y=5):\n    try:\n        return [x * y for x in x]\n    finally:\n        assert y\n",
    "a lambda": "f = lambda x: x + 5\n",
}
if sys.version_info >= (3, 12):
    FORMS["a generic class"] = "class A[T: int](Base):\n    x: T = 5\n"


def digest(source, first_line=1):
    return code_digest(compile("\n" * (first_line - 1) + textwrap.dedent(source), "<code>", "exec"))


@pytest.mark.parametrize("source", FORMS.values(), ids=FORMS)
def test_the_same_on_other_lines(source):
    assert {digest(source, first_line) for first_line in (1, 2, 100, 300, 70_000)} == {digest(source)}


@pytest.mark.parametrize("source", [source for source in FORMS.values() if "5" in source])
def test_another_constant_is_another_code(source):
    assert digest(source) != digest(source.replace("5", "6"))


def test_a_constant_that_moves_with_its_class_is_an_edit():
    assert len({digest(f"class A:\n    x = {line}\n", line) for line in range(1, 9)}) == 8
