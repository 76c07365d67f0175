"""What differs between runs: hyperparameters, code, versions, machine, author; what is the same is not listed."""

from __future__ import annotations

from collections import Counter
from typing import TYPE_CHECKING, Literal, NamedTuple

if TYPE_CHECKING:
    from collections.abc import Sequence

    from mlflow_hp.compare.run_summary import RunFacts

Kind = Literal["parameter", "code", "version", "machine", "author", "search"]
MISSING = "(not recorded)"
ABSENT = "(absent)"
YES_NO = {"true": "yes", "false": "no"}
COMMIT = 10
"""Characters of a commit that are shown."""


class Difference(NamedTuple):
    """Something in which runs differ.

    Attributes
    ----------
    name : str
    kind : str
        What it belongs to.
    values : list of str
        Of each run.
    """

    name: str
    kind: Kind
    values: list[str]

    @property
    def counted(self) -> list[tuple[str, int]]:
        """Each value and how many runs have it, the most frequent first."""
        return Counter(self.values).most_common()


def differences(runs: Sequence[RunFacts]) -> list[Difference]:
    """Everything in which `runs` differ; parameters first, those with few values before those with many."""
    names = dict.fromkeys(name for run in runs for name in run.params)
    params = [Difference(name, "parameter", [run.params.get(name, ABSENT) for run in runs]) for name in names]
    found = [
        *sorted(params, key=lambda difference: len(difference.counted)),
        Difference("folds", "search", [_folds(run) for run in runs]),
        Difference("git commit", "code", [_commit(run) for run in runs]),
        Difference("uncommitted changes", "code", [YES_NO.get(run.tag("git_dirty"), MISSING) for run in runs]),
        Difference("author", "author", [run.author for run in runs]),
        Difference("host", "machine", [run.tag("host") or MISSING for run in runs]),
        Difference("device", "machine", [run.tag("device") or MISSING for run in runs]),
    ]
    versions = [_versions(run) for run in runs]
    libraries = dict.fromkeys(name for own in versions for name in own)
    found += [Difference(name, "version", [own.get(name, MISSING) for own in versions]) for name in libraries]
    return [difference for difference in found if len(set(difference.values)) > 1]


def varying_params(runs: Sequence[RunFacts]) -> list[str]:
    """Names of the params in which runs differ."""
    return [difference.name for difference in differences(runs) if difference.kind == "parameter"]


def _folds(run: RunFacts) -> str:
    """How the folds were made on which a combination was tested."""
    return run.tag("search_cv") or (f"{len(next(iter(run.folds.values())))} folds" if run.folds else MISSING)


def _commit(run: RunFacts) -> str:
    return (run.tag("git_commit") or run.tags.get("mlflow.source.git.commit", ""))[:COMMIT] or MISSING


def _versions(run: RunFacts) -> dict[str, str]:
    """Library -> version, of the tag ``mlflow_hp.versions``: ``name version`` each, with commas between."""
    words = (part.strip().rpartition(" ") for part in run.tag("versions").split(",") if part.strip())
    return {name: version for name, _, version in words}
