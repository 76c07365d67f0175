"""Runs to compare, with those nested in them, read in few requests however many there are."""

from __future__ import annotations

from typing import TYPE_CHECKING

from mlflow_hp.compare.fold_scores import with_folds
from mlflow_hp.compare.run_summary import facts_of
from mlflow_hp.errors import UserError
from mlflow_hp.tracking.nesting import DEEPEST
from mlflow_hp.tracking.tags import AUTHOR_TAG, PARENT_TAG

if TYPE_CHECKING:
    from collections.abc import Sequence

    from mlflow.entities import Run

    from mlflow_hp.compare.run_summary import RunFacts
    from mlflow_hp.compare.source import RunSource


def gather(
    source: RunSource,
    run_ids: Sequence[str] = (),
    experiment_ids: Sequence[str] = (),
    filter_string: str = "",
    *,
    limit: int | None = None,
    folds: bool = True,
) -> list[RunFacts]:
    """Read runs by id, with their nested runs, and runs of experiments.

    Parameters
    ----------
    source : RunSource
        Source of the runs.
    run_ids : sequence of str
        Ids of runs. Defaults to none.
    experiment_ids : sequence of str
        Ids of experiments whose runs are read, as far as they match `filter_string`. Defaults to none.
    filter_string : str
        Filter of MLflow's search. Defaults to no filter.
    limit : int, optional
        Most runs of the experiments to read, the newest. Defaults to all.
    folds : bool
        Whether to read the scores of folds. Defaults to True.

    Returns
    -------
    list of RunFacts
        In the order of their start.

    Raises
    ------
    UserError
        If a run in `run_ids` does not exist, or MLflow refuses the filter.

    Examples
    --------
    >>> import mlflow
    >>> from mlflow_hp.compare import gather, open_source
    >>> with mlflow.start_run(run_name="first") as run:
    ...     mlflow.log_metric("loss", 0.5)
    >>> facts = gather(open_source(mlflow.MlflowClient()), [run.info.run_id])
    >>> [(fact.name, fact.metrics) for fact in facts]
    [('first', {'loss': 0.5})]
    """
    chosen = source.runs(run_ids)
    if missing := [run_id for run_id in run_ids if run_id not in chosen]:
        raise UserError(
            f"run {missing[0]!r} is not in the tracking store: check the id (all 32 characters), and the store with "
            "MLFLOW_TRACKING_URI"
        )
    chosen |= _nested(source, list(chosen.values()))
    chosen |= {run.info.run_id: run for run in _search(source, experiment_ids, filter_string, limit)}
    with_ancestors = _with_ancestors(source, chosen)
    by_start = sorted(chosen.values(), key=lambda run: run.info.start_time)
    facts = [facts_of(run, with_ancestors, source) for run in by_start]
    return with_folds(source, facts) if folds else facts


def _search(source: RunSource, experiment_ids: Sequence[str], filter_string: str, limit: int | None) -> list[Run]:
    from mlflow.exceptions import MlflowException

    try:
        return list(source.search(experiment_ids, filter_string, limit)) if experiment_ids else []
    except MlflowException as error:
        if error.error_code != "INVALID_PARAMETER_VALUE":
            raise
        raise UserError(
            f"filter {filter_string!r}: {error.message}. Write it as for MLflow's search, for example "
            f"\"metrics.val_loss < 0.1 and tags.`{AUTHOR_TAG}` = 'ada'\""
        ) from error


def _nested(source: RunSource, runs: Sequence[Run]) -> dict[str, Run]:
    """Find the runs nested in `runs` at any depth, by id."""
    nested: dict[str, Run] = {}
    level = list(runs)
    while level:
        ids: dict[str, list[str]] = {}
        for run in level:
            ids.setdefault(run.info.experiment_id, []).append(run.info.run_id)
        level = []
        for experiment_id, parents in ids.items():
            for start in range(0, len(parents), 500):
                level += _children(source, experiment_id, set(parents[start : start + 500]))
        level = [run for run in level if run.info.run_id not in nested]
        nested |= {run.info.run_id: run for run in level}
    return nested


def _children(source: RunSource, experiment_id: str, parents: set[str]) -> list[Run]:
    """Find the runs nested in `parents`: a search for each of few, one for all nested runs otherwise.

    MLflow's search has no IN for tags.
    """
    if len(parents) <= 3:
        filters = [f"tags.`{PARENT_TAG}` = '{parent}'" for parent in parents]
    else:
        filters = [f"tags.`{PARENT_TAG}` LIKE '%'"]
    runs = (run for text in filters for run in source.search([experiment_id], text, None))
    return [run for run in runs if run.data.tags.get(PARENT_TAG) in parents]


def _with_ancestors(source: RunSource, chosen: dict[str, Run]) -> dict[str, Run]:
    """Add the parents of `chosen`, their parents, and so on."""
    known, level = dict(chosen), dict(chosen)
    for _ in range(DEEPEST):
        missing = {run.data.tags[PARENT_TAG] for run in level.values() if PARENT_TAG in run.data.tags} - set(known)
        if not missing:
            break
        level = source.runs(sorted(missing))
        known |= level
    return known
