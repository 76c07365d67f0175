"""Cache of the finished folds of one ``search.fit``, in MLflow, for a later process to resume the search.

Each fold has a key, a digest of everything that its result depends on: the data, the estimator, the candidate, the rows
of the fold, the scoring, the user's code with its data, the versions of the libraries. Key and result are a tag of the
candidate's run as soon as the fold has ended. Digests shared by the whole search are tags of the parent run, and
manifests list the modules and files.
"""

from __future__ import annotations

import numbers
from typing import TYPE_CHECKING, Any

import joblib
import mlflow

from mlflow_hp.errors import UserError
from mlflow_hp.search.resume import matching
from mlflow_hp.search.resume.fingerprint import short
from mlflow_hp.search.resume.manifest import LONGEST_TAG, Manifest, changed_files, load
from mlflow_hp.search.resume.previous_run import FinishedFold
from mlflow_hp.search.resume.referenced import digest
from mlflow_hp.tracking.tags import (
    CODE_LEFT_TAG,
    DATA_DIGEST_TAG,
    DIGEST_TAG_PREFIX,
    FOLD_TAG_PREFIX,
    FOLDS_DIGEST_TAG,
    NOT_RESUMABLE_TAG,
)

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from mlflow_hp.search.live.events import Fold, PlannedFit
    from mlflow_hp.search.resume.previous_run import PreviousCandidate, PreviousRun


class FoldCache:
    """Finished folds of one ``search.fit``: those of an earlier process, and tags for a later one.

    Parameters
    ----------
    search : BaseSearchCV
        The search that fits.
    number : int
        Number of this fit among those recorded into the parent run (0-based).
    previous : PreviousRun or None
        The run to resume.
    repeats : int
        Number of seeds of each fit.
    parent_tags : mapping of str to str
        Tags that the parent run has already; digests of its data among them are kept.
    store_manifest : callable
        Stores a manifest in the parent run.
    remark : callable
        Takes messages to the user, such as why folds are computed again.

    Attributes
    ----------
    tags : dict of str to str
        Tags for the parent run that identify the search.
    """

    def __init__(
        self,
        search: Any,
        number: int,
        previous: PreviousRun | None,
        parent_tags: Mapping[str, str],
        *,
        repeats: int,
        store_manifest: Callable[[Manifest], None],
        remark: Callable[[str], None],
    ) -> None:
        self._previous = previous
        self._repeats = repeats
        self._store_manifest = store_manifest
        self._remark = remark
        self._changed: dict[str, list[str]] = {}
        self._number = number
        self._keys: dict[int, str] = {}
        self._hashes: dict[tuple[int, ...], tuple[Any, str]] = {}
        self._data: str | None = None
        self._data_is_hashed = False
        self._missing_tags = {DATA_DIGEST_TAG, FOLDS_DIGEST_TAG} - set(parent_tags) if number == 0 else set()
        self._row_digests: dict[int, str] = {}
        self._code_tag = f"{DIGEST_TAG_PREFIX}code{self._suffix}"
        self._refusal: UserError | None = None
        self._differs = False
        self._start = Manifest()
        self._parts: Mapping[str, str] | None = None
        self.tags: dict[str, str] = {}
        identity = matching.identify(search, repeats)
        if isinstance(identity, str):
            self.tags = {NOT_RESUMABLE_TAG: identity}
            self._refusal = None if previous is None else UserError(f"this search cannot be resumed: {identity}")
            return
        self._parts = identity.parts
        if number == 0:
            self.tags = {f"{DIGEST_TAG_PREFIX}{name}": part for name, part in identity.parts.items()}
        self._begin(identity)

    @property
    def is_resumed(self) -> bool:
        """Whether an earlier process has begun the search."""
        return self._previous is not None

    @property
    def _suffix(self) -> str:
        return f"_{self._number}" if self._number else ""

    def _begin(self, identity: matching.Identity) -> None:
        """Determine the manifest of the start: that of the earlier process if nothing relevant differs."""
        self._start = identity.manifest
        if self._previous is not None and self._code_tag in self._previous.tags:
            start, differing = matching.compare_code(self._previous, identity.manifest, self._suffix)
            if not differing:
                self._start = start
            elif self._number == 0:
                self._refusal = matching.refusal(self._previous.run_id, {"code": differing}, self._previous.tags, {})
            else:
                self._remark(f"a further fit of the search is computed again; differences: {', '.join(differing)}")
                self._differs = True
        self._store_manifest(self._start)
        self.tags[self._code_tag] = self._start.id

    def finish(self, search: Any) -> dict[str, str]:
        """Store what the fits have loaded and changed, which is no difference for a process that resumes the search.

        Returns
        -------
        dict of str to str
            Tags for the parent run.
        """
        identity = None if self._parts is None else matching.identify(search, self._repeats)
        if identity is None or isinstance(identity, str):
            return {}
        end = identity.manifest.beyond(self._start)
        if end.id:
            self._store_manifest(end)
        return {f"{CODE_LEFT_TAG}{self._suffix}": end.id}

    def check_data(self, fit: PlannedFit, arguments: Mapping[str, Any]) -> dict[str, str]:
        """Hash the data, once, and the rows of each fold of the first candidate.

        Returns
        -------
        dict of str to str
            Tags for the parent run, as soon as they are known.

        Raises
        ------
        UserError
            If the data are not those of the run to resume.
        """
        if self._refusal is not None:
            raise self._refusal
        tags = {} if self._data_is_hashed else self._hash_data(arguments)
        self._data_is_hashed = True
        if FOLDS_DIGEST_TAG in self._missing_tags and fit.candidate == 0:
            self._row_digests[fit.split] = self._hash("rows", arguments["train"], arguments["test"])
            if len(self._row_digests) == fit.n_splits:
                self._missing_tags.remove(FOLDS_DIGEST_TAG)
                tags[FOLDS_DIGEST_TAG] = short(sorted(self._row_digests.items()))
        return tags

    def _hash_data(self, arguments: Mapping[str, Any]) -> dict[str, str]:
        values, params, reason = None, None, ""
        try:
            values = hash_of_data(arguments["X"], arguments["y"])
            params = digest([arguments.get("fit_params"), arguments.get("score_params")])
        except Exception as error:  # noqa: BLE001 - pickling the user's data may raise anything
            reason = f"the data cannot be fingerprinted: {type(error).__name__}: {error}"
        tags = {DATA_DIGEST_TAG: short(values)} if values is not None and DATA_DIGEST_TAG in self._missing_tags else {}
        if self._parts is None:
            return tags
        if reason:
            if self._previous is not None:
                raise UserError(f"this search cannot be resumed: {reason}")
            self._parts = None
            return {**tags, NOT_RESUMABLE_TAG: reason}
        self._data = short((values, params))
        name = f"{DIGEST_TAG_PREFIX}data{self._suffix}"
        if self._previous is not None and self._previous.tags.get(name, self._data) != self._data:
            raise matching.refusal(self._previous.run_id, {"data": []}, self._previous.tags, {})
        return {**tags, name: self._data}

    def find(self, fit: PlannedFit, arguments: Mapping[str, Any]) -> FinishedFold | None:
        """Find the result of a fit that an earlier process has computed.

        Raises
        ------
        UserError
            If the search's first fit has a result for other rows or values.
        """
        if self._parts is None:
            return None
        rows = self._hash("rows", arguments["train"], arguments["test"])
        params = self._hash("params", fit.params)
        key = self._keys[fit.task] = short((sorted(self._parts.items()), self._start.id, self._data, rows, params))
        previous_candidate = self.previous_candidate(fit.candidate)
        finished = None if previous_candidate is None else previous_candidate.folds.get(fit.split)
        if finished is None:
            return None
        if finished.key == key:
            return None if self._has_changed(finished.manifest_id) else finished
        if finished.key == _vectorised(key):
            return None
        if fit.task == 0 and not self._differs:
            assert self._previous is not None
            raise UserError(
                f"the run {self._previous.run_id} cannot be resumed: its first fold had other rows or values than in "
                "this search; use the same cv and the same candidates, or leave out resume to start again"
            )
        return None

    def find_vectorised(self, fit: PlannedFit) -> FinishedFold | None:
        """Find the result of a fit, sought by `find` before, that an earlier process has computed vectorised."""
        previous_candidate, key = self.previous_candidate(fit.candidate), self._keys.get(fit.task)
        finished = None if previous_candidate is None else previous_candidate.folds.get(fit.split)
        if finished is None or key is None or finished.key != _vectorised(key):
            return None
        return None if self._has_changed(finished.manifest_id) else finished

    def _has_changed(self, manifest_id: str) -> bool:
        """Whether the modules or files of a fold's manifest have changed since."""
        if manifest_id not in self._changed:
            assert self._previous is not None
            manifest = load(mlflow.MlflowClient(), self._previous.run_id, manifest_id)
            missing = [f"the manifest {manifest_id} of the run {self._previous.run_id} (missing)"]
            self._changed[manifest_id] = changed_files(manifest) if manifest is not None else missing
            if self._changed[manifest_id]:
                files = ", ".join(self._changed[manifest_id])
                self._remark(f"folds are computed again, because files that they depend on have changed: {files}")
        return bool(self._changed[manifest_id])

    def previous_candidate(self, index: int) -> PreviousCandidate | None:
        """The earlier run of the candidate with this index."""
        return None if self._previous is None else self._previous.candidates.get((self._number, index))

    def was_pruned(self, index: int) -> bool:
        """Whether the earlier run of the candidate with this index is FINISHED without all its folds."""
        previous_candidate = self.previous_candidate(index)
        return previous_candidate is not None and previous_candidate.status == "FINISHED"

    def tags_for(self, fit: PlannedFit, fold: Fold) -> dict[str, str]:
        """Tags for the candidate's run with the finished fold, for a later process.

        Empty for a fold that failed or could not be scored, which is to be computed again.
        """
        key = self._keys.get(fit.task)
        if key is None or fold.result is None or fold.error is not None:
            return {}
        scores = [*fold.scores.values(), *fold.train_scores.values()]
        if any(not isinstance(score, numbers.Real) or score != score for score in scores):  # NaN too
            return {}
        if fold.dependencies is None:
            self._remark("folds cannot be reused by resume: the files that their process has read are unknown")
            return {}
        beyond = Manifest(fold.dependencies.modules, {}, fold.dependencies.files).beyond(self._start)
        if beyond.id:
            self._store_manifest(beyond)
        key = _vectorised(key) if fold.is_vectorised else key
        text = FinishedFold(key, fold.started, fold.ended, _json_values(fold.result), beyond.id).text()
        return {f"{FOLD_TAG_PREFIX}{fit.split}": text} if len(text) <= LONGEST_TAG else {}

    def _hash(self, kind: str, *values: Any) -> str:
        """Digest of values that recur, cached by id; the cache also keeps them alive, so that ids stay unique."""
        ids = tuple(map(id, values))
        if ids not in self._hashes:
            value_digest = str(joblib.hash(values)) if kind == "rows" else digest(dict(values[0]))
            self._hashes[ids] = (values, value_digest)
        return self._hashes[ids][1]


def _vectorised(key: str) -> str:
    """Key of a vectorised result, which no plain search takes for its own."""
    return short((key, "vectorised"))


def _json_values(value: Any) -> Any:
    """Convert a result to values that JSON holds."""
    if isinstance(value, dict):
        return {name: _json_values(each) for name, each in value.items()}
    if isinstance(value, numbers.Real) and not isinstance(value, (bool, int)):
        return int(value) if isinstance(value, numbers.Integral) else float(value)
    return value


def hash_of_data(x: Any, y: Any) -> str:
    """Digest of the data of a search."""
    try:
        return str(joblib.hash((x, y)))
    except Exception:  # noqa: BLE001 - of masked arrays, for one
        return digest([x, y])
