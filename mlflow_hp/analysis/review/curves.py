"""Rules on the curves of the best candidates: length of the training, overfitting, late variance.

Playbook, "Examining the training curves" and "How long to train when training is not compute-bound".
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from mlflow_hp.analysis.diagnosis.finding import Change, Finding
from mlflow_hp.terminal import count

if TYPE_CHECKING:
    from mlflow_hp.analysis.review.material import Material

FEWEST_EPOCHS = 8
"""Epochs from which the last quarter tells."""
EARLY = 0.1
"""Share of the epochs in which the best one lies, where training is too long (playbook: "if the best point is always in
the first 10% or so, ... improve the learning rate or reduce the steps")."""
STILL = 0.05
"""Share of the whole improvement that the last quarter brings, where training is too short (playbook: "if the best
point is always in the last 25%, ... increase the steps")."""
ERRORS = 3.0
"""Standard errors over folds and candidates by which that improvement exceeds none."""
RISE = 0.1
"""Rise of the validation loss from its lowest, over its fall to it, from which a candidate overfits."""
RISE_ERRORS = 6.0
"""That rise over the variation from epoch to epoch: the lowest of many epochs lies about three below their mean."""
GAP = 2.0
"""Ratio of the distance to the best possible score on the test folds to that on the training folds (playbook: "if any
of the best trials exhibits problematic overfitting")."""
LEAST_GAP = 0.05
"""Least difference of the two, of scores whose best is 1: many models fit the training folds nearly perfectly."""
GAP_ERRORS = 3.0
"""Standard errors by which they differ."""
VALIDATION = "val_loss"


def length_findings(material: Material) -> list[Finding]:
    """Report whether the best candidates were trained too long or too short, by their validation losses."""
    losses = _losses(material, VALIDATION)
    if losses is None or losses.shape[-1] < FEWEST_EPOCHS:
        return []
    n_epochs = losses.shape[-1]
    best = losses.mean(axis=1).argmin(axis=1)
    by_fold = losses.reshape(-1, n_epochs)
    quarter = max(n_epochs // 4, 2)
    half = max(quarter // 2, 1)
    before = by_fold[:, -quarter - half : -quarter + half if quarter > half else None].mean(axis=1)
    drops = before - by_fold[:, -half:].mean(axis=1)
    whole = float((by_fold[:, 0] - by_fold.min(axis=1)).mean())
    error = float(drops.std(ddof=1) / np.sqrt(len(drops))) if len(drops) > 1 else 0.0
    share = float(drops.mean()) / whole if whole > 0 else 0.0
    evidence = {"best_epoch": float(np.median(best)), "epochs": n_epochs, "late_improvement": share}
    if np.median(best) < max(EARLY * n_epochs, 1):
        text = (
            f"The validation loss of the best candidates is lowest after {np.median(best) + 1:.0f} of "
            f"{count(n_epochs, 'epoch')}, and not thereafter."
        )
        advice = "train for fewer epochs with a lower learning rate, or stop early, so that there is more to see"
        shorter = max(int(np.median(best) * 4) + 2, 2)
        change = (Change("epochs", n_epochs, shorter),)
        return [Finding("too_long", "trained too long", text, evidence, advice, "problem", change=change)]
    if share >= STILL and drops.mean() > ERRORS * error:
        text = (
            f"In the last quarter of {count(n_epochs, 'epoch')} the validation loss of the best candidates still fell "
            f"by {share:.0%} of all that it fell: longer trainings may rank the candidates otherwise."
        )
        change = (Change("epochs", n_epochs, 2 * n_epochs),)
        advice = f"train for {count(2 * n_epochs, 'epoch')}"
        return [Finding("too_short", "trained too short", text, evidence, advice, "problem", change=change)]
    return []


def overfit_findings(material: Material) -> list[Finding]:
    """Report whether the best overfit: by curves if there are any, else by scores on the training folds."""
    validation, training = _losses(material, VALIDATION), _losses(material, "loss")
    if validation is not None and training is not None and validation.shape[-1] >= FEWEST_EPOCHS:
        return _rising(validation, training)
    return _gap(material)


def variance_findings(material: Material) -> list[Finding]:
    """Report whether the loss varies more from epoch to epoch, late in the training, than candidates differ."""
    losses = _losses(material, VALIDATION, n_most=6)
    if losses is None or losses.shape[0] < 2 or losses.shape[-1] < FEWEST_EPOCHS:
        return []
    late = losses[..., -max(losses.shape[-1] // 4, 4) :]
    steps = np.diff(late, axis=-1)
    variation = float(np.sqrt(np.median(steps.var(axis=-1)) / 2 / losses.shape[1]))
    means = late.mean(axis=(1, 2))
    difference = float(np.median(np.abs(means[1:] - means[0])))
    if not variation * np.sqrt(2) > difference or variation == 0:
        return []
    text = (
        f"From epoch to epoch the validation losses of the best candidates vary by {variation:.2g} at the end of the "
        f"training (standard deviation of the mean over folds), and the candidates differ by {difference:.2g}."
    )
    advice = (
        "let the learning rate decay, keep the weights of the best epoch or an average of the last ones, or use larger "
        "batches; else repeat each candidate with several seeds"
    )
    evidence = {"late_variation": variation, "late_difference": difference}
    return [Finding("late_variance", "late variance", text, evidence, advice, "hint")]


def _rising(validation: np.ndarray, training: np.ndarray) -> list[Finding]:
    n = min(validation.shape[-1], training.shape[-1])
    by_fold, trained = validation[..., :n].reshape(-1, n), training[..., :n].reshape(-1, n)
    last = max(n // 8, 1)
    lowest = np.array([np.convolve(row, np.ones(last) / last, mode="valid").min() for row in by_fold])
    rise = by_fold[:, -last:].mean(axis=1) - lowest
    fall = np.maximum(by_fold[:, 0] - lowest, 1e-300)
    place = by_fold.argmin(axis=1)
    falls_on = trained[:, -last:].mean(axis=1) < trained[np.arange(len(trained)), place]
    share = float(np.median(rise / fall))
    jitter = np.diff(by_fold[:, n // 2 :], axis=1).std(axis=1) / np.sqrt(2 * last)
    if share < RISE or falls_on.mean() < 0.5 or np.median(rise / np.maximum(jitter, 1e-300)) < RISE_ERRORS:
        return []
    text = (
        f"The validation loss of the best candidates rises again by {share:.0%} of its fall, while the training loss "
        "goes on falling."
    )
    return [Finding("overfit", "the best overfit", text, {"overfit_rise": share}, _AGAINST, "hint")]


def _gap(material: Material) -> list[Finding]:
    results = material.results
    if results.train_scores is None or results.scorer not in results.train_scores:
        return []
    train = results.train_scores[results.scorer][material.top]
    test = results.fold_scores[material.top]
    perfect = 1.0 if np.nanmax(train) > 0 else 0.0  # accuracy, R2, or the negative of an error
    if np.nanmax(train) > 1 or not np.isfinite(train).all():
        return []
    gaps = train - test
    error = float(gaps.std() / np.sqrt(test.shape[1]))
    left, left_train = perfect - float(test.mean()), perfect - float(train.mean())
    if left < GAP * left_train or gaps.mean() < max(GAP_ERRORS * error, LEAST_GAP * perfect):
        return []
    text = (
        f"The best candidates score {train.mean():.4g} on the training folds and {test.mean():.4g} on the test folds: "
        f"what is left to perfect is {'nothing' if left_train <= 0 else f'{left / left_train:.1f} times less'} there."
    )
    evidence = {"on_training_folds": float(train.mean()), "on_test_folds": float(test.mean())}
    return [Finding("overfit", "the best overfit", text, evidence, _AGAINST, "hint")]


_AGAINST = (
    "add what regularises to the search (dropout, weight decay, augmented data, a smaller network), and tune it "
    "together with the learning rate"
)


def _losses(material: Material, name: str, n_most: int = 3) -> np.ndarray | None:
    """Curves of the best candidates that have them with all folds, (n_candidates, n_folds, n_epochs); else None."""
    curves = []
    for row in material.rows[: max(n_most, min(material.top.size, n_most))].tolist():
        folds = [np.asarray(fold[name], float) for fold in material.curves.get(row, ()) if name in fold]
        if folds and all(fold.size and np.isfinite(fold).all() for fold in folds):
            curves.append(folds)
    if not curves:
        return None
    n_epochs = min(fold.size for folds in curves for fold in folds)
    n_folds = min(len(folds) for folds in curves)
    return np.array([[fold[:n_epochs] for fold in folds[:n_folds]] for folds in curves])
