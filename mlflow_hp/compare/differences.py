"""Differences between runs: hyperparameters, code, versions, machine, author."""

from __future__ import annotations

from collections import Counter
from typing import TYPE_CHECKING, Literal, NamedTuple

from mlflow_hp.terminal import count
from mlflow_hp.tracking.tags import (
    DEVICE_TAG,
    GIT_COMMIT_TAG,
    GIT_DIRTY_TAG,
    HOST_TAG,
    SEARCH_CV_TAG,
    SOURCE_COMMIT_TAG,
    VERSIONS_TAG,
)

if TYPE_CHECKING:
    from collections.abc import Sequence

    from mlflow_hp.compare.run_summary import RunFacts

Kind = Literal["parameter", "code", "version", "machine", "author", "search"]
MISSING = "(not recorded)"
ABSENT = "(absent)"
YES_NO = {"true": "yes", "false": "no"}
COMMIT = 10
"""Characters of a commit that are shown."""


class RunDifference(NamedTuple):
    """Property in which runs differ.

    Attributes
    ----------
    name : str
    kind : str
        Category of the property.
    values : list of str
        Value for each run.
    """

    name: str
    kind: Kind
    values: list[str]

    @property
    def value_counts(self) -> list[tuple[str, int]]:
        """Each value and the number of runs that have it, the most frequent first."""
        return Counter(self.values).most_common()


def differences(runs: Sequence[RunFacts]) -> list[RunDifference]:
    """Find everything in which `runs` differ; parameters first, sorted by their number of values."""
    names = dict.fromkeys(name for run in runs for name in run.params)
    params = [RunDifference(name, "parameter", [run.params.get(name, ABSENT) for run in runs]) for name in names]
    properties = [
        *sorted(params, key=lambda difference: len(difference.value_counts)),
        RunDifference("folds", "search", [_folds(run) for run in runs]),
        RunDifference("git commit", "code", [_commit(run) for run in runs]),
        RunDifference("uncommitted changes", "code", [YES_NO.get(run.tag(GIT_DIRTY_TAG), MISSING) for run in runs]),
        RunDifference("author", "author", [run.author for run in runs]),
        RunDifference("host", "machine", [run.tag(HOST_TAG) or MISSING for run in runs]),
        RunDifference("device", "machine", [run.tag(DEVICE_TAG) or MISSING for run in runs]),
    ]
    versions = [_versions(run) for run in runs]
    libraries = dict.fromkeys(name for of_run in versions for name in of_run)
    properties += [RunDifference(name, "version", [v.get(name, MISSING) for v in versions]) for name in libraries]
    return [each for each in properties if len(set(each.values)) > 1]


def varying_params(runs: Sequence[RunFacts]) -> list[str]:
    """Names of the params in which runs differ."""
    return [difference.name for difference in differences(runs) if difference.kind == "parameter"]


def _folds(run: RunFacts) -> str:
    """Cross-validation of a candidate's search, else the number of folds."""
    return run.tag(SEARCH_CV_TAG) or (f"{count(len(next(iter(run.folds.values()))), 'fold')}" if run.folds else MISSING)


def _commit(run: RunFacts) -> str:
    return (run.tag(GIT_COMMIT_TAG) or run.tag(SOURCE_COMMIT_TAG))[:COMMIT] or MISSING


def _versions(run: RunFacts) -> dict[str, str]:
    """Parse the tag ``mlflow_hp.versions``, a comma-separated list of ``name version``, into a dict."""
    words = (part.strip().rpartition(" ") for part in run.tag(VERSIONS_TAG).split(",") if part.strip())
    return {name: version for name, _, version in words}
