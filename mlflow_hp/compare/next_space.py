"""Review of all combinations that a team has tried over one space, and the space to search next."""

from __future__ import annotations

import ast
import math
import re
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from mlflow_hp.compare.formatting import count, has_several_authors, quoted, short
from mlflow_hp.compare.parameters import is_setting
from mlflow_hp.compare.scores import paired_runs, same_folds
from mlflow_hp.compare.section import Section
from mlflow_hp.tracking.tags import SEARCH_ESTIMATOR_TAG

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from mlflow_hp.analysis.review import Review
    from mlflow_hp.analysis.search_results import SearchResults
    from mlflow_hp.compare.comparability import LeftOut, RunGroup
    from mlflow_hp.compare.run_summary import RunFacts

SEED = re.compile(r"(^|_)(seed|random_state)$")
"""Names of params that only repeat a combination."""
MAX_SPACES = 3
"""Spaces that are reviewed, those with the most combinations."""
MAX_COMBINATIONS = 1000
"""Combinations of a space that are reviewed; of more, as many at equal distances in their ranking."""
MAX_NAMES = 6
"""Names of parameters in a sentence."""


class Tried(NamedTuple):
    """Combinations tried over one space.

    Attributes
    ----------
    results : SearchResults
        A candidate per combination; runs that repeat one are averaged.
    failed : ndarray of bool, shape (n_candidates,)
        Combinations that failed or diverged.
    runs : list of RunFacts
        Their runs that have scores, the best first.
    fixed : dict of str to object
        Params that all runs share.
    n_tried : int
        Combinations before ``MAX_COMBINATIONS``.
    """

    results: SearchResults
    failed: np.ndarray
    runs: list[RunFacts]
    fixed: dict[str, Any]
    n_tried: int


def next_sections(group: RunGroup, key: str, left_out: Sequence[LeftOut] = ()) -> Iterator[Section]:
    """Review each space with enough combinations; those of `left_out` that failed are among them."""
    from mlflow_hp.analysis.review import review

    reviews = []
    for tried in spaces(group, [run for run, _ in left_out]):
        reviewed = review(tried.results, failed=tried.failed, fixed=tried.fixed)
        if reviewed.findings or reviewed.next_space:
            reviews.append((tried, reviewed))
    for index, (tried, reviewed) in enumerate(reviews):
        title = "What to search next"
        title += f": {short(_names(tried.results.parameters))}" if len(reviews) > 1 else ""
        yield _section(f"{key}-{index + 1}" if index else key, title, tried, reviewed)


def spaces(group: RunGroup, others: Sequence[RunFacts] = ()) -> list[Tried]:
    """Sort the runs of a group with the same folds by the space that they are of, the largest first.

    A space is an estimator and the names of the params that it varies. `others` are runs without a score; those that
    failed on the same folds belong to the space as well.
    """
    runs, scores = _scored(group)
    failed = [run for run in others if runs and _has_failed(run, group) and same_folds(run, runs[0])]
    everything = [*runs, *failed]
    names = [name for name in _varying(everything) if not SEED.search(name)]
    rows: dict[tuple[str, frozenset[str]], list[int]] = {}
    for row, run in enumerate(everything):
        space = (run.tag(SEARCH_ESTIMATOR_TAG), frozenset(name for name in names if name in run.params))
        rows.setdefault(space, []).append(row)
    largest = sorted(rows.items(), key=lambda item: -len(item[1]))[:MAX_SPACES]
    tried = (
        _tried([everything[row] for row in of_space], scores, of_space, [name for name in names if name in space[1]])
        for space, of_space in largest
    )
    return [each for each in tried if each is not None]


def _scored(group: RunGroup) -> tuple[list[RunFacts], np.ndarray]:
    """Finished runs with the same folds, the best first, and their scores, (n_runs, n_folds), higher is better."""
    if group.fold_metric:
        folds, paired = paired_runs(group)
        places = [place for place in paired.tolist() if group.runs[place].status == "FINISHED"]
        scores = np.array([folds[place] for place in places], np.float64)
    else:
        places = [place for place, run in enumerate(group.runs) if run.status == "FINISHED"]
        scores = np.array([[group.scores[place]] for place in places], np.float64)
    return [group.runs[place] for place in places], scores if group.goal == "max" else -scores


def _has_failed(run: RunFacts, group: RunGroup) -> bool:
    """Whether a candidate failed, or the score of a finished run is not finite; other runs may fail for any reason."""
    if run.kind == "candidate" and run.status == "FAILED":
        return True
    return run.status == "FINISHED" and not math.isfinite(run.metrics.get(group.metric, 0.0))


def _varying(runs: Sequence[RunFacts]) -> list[str]:
    names = dict.fromkeys(name for run in runs for name in run.params)
    return [name for name in names if len({run.params.get(name) for run in runs}) > 1]


def _tried(runs: list[RunFacts], scores: np.ndarray, rows: Sequence[int], names: Sequence[str]) -> Tried | None:
    """Combinations of the runs of one space; `rows` are their rows in `scores`, those beyond it failed."""
    from mlflow_hp.analysis.search_results import SearchResults
    from mlflow_hp.analysis.search_space import identity, parameter, varying

    values = [{name: _value(run.params[name]) for name in names} for run in runs]
    settings = [name for name in names if is_setting(parameter(values, name), len(runs))]
    combinations: dict[tuple[str, ...], list[int]] = {}
    for place, of_run in enumerate(values):
        combinations.setdefault(tuple(identity(of_run[name]) for name in settings), []).append(place)
    places = list(combinations.values())
    n_tried = len(places)
    if n_tried > MAX_COMBINATIONS:
        places = [places[index] for index in np.linspace(0, n_tried - 1, MAX_COMBINATIONS).round().astype(int)]
    candidates = [{name: values[of_one[0]][name] for name in settings} for of_one in places]
    varied = varying(candidates)
    if not varied:
        return None
    means = np.full((len(places), scores.shape[1]), np.nan)
    for index, of_one in enumerate(places):
        with_scores = [rows[place] for place in of_one if rows[place] < len(scores)]
        if with_scores:
            means[index] = scores[with_scores].mean(axis=0)
    seconds = np.array([np.mean([runs[place].seconds or 0.0 for place in of_one]) for of_one in places])
    ranks = 1 + np.argsort(np.argsort(-means.mean(axis=1), kind="stable"), kind="stable")
    results = SearchResults(candidates, {"score": means}, None, seconds, seconds, ranks, "score", varied)
    scored = [run for place, run in enumerate(runs) if rows[place] < len(scores)]
    different = {*names, *_varying(runs)}
    fixed = {name: _value(text) for name, text in runs[0].params.items() if name not in different}
    return Tried(results, np.isnan(means).any(axis=1), scored, fixed, n_tried)


def _section(key: str, title: str, tried: Tried, reviewed: Review) -> Section:
    from mlflow_hp.analysis.review import to_yaml

    space = reviewed.next_space
    words = [_about(tried), *_sentences(reviewed), *reviewed.remarks]
    if space:
        words.append(f"The next space; all other parameters as in {quoted(tried.runs[0], tried.runs)}:")
    return Section(key, title, 3, words, code=to_yaml(space) if space else "")


def _about(tried: Tried) -> str:
    n_failed, parents = int(tried.failed.sum()), {run.parent_id or run.run_id for run in tried.runs}
    words = f"{count(tried.n_tried, 'combination')} of {_names(tried.results.parameters)}"
    if len(parents) < len(tried.runs):
        words += f", tried in {count(len(parents), 'parent run')}"
    if has_several_authors(tried.runs):
        words += f" by {count(len({run.author for run in tried.runs}), 'author')}"
    words += f", {n_failed} of which failed" if n_failed else ""
    if tried.n_tried > MAX_COMBINATIONS:
        words += f"; {MAX_COMBINATIONS} of them, at equal distances in the ranking, are reviewed"
    return f"{words}, by the rules of the Deep Learning Tuning Playbook."


def _sentences(reviewed: Review) -> Iterator[str]:
    """Findings in sentences, without what the section of the scores says: which differences are significant."""
    for finding in reviewed.findings:
        if finding.name != "power":
            text = f"{finding.verdict[0].upper()}{finding.verdict[1:]}: {finding.text}"
            yield f"{text} What to do: {finding.suggestion}."
        elif "splits_needed" in finding.evidence:
            yield f"To tell the best from the others: {finding.suggestion}."
    if all(finding.name == "power" for finding in reviewed.findings):
        yield "Nothing is wrong with this space, as far as the scores show: what is next is finer."


def _names(names: Sequence[str]) -> str:
    more = f" and {len(names) - MAX_NAMES} more" if len(names) > MAX_NAMES else ""
    return ", ".join(names[:MAX_NAMES]) + more


def _value(text: str) -> Any:
    """Parse the text of a param as the value that it was, where it is a literal; ``16,16`` is none of Python's."""
    try:
        value = ast.literal_eval(text)
    except (ValueError, SyntaxError, MemoryError, RecursionError):
        return text
    return text if isinstance(value, tuple) and not text.startswith("(") else value
