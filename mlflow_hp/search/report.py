"""Report of a search for its parent run: pictures, and sentences for the description."""

from __future__ import annotations

import itertools
import re
from types import MappingProxyType
from typing import TYPE_CHECKING, Any

import numpy as np

from mlflow_hp.analysis.importance import importance, variance_shares
from mlflow_hp.analysis.review import n_combinations, review
from mlflow_hp.analysis.search_results import plus_minus
from mlflow_hp.analysis.search_space import value_text
from mlflow_hp.analysis.seeds import variance_components
from mlflow_hp.analysis.significance import winner
from mlflow_hp.plots import heatmap, score_by_parameter
from mlflow_hp.plots import search as plots
from mlflow_hp.plots import search_seeds as seed_plots
from mlflow_hp.plots import search_space as parameter_plots
from mlflow_hp.run_page.illustrated import ReportPart, illustrated
from mlflow_hp.terminal import count
from mlflow_hp.tracking.artifact_paths import NEXT_SPACE_FILE, PLOTS_FOLDER, REPORT_FILE
from mlflow_hp.tracking.params_and_tags import plain
from mlflow_hp.training.report import Report

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from pathlib import Path

    from matplotlib.axes import Axes

    from mlflow_hp.analysis.review import Review
    from mlflow_hp.analysis.search_results import SearchResults
    from mlflow_hp.analysis.significance import Winner

MAX_LISTED = 50
"""Candidates in the table of the report."""
MAX_PAIRED = 6
"""Number of parameters, the most important ones, of which each pair gets a heatmap."""


class _Subfolder(Report):
    """Report whose pictures go to a folder of another report."""

    def __init__(self, report: Report, name: str) -> None:
        self._report = report
        self._name = name

    def picture(self, name: str, axes: Axes) -> None:
        self._report.picture(f"{self._name}/{name}", axes)


class LocalReport(Report):
    """Report in a folder of this machine; not sent to MLflow."""

    def __init__(self, folder: Path, about: str) -> None:
        self._root = folder
        self.about = about

    def subtitle(self) -> str:
        """Text below the title of each picture."""
        return self.about

    def file(self, name: str) -> Path:
        """Path of a file of the report, in a folder that exists."""
        path = self._root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        return path


def describe_search(
    fits: Mapping[int, SearchResults],
    reviews: Mapping[int, Review] = MappingProxyType({}),
    skipped: Mapping[int, Sequence[str]] = MappingProxyType({}),
) -> str:
    """Description of a search's parent run, from the results of its fits, by number (0-based).

    Parameters
    ----------
    fits : mapping of int to SearchResults
    reviews : mapping of int to Review
        Reviews of the fits. Defaults to those of their results alone.
    skipped : mapping of int to sequence of str
        Sentences about fits that were not computed. Defaults to none.
    """
    parts = [
        search_description(results, reviews.get(number), skipped.get(number, ())) for number, results in fits.items()
    ]
    headed = [f"### Fit {number}\n\n{part}" for number, part in zip(fits, parts, strict=True)]
    return "\n".join(parts if len(parts) == 1 else headed)


def draw_search(
    folder: Path,
    fits: Mapping[int, SearchResults],
    about: str = "",
    reviews: Mapping[int, Review] = MappingProxyType({}),
) -> None:
    """Draw the pictures of a search into a folder, laid out as the artifacts of its parent run.

    Parameters
    ----------
    folder : Path
    fits : mapping of int to SearchResults
        Results of each fit of the search, by number (0-based). The pictures of all but fit 0 go to
        ``plots/fit_<number>``.
    about : str
        Run and search, written below the title of each picture. Defaults to nothing.
    reviews : mapping of int to Review
        Reviews of the fits. Defaults to those of their results alone.
    """
    report = LocalReport(folder, about)
    for number, results in fits.items():
        search_pictures(_Subfolder(report, f"fit_{number}") if number else report, results)
    parts = [
        _part(results, f"Fit {number}" if len(fits) > 1 else "", reviews.get(number))
        for number, results in fits.items()
    ]
    content = illustrated("Search", about, parts, by_caption(folder / PLOTS_FOLDER))
    report.file(REPORT_FILE).write_text(content, encoding="utf-8")


def _part(results: SearchResults, heading: str, reviewed: Review | None) -> ReportPart:
    """Sentences about a fit of a search, and the table of its best candidates."""
    sentences = [result_sentence(results), *search_sentences(results, reviewed=reviewed)]
    return ReportPart(heading, sentences, *results.best_rows(MAX_LISTED))


def by_caption(folder: Path) -> dict[str, Path]:
    """Find the pictures in a folder, by caption; the scores first."""
    files = sorted(folder.rglob("*.png"), key=lambda path: (path.stem != "scores", path.as_posix()))
    return {path.relative_to(folder).with_suffix("").as_posix().replace("_", " "): path for path in files}


def search_description(results: SearchResults, reviewed: Review | None = None, more: Sequence[str] = ()) -> str:
    """Description of a search in Markdown: the result first, then its size, sentences, and a table of the best ten.

    Parameters
    ----------
    results : SearchResults
    reviewed : Review, optional
        Its review. Defaults to that of the results alone.
    more : sequence of str
        Sentences to add. Defaults to none.
    """
    n_candidates, n_splits = results.fold_scores.shape
    size = f"**{count(n_candidates, 'candidate')}, {count(n_splits, 'fold')} each**"
    sentences = "\n".join(f"- {sentence}" for sentence in [*search_sentences(results, reviewed=reviewed), *more])
    return f"**Result**: {result_sentence(results)}\n\n{size}\n\n{sentences}\n\n{results.to_markdown(10)}\n"


def search_pictures(report: Report, results: SearchResults, test_to_train: float | None = None) -> None:
    """Add all applicable pictures of a search to `report`; `test_to_train` as in `significance.winner`.

    ``scores``, ``scores_by_fold``, ``score_by_fit_time``, with several seeds ``scores_by_seed``.
    If several parameters vary: ``parallel_coordinates``,
    ``importance``, ``heatmap_<x>_<y>`` of each pair whose values fill a grid, and, if they do so of not all pairs,
    ``score_by_parameter``; if a single numeric one does: ``score_by_<name>``.
    """
    best = winner(results, test_to_train)
    report.picture("scores_by_fold", plots.draw_folds(plots.folds_info(results)))
    if best is not None:
        report.picture("scores", plots.draw_scores(plots.scores_info(results, best)))
        times = plots.time_info(results, best)
        if times.seconds.size:
            report.picture("score_by_fit_time", plots.draw_time(times))
    if results.seed_scores is not None:
        report.picture("scores_by_seed", seed_plots.draw_seeds(seed_plots.seeds_info(results)))
    if not results.parameters:
        return
    if len(results.parameters) == 1:
        name = results.parameters[0]
        if best is not None and results.parameter(name).kind != "category" and results.iterations is None:
            drawn = parameter_plots.draw_parameter(parameter_plots.parameter_info(results, name))
            report.picture(_file(f"score_by_{name}"), drawn)
        return
    report.picture("parallel_coordinates", parameter_plots.draw_parallel(parameter_plots.parallel_info(results)))
    shares = importance(results)
    if shares:
        info = parameter_plots.importance_info(shares, variance_shares(results))
        report.picture("importance", parameter_plots.draw_importance(info))
    names = list(results.parameters)
    if len(names) > MAX_PAIRED:
        names = sorted(names, key=lambda name: -shares.get(name, 0.0))[:MAX_PAIRED]
    pairs = {(x, y): heatmap.heatmap_info(results, x, y) for x, y in itertools.combinations(names, 2)}
    filled = {pair: of_pair for pair, of_pair in pairs.items() if heatmap.is_filled(of_pair)}
    for (x, y), of_pair in filled.items():
        report.picture(_file(f"heatmap_{x}_{y}"), heatmap.draw_heatmap(of_pair))
    if best is not None and len(filled) < len(pairs):
        drawn = score_by_parameter.draw_parameters(score_by_parameter.parameters_info(results, names))
        report.picture("score_by_parameter", drawn)


def result_sentence(results: SearchResults) -> str:
    """Name the best candidate of a search and its mean score in a sentence of Markdown.

    Parameters
    ----------
    results : SearchResults
        A finished search.

    Returns
    -------
    str
        The sentence.

    Examples
    --------
    >>> import numpy as np
    >>> from mlflow_hp.analysis import from_cv_results
    >>> from mlflow_hp.search import result_sentence
    >>> scores = {"split0_test_score": np.array([0.5, 0.9]), "split1_test_score": np.array([0.5, 0.8])}
    >>> result_sentence(from_cv_results({"params": [{"C": 1}, {"C": 2}], **scores}))
    'The best of 2 candidates is `C=2`, mean score 0.850 ± 0.050 over 2 folds.'
    """
    best = winner(results)
    n_candidates, n_splits = results.fold_scores.shape
    if best is None:
        reason = "was not computed or failed" if results.is_skipped.any() else "failed"
        return f"There is no best candidate: in each, one fold or more {reason}."
    folds = f"over {n_splits} folds" if n_splits > 1 else "on the only fold"
    score = f"mean {results.scorer} {plus_minus(results.mean[best.best], results.std[best.best])} {folds}"
    if n_candidates == 1:
        return f"The only candidate has {score}."
    label = results.labels[best.best].replace("`", "'")  # a backquote would end the code span
    return f"The best of {n_candidates:,} candidates is `{label}`, {score}."


def search_sentences(
    results: SearchResults, test_to_train: float | None = None, reviewed: Review | None = None
) -> list[str]:
    """Summarise a search in sentences: the best candidate, its significance, the review, parameters, failures.

    Parameters
    ----------
    results : SearchResults
        A finished search.
    test_to_train : float, optional
        Size of a test fold over size of a training fold. Defaults to that of k-fold.
    reviewed : Review, optional
        Its review. Defaults to that of `results` alone, without curves.

    Returns
    -------
    list of str
        The sentences.

    Examples
    --------
    >>> from mlflow_hp.analysis import from_cv_results
    >>> from mlflow_hp.search import search_sentences
    >>> from sklearn.datasets import make_regression
    >>> from sklearn.linear_model import Ridge
    >>> from sklearn.model_selection import GridSearchCV
    >>> X, y = make_regression(30, 3, random_state=0)
    >>> search = GridSearchCV(Ridge(), {"alpha": [0.1, 1.0, 10.0]}, cv=3).fit(X, y)
    >>> sentences = search_sentences(from_cv_results(search.cv_results_))
    >>> "alpha=0.1" in sentences[0]
    True
    """
    best_candidate = winner(results, test_to_train)
    n = len(results.candidates)
    if best_candidate is None:
        if results.is_skipped.any():
            return ["No candidate has the scores of all folds: there is no best one."]
        which = "the only candidate" if n == 1 else f"each of the {n:,} candidates"
        return [f"In {which} one fold or more failed: there is no best one."]
    sentences = [
        _significance(results, best_candidate),
        *_cheapest(results, best_candidate),
        *review_sentences(reviewed or review(results, test_to_train=test_to_train)),
        *_important(results),
        *_luck(results),
    ]
    if n_skipped := int(results.is_skipped.sum()):
        sentences.append(f"Left out: {n_skipped:,} of {n:,} candidates, of which not every fold was computed.")
    if n_failed := n - n_skipped - int(np.isfinite(results.mean).sum()):
        sentences.append(f"Left out: {n_failed:,} of {n:,} candidates, which failed in one fold or more.")
    if results.iterations is not None:
        last = int(np.sum(results.iterations == results.iterations.max()))
        sentences.append(
            f"Compared: {count(last, 'candidate')} of the last halving iteration, scored with all resources; the other "
            f"{n - last:,} of {n:,} were dropped earlier."
        )
    return sentences


def _significance(results: SearchResults, best_candidate: Winner) -> str:
    """The best candidate, and those it cannot be distinguished from."""
    best, n_others = _named(results, best_candidate.best), int(results.compared.sum()) - 1
    n_splits, n_tied = results.fold_scores.shape[1], int(best_candidate.tied.sum()) - 1
    if not n_others:
        return f"The best is {best}; there is no other to compare it with."
    if n_splits == 1:
        return (
            f"The best is {best}. A single split cannot show whether it is better than the others: use several folds."
        )
    test = f"paired over {n_splits} folds, Nadeau-Bengio's variance, Holm's correction, {best_candidate.level:.0%}"
    if not n_tied:
        others = "the other one" if n_others == 1 else f"all {n_others:,} others"
        return f"The best, {best}, is significantly better than {others} ({test})."
    others = f"any of the {n_others:,} others" if n_tied == n_others else f"{n_tied:,} of {n_others:,} others"
    others = "the only other one" if n_others == 1 else others
    limit = f"; with so few folds differences among them below about {best_candidate.visible:.2g} stay unseen"
    limit = limit if best_candidate.visible > 0 else ""
    return f"The best, {best}, is not significantly better than {others} ({test}{limit})."


def _cheapest(results: SearchResults, best_candidate: Winner) -> list[str]:
    """The cheapest of the candidates tied with the best and within one standard error of it."""
    seconds = results.fit_seconds if results.fit_times is None else results.fit_times.mean
    if best_candidate.cheapest == best_candidate.best:
        return []
    fast, slow = seconds[best_candidate.cheapest], seconds[best_candidate.best]
    times = f"{slow / fast:.1f} times faster ({fast:.2g} s a fold instead of {slow:.2g} s)" if fast > 0 else "faster"
    others = f"The cheapest within one standard error of it ({best_candidate.error:.2g})"
    return [f"{others} is {_named(results, best_candidate.cheapest)}, which trains {times}."]


def review_sentences(reviewed: Review) -> list[str]:
    """Findings of a review in sentences of Markdown, and the next space; ties are in the sentence on significance."""
    sentences = []
    for finding in reviewed.findings:
        if finding.name == "power":
            sentences.append(f"To tell them apart: {plain(finding.suggestion or '')}.")
        else:
            text = f"**{finding.verdict[0].upper()}{finding.verdict[1:]}**: {plain(finding.text)}"
            sentences.append(f"{text} What to do: {plain(finding.suggestion or '')}.")
    if reviewed.next_space is not None:
        sentences.append(next_space_sentence(reviewed.next_space))
    return [*sentences, *map(plain, reviewed.remarks)]


def next_space_sentence(space: Mapping[str, Any]) -> str:
    """Write a next space in a sentence of Markdown."""
    n = n_combinations(space)
    parts = []
    for name, values in space.items():
        if isinstance(values, list):
            parts.append(f"{name} {', '.join(map(value_text, values))}")
        else:
            parts.append(f"{name} from {value_text(values['low'])} to {value_text(values['high'])}")
    size = f" ({count(int(n), 'combination')})" if n < float("inf") else ""
    return f"The next space{size}, in `{NEXT_SPACE_FILE}`: {plain('; '.join(parts))}."


def _important(results: SearchResults) -> list[str]:
    """The most important parameters, and on a full grid their exact shares."""
    shares, exact = importance(results), variance_shares(results)
    sentences = []
    if shares:
        listed = ", ".join(f"{name} ({share:.0%})" for name, share in list(shares.items())[:3])
        sentences.append(f"Importance for being among the best (PED-ANOVA): {listed}.")
    if exact:
        listed = ", ".join(f"{name} {share:.0%}" for name, share in sorted(exact.items(), key=lambda item: -item[1]))
        rest = max(0.0, 1 - sum(exact.values()))
        sentences.append(
            f"Shares of the variance of all mean scores on the full grid: {listed}, interaction {rest:.0%}."
        )
    return sentences


def _luck(results: SearchResults) -> list[str]:
    """Shares of candidate, fold and seed in the variance of a single score, of a search with several seeds."""
    if results.seed_scores is None:
        return []
    scores = results.seed_scores[np.isfinite(results.seed_scores).all(axis=(1, 2))]
    if min(scores.shape) < 2:
        return []
    parts = variance_components(scores)
    total = sum(parts)
    if not total > 0:
        return ["All scores are equal."]
    if parts.seed == 0:
        return [f"Each of the {scores.shape[2]} seeds gave the same scores: nothing here depends on chance."]
    share = {name: f"{value / total:.0%}" for name, value in parts._asdict().items()}
    uncertain = np.sqrt(parts.seed / scores.shape[2])
    sentence = (
        f"Variance of a single score: {share['candidate']} is the candidate, {share['fold']} the fold, "
        f"{share['candidate_and_fold']} the candidate from fold to fold, {share['seed']} luck (the seed); luck leaves "
        f"the mean over {scores.shape[2]} seeds of a fold uncertain by {uncertain:.2g}."
    )
    return [sentence]


def _named(results: SearchResults, index: int) -> str:
    score = plus_minus(results.mean[index], results.std[index])
    words = "" if results.scorer == "score" else f"{results.scorer} "
    label = results.labels[index].replace("`", "'")  # a backquote would end the code span
    return f"`{label}` ({words}{score})"


def _file(name: str) -> str:
    return re.sub(r"[^\w.-]+", "_", name)[:120]
