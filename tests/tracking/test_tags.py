"""Every name of a tag, a metric or an artifact is written in one place, and spelled nowhere else in the tree."""

from __future__ import annotations

import ast
import re
from pathlib import Path

import pytest
from mlflow.utils import mlflow_tags

import mlflow_hp
from mlflow_hp.tracking import artifact_paths, tags

ROOT = Path(__file__).parents[2]
HOMES = {ROOT / "mlflow_hp" / "tracking" / name for name in ("tags.py", "artifact_paths.py")}
PLACES = sorted(
    path
    for place in ("mlflow_hp", "projects", "benchmarks", "docs")
    for path in (ROOT / place).rglob("*.py")
    if path not in HOMES
)
SCRIPTS = sorted(
    path
    for kind in ("js", "html", "jinja", "j2")
    for path in (ROOT / "mlflow_hp").rglob(f"*.{kind}")
    if ".min." not in path.name
)


def constants(module):
    """Names and texts of the constants of a module; a tuple's texts each."""
    found = {}
    for name, value in vars(module).items():
        if name.isupper():
            found |= {name: value} if isinstance(value, str) else {f"{name} {i}": part for i, part in enumerate(value)}
    return found


TAGS, PATHS = constants(tags), constants(artifact_paths)
ALL = TAGS | PATHS
OURS = {name: text for name, text in ALL.items() if not text.startswith("mlflow.")}
WHOLE = {
    text
    for name, text in OURS.items()
    if re.search(r"[./_]", text) and not name.endswith(("_PREFIX", "_PARAM", "_FOLDER"))
}
"""Texts that are a name of ours, and no other word."""
BEGINNINGS = {text for name, text in OURS.items() if name.endswith("_METRIC_PREFIX") and text.endswith("/")} | {
    f"{text}/" for name, text in PATHS.items() if name.endswith("_FOLDER")
}
OF_MLFLOW = {text for text in vars(mlflow_tags).values() if isinstance(text, str) and text.startswith("mlflow.")}
"""All tags of MLflow, whether or not we use them."""
OF_MLFLOW.add("mlflow.experimentKind")  # which its browser code has, and no constant
NO_TAGS = {path.stem for path in (ROOT / "mlflow_hp").iterdir()} | set(mlflow_hp.__all__) | {"html"}
"""What may stand behind ``mlflow_hp.``: packages, modules, public names."""
ANOTHER_THING = {
    ("mlflow_hp/analysis/search_results.py", "fit_seconds"),  # columns of a table
    ("mlflow_hp/analysis/search_results.py", "score_seconds"),
    ("docs/site/reference.py", "mlflow_hp."),  # a module
    ("docs/tree.py", "mlflow_hp."),
}


def told(node):
    """The text that an expression makes, with ``{}`` for what is not known; constants of ours are known."""
    if isinstance(node, ast.Constant):
        return str(node.value)
    if isinstance(node, ast.JoinedStr):
        return "".join(map(told, node.values))
    if isinstance(node, ast.FormattedValue):
        return told(node.value)
    if isinstance(node, ast.BinOp) and isinstance(node.op, ast.Add):
        return told(node.left) + told(node.right)
    name = node.id if isinstance(node, ast.Name) else node.attr if isinstance(node, ast.Attribute) else ""
    return ALL.get(name, "{}")


def parts(node):
    """What is written in an expression, without the constants of ours."""
    return [each.value for each in ast.walk(node) if isinstance(each, ast.Constant) and isinstance(each.value, str)]


def spelled(node):
    """The names of ours, and of MLflow, that an expression spells instead of importing them."""
    written, text = parts(node), told(node)
    for part in written:
        yield from (f"mlflow_hp.{end}" for end in re.findall(r"(?<![\w/])mlflow_hp\.(\w*)", part) if end not in NO_TAGS)
        yield from (name for name in re.findall(r"(?<!\w)mlflow\.[a-zA-Z.]*\w", part) if name in OF_MLFLOW)
    if written and text in WHOLE:
        yield text
    if written and text.startswith(written[0]):
        yield from (beginning for beginning in BEGINNINGS if written[0].startswith(beginning))


def all_spelled(source):
    """Line and name of all that a module spells, but for its docstrings."""
    tree = ast.parse(source)
    inside, documents = set(), set()
    for node in ast.walk(tree):
        if isinstance(getattr(node, "body", None), list):
            documents |= {id(each.value) for each in node.body if isinstance(each, ast.Expr)}
        if isinstance(node, (ast.JoinedStr, ast.BinOp)) and id(node) not in inside:
            inside |= {id(each) for each in ast.walk(node)} - {id(node)}
    for node in ast.walk(tree):
        is_text = isinstance(node, (ast.JoinedStr, ast.BinOp, ast.Constant)) and id(node) not in inside | documents
        if is_text:
            yield from ((node.lineno, name) for name in dict.fromkeys(spelled(node)))


@pytest.mark.parametrize("path", PLACES, ids=lambda path: str(path.relative_to(ROOT)))
def test_no_name_is_spelled_outside_of_its_home(path):
    place = path.relative_to(ROOT).as_posix()
    found = all_spelled(path.read_text(encoding="utf-8"))
    told_of = [f"{place}:{line}: {name}" for line, name in found if (place, name) not in ANOTHER_THING]
    assert not told_of, "write them in mlflow_hp/tracking/tags.py or artifact_paths.py, and import them"


@pytest.mark.parametrize(
    ("source", "names"),
    [
        ("x = 'mlflow_hp.kind'", ["mlflow_hp.kind"]),
        ("x = 'mlflow_hp.never_seen'", ["mlflow_hp.never_seen"]),
        ("x = f'mlflow_hp.{name}'", ["mlflow_hp."]),
        ("x = 'mlflow_hp.' + name", ["mlflow_hp."]),
        ("x = f'{TAG_PREFIX}kind'", ["mlflow_hp.kind"]),
        ("x = tags.TAG_PREFIX + 'kind'", ["mlflow_hp.kind"]),
        ("x = f\"tags.`mlflow_hp.kind` = '{kind}'\"", ["mlflow_hp.kind"]),
        ("run(filter='tags.`mlflow.user` = 1')", ["mlflow.user"]),
        ("x = {'mlflow.note.content': text}", ["mlflow.note.content"]),
        ("x = {f'weights/{name}': 1}", ["weights/"]),
        ("x = name.startswith(('batch/', 'x'))", ["batch/"]),
        ("x = metrics['mean_score']", ["mean_score"]),
        ("x = 'mean_' + 'score'", ["mean_score"]),
        ("x = open('diagnosis.json')", ["diagnosis.json"]),
        ("x = f'plots/{name}.png'", ["plots/"]),
        ("'''A docstring on mlflow_hp.kind.'''", []),
        ("from mlflow_hp.tracking import tags\nx = f'{tags.KIND_TAG}'", []),
        ("x = f'{WEIGHTS_METRIC_PREFIX}{name}'", []),
        ("x = f'tags.`{KIND_TAG}` = 1'", []),
        ("x = 'mlflow_hp.search.live.worker', 'mlflow.db', 'mlflow_hp.TrainingRecorder', 'the loss and weights'", []),
    ],
)
def test_any_way_of_spelling_is_found(source, names):
    assert [name for _, name in all_spelled(source)] == names


OF_THE_BROWSER = {"mlflow.workflowType_v1"}
"""Keys of MLflow's UI in the storage of a browser."""


@pytest.mark.parametrize("path", SCRIPTS, ids=lambda path: str(path.relative_to(ROOT)))
def test_the_names_in_scripts_are_those_of_the_package(path):
    for text in re.findall(r"""(?<=["'`])[^"'`\n]*(?=["'`])""", path.read_text(encoding="utf-8")):
        if text.startswith(tuple(BEGINNINGS)) or re.match(r"mlflow(_hp)?\.[a-z]", text):
            assert text in {*ALL.values(), *OF_THE_BROWSER}, text


def test_tags_of_mlflow_are_called_as_mlflow_calls_them():
    for name, text in TAGS.items():
        if text.startswith("mlflow.") and name.endswith("_TAG"):
            assert text in OF_MLFLOW, name
        elif text.startswith("mlflow."):
            assert any(of_mlflow.startswith(text) for of_mlflow in OF_MLFLOW), name


def test_each_name_is_there_once_and_says_what_it_holds():
    assert len(set(TAGS.values()) - {tags.DISTANCE_METRIC}) == len(TAGS) - 2  # of Beale's function, it is also alone
    assert len(set(PATHS.values())) == len(PATHS)
    for home in HOMES:
        body = ast.parse(home.read_text(encoding="utf-8")).body
        for statement, after in zip(body, [*body[1:], None], strict=True):
            if isinstance(statement, ast.Assign):
                assert isinstance(after, ast.Expr), f"{home.name}:{statement.lineno}"
