"""Recording of all fits of one search into its parent run."""

from __future__ import annotations

import contextlib
import functools
import html
import sys
import time
from typing import TYPE_CHECKING, Any

import mlflow

from mlflow_hp._compat.private_name import version_of
from mlflow_hp._forks import abandon_in_child
from mlflow_hp._notice import log, warn
from mlflow_hp.analysis.review import review
from mlflow_hp.analysis.search_results import from_cv_results
from mlflow_hp.delivery.late_params import late_params
from mlflow_hp.delivery.search_sender import SearchSender
from mlflow_hp.errors import UserError
from mlflow_hp.search.cv_results import csv_path, seed_columns, to_csv, write_ranks, write_summary
from mlflow_hp.search.display import recording_lines
from mlflow_hp.search.live.after_fit import record_after_fit
from mlflow_hp.search.live.family import Family
from mlflow_hp.search.live.observer import SearchFit
from mlflow_hp.search.live.warm_fits import fit_times
from mlflow_hp.search.missing_part import missing_part
from mlflow_hp.search.naming import search_name, search_params
from mlflow_hp.search.resume.fold_cache import FoldCache
from mlflow_hp.search.resume.manifest import LONGEST_MANIFEST_TAG
from mlflow_hp.search.resume.previous_run import close_dead
from mlflow_hp.search.run_review import curves_of, review_files
from mlflow_hp.search.speedups.model_reuse import forget_models
from mlflow_hp.terminal import printable
from mlflow_hp.tracking import runs, uncommitted_code
from mlflow_hp.tracking.run_presentation import present
from mlflow_hp.tracking.server_health import ensure_reachable, within
from mlflow_hp.tracking.tags import (
    DESCRIPTION_TAG,
    ERROR_TAG,
    FOLDS_TAKEN_OVER_TAG,
    MANIFEST_TAG_PREFIX,
    PROCESS_TAG,
    RECORDING_ERROR_TAG,
    RECORDING_SECONDS_METRIC,
    REPORT_SECONDS_METRIC,
    WERE_RUNNING_TAG,
)

if TYPE_CHECKING:
    from collections.abc import Mapping

    from mlflow_hp.analysis.fit_times import FitTimes
    from mlflow_hp.analysis.review import Review
    from mlflow_hp.analysis.search_results import SearchResults
    from mlflow_hp.search.resume.manifest import Manifest
    from mlflow_hp.search.resume.previous_run import PreviousRun


class SearchRecording:
    """Recording of all fits of one search.

    Attributes
    ----------
    run_id : str
        Id of the parent run.
    family : Family
        The search and its clones.
    is_cut : bool
        Whether the time budget has cut fits, as known when the block has ended.
    """

    def __init__(
        self,
        search: Any,
        parent: mlflow.entities.Run,
        previous: PreviousRun | None,
        settings: Mapping[str, Any],
        *,
        report: bool,
        is_owned: bool = False,
    ) -> None:
        self.run_id = parent.info.run_id
        self._search = search
        self._results_before = getattr(search, "cv_results_", None)
        self._previous = previous
        self._experiment_id, self._run_name = parent.info.experiment_id, parent.info.run_name
        self._parent_tags = parent.data.tags
        self._remarks: set[str] = set()
        self._stored_manifests: set[str] = set()
        self._settings = {**settings, "problem": self._problem, "remark": self._remark}
        self._with_report = report
        self._results: dict[int, Mapping[str, Any]] = {}
        self._fit_times: dict[int, FitTimes] = {}
        self._writer = SearchSender(parent, warn, is_owned=is_owned)
        self._started = time.time()
        self._problems: list[str] = []
        self._fit: SearchFit | None = None
        self._n_fits = 0
        self._is_described = False
        self._skipped: dict[int, list[str]] = {}
        self.is_cut = False
        self._unmeasured_fits: list[int] = []
        self._not_live: list[tuple[Any, Any]] = []
        self.family = Family(search)
        self._abandoned = False
        abandon_in_child(self)
        late_params.add(self.run_id, {}, self._parent_tags)

    def __repr__(self) -> str:
        lines = recording_lines(self.run_id, getattr(self, "_search", None), self.last_results)
        return "\n".join(map(printable, lines))

    def _repr_html_(self) -> str:
        """Write it as HTML for a notebook."""
        return f"<div>{'<br>'.join(map(html.escape, repr(self).splitlines()))}</div>"

    @property
    def last_results(self) -> SearchResults | None:
        """Results of the last fit that has ended; None before."""
        results = getattr(self, "_results", None)
        if not results:
            return None
        return self._results_of(next(reversed(results)))

    @property
    def skipped(self) -> list[str]:
        """Sentences about fits that were pruned or cut, as known when the block has ended."""
        return [sentence for sentences in self._skipped.values() for sentence in sentences]

    def abandon(self) -> None:
        """Stop recording in a forked child process: the parent process records the search."""
        self._fit, self._abandoned = None, True

    def __reduce__(self) -> tuple[Any, ...]:
        """Pickle as the id of the parent run: another process does not record."""
        return _in_other_process, (self.run_id,)

    def wants(self, search: Any) -> bool:
        """Whether fits of `search` are recorded: it is the recorded search, or a copy of it."""
        return not self._abandoned and search in self.family

    def observe(self, search: Any) -> SearchFit | None:
        """Make the observer of a fit that begins; None if an error prevents it."""
        try:
            self._finish_fit()
            self._write_recording_times()
            self._describe(search)
            fold_cache = FoldCache(
                search,
                self._n_fits,
                self._previous,
                self._parent_tags,
                repeats=self._settings["repeats"],
                store_manifest=self._store_manifest,
                remark=self._remark,
            )
            self._writer.parent.set_tags(fold_cache.tags)
            self._fit = SearchFit(search, self._writer, self._n_fits, fold_cache, **self._settings)
        except Exception as error:  # noqa: BLE001 - the search goes on
            self._problem(f"a fit is not recorded: {type(error).__name__}: {error}")
        self._n_fits += 1
        return self._fit

    def cannot_observe(self, search: Any, reason: str) -> None:
        """Note a search whose fit can only be recorded after its end, from ``cv_results_``.

        Raises
        ------
        UserError
            If a run is to be resumed: that needs the folds while they are computed.
        """
        if self._previous is not None:
            raise UserError(f"resume={self.run_id!r}: this search cannot be recorded live: {reason}")
        warn(f"the search is recorded when it has ended, not live: {reason}")
        self._finish_fit()
        self._describe(search)
        self._not_live.append((search, getattr(search, "cv_results_", None)))

    def close(self, error: BaseException | None, status: str, *, ends_run: bool) -> None:
        """Send everything to MLflow, retrying for at most ten seconds in all; the rest stays in the spool.

        Parameters
        ----------
        error : BaseException or None
            The exception that ended the search.
        status : str
            Final status of the search.
        ends_run : bool
            Whether to end the parent run.
        """
        if self._abandoned:
            return
        try:
            self._finish_fit(error)
            self._note_unobserved()
            for search, before in self._not_live:
                if getattr(search, "cv_results_", None) is not before:
                    fit = self.observe(search)
                    assert fit is not None
                    fit.results_before = before
                    record_after_fit(fit, search.cv_results_, self._started)
                    self._finish_fit(error)
        except Exception as failed:  # noqa: BLE001 - the search itself has succeeded
            self._problem(f"{type(failed).__name__}: {failed}")
        if self.is_cut and (error is None or isinstance(error, UserError)):
            status = "KILLED"  # to be resumed
        if self._n_fits == 0 and error is None:
            self._problem(
                "no fit of the search was seen; fit the search passed to record_search, or a clone of it, in the block "
                "and its thread"
            )
        seconds_left = 0.0
        try:
            seconds_left = self._flush()
        finally:
            if self._problems:
                self._writer.parent.set_tags({RECORDING_ERROR_TAG: "\n".join(self._problems)})
            if not self._writer.close(seconds_left, status, ends_run=ends_run):
                self._problem(missing_part(self._writer))
        for problem in [*self._problems, *self._writer.messages]:
            warn(problem)

    def _note_unobserved(self) -> None:
        """Record the search after its fit if none of its fits was observed."""
        results = getattr(self._search, "cv_results_", None)
        if self._n_fits or self._not_live or results is self._results_before or self._previous is not None:
            return
        warn(
            "the search is recorded when it has ended, not live: none of its fits was observed; fit it in the thread "
            f"of record_search, or, if it was, scikit-learn {version_of('scikit-learn')} is not supported"
        )
        self._describe(self._search)
        self._not_live.append((self._search, self._results_before))

    def _flush(self) -> float:
        """Write everything, the report last; return the seconds left to wait for MLflow."""
        seconds_left = self._writer.flush()
        self._write_recording_times()
        self._add_report()
        return seconds_left

    def _write_recording_times(self) -> None:
        """Write the time spent on recording, for fits that have been written."""
        numbers, self._unmeasured_fits = self._unmeasured_fits, []
        self._writer.parent.log_metrics(
            [(RECORDING_SECONDS_METRIC, self._writer.busy_seconds, time.time(), n) for n in numbers]
        )

    def _problem(self, text: str) -> None:
        if text not in self._problems:
            self._problems.append(text)

    def _remark(self, text: str) -> None:
        if text not in self._remarks:
            self._remarks.add(text)
            warn(text)

    def _store_manifest(self, manifest: Manifest) -> None:
        """Store a manifest verbatim, before the tags that refer to it."""
        if manifest.id in self._stored_manifests:
            return
        self._stored_manifests.add(manifest.id)
        text = manifest.text()
        if len(text) <= LONGEST_MANIFEST_TAG:
            self._writer.parent.write_verbatim({f"{MANIFEST_TAG_PREFIX}{manifest.id}": text})
        else:
            self._writer.parent.write_verbatim(artifacts={manifest.path: text})

    def _describe(self, search: Any) -> None:
        if self._is_described:
            return
        self._is_described = True
        late_params.add(self.run_id, search_params(search), self._parent_tags)
        tags = runs.run_tags("search")
        parent = self._writer.parent
        parent.write_verbatim({PROCESS_TAG: tags.pop(PROCESS_TAG)})  # overwrites an earlier process
        parent.log_if_missing("tags", tags)
        parent.set_tags(late_params.tag(self.run_id))
        self._writer.do(self._add_code)
        self._writer.do(functools.partial(present, self.run_id, search_name(search), self._writer.tracking_uri))
        self._writer.do(self._close_dead)

    def _add_code(self) -> None:
        if (patch := uncommitted_code.uncommitted()) is not None:
            self._writer.parent.log_code(patch)

    def _close_dead(self) -> None:
        with contextlib.suppress(Exception):  # left to the next recorded search
            ensure_reachable(self._writer.tracking_uri)
            close_dead(mlflow.MlflowClient(self._writer.tracking_uri), self._experiment_id)

    def _finish_fit(self, error: BaseException | None = None) -> None:
        """End the recording of the current fit."""
        fit, self._fit = self._fit, None
        if fit is None:
            return
        results = getattr(fit.search, "cv_results_", None)
        if results is fit.results_before:
            results = None
        if results is not None and not fit.is_understood:
            record_after_fit(fit, results, self._started)
        running = fit.running
        fit.finish(raised=results is None)
        self._note_skipped(fit)
        self._writer.parent.set_tags(fit.fold_cache.finish(fit.search))
        forget_models()
        if results is not None:
            self._write_results(fit, results)
        elif error is not None:
            tags = {ERROR_TAG: f"{type(error).__name__}: {error}"}
            if running:
                tags[WERE_RUNNING_TAG] = "\n".join(running)
            self._writer.parent.set_tags(tags)

    def _note_skipped(self, fit: SearchFit) -> None:
        """Tell how many fits were not computed."""
        if fit.skipping is None:
            return
        self._skipped[fit.number] = fit.skipping.sentences()
        self.is_cut |= fit.skipping.is_cut
        for sentence in self._skipped[fit.number]:
            log(sentence, name=__name__)

    def _write_results(self, fit: SearchFit, results: Mapping[str, Any]) -> None:
        """Write the results of a finished fit: ranks, the best candidate, times, ``cv_results.csv``."""
        now, parent = time.time(), self._writer.parent
        if self._previous is not None:
            parent.set_tags({FOLDS_TAKEN_OVER_TAG: str(fit.n_reused)})
        write_ranks(fit, results, now)
        write_summary(fit, parent, now)
        self._unmeasured_fits.append(fit.number)
        self._results[fit.number] = results = {**results, **seed_columns(fit.candidates, len(results["params"]))}
        if fit.is_understood:
            self._fit_times[fit.number] = fit_times(fit.candidates, len(results["params"]))
        parent.log_text(csv_path(fit.number), to_csv(results))

    def _add_report(self) -> None:
        """Draw and describe the results; at the end, so as not to slow down the fits."""
        if not self._with_report or not self._results:
            return
        started = time.perf_counter()
        try:
            from mlflow_hp.search.report import describe_search, draw_search  # loads Matplotlib

            fits = {number: self._results_of(number) for number in self._results}
            reviews = {number: self._review(number, results) for number, results in fits.items()}
            for path, text in review_files(fits, reviews, self._search.estimator.get_params()).items():
                self._writer.parent.log_text(path, text)
            description = describe_search(fits, reviews, self._skipped)
            self._writer.parent.log_if_missing("tags", {DESCRIPTION_TAG: description})
            draw_search(self._writer.report_folder, fits, self._about(), reviews)
            self._writer.parent.log_report()
        except Exception as error:  # noqa: BLE001 - the search itself has succeeded
            self._problem(f"pictures or description are missing: {type(error).__name__}: {error}")
        self._writer.parent.log_metrics([(REPORT_SECONDS_METRIC, time.perf_counter() - started, time.time(), 0)])

    def _results_of(self, number: int) -> SearchResults:
        """Results of a finished fit, by its number (0-based)."""
        results = self._results[number]
        return from_cv_results(results, self._ranking_scorer(results), self._fit_times.get(number))

    def _review(self, number: int, results: SearchResults) -> Review:
        """Review a fit, with the curves of Keras models as far as MLflow has them now."""
        curves = {}
        if "keras" in sys.modules:
            with contextlib.suppress(Exception):  # the server does not answer
                ensure_reachable(self._writer.tracking_uri)
                uri = self._writer.tracking_uri
                curves = within(runs.SECONDS_TO_ANSWER, lambda: curves_of(self.run_id, results, uri, fit=number))
        return review(results, curves=curves, fixed=self._search.estimator.get_params())

    def _about(self) -> str:
        """Name of the run, and kind of the search, for the small print of its pictures."""
        estimator = type(getattr(self._search, "estimator", None)).__name__
        kind = type(self._search).__name__ + (f" of {estimator}" if estimator != "NoneType" else "")
        return f"run {self._run_name} · {kind}" if self._run_name else kind

    def _ranking_scorer(self, results: Mapping[str, Any]) -> str | None:
        """The scorer named by `refit`; None if that is no scorer, as it may be with a single one."""
        refit = self._search.refit
        return refit if isinstance(refit, str) and f"mean_test_{refit}" in results else None


def _in_other_process(run_id: str) -> SearchRecording:
    """Make the copy of a recording for another process, where it records nothing."""
    recording = SearchRecording.__new__(SearchRecording)
    vars(recording).update(run_id=run_id, _abandoned=True, _fit=None)
    return recording
