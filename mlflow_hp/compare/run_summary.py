"""Facts about a compared run: what its tags, params and metrics, and those of its parents, say."""

from __future__ import annotations

import hashlib
import re
from typing import TYPE_CHECKING, Literal, NamedTuple

from mlflow_hp.tracking.nesting import chain
from mlflow_hp.tracking.run_params import params_of
from mlflow_hp.tracking.tags import (
    AUTHOR_TAG,
    COMMAND_TAG,
    CV_PARAM,
    DATA_DIGEST_TAG,
    DATASET_CONTEXT_TAG,
    DEVICE_TAG,
    DIGEST_TAG_PREFIX,
    EXPERIMENT_TAG,
    FOLD_TAG_PREFIX,
    FOLDS_DIGEST_TAG,
    GIT_COMMIT_TAG,
    GIT_DIRTY_TAG,
    HOST_TAG,
    KIND_TAG,
    PARAMS_TAG,
    PARENT_TAG,
    SEARCH_CV_TAG,
    SEARCH_ESTIMATOR_TAG,
    SOURCE_COMMIT_TAG,
    SOURCE_NAME_TAG,
    SPACE_PARAM_PREFIX,
    SPLIT_DIGEST_TAG,
    TAG_PREFIX,
    USER_TAG,
    VERSIONS_TAG,
)

if TYPE_CHECKING:
    from mlflow.entities import Run

    from mlflow_hp.compare.source import RunSource

KEPT = (TAG_PREFIX, USER_TAG, SOURCE_COMMIT_TAG, SOURCE_NAME_TAG, PARENT_TAG)
"""Prefixes of the tags that are kept ..."""
DROPPED = (FOLD_TAG_PREFIX, PARAMS_TAG)
"""... except these, which are long."""
INHERITED = (AUTHOR_TAG, HOST_TAG, GIT_COMMIT_TAG, GIT_DIRTY_TAG, VERSIONS_TAG, DEVICE_TAG, DATA_DIGEST_TAG,
             SPLIT_DIGEST_TAG, FOLDS_DIGEST_TAG, DIGEST_TAG_PREFIX + "data", EXPERIMENT_TAG, COMMAND_TAG)  # fmt: skip
"""Tags that a run inherits from its parent unless it has them itself."""
SEARCH_ONLY_PARAMS = (
    CV_PARAM, "search", "estimator", "scoring", "n_iter", "n_candidates", "factor", "resource", "refit", "n_jobs",
    "random_state", "grid", "halving", "resume", "record", "dask",
)  # fmt: skip
"""Params, besides those that begin with ``space``, that configure a search; all others configure its trainings."""
ADDRESS = re.compile(r" at 0x[0-9A-Fa-f]+")
"""Place of a function in memory, as in the text of an estimator that has one."""
KNOWN_FUNCTIONS = {"beale": "Beale's function"}
"""Experiments that minimise a function and have no data."""


class RunFacts(NamedTuple):
    """Facts about one run.

    Attributes
    ----------
    run_id, name, experiment_id, experiment : str
        Ids and names of the run and its experiment.
    author : str
        Tag ``mlflow_hp.author``, else ``mlflow.user``, else ``"unknown"``.
    kind : str
        Tag ``mlflow_hp.kind``; ``""`` for runs not recorded by this package.
    status : str
        MLflow's status: ``"FINISHED"``, ``"RUNNING"``, ``"FAILED"``, ``"KILLED"`` or ``"SCHEDULED"``.
    started : int
        Start in milliseconds since the epoch.
    ended : int or None
        End in milliseconds since the epoch; None while it runs.
    parent_id : str or None
        Id of the parent run.
    params : dict of str to str
        Params; of a candidate also those that its search sets for all candidates.
    tags : dict of str to str
        Tags that a comparison needs, including those inherited from the parent.
    metrics : dict of str to float
        Value of each metric: the last; or, if the run is judged by its best epoch, that of this epoch.
    data_digest, split_digest : str or None
        Digests of data and split: from tags, else from the datasets that the run logged.
    folds : dict of str to tuple of float
        Metric (``"score"``, or ``"test_<scorer>"``) -> score of each test fold, by number of the fold (0-based).
    judged_by : {"last", "best"}
        Epoch whose values `metrics` has, as far as it has values of the best. Defaults to ``"last"``.

    Examples
    --------
    >>> import mlflow
    >>> from mlflow_hp.compare import gather, open_source
    >>> with mlflow.start_run(tags={"mlflow_hp.author": "Ada"}) as run:
    ...     pass
    >>> facts, = gather(open_source(mlflow.MlflowClient()), [run.info.run_id])
    >>> facts.author, facts.status
    ('Ada', 'FINISHED')
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
    judged_by: Literal["last", "best"] = "last"

    @property
    def seconds(self) -> float | None:
        """Duration; None while it runs."""
        return None if self.ended is None else max(self.ended - self.started, 0) / 1000

    def tag(self, name: str) -> str:
        """Get a tag; ``""`` if it is missing.

        Parameters
        ----------
        name : str
            Its name.

        Returns
        -------
        str
            Its value; ``""`` if there is none.
        """
        return self.tags.get(name, "")


def facts_of(run: Run, with_ancestors: dict[str, Run], source: RunSource) -> RunFacts:
    """Collect the facts about a run, without the scores of its folds; `with_ancestors` has its parents by id."""
    info = run.info
    tags = {k: v for k, v in run.data.tags.items() if k.startswith(KEPT) and not k.startswith(DROPPED)}
    params = params_of(run.data)
    for parent in chain(run, with_ancestors.get):
        inherited = parent.data.tags
        tags |= {name: inherited[name] for name in INHERITED if name in inherited and name not in tags}
        if tags.get(KIND_TAG) == "candidate" and inherited.get(KIND_TAG) == "search":
            search_params = params_of(parent.data)
            tags[SEARCH_CV_TAG] = search_params.get(CV_PARAM, "")
            tags[SEARCH_ESTIMATOR_TAG] = ADDRESS.sub("", search_params.get("estimator", ""))
            params = _training_params(search_params) | params
    data, split = _digests(run, tags)
    return RunFacts(
        info.run_id,
        info.run_name or info.run_id,
        info.experiment_id,
        source.experiment(info.experiment_id).name,
        tags.get(AUTHOR_TAG) or tags.get(USER_TAG) or "unknown",
        tags.get(KIND_TAG, ""),
        info.status,
        info.start_time,
        info.end_time,
        tags.get(PARENT_TAG),
        params,
        tags,
        dict(run.data.metrics),
        data,
        split,
        {},
    )


def _training_params(params: dict[str, str]) -> dict[str, str]:
    """Params of a search that hold for all its candidates."""
    return {k: v for k, v in params.items() if k not in SEARCH_ONLY_PARAMS and not k.startswith(SPACE_PARAM_PREFIX)}


def _digests(run: Run, tags: dict[str, str]) -> tuple[str | None, str | None]:
    """Digests of data and split: from tags, else from the logged datasets, each of which is a part of the split."""
    data = tags.get(DATA_DIGEST_TAG) or tags.get(f"{DIGEST_TAG_PREFIX}data")
    split = tags.get(SPLIT_DIGEST_TAG)
    if data is None and tags.get(EXPERIMENT_TAG) in KNOWN_FUNCTIONS:
        return KNOWN_FUNCTIONS[tags[EXPERIMENT_TAG]], "none"
    if data is None and run.inputs and run.inputs.dataset_inputs:
        parts = sorted({(_context(used), str(used.dataset.digest)) for used in run.inputs.dataset_inputs})
        data = "+".join(dict.fromkeys(digest for _, digest in parts))
        if len(parts) > 1:
            split = split or hashlib.sha256(repr(parts).encode()).hexdigest()[:12]
    return data, split


def _context(dataset_input: object) -> str:
    tags = getattr(dataset_input, "tags", None) or []
    return next((tag.value for tag in tags if tag.key == DATASET_CONTEXT_TAG), "")
