"""What is known of each run that is compared, read in few requests however many runs there are."""

from __future__ import annotations

import hashlib
from typing import TYPE_CHECKING, NamedTuple

import numpy as np

from mlflow_hp.errors import UserError
from mlflow_hp.tracking.runs import DEEPEST, PARAMS_TAG, chain, params_of

if TYPE_CHECKING:
    from collections.abc import Sequence

    from mlflow.entities import Run

    from mlflow_hp.compare.source import Source

PARENT = "mlflow.parentRunId"
OWN = "mlflow_hp."
KEPT = (OWN, "mlflow.user", "mlflow.source.git.commit", "mlflow.source.name", PARENT)
"""Beginnings of the names of the tags that are kept ..."""
DROPPED = ("mlflow_hp.fold_", PARAMS_TAG)
"""... but for these, which are long."""
INHERITED = ("author", "host", "git_commit", "git_dirty", "versions", "device", "data_digest", "split_digest",
             "folds_digest", "digest_data", "experiment", "command")  # fmt: skip
"""Tags of ours that a run has from the one that it is nested in, where it has none itself."""
NOT_OF_COMBINATIONS = (
    "cv", "search", "estimator", "scoring", "n_iter", "n_candidates", "factor", "resource", "refit", "n_jobs",
    "random_state", "grid", "halving", "resume", "record", "dask",
)  # fmt: skip
"""Params of a search that say how it seeks, as do those that begin with ``space``; by all others it trains."""
FOLDS_AT_MOST = 1000
KNOWN_FUNCTIONS = {"beale": "Beale's function"}
"""Experiments on a function instead of data."""


class RunFacts(NamedTuple):
    """One run, as it is compared.

    Attributes
    ----------
    run_id, name, experiment_id, experiment : str
        The last is the experiment's name.
    author : str
        Tag ``mlflow_hp.author``, else ``mlflow.user``; ``"unknown"`` where neither is there.
    kind : str
        Tag ``mlflow_hp.kind``; ``""`` of a run that was not recorded by this package.
    status : str
        As MLflow has it: ``"FINISHED"``, ``"RUNNING"``, ``"FAILED"``, ``"KILLED"``, ``"SCHEDULED"``.
    started : int
        In milliseconds since the epoch.
    ended : int or None
        The same; None while it runs.
    parent_id : str or None
        The run that it is nested in.
    params : dict of str to str
        Of a combination also what its search sets for all.
    tags : dict of str to str
        Those that a comparison needs; of a nested run also what its parent says for it.
    metrics : dict of str to float
        The latest value of each.
    data_digest, split_digest : str or None
        What it was trained on, and how that was divided: from tags, else from the datasets that it logged.
    folds : dict of str to tuple of float
        Metric (``"score"``, or ``"test_<scorer>"``) -> the score of each test fold, by number.
    """

    run_id: str
    name: str
    experiment_id: str
    experiment: str
    author: str
    kind: str
    status: str
    started: int
    ended: int | None
    parent_id: str | None
    params: dict[str, str]
    tags: dict[str, str]
    metrics: dict[str, float]
    data_digest: str | None
    split_digest: str | None
    folds: dict[str, tuple[float, ...]]

    @property
    def seconds(self) -> float | None:
        """How long it took; None while it runs."""
        return None if self.ended is None else max(self.ended - self.started, 0) / 1000

    def tag(self, name: str) -> str:
        """A tag of ours, without its prefix; ``""`` where it is not there."""
        return self.tags.get(f"{OWN}{name}", "")


def gather(
    source: Source,
    run_ids: Sequence[str] = (),
    experiment_ids: Sequence[str] = (),
    filter_string: str = "",
    *,
    most: int | None = None,
    folds: bool = True,
) -> list[RunFacts]:
    """Read runs: the named ones, each with those nested in it, and those of experiments.

    Parameters
    ----------
    source : Source
    run_ids : sequence of str
        Ids of runs.
    experiment_ids : sequence of str
        Experiments of which all runs are meant that `filter_string`, in MLflow's language, lets through.
    filter_string : str
    most : int, optional
        How many runs are read of the experiments at the most, the newest.
    folds : bool
        Whether to read the scores of folds, too.

    Returns
    -------
    list of RunFacts
        In the order of their start.

    Raises
    ------
    UserError
        Where a named run is not there, or MLflow refuses the filter.
    """
    chosen = source.runs(run_ids)
    if missing := [run_id for run_id in run_ids if run_id not in chosen]:
        raise UserError(
            f"run {missing[0]!r} is not in the tracking store: check the id (a whole one, of 32 characters), and the "
            "store with MLFLOW_TRACKING_URI"
        )
    chosen |= _nested(source, list(chosen.values()))
    chosen |= {run.info.run_id: run for run in _searched(source, experiment_ids, filter_string, most)}
    above = _above(source, chosen)
    facts = [_facts(run, above, source) for run in sorted(chosen.values(), key=lambda run: run.info.start_time)]
    return _with_folds(source, facts) if folds else facts


def _searched(source: Source, experiment_ids: Sequence[str], filter_string: str, most: int | None) -> list[Run]:
    from mlflow.exceptions import MlflowException

    try:
        return list(source.search(experiment_ids, filter_string, most)) if experiment_ids else []
    except MlflowException as error:
        if error.error_code != "INVALID_PARAMETER_VALUE":
            raise
        raise UserError(
            f"filter {filter_string!r}: {error.message}. It is written as in MLflow's search, as "
            "\"metrics.val_loss < 0.1 and tags.`mlflow_hp.author` = 'ada'\""
        ) from error


def _nested(source: Source, runs: Sequence[Run]) -> dict[str, Run]:
    """What is nested in `runs`, however deep."""
    found: dict[str, Run] = {}
    level = list(runs)
    while level:
        ids: dict[str, list[str]] = {}
        for run in level:
            ids.setdefault(run.info.experiment_id, []).append(run.info.run_id)
        level = []
        for experiment_id, parents in ids.items():
            for start in range(0, len(parents), 500):
                wanted = set(parents[start : start + 500])
                level += _children(source, experiment_id, wanted)
        level = [run for run in level if run.info.run_id not in found]
        found |= {run.info.run_id: run for run in level}
    return found


def _children(source: Source, experiment_id: str, parents: set[str]) -> list[Run]:
    """Tags can't be searched by IN: few parents are asked for one by one, of many all that is nested is looked at."""
    if len(parents) <= 3:
        filters = [f"tags.`{PARENT}` = '{parent}'" for parent in parents]
    else:
        filters = [f"tags.`{PARENT}` LIKE '%'"]
    runs = (run for text in filters for run in source.search([experiment_id], text, None))
    return [run for run in runs if run.data.tags.get(PARENT) in parents]


def _above(source: Source, chosen: dict[str, Run]) -> dict[str, Run]:
    """All that `chosen` are nested in, and they themselves."""
    known, level = dict(chosen), dict(chosen)
    for _ in range(DEEPEST):
        missing = {run.data.tags[PARENT] for run in level.values() if PARENT in run.data.tags} - set(known)
        if not missing:
            break
        level = source.runs(sorted(missing))
        known |= level
    return known


def _facts(run: Run, above: dict[str, Run], source: Source) -> RunFacts:
    info, tags = run.info, run.data.tags
    kept = {k: v for k, v in tags.items() if k.startswith(KEPT) and not k.startswith(DROPPED)}
    params = params_of(run.data)
    for parent in chain(run, above.get):
        own = parent.data.tags
        kept |= {f"{OWN}{n}": own[f"{OWN}{n}"] for n in INHERITED if f"{OWN}{n}" in own and f"{OWN}{n}" not in kept}
        if kept.get(f"{OWN}kind") == "candidate" and own.get(f"{OWN}kind") == "search":
            fixed = params_of(parent.data)
            kept[f"{OWN}search_cv"] = fixed.get("cv", "")
            params = _fixed(fixed) | params
    data, split = _digests(run, kept)
    return RunFacts(
        info.run_id,
        info.run_name or info.run_id,
        info.experiment_id,
        source.experiment(info.experiment_id).name,
        kept.get(f"{OWN}author") or kept.get("mlflow.user") or "unknown",
        kept.get(f"{OWN}kind", ""),
        info.status,
        info.start_time,
        info.end_time,
        tags.get(PARENT),
        params,
        kept,
        dict(run.data.metrics),
        data,
        split,
        {},
    )


def _fixed(params: dict[str, str]) -> dict[str, str]:
    """What all combinations of a search have in common."""
    return {k: v for k, v in params.items() if k not in NOT_OF_COMBINATIONS and not k.startswith("space")}


def _digests(run: Run, tags: dict[str, str]) -> tuple[str | None, str | None]:
    """Of data and split: from tags, else from the datasets that the run logged, each of which stands for a part."""
    data = tags.get(f"{OWN}data_digest") or tags.get(f"{OWN}digest_data")
    split = tags.get(f"{OWN}split_digest")
    if data is None and tags.get(f"{OWN}experiment") in KNOWN_FUNCTIONS:
        return KNOWN_FUNCTIONS[tags[f"{OWN}experiment"]], "none"
    if data is None and run.inputs and run.inputs.dataset_inputs:
        parts = sorted({(_context(given), str(given.dataset.digest)) for given in run.inputs.dataset_inputs})
        data = "+".join(dict.fromkeys(digest for _, digest in parts))
        if len(parts) > 1:
            split = split or hashlib.sha256(repr(parts).encode()).hexdigest()[:12]
    return data, split


def _context(given: object) -> str:
    tags = getattr(given, "tags", None) or []
    return next((tag.value for tag in tags if tag.key == "mlflow.data.context"), "")


def fold_metrics(metrics: dict[str, float]) -> list[str]:
    """The names under which a combination's run has the scores of its folds."""
    names = ["score"] if {"score", "mean_score"} <= set(metrics) else []
    return names + [f"test_{n[10:]}" for n in metrics if n.startswith("mean_test_") and f"test_{n[10:]}" in metrics]


def _with_folds(source: Source, facts: list[RunFacts]) -> list[RunFacts]:
    """The facts with the scores of folds: those of combinations, and of a search alone those of its best."""
    known = {run.run_id: run for run in facts}
    heads = {run.run_id: run.tag("best_run_id") for run in facts if run.kind == "search" and run.tag("best_run_id")}
    heads = {run_id: best for run_id, best in heads.items() if best not in known}
    best = source.runs(sorted(set(heads.values())))
    metrics = {run.run_id: run.metrics for run in facts} | {k: dict(v.data.metrics) for k, v in best.items()}
    wanted: dict[str, list[str]] = {}
    for run_id, own in metrics.items():
        for name in fold_metrics(own):
            wanted.setdefault(name, []).append(run_id)
    scores: dict[str, dict[str, tuple[float, ...]]] = {}
    for name, run_ids in wanted.items():
        for run_id, points in source.points(run_ids, name, FOLDS_AT_MOST).items():
            by_fold = dict(zip(points.steps.tolist(), points.values.tolist(), strict=True))
            row = tuple(by_fold.get(fold, np.nan) for fold in range(max(by_fold) + 1))
            scores.setdefault(run_id, {})[name] = row
    return [_completed(run, heads.get(run.run_id, ""), metrics, scores) for run in facts]


def _completed(
    run: RunFacts,
    best: str,
    metrics: dict[str, dict[str, float]],
    scores: dict[str, dict[str, tuple[float, ...]]],
) -> RunFacts:
    if run.run_id in scores:
        return run._replace(folds=scores[run.run_id])
    if best in scores:  # a search without its combinations stands for the best of them
        means = {k: v for k, v in metrics[best].items() if k.startswith("mean_")}
        return run._replace(folds=scores[best], metrics=run.metrics | means)
    return run
