"""Tests watch what users can watch: those that reach for a private name of ours are listed, each with its reason."""

from __future__ import annotations

import ast
import re
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
FAULTS = "a fault is put into any part of the recording, also into those that only it calls"
ALLOWED = {
    "tests/compat/test_names_of_libraries.py": ({"_open", "_own"}, "source that a test is about"),
    "tests/delivery/test_interrupts.py": ({"_pass_on"}, FAULTS),
    "tests/helpers/interrupted_recordings.py": (
        {"_history", "_queue", "_thread", "_writer", "_sink"}, "a process that has died",
    ),
    "tests/search/test_search_continued.py": ({"_uses_threads"}, "Keras in threads, which may fail without us"),
    "tests/search/test_search_dask.py": ({"_uses_threads"}, "clusters of more machines than there are here"),
    "tests/search/test_search_fingerprint.py": ({"_n_objects"}, "how much work it is, which no result shows"),
    "tests/search/test_search_guard.py": (
        {"_Cache", "_CachedModel", "_fit_of", "_key", "_patch"}, FAULTS,
    ),
    "tests/search/test_search_isolation.py": ({"_CachedModel"}, "all ways to hold a model, each without a search"),
    "tests/search/test_search_reuse_recorded.py": ({"_cache"}, "models that stay in memory"),
    "tests/tracking/test_nesting.py": ({"_end_ancestors"}, "runs that are nested in a circle"),
    "tests/training/test_fit_goes_on.py": (
        {"_note_step", "_note_update", "_pass_on", "_recorded_step", "_send_to_mlflow"}, FAULTS,
    ),
    "tests/training/test_live_findings.py": (
        {"_diagnose", "_fit", "_history", "_keep", "_longest"}, "rules that fail or take long, and what they keep",
    ),
}  # fmt: skip
"""File -> private names of ours in it, and why: take out what is no longer there, and put nothing in."""
OF_OTHERS = {
    "_callbacks": "scikit-learn",
    "_fit_keras_model": "scikeras",
    "_learning_rate": "Keras",
    "_repr_html_": "notebooks",
    "_search": "scikit-learn",
}
"""Names that other libraries have, too: the tests mean theirs."""


def is_private(name):
    return re.fullmatch(r"_[A-Za-z]\w*", name) is not None


def is_self(node):
    return isinstance(node, ast.Name) and node.id == "self"


def made_by(path):
    """Private names that a file of ours gives to functions, classes, variables and attributes."""
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.FunctionDef | ast.ClassDef):
            yield node.name
        elif isinstance(node, ast.Name) and isinstance(node.ctx, ast.Store):
            yield node.id
        elif isinstance(node, ast.Attribute) and isinstance(node.ctx, ast.Store) and is_self(node.value):
            yield node.attr


OURS = {
    name for room in ("mlflow_hp", "projects") for path in (ROOT / room).rglob("*.py") for name in made_by(path)
    if is_private(name)
}  # fmt: skip


def reached_by(path):
    """Private names of ours that a test takes from a module or an object, imports, or names in a text."""
    tree = ast.parse(path.read_text(encoding="utf-8"))
    for node in ast.walk(tree):
        if isinstance(node, ast.Attribute) and not is_self(node.value):
            yield node.attr
        elif isinstance(node, ast.ImportFrom) and (node.module or "").partition(".")[0] in ("mlflow_hp", "projects"):
            yield from node.module.split(".")
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.Constant) and isinstance(node.value, str):
            yield from re.findall(r"(?<!\bself)\.(_\w+)", node.value)
        elif isinstance(node, ast.Call) and getattr(node.func, "attr", "") in ("setattr", "delattr"):
            yield from (part.value for part in node.args[1:2] if isinstance(part, ast.Constant))


@pytest.mark.parametrize("path", sorted((ROOT / "tests").rglob("*.py")), ids=lambda path: str(path.relative_to(ROOT)))
def test_only_what_is_listed_is_reached_for(path):
    allowed, _ = ALLOWED.get(str(path.relative_to(ROOT)), (set(), ""))
    assert {name for name in reached_by(path) if isinstance(name, str)} & OURS - OF_OTHERS.keys() == allowed
