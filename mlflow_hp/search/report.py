"""What a search found, for its parent run: pictures, and sentences for the description."""

from __future__ import annotations

import itertools
import re
from typing import TYPE_CHECKING

import numpy as np

from mlflow_hp.analysis.importance import importance, variance_shares
from mlflow_hp.analysis.search_results import plus_minus
from mlflow_hp.analysis.significance import winner
from mlflow_hp.plots import heatmap
from mlflow_hp.plots import search as plots
from mlflow_hp.plots import search_space as parameter_plots
from mlflow_hp.training.report import Report

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

    from matplotlib.axes import Axes

    from mlflow_hp.analysis.search_results import SearchResults
    from mlflow_hp.analysis.significance import Winner

MOST_IN_PAIRS = 6
"""Heatmaps are drawn of each pair of up to so many parameters, the most important ones of more."""


class _Folder(Report):
    """Keeps pictures in a folder of another report."""

    def __init__(self, report: Report, name: str) -> None:
        self._report = report
        self._name = name

    def picture(self, name: str, axes: Axes) -> None:
        self._report.picture(f"{self._name}/{name}", axes)


class _Files(Report):
    """Keeps pictures in a folder of this machine, and brings them nowhere."""

    def __init__(self, folder: Path) -> None:
        self._root = folder

    def file(self, name: str) -> Path:
        path = self._root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        return path


def describe_search(found: Mapping[int, SearchResults]) -> str:
    """The description of a search's parent run, of what each of its fits found, by its number (0-based)."""
    parts = [search_description(results) for results in found.values()]
    headed = [f"### Fit {number}\n\n{part}" for number, part in zip(found, parts, strict=True)]
    return "\n".join(parts if len(parts) == 1 else headed)


def draw_search(folder: Path, found: Mapping[int, SearchResults]) -> None:
    """Draw the pictures of a search into a folder, as they are to be below its parent run.

    Parameters
    ----------
    folder : Path
    found : mapping of int to SearchResults
        What each fit of the search found, by its number (0-based). The pictures of all but the fit 0 are in
        ``plots/fit_<number>``.
    """
    report = _Files(folder)
    for number, results in found.items():
        search_pictures(_Folder(report, f"fit_{number}") if number else report, results)


def search_description(results: SearchResults) -> str:
    """What the search found, in markdown: its size, sentences, and a table of the best ten."""
    n_candidates, n_splits = results.fold_scores.shape
    size = f"**{n_candidates:,} combinations, {n_splits} folds each**"
    said = "\n".join(f"- {sentence}" for sentence in search_sentences(results))
    return f"{size}\n\n{said}\n\n{results.to_markdown(10)}\n"


def search_pictures(report: Report, results: SearchResults, test_to_train: float | None = None) -> None:
    """All pictures that the search allows, into `report`; `test_to_train` as in `significance.winner`.

    ``scores``, ``scores_by_fold``, ``score_by_fit_time``; where several parameters vary ``parallel_coordinates``,
    ``importance`` and ``heatmap_<x>_<y>`` of each pair; where one does and is of numbers ``score_by_<name>``.
    """
    found = winner(results, test_to_train)
    report.picture("scores_by_fold", plots.draw_folds(plots.folds_info(results)))
    if found is not None:
        report.picture("scores", plots.draw_scores(plots.scores_info(results, found)))
        if np.isfinite(results.fit_seconds).any():
            report.picture("score_by_fit_time", plots.draw_time(plots.time_info(results, found)))
    if not results.parameters:
        return
    if len(results.parameters) == 1:
        name = results.parameters[0]
        if found is not None and results.parameter(name).kind != "category" and results.iterations is None:
            drawn = parameter_plots.draw_parameter(parameter_plots.parameter_info(results, name))
            report.picture(_file(f"score_by_{name}"), drawn)
        return
    report.picture("parallel_coordinates", parameter_plots.draw_parallel(parameter_plots.parallel_info(results)))
    shares = importance(results)
    if shares:
        info = parameter_plots.importance_info(shares, variance_shares(results))
        report.picture("importance", parameter_plots.draw_importance(info))
    names = list(results.parameters)
    if len(names) > MOST_IN_PAIRS:
        names = sorted(names, key=lambda name: -shares.get(name, 0.0))[:MOST_IN_PAIRS]
    for x, y in itertools.combinations(names, 2):
        report.picture(_file(f"heatmap_{x}_{y}"), heatmap.draw_heatmap(heatmap.heatmap_info(results, x, y)))


def search_sentences(results: SearchResults, test_to_train: float | None = None) -> list[str]:
    """What the search found, in sentences: the winner and who can't be told from it, what matters, what failed.

    `test_to_train` is as in `mlflow_hp.analysis.significance.winner`.
    """
    found = winner(results, test_to_train)
    n = len(results.candidates)
    if found is None:
        return [f"In each of the {n:,} combinations one fold or more failed: there is no best one."]
    said = [_told(results, found), *_cheapest(results, found), *_edge(results, found), *_important(results)]
    if n_failed := n - int(np.isfinite(results.mean).sum()):
        said.append(f"{n_failed:,} of {n:,} combinations failed in one fold or more; they are left out.")
    if results.iterations is not None:
        last = int(np.sum(results.iterations == results.iterations.max()))
        said.append(
            f"Only the {last} combinations of the last halving iteration were scored with all resources and are "
            f"compared; the other {n - last:,} were dropped earlier."
        )
    return said


def _told(results: SearchResults, found: Winner) -> str:
    """The winner, and who can't be told from it."""
    best, n_others = _named(results, found.best), int(results.compared.sum()) - 1
    n_splits, n_tied = results.fold_scores.shape[1], int(found.tied.sum()) - 1
    if not n_others:
        return f"The best is {best}; there is no other to compare it with."
    if n_splits == 1:
        return f"The best is {best}. A single split can't tell whether it is better than the others: use several folds."
    test = f"paired over {n_splits} folds, Nadeau-Bengio's variance, Holm's correction, {found.level:.0%}"
    if not n_tied:
        whom = "the other one" if n_others == 1 else f"all {n_others:,} others"
        return f"The best, {best}, is told from {whom} ({test})."
    whom = "the only other one" if n_others == 1 else f"{n_tied:,} of {n_others:,} others"
    weak = f"; with so few folds differences among them below about {found.visible:.2g} stay unseen"
    return f"The best, {best}, can't be told from {whom} ({test}{weak if found.visible > 0 else ''})."


def _cheapest(results: SearchResults, found: Winner) -> list[str]:
    """The cheapest of those that can't be told from the best, and are within one standard error of it."""
    if found.tied.sum() < 2 or not np.isfinite(results.fit_seconds[found.tied]).all():
        return []
    fast, slow = results.fit_seconds[found.cheapest], results.fit_seconds[found.best]
    if found.cheapest == found.best:
        return [f"None of those within one standard error of it ({found.error:.2g}) trains clearly faster."]
    times = f"{slow / fast:.1f} times faster ({fast:.2g} s a fold in place of {slow:.2g} s)" if fast > 0 else "faster"
    whom = f"The cheapest within one standard error of it ({found.error:.2g})"
    return [f"{whom} is {_named(results, found.cheapest)}, which trains {times}."]


def _edge(results: SearchResults, found: Winner) -> list[str]:
    """Numbers of which the best lies at the end of what was tried."""
    said = []
    for name in results.parameters:
        parameter = results.parameter(name)
        if parameter.kind == "category":
            continue
        code, last = int(parameter.codes[found.best]), len(parameter.levels) - 1
        no_less = code == 0 and parameter.levels[0] in (0, 1)  # there rarely is anything below
        if last >= 2 and code in (0, last) and not no_less:
            which = "largest" if code else "smallest"
            said.append(f"The best has the {which} {name} that was tried, {parameter.labels[code]}: a wider range may "
                        "hold a better one.")  # fmt: skip
    return said


def _important(results: SearchResults) -> list[str]:
    """The parameters that decide, and on a full grid their exact shares."""
    shares, exact = importance(results), variance_shares(results)
    said = []
    if shares:
        told = ", ".join(f"{name} ({share:.0%})" for name, share in list(shares.items())[:3])
        said.append(f"What decides over being among the best (PED-ANOVA): {told}.")
    if exact:
        told = ", ".join(f"{name} {share:.0%}" for name, share in sorted(exact.items(), key=lambda item: -item[1]))
        rest = max(0.0, 1 - sum(exact.values()))
        said.append(f"Shares of the variance of all mean scores on the full grid: {told}, their interplay {rest:.0%}.")
    return said


def _named(results: SearchResults, index: int) -> str:
    score = plus_minus(results.mean[index], results.std[index])
    words = "" if results.scorer == "score" else f"{results.scorer} "
    label = results.labels[index].replace("`", "'")  # it would end the code
    return f"`{label}` ({words}{score})"


def _file(name: str) -> str:
    return re.sub(r"[^\w.-]+", "_", name)[:120]
