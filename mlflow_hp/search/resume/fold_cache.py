"""One ``search.fit`` and what an earlier process has computed of it: every finished fold is known again by a key.

The key is made of all that a fold's result follows from: the data, the estimator, the combination, the rows of the
fold, the scoring, the code that the user wrote and its data, the versions of the libraries. It stands, with the result,
in a tag of the combination's run as soon as the fold has ended. The parts that the whole search shares stand in tags of
the parent, and what was loaded and read in manifests.
"""

from __future__ import annotations

import numbers
from typing import TYPE_CHECKING, Any

import joblib
import mlflow

from mlflow_hp.errors import UserError
from mlflow_hp.search.resume import matching
from mlflow_hp.search.resume.fingerprint import short
from mlflow_hp.search.resume.manifest import LONGEST_TAG, Manifest, changed, load
from mlflow_hp.search.resume.previous_run import FOLD, Kept
from mlflow_hp.search.resume.reached import digest

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from mlflow_hp.search.live.events import Fold, Planned
    from mlflow_hp.search.resume.previous_run import Child, Past

DATA, FOLDS = "mlflow_hp.data_digest", "mlflow_hp.folds_digest"
"""Tags that say which searches were fitted to the same data, and scored on the same folds of them."""


class Memory:
    """What is known of one ``search.fit`` from before, and what is kept of it for later.

    Parameters
    ----------
    search : BaseSearchCV
        The one that fits.
    number : int
        Which of the fits that are recorded into the parent run (0-based).
    past : Past or None
        Where the search goes on.
    tagged : mapping of str to str
        Tags that the parent has: what it says of its data stays.
    keep : callable
        Has a manifest written.
    remark : callable
        Tells the user why folds are computed again.

    Attributes
    ----------
    tags : dict of str to str
        For the parent: what the search is known by.
    """

    def __init__(
        self,
        search: Any,
        number: int,
        past: Past | None,
        tagged: Mapping[str, str],
        *,
        keep: Callable[[Manifest], None],
        remark: Callable[[str], None],
    ) -> None:
        self._past = past
        self._keep = keep
        self._remark = remark
        self._changed: dict[str, list[str]] = {}
        self._number = number
        self._keys: dict[int, str] = {}
        self._hashes: dict[tuple[int, ...], tuple[Any, str]] = {}
        self._data: str | None = None
        self._looked = False
        self._wanted = {DATA, FOLDS} - set(tagged) if number == 0 else set()
        self._splits: dict[int, str] = {}
        self._code = f"{matching.DIGEST}code{self._suffix}"
        self._refusal: UserError | None = None
        self._is_another = False
        self._start = Manifest()
        self._parts: Mapping[str, str] | None = None
        self.tags: dict[str, str] = {}
        identity = matching.identify(search)
        if isinstance(identity, str):
            self.tags = {matching.NOT_RESUMABLE: identity}
            self._refusal = None if past is None else UserError(f"this search can't be resumed: {identity}")
            return
        self._parts = identity.parts
        if number == 0:
            self.tags = {f"{matching.DIGEST}{name}": part for name, part in identity.parts.items()}
        self._begin(identity)

    @property
    def _suffix(self) -> str:
        return f"_{self._number}" if self._number else ""

    def _begin(self, identity: matching.Identity) -> None:
        """Find what the search began with: in the earlier process, where this one has the same."""
        self._start = identity.manifest
        if self._past is not None and self._code in self._past.tags:
            begun, differing = matching.begun(self._past, identity.manifest, self._suffix)
            if not differing:
                self._start = begun
            elif self._number == 0:
                self._refusal = matching.other(self._past.run_id, {"code": differing}, self._past.tags, {})
            else:
                self._remark(f"a further fit of the search is computed again; what differs: {', '.join(differing)}")
                self._is_another = True
        self._keep(self._start)
        self.tags[self._code] = self._start.id

    def left(self, search: Any) -> dict[str, str]:
        """Note what the fits have loaded and changed themselves, for this process to resume the search.

        Returns
        -------
        dict of str to str
            Tags for the parent.
        """
        identity = None if self._parts is None else matching.identify(search)
        if identity is None or isinstance(identity, str):
            return {}
        left = identity.manifest.beyond(self._start)
        if left.id:
            self._keep(left)
        return {f"{matching.LEFT}{self._suffix}": left.id}

    def look(self, fit: Planned, given: Mapping[str, Any]) -> dict[str, str]:
        """Look at what a fit is computed from: at the data, which are the same for all fits, once.

        Returns
        -------
        dict of str to str
            Tags for the parent, as soon as they are known.

        Raises
        ------
        UserError
            Where the data are not what the run to be resumed was fitted to.
        """
        if self._refusal is not None:
            raise self._refusal
        tags = {} if self._looked else self._look_at_data(given)
        self._looked = True
        if FOLDS in self._wanted and fit.candidate == 0:
            self._splits[fit.split] = self._hash("rows", given["train"], given["test"])
            if len(self._splits) == fit.n_splits:
                self._wanted.remove(FOLDS)
                tags[FOLDS] = short(sorted(self._splits.items()))
        return tags

    def _look_at_data(self, given: Mapping[str, Any]) -> dict[str, str]:
        values, more, why = None, None, ""
        try:
            values = joblib.hash((given["X"], given["y"]))
            more = digest([given.get("fit_params"), given.get("score_params")])
        except Exception as error:  # noqa: BLE001 - whatever the user's data raise when they are pickled
            why = f"the data can't be known again: {type(error).__name__}: {error}"
        tags = {DATA: short(values)} if values is not None and DATA in self._wanted else {}
        if self._parts is None:
            return tags
        if why:
            if self._past is not None:
                raise UserError(f"this search can't be resumed: {why}")
            self._parts = None
            return {**tags, matching.NOT_RESUMABLE: why}
        self._data = short((values, more))
        name = f"{matching.DIGEST}data{self._suffix}"
        if self._past is not None and self._past.tags.get(name, self._data) != self._data:
            raise matching.other(self._past.run_id, {"data": []}, self._past.tags, {})
        return {**tags, name: self._data}

    def find(self, fit: Planned, given: Mapping[str, Any]) -> Kept | None:
        """What an earlier process has computed of a fit.

        Raises
        ------
        UserError
            Where the first fit of the search is there, but with other rows or values.
        """
        if self._parts is None:
            return None
        rows = self._hash("rows", given["train"], given["test"])
        params = self._hash("params", fit.params)
        key = self._keys[fit.task] = short((sorted(self._parts.items()), self._start.id, self._data, rows, params))
        child = self.child(fit.candidate)
        kept = child.folds.get(fit.split) if child is not None else None
        if kept is None:
            return None
        if kept.key == key:
            return None if self._has_changed(kept.seen) else kept
        if fit.task == 0 and not self._is_another:
            assert self._past is not None
            raise UserError(
                f"the run {self._past.run_id} can't be resumed: its first fold had other rows or values than this "
                "search gives it; go on with the cv and the combinations of then, or leave resume out to start anew"
            )
        return None

    def _has_changed(self, seen: str) -> bool:
        """Whether what a fold was computed from is something else now: its modules, and the files that it read."""
        if seen not in self._changed:
            assert self._past is not None
            manifest = load(mlflow.MlflowClient(), self._past.run_id, seen)
            missing = [f"the manifest {seen} of the run {self._past.run_id} (missing)"]
            self._changed[seen] = changed(manifest) if manifest is not None else missing
            if self._changed[seen]:
                said = "folds are computed again, for what they were computed from has changed: "
                self._remark(said + ", ".join(self._changed[seen]))
        return bool(self._changed[seen])

    def child(self, candidate: int) -> Child | None:
        """The run that a combination has had before."""
        return None if self._past is None else self._past.children.get((self._number, candidate))

    def tags_for(self, fit: Planned, fold: Fold) -> dict[str, str]:
        """For the combination's run: what a later process takes in place of the fold that has ended.

        None of a fold that failed, or that could not be scored: it is to be computed again.
        """
        key = self._keys.get(fit.task)
        if key is None or fold.result is None or fold.error is not None:
            return {}
        scores = [*fold.scores.values(), *fold.train_scores.values()]
        if any(not isinstance(score, numbers.Real) or score != score for score in scores):  # NaN too
            return {}
        if fold.seen is None:
            self._remark("folds are not kept for resume: what their process has loaded and read is not known")
            return {}
        beyond = Manifest(fold.seen.modules, {}, fold.seen.files).beyond(self._start)
        if beyond.id:
            self._keep(beyond)
        text = Kept(key, fold.started, fold.ended, _plain(fold.result), beyond.id).text()
        return {f"{FOLD}{fit.split}": text} if len(text) <= LONGEST_TAG else {}

    def _hash(self, kind: str, *values: Any) -> str:
        """A digest of values that come again and again; they are kept, for their ids to stay theirs."""
        place = tuple(map(id, values))
        if place not in self._hashes:
            found = str(joblib.hash(values)) if kind == "rows" else digest(dict(values[0]))
            self._hashes[place] = (values, found)
        return self._hashes[place][1]


def _plain(value: Any) -> Any:
    """A result as JSON holds it."""
    if isinstance(value, dict):
        return {name: _plain(each) for name, each in value.items()}
    if isinstance(value, numbers.Real) and not isinstance(value, (bool, int)):
        return int(value) if isinstance(value, numbers.Integral) else float(value)
    return value
