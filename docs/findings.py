"""Draw up the tables of all findings, for diagnosis.md.

    python docs/findings.py          # print the tables
    python docs/findings.py --write  # put them into docs/diagnosis.md

Rules on the program: meaning, threshold and source are from their docstrings. Verdicts and severities are from the
calls of ``Finding``, numbers from the constants of the rules. The rest is in `REPAIRS` and in `curve_findings`.
"""

from __future__ import annotations

import ast
import importlib
import inspect
import re
import runpy
import sys
import textwrap
from collections import defaultdict
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

from mlflow_hp.analysis.diagnosis import program
from mlflow_hp.analysis.diagnosis.program.settings import USUAL_RATES, clipped_every_step
from mlflow_hp.analysis.diagnosis.program.suspicions import SUSPICIONS

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

HERE = Path(__file__).parent
DIAGNOSIS = HERE / "diagnosis.md"
ROOT = HERE.parent / "mlflow_hp"
HEADER = "| finding | what it means | threshold | source, measurements | what to do |\n|---|---|---|---|---|"

REPAIRS: dict[str, str] = {
    "text_labels": "number the classes: `StringLookup`, `LabelEncoder`",
    "form_of_labels": "the sparse loss for whole labels, the categorical one for one-hot rows",
    "classification_loss_for_numbers": 'no activation, `loss="mean_squared_error"`; pixels: divide by 255',
    "embedded_numbers": "the indices as they are, or an embedding with as many rows",
    "softmax_for_numbers": "sigmoid for values from 0 to 1, else no activation",
    "deep_and_narrow": "fewer and wider layers",
    "much_noise": "`GaussianNoise(0.1)`",
    "squeezed_inputs": "`RobustScaler`, `QuantileTransformer`",
    "no_learning_rate": "the usual rate of the optimizer",
    "normalization_over_one": "an axis of several values",
    "loss_of_directions": '`loss="mean_squared_error"`',
    "strong_weight_decay": "`weight_decay=0.004`",
    "loss_of_other_numbers": '`loss="mean_squared_error"`',
    "softmax_on_one_unit": '`Dense(1, activation="sigmoid")`, or a unit for each class',
    "one_unit_for_classes": "a unit for each class with softmax; for two, one sigmoid and the binary loss",
    "binary_loss_for_classes": "the categorical cross-entropy, sparse for whole labels",
    "labels_out_of_range": "`labels - 1`, `(labels == 1).astype(int)`, or more units",
    "columns_differ": "as many units as the targets have columns",
    "missing_probabilities": "softmax or sigmoid at the output, or `from_logits=True`",
    "sigmoid_for_exclusive_classes": "softmax at the output",
    "softmax_for_several_labels": "sigmoid at the output, and the binary cross-entropy",
    "squared_error_for_classes": "a cross-entropy, with softmax or sigmoid",
    "poisson_output": '`activation="exponential"` at the output',
    "output_range": "no activation at the output",
    "squashed_logits": "no activation between the last weights and the probabilities",
    "logits_twice": "`from_logits=False`, or no activation",
    "relu_output": "no activation at the output, or softplus",
    "accuracy_of_numbers": '`metrics=["mae"]`',
    "accuracy_of_other_task": '`metrics=["accuracy"]`, `["binary_accuracy"]` for several labels',
    "accuracy_of_logits": "`keras.metrics.BinaryAccuracy(threshold=0)`",
    "not_finite_inputs": "leave the rows out, or fill in the column's mean",
    "not_finite_targets": "leave the rows out",
    "pixels": "`Rescaling(1 / 255)` as the first layer",
    "unscaled_inputs": "`StandardScaler`, or an adapted `Normalization` layer",
    "validation_scaled_differently": "`scaler.transform(x_val)` with the scaler of the training data",
    "sorted_labels": "`shuffle=True`, or `dataset.shuffle(...)` before `batch()`",
    "classes_of_validation": "shuffle before `fit`, or `train_test_split(..., stratify=y)`",
    "class_weights_the_other_way": "larger weights for the rarer classes",
    "huge_targets": "standardise the targets, and scale predictions back",
    "unequal_classes": "`class_weight=`, and a metric such as the AUC",
    "constant_inputs": "leave the features out",
    "everything_frozen": "`trainable = True` before `compile()`",
    "constant_weights": "a random initialiser: He for ReLU, else Glorot",
    "dropout_at_output": "move the dropout in front of the last layer",
    "activation_twice": "leave one of the two out",
    "hidden_softmax": "ReLU",
    "no_nonlinearity": "ReLU in the hidden layers",
    "normalization_of_one": "larger batches, or `LayerNormalization`",
    "few_units": "more units in front of the output",
    "saturating_stack": "ReLU in all of them",
    "much_dropout": "`Dropout(0.3)`",
    "size_of_weights": "He or Glorot initialisation",
    "strong_regularizer": "a penalty of 1e-4",
    "linear_pair": "an activation, or one layer less",
    "momentum_near_one": "`momentum=0.9`, or a smaller rate",
    "unusual_learning_rate": "the usual rate of the optimizer (below)",
    "schedule_ends_early": "`decay_steps` of the whole training",
    "metric_the_other_way": 'the other `mode`, or `"auto"`',
    "metric_that_is_missing": "validation data, the metric in `compile`, or another `monitor`",
    "batch_larger_than_data": "a smaller batch",
    "few_steps": "more epochs",
    "clipped_every_step": "a bound of the size of the gradients",
    "one_batch": "`batch_size=32`",
    "narrow_layer": "more units",
    "no_hidden_layer": "a hidden layer with ReLU in front of the output",
    "unusual_activation": "ReLU",
    "learning_rate_of_another_size": "the usual rate of the optimizer",
    "frozen_part": "`trainable = True` before `compile()`",
}
"""Rule -> what to do about its finding, in short; the finding itself has the code with the numbers."""

GROUPS: dict[str, tuple[Callable[..., Any], ...]] = {
    "outputs": program.OUTPUT_RULES,
    "data": program.DATA_RULES,
    "network": program.NETWORK_RULES,
    "settings": (*program.SETTINGS_RULES, clipped_every_step),
    "suspicions": SUSPICIONS,
}
"""Table -> rules on the program."""


class Call(NamedTuple):
    """Call of ``Finding`` in the code.

    Attributes
    ----------
    names, verdicts, severities : tuple of str
        Values that it can have; empty if they are computed.
    """

    names: tuple[str, ...]
    verdicts: tuple[str, ...]
    severities: tuple[str, ...]


def calls(tree: ast.AST, names: dict[str, Any]) -> Iterator[Call]:
    """List the calls of ``Finding`` in code, whose module has `names`."""
    for node in ast.walk(tree):
        if not isinstance(node, ast.Call) or ast.unparse(node.func).rpartition(".")[2] not in ("Finding", "_replace"):
            continue
        values: dict[str, ast.expr] = {each.arg: each.value for each in node.keywords if each.arg}
        if ast.unparse(node.func).endswith("Finding"):
            values |= dict(
                zip(("name", "verdict", "text", "evidence", "suggestion", "severity"), node.args, strict=False)
            )
        yield Call(*(texts(values.get(field), names) for field in ("name", "verdict", "severity")))


def texts(node: ast.expr | None, names: dict[str, Any]) -> tuple[str, ...]:
    """Texts that an expression can be."""
    if isinstance(node, ast.IfExp):
        return (*texts(node.body, names), *texts(node.orelse, names))
    value = names.get(node.id) if isinstance(node, ast.Name) else getattr(node, "value", None)
    return (value,) if isinstance(value, str) else ()


def all_calls() -> list[Call]:
    """List the calls of ``Finding`` of the diagnosis, and of what reports findings while a training runs."""
    paths = [*sorted((ROOT / "analysis" / "diagnosis").glob("*.py")), ROOT / "training" / "live_findings.py"]
    listed: list[Call] = []
    for path in paths:
        module = importlib.import_module(".".join(path.relative_to(ROOT.parent).with_suffix("").parts))
        listed += calls(ast.parse(path.read_text(encoding="utf-8")), vars(module))
    return listed


def parts(rule: Callable[..., Any]) -> tuple[str, str, str]:
    """Meaning, threshold and source from the docstring of a rule on the program."""
    doc = (inspect.getdoc(rule) or "").partition("\n\nParameters\n")[0].replace("\n", " ")
    pieces = re.split(r"\b(Source and thresholds|Source|Threshold): ", re.sub(r" +", " ", doc))
    by_marker: dict[str, list[str]] = defaultdict(list)
    for marker, piece in zip(["", *pieces[1::2]], pieces[::2], strict=True):
        by_marker[marker].append(piece.strip())
    meaning = " ".join(by_marker[""])
    if meaning.startswith(("Detect ", "Suspect ")):
        meaning = meaning.partition(" ")[2]
    threshold = " ".join(by_marker["Threshold"] + by_marker["Source and thresholds"])
    in_text = "in the second column" if re.search(r"\b(19|20)\d\d\b", meaning) else "own rule"
    source = " ".join(by_marker["Source"]) or ("below" if "Source and thresholds" in by_marker else in_text)
    values = vars(inspect.getmodule(rule))
    first, second, third = (sentence(with_numbers(each, values)) for each in (meaning, threshold or "any", source))
    return first, second, third


def with_numbers(text: str, values: dict[str, Any]) -> str:
    """Replace names of constants by their values."""

    def number(match: re.Match[str]) -> str:
        value = values[match[1]]
        return f"{value:g}" if isinstance(value, int | float) else "the usual rates below"

    return re.sub(r"``?([A-Z][A-Z_]+)``?", number, text).replace("``", "`")


def sentence(text: str) -> str:
    """Begin with a capital letter, and end without a full stop."""
    return (text[:1].upper() + text[1:]).removesuffix(".").replace("|", "\\|")


def first_cell(verdicts: tuple[str, ...], name: str, severities: tuple[str, ...]) -> str:
    """Cell with verdict, name and severity."""
    bold = " / ".join(f"**{verdict}**" for verdict in dict.fromkeys(verdicts))
    return f"{bold}<br>`{name}`<br>{' or '.join(dict.fromkeys(severities)) or 'fine'}"


def program_table(rules: tuple[Callable[..., Any], ...]) -> str:
    """Table of rules on the program."""
    rows = []
    for rule in rules:
        tree = ast.parse(textwrap.dedent(inspect.getsource(rule)))
        (call,) = [each for each in calls(tree, vars(inspect.getmodule(rule))) if each.names]
        severities = call.severities or ("problem", "hint")
        names = "`, `".join(call.names)
        cells = [first_cell(call.verdicts, names, severities), *parts(rule), REPAIRS[rule.__name__]]
        rows.append("| " + " | ".join(cells) + " |")
    return "\n".join([HEADER, *rows])


def curve_table(group: str) -> str:
    """Table of findings on curves, layers and descents."""
    severities: dict[tuple[str, str], set[str]] = defaultdict(set)
    for call in all_calls():
        for name in call.names:
            for verdict in call.verdicts:
                severities[name, verdict] |= set(call.severities)
    rows = []
    for name, verdict, *cells in curve_findings()[group]:
        ranked = tuple(each for each in ("problem", "hint", "fine") if each in severities[name, verdict])
        rows.append("| " + " | ".join([first_cell((verdict,), name, ranked), *cells]) + " |")
    return "\n".join([HEADER, *rows])


def rates_table() -> str:
    """Table of the usual learning rates."""
    rows = [
        f"| {name} | {each.usual:g} | {each.low:g} to {each.high:g} | {each.far_too_low:g}, {each.far_too_high:g} |"
        for name, each in USUAL_RATES.items()
    ]
    return "\n".join(["| optimizer | usual | no finding | a problem below, above |", "|---|---|---|---|", *rows])


def curve_findings() -> dict[str, list[list[str]]]:
    """Rows of the tables that are not on the program."""
    tables: dict[str, list[list[str]]] = runpy.run_path(str(HERE / "curve_findings.py"))["tables"]()
    return tables


def undescribed() -> list[tuple[str, str]]:
    """Findings of curves, layers and descents, by name and verdict, that no table has."""
    described = {(name, verdict) for rows in curve_findings().values() for name, verdict, *_ in rows}
    return sorted({(n, v) for call in all_calls() for n in call.names for v in call.verdicts} - described)


def table(group: str) -> str:
    """Table of a group."""
    if group == "rates":
        return rates_table()
    text = program_table(GROUPS[group]) if group in GROUPS else curve_table(group)
    return re.sub(r"(\d)%", r"\1 %", text)


def with_tables(text: str) -> str:
    """Replace the tables in the text of diagnosis.md by new ones."""
    return re.sub(
        r"(<!-- findings: (\w+) -->\n).*?(<!-- end -->)",
        lambda match: f"{match[1]}{table(match[2])}\n{match[3]}",
        text,
        flags=re.DOTALL,
    )


if __name__ == "__main__":
    if "--write" in sys.argv[1:]:
        DIAGNOSIS.write_text(with_tables(DIAGNOSIS.read_text(encoding="utf-8")), encoding="utf-8")
    else:
        for each in (*GROUPS, "rates", *curve_findings()):
            sys.stdout.write(f"{each}\n\n{table(each)}\n\n")
    for name_and_verdict in undescribed():
        sys.stderr.write(f"not described: {name_and_verdict}\n")
