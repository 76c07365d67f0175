"""The words of the house: plain English with the field's terms, and one word for one thing."""

from __future__ import annotations

import ast
import collections
import re
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]

REPLACED = {
    "again": r"\banew\b",
    "next to, besides": r"\bbeside\b",
    "duplicates, twice": r"\bdoubles\b",
    "fixes, repairs": r"\bmend(s|ed|ing)?\b",
    "at most": r"\bat the most\b",
    "verbatim": r"\bto the letter\b",
    "resumed, continued": r"\bgone on with\b",
    "recognised, fingerprinted": r"\bknown again\b",
    "a process, other code, the user: whoever it is": r"\b(some|any|no)body\b",
    "not a training journal: what it is not": r"\bnone of ours\b",
    "cannot": r"\bcan't\b",
    "forever": r"\bfor ever\b",
    "reported, with a warning": r"\b(is|are|was|were|be|been) told\b",
    "available": r"\bto be had\b",
    "None if": r"\b(None|False|True|nothing|empty) where\b",
    "If": r"^\s+Where (it|they|there|that|no|none)\b",
}
"""What to write -> what not to write, in code and in documentation."""

OPENING = re.compile(r"(What|That|Which|How|Who|Whose|Where|Those|Is told|Are told|Have|Of)\b")
"""How the first line of a docstring does not begin: it is an imperative sentence, or the noun that the thing is."""

VAGUE = {"found", "given", "kept", "made", "mine", "ours", "said", "theirs", "told"}
"""Names that do not say what a variable holds."""

REWRITTEN = [
    "mlflow_hp/*.py", "mlflow_hp/_compat", "mlflow_hp/analysis", "mlflow_hp/cli", "mlflow_hp/compare",
    "mlflow_hp/delivery", "mlflow_hp/history", "mlflow_hp/improvement", "mlflow_hp/plots", "mlflow_hp/reproduce",
    "mlflow_hp/search", "mlflow_hp/server", "mlflow_hp/sync", "mlflow_hp/tracking", "mlflow_hp/training", "projects",
]  # fmt: skip
"""Folders, and files by a pattern, that keep these rules."""


def sources(place):
    return sorted(ROOT.glob(place if place.endswith(".py") else f"{place}/**/*.py"))


@pytest.mark.parametrize("folder", REWRITTEN)
def test_words_that_have_a_plainer_one(folder):
    found = [
        f"{path.relative_to(ROOT)}:{number}: {match[0]!r}; write {better}"
        for path in sources(folder)
        for number, line in enumerate(path.read_text(encoding="utf-8").splitlines(), start=1)
        for better, word in REPLACED.items()
        if (match := re.search(word, line, re.IGNORECASE))
    ]
    assert not found, "\n".join(found)


@pytest.mark.parametrize("folder", REWRITTEN)
def test_docstrings_begin_with_an_imperative_or_a_noun(folder):
    found = [
        f"{path.relative_to(ROOT)}:{getattr(node, 'lineno', 1)}: {doc.splitlines()[0]}"
        for path in sources(folder)
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8")))
        if isinstance(node, (ast.Module, ast.ClassDef, ast.FunctionDef, ast.AsyncFunctionDef))
        and (doc := ast.get_docstring(node))
        and OPENING.match(doc)
    ]
    assert not found, "\n".join(found)


@pytest.mark.parametrize("folder", REWRITTEN)
def test_names_say_what_they_hold(folder):
    found = [
        f"{path.relative_to(ROOT)}:{node.lineno}: {name}"
        for path in sources(folder)
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8")))
        if (name := name_given_by(node)) in VAGUE
    ]
    assert not found, "\n".join(found)


def name_given_by(node):
    """The name of the variable, parameter, function or class that a node of the syntax tree defines, if any."""
    if isinstance(node, ast.Name) and isinstance(node.ctx, ast.Store):
        return node.id
    if isinstance(node, ast.arg):
        return node.arg
    return getattr(node, "name", None) if isinstance(node, (ast.FunctionDef, ast.ClassDef)) else None


def test_every_pattern_matches_files():
    assert all(sources(place) for place in REWRITTEN)


def test_no_two_classes_have_one_name():
    places = collections.defaultdict(list)
    for path in sources("mlflow_hp"):
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if isinstance(node, ast.ClassDef):
                places[node.name.lstrip("_")].append(f"{path.relative_to(ROOT)}:{node.lineno}")
    twice = {name: found for name, found in places.items() if len(found) > 1}
    assert not twice
