"""Numbers in front of nouns: "1 run", never "1 runs"."""

from __future__ import annotations

import ast
import re
from pathlib import Path

import numpy as np
import pytest
from mlflow.entities import Param

from mlflow_hp.analysis import diagnosis
from mlflow_hp.analysis.search_results import SearchResults
from mlflow_hp.compare import gather, open_source, sections
from mlflow_hp.delivery.refused_items import RefusedItems
from mlflow_hp.history import TrainingHistory
from mlflow_hp.search.report import search_sentences
from mlflow_hp.terminal import count
from tests.helpers.stored_runs import SAME, add_run, new_experiment

ROOT = Path(__file__).parents[1]
NOUNS = [
    *("artifacts", "batches", "bytes", "calls", "candidates", "categories", "chunks", "classes", "combinations"),
    *("columns", "epochs", "evaluations", "experiments", "features", "files", "findings", "fits", "folds", "groups"),
    *("hyperparameters", "inputs", "iterations", "layers", "lines", "metrics", "others", "outputs", "parameters"),
    *("params", "parts", "paths", "points", "rows", "runs", "samples", "searches", "steps", "tensors", "trainings"),
    *("units", "values", "weights"),
]
MORE_THAN_ONE = {
    "analysis/diagnosis/chance.py": {"guess.n_classes"},
    "analysis/diagnosis/finding.py": {"count"},  # the other branch is of 1
    "analysis/diagnosis/forecast.py": {"planned"},
    "analysis/diagnosis/gradient_products.py": {"group * MIN_GROUPS", "group"},
    "analysis/diagnosis/noise_scale.py": {"len(segments)"},
    "analysis/diagnosis/program/inputs.py": {"len(indices)"},
    "analysis/diagnosis/program/layers.py": {"classes", "len(layers)"},
    "analysis/diagnosis/program/losses.py": {"n_classes", "n_labels"},
    "analysis/diagnosis/program/metrics.py": {"units"},
    "analysis/diagnosis/program/outputs.py": {"units"},
    "analysis/diagnosis/program/settings.py": {"epochs"},
    "analysis/diagnosis/program/suspicions.py": {"len(layers)"},
    "analysis/diagnosis/program/targets.py": {"counts[most]"},
    "analysis/diagnosis/rate_schedule.py": {"n_epochs", "per_epoch", "len(rates)"},
    "analysis/diagnosis/regression_descent.py": {"count"},  # the other branch is of 1
    "analysis/surfaces/linear_regression.py": {"len(x)"},
    "analysis/surfaces/plane.py": {"len(self.b)"},
    "assistant/answer.py": {"len(safe)"},
    "compare/colors.py": {"n_grey"},
    "compare/parts.py": {"len(left_out)"},
    "compare/scores.py": {"n_others", "len(group.runs)"},
    "delivery/journal.py": {"len(text)"},
    "delivery/metric_points.py": {"steps"},
    "history/weight_snapshots.py": {"budget_bytes"},
    "improvement/report.py": {"len(histories)"},
    "plots/landscape.py": {"loss.size"},
    "plots/search_space.py": {"info.n_splits"},
    "plots/search_style.py": {"n_splits"},
    "plots/surface.py": {"len(info.paths)"},
    "plots/training.py": {"width"},
    "reproduce/run_comparison.py": {"n_runs"},
    "run_page/microscope.py": {"width"},
    "search/report.py": {"n_candidates", "n_splits", "n_others", "n"},
    "search/speedups/model_signature.py": {"kind"},  # a name, and "runs" is what it does
    "search/resume/dependencies.py": {"stamp[1]"},
    "server/routes.py": {"len(run_ids)"},
    "server/run_routes.py": {"len(run_ids)"},
    "sync/transfer.py": {"self._counts['points']", "self._counts['files']"},  # a progress bar
    "tracking/git_repository.py": {"len(diff)"},
    "training/permutable_units.py": {"length"},
    "training/session.py": {"every"},
    "training/stateless_loss.py": {"sorted(lengths)"},
    "projects/captions.py": {"len(several)"},
    "projects/datasets/downloads.py": {"of"},
    "projects/search_advice.py": {"len(scores)"},
    "projects/search_runner.py": {"parent_tags.get(tags.PLANNED_TAG, 'all')"},
    "projects/search_settings.py": {"settings['cv']"},
    "projects/sweep.py": {"len(failures)"},
}
"""File -> numbers in front of a plural that are never 1 there. Any other is written by `terminal.count`."""
OF_FILES = {"checksums.py", "epoch_table.py", "flatbuffer.py", "messages.py"}
"""Of the history: errors about bytes of altered files."""
SINGULAR = re.compile(r"(?<![\d.,-])\b1 (?!is\b|was\b|has\b|times\b)[a-z]*[a-rt-z]s\b")
PATHS = sorted([*(ROOT / "mlflow_hp").rglob("*.py"), *(ROOT / "projects").rglob("*.py")])


def plurals(source):
    """Expressions that an f-string writes in front of a plural noun; constants, and measured numbers, are left out."""
    for node in ast.walk(ast.parse(source)):
        if not isinstance(node, ast.JoinedStr):
            continue
        for number, text in zip(node.values, node.values[1:], strict=False):
            if not isinstance(number, ast.FormattedValue) or not isinstance(text, ast.Constant):
                continue
            noun = re.match(r" ([a-z]+)\b", text.value)
            spec = ast.unparse(number.format_spec) if number.format_spec else ""
            expression = ast.unparse(number.value)
            if noun and noun[1] in NOUNS and not re.search("[gfe]'$", spec) and not expression.isupper():
                yield expression


@pytest.mark.parametrize("path", PATHS, ids=lambda path: str(path.relative_to(ROOT)))
def test_a_number_that_can_be_1_is_written_by_count(path):
    if path.name in OF_FILES:
        return
    name = str(path.relative_to(ROOT)).removeprefix("mlflow_hp/")
    assert set(plurals(path.read_text(encoding="utf-8"))) <= MORE_THAN_ONE.get(name, set())


def test_what_is_listed_is_there():
    for name, expressions in MORE_THAN_ONE.items():
        path = ROOT / name if name.startswith("projects/") else ROOT / "mlflow_hp" / name
        assert expressions <= set(plurals(path.read_text(encoding="utf-8"))), name


@pytest.mark.parametrize(
    ("source", "found"),
    [
        ('f"{n} runs"', ["n"]),
        ('f"of {len(runs):,} runs in all"', ["len(runs)"]),
        ("f\"{count(n, 'run')} left\"", []),
        ('f"{MOST} runs"', []),
        ('f"{ratio:.2g} steps"', []),
        ('f"{name} is {value}"', []),
    ],
)
def test_how_plurals_are_found(source, found):
    assert list(plurals(source)) == found


def test_counts():
    nouns = ("run", "class", "batch", "epoch")
    assert [count(1, noun) for noun in nouns] == ["1 run", "1 class", "1 batch", "1 epoch"]
    assert [count(2, noun) for noun in nouns] == ["2 runs", "2 classes", "2 batches", "2 epochs"]


def of_one_step(**columns):
    steps = {"step": [0], "batch_loss": [0.5], "running_loss": [0.5], "learning_rate": [0.1], **columns}
    return TrainingHistory.from_arrays(steps, {"epoch": [0], "loss": [0.5], "val_loss": [0.6]})


def in_words(history):
    findings = diagnosis.diagnose(history)
    return [
        diagnosis.result_in_words(history),
        diagnosis.findings_in_words(findings),
        *(each.text for each in findings),
    ]


@pytest.mark.parametrize("loss", [0.5, np.nan])
def test_sentences_on_one_step(loss):
    sentences = in_words(of_one_step(batch_loss=[loss]))
    assert "1 epoch (1 step)" in sentences[0]
    assert [sentence for sentence in sentences if SINGULAR.search(sentence)] == []


@pytest.mark.parametrize(("n_candidates", "n_splits"), [(1, 1), (1, 2), (2, 1), (2, 3)])
@pytest.mark.parametrize("failed", [0, 1])
def test_sentences_on_few_candidates(n_candidates, n_splits, failed):
    scores = np.arange(n_candidates * n_splits, dtype=float).reshape(n_candidates, n_splits)
    scores[:failed] = np.nan
    candidates = [{"alpha": number} for number in range(n_candidates)]
    ones = np.ones(n_candidates)
    results = SearchResults(candidates, {"score": scores}, None, ones, ones, np.argsort(-ones) + 1, "score", ("alpha",))
    sentences = search_sentences(results)
    assert [sentence for sentence in sentences if SINGULAR.search(sentence)] == []


@pytest.mark.parametrize("n_runs", [1, 2])
def test_sentences_of_a_comparison_of_few_runs(store, tmp_path, n_runs):
    experiment = new_experiment(store, tmp_path)
    tags = {"kind": "training", "git_dirty": "true", **SAME}
    ids = [
        add_run(
            store, experiment, params={"rate": n}, metrics={"val_loss": 0.1 + n, "fold/loss": [n, n + 0.1]}, tags=tags
        )
        for n in range(n_runs)
    ]
    source = open_source(store)
    words = [sentence for section in sections(gather(source, ids), source) for sentence in section.words]
    assert words
    assert [sentence for sentence in words if SINGULAR.search(sentence)] == []
    assert [sentence for sentence in words if len(sentence) > 400] == []


def test_a_refused_value():
    refused = RefusedItems(None)
    refused.add(Param("a", "b"), "too long")
    assert "MLflow refuses 1 value " in refused.message(0)
