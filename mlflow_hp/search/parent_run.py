"""What is recorded of the fits of one search: its parent run."""

from __future__ import annotations

import contextlib
import csv
import io
import json
import numbers
import time
from typing import TYPE_CHECKING, Any

import mlflow
import numpy as np

from mlflow_hp._forks import abandon_in_child
from mlflow_hp._notice import warn
from mlflow_hp.analysis.search_results import from_cv_results
from mlflow_hp.analysis.search_space import any_text
from mlflow_hp.delivery.late_params import late_params
from mlflow_hp.delivery.outbox import reason
from mlflow_hp.delivery.run_writer import Writer
from mlflow_hp.errors import UserError
from mlflow_hp.search.live.after_fit import follow_afterwards
from mlflow_hp.search.live.family import Family
from mlflow_hp.search.live.observer import SearchFit
from mlflow_hp.search.naming import param_values, score_name, search_params
from mlflow_hp.search.resume.fold_cache import Memory
from mlflow_hp.search.resume.manifest import LONGEST_TAG, TAG
from mlflow_hp.search.resume.previous_run import PROCESS, close_dead
from mlflow_hp.search.speedups.model_reuse import forget_models
from mlflow_hp.tracking import provenance, runs
from mlflow_hp.tracking.params_and_tags import DESCRIPTION
from mlflow_hp.tracking.redaction import masked
from mlflow_hp.tracking.server_health import ensure_reachable

if TYPE_CHECKING:
    from collections.abc import Mapping

    from mlflow_hp.search.resume.manifest import Manifest
    from mlflow_hp.search.resume.previous_run import Past


class SearchRecording:
    """What is recorded of the fits of one search.

    Attributes
    ----------
    run_id : str
        The parent run.
    family : Family
        The search and its clones.
    """

    def __init__(
        self,
        search: Any,
        parent: mlflow.entities.Run,
        past: Past | None,
        settings: Mapping[str, Any],
        *,
        report: bool,
        is_owned: bool = False,
    ) -> None:
        self.run_id = parent.info.run_id
        self._search = search
        self._past = past
        self._experiment_id = parent.info.experiment_id
        self._tagged = parent.data.tags
        self._remarks: set[str] = set()
        self._kept: set[str] = set()
        self._settings = {**settings, "problem": self._problem, "remark": self._remark}
        self._with_report = report
        self._found: dict[int, Mapping[str, Any]] = {}
        self._writer = Writer(parent, self._remark, is_owned=is_owned)
        self._began = time.time()
        self._problems: list[str] = []
        self._fit: SearchFit | None = None
        self._n_fits = 0
        self._described = False
        self._unmeasured: list[int] = []
        self._afterwards: list[tuple[Any, Any]] = []
        self.family = Family(search)
        self._abandoned = False
        abandon_in_child(self)
        late_params.add(self.run_id, {}, self._tagged)

    def abandon(self) -> None:
        """In a forked child: the search is the parent's to record."""
        self._fit, self._abandoned = None, True

    def __reduce__(self) -> tuple[Any, ...]:
        """Pickle as the id of the parent run: what records is in this process alone."""
        return _elsewhere, (self.run_id,)

    def wants(self, search: Any) -> bool:
        """Whether `search` is the one given, or a copy of it."""
        return not self._abandoned and search in self.family

    def follow(self, search: Any) -> SearchFit | None:
        """A fit begins; None where something is in the way of its record."""
        try:
            self._finish()
            self._measure()
            self._describe(search)
            memory = Memory(search, self._n_fits, self._past, self._tagged, keep=self._keep, remark=self._remark)
            self._writer.parent.tags(memory.tags)
            self._fit = SearchFit(search, self._writer, self._n_fits, memory, **self._settings)
        except Exception as error:  # noqa: BLE001 - the search goes on
            self._problem(f"a fit is not recorded: {type(error).__name__}: {error}")
        self._n_fits += 1
        return self._fit

    def cannot_follow(self, search: Any, reason: str) -> None:
        """A fit begins, or may begin, that can only be recorded when it has ended."""
        if self._past is not None:
            raise UserError(f"resume={self.run_id!r}: this search can't be followed while it runs: {reason}")
        warn(f"the search is recorded when it has ended, not live: {reason}")
        self._finish()
        self._describe(search)
        self._afterwards.append((search, getattr(search, "cv_results_", None)))

    def close(self, error: BaseException | None, status: str, *, ends_run: bool) -> None:
        """Bring everything to MLflow; where that does not take it, for ten seconds in all: the rest is kept here.

        Parameters
        ----------
        error : BaseException or None
            What ended the search.
        status : str
            The state in which it ended.
        ends_run : bool
            Whether the parent run ends with it.
        """
        if self._abandoned:
            return
        try:
            self._finish(error)
            for search, before in self._afterwards:
                if getattr(search, "cv_results_", None) is not before:
                    fit = self.follow(search)
                    assert fit is not None
                    fit.results_before = before
                    follow_afterwards(fit, search.cv_results_, self._began)
                    self._finish(error)
        except Exception as failed:  # noqa: BLE001 - the user's search has gone well
            self._problem(f"{type(failed).__name__}: {failed}")
        if self._n_fits == 0 and error is None:
            self._problem(
                "no fit of the search was seen; fit the search that was given, in the thread and the block of "
                "record_search, or a clone of it"
            )
        left = 0.0
        try:
            left = self._write_out()
        finally:
            if self._problems:
                self._writer.parent.tags({"mlflow_hp.recording_error": "\n".join(self._problems)})
            if not self._writer.close(left, status, ends_run=ends_run):
                self._problem(self._lacking())
        for problem in [*self._problems, *self._writer.said]:
            warn(problem)

    def _write_out(self) -> float:
        """Have the report written, after the rest; gives for how many seconds MLflow may still be waited for."""
        left = self._writer.flush()
        self._measure()
        self._show()
        return left

    def _measure(self) -> None:
        """Have it written how long the fits took that have been written."""
        numbers, self._unmeasured = self._unmeasured, []
        self._writer.parent.metrics([("recording_seconds", self._writer.busy_seconds, time.time(), n) for n in numbers])

    def _lacking(self) -> str:
        """What MLflow lacks, why, and where it is."""
        error, spool = self._writer.error, self._writer.spool
        said = "it does not answer" if error is None else f"{type(error).__name__}: {reason(error)}"
        if spool.folder is None or spool.trouble is not None:
            return f"MLflow lacks a part of the search of run {self.run_id}, which is lost: {said}"
        return (
            f"MLflow lacks a part of the search of run {self.run_id} ({said}); `mlflow-hp recover`, or the next search "
            f"or training that is recorded on this machine, brings it there from {spool.folder}"
        )

    def _problem(self, said: str) -> None:
        if said not in self._problems:
            self._problems.append(said)

    def _remark(self, said: str) -> None:
        if said not in self._remarks:
            self._remarks.add(said)
            warn(said)

    def _keep(self, manifest: Manifest) -> None:
        """Have a manifest written verbatim, before what is noted after it."""
        if manifest.id in self._kept:
            return
        self._kept.add(manifest.id)
        text = manifest.text()
        if len(text) <= LONGEST_TAG:
            self._writer.parent.keep({f"{TAG}{manifest.id}": text})
        else:
            self._writer.parent.keep(texts={manifest.path: text})

    def _describe(self, search: Any) -> None:
        if self._described:
            return
        self._described = True
        late_params.add(self.run_id, search_params(search), self._tagged)
        tags = runs.run_tags("search")
        parent = self._writer.parent
        parent.keep({PROCESS: tags.pop(PROCESS)})  # of who records it now, whatever it said of an earlier one
        parent.unless_there("tags", tags)
        parent.tags(late_params.tag(self.run_id))
        self._writer.do(self._look_at_code)
        self._writer.do(self._close_dead)

    def _look_at_code(self) -> None:
        if (patch := provenance.uncommitted()) is not None:
            self._writer.parent.code(patch)

    def _close_dead(self) -> None:
        with contextlib.suppress(Exception):  # the next search that is recorded does
            ensure_reachable(self._writer.tracking_uri)
            close_dead(mlflow.MlflowClient(self._writer.tracking_uri), self._experiment_id)

    def _finish(self, error: BaseException | None = None) -> None:
        """End the fit that is being followed."""
        fit, self._fit = self._fit, None
        if fit is None:
            return
        results = getattr(fit.search, "cv_results_", None)
        if results is fit.results_before:
            results = None
        running = fit.running
        fit.finish(raised=results is None)
        self._writer.parent.tags(fit.memory.left(fit.search))
        forget_models()
        if results is not None:
            self._report(fit, results)
        elif error is not None:
            tags = {"error": f"{type(error).__name__}: {error}"}
            if running:
                tags["were_running"] = "\n".join(running)
            self._writer.parent.tags({f"mlflow_hp.{name}": value for name, value in tags.items()})

    def _report(self, fit: SearchFit, results: Mapping[str, Any]) -> None:
        """Tell what a search found that has ended."""
        now, parent = time.time(), self._writer.parent
        if self._past is not None:
            parent.tags({"mlflow_hp.folds_taken_over": str(fit.n_known)})
        for index, candidate in fit.candidates.items():
            ranks = {k: results[k][index] for k in results if k.startswith("rank_test_")}
            points = [(score_name(k.removeprefix("rank_test_"), "rank"), float(v), now, 0) for k, v in ranks.items()]
            if "n_resources" in results:
                points.append(("n_resources", float(results["n_resources"][index]), now, 0))
            candidate.run.metrics(points)
        self._conclude(fit, now)
        self._found[fit.number] = results
        parent.text("cv_results.csv" if fit.number == 0 else f"fit_{fit.number}/cv_results.csv", _csv(results))

    def _conclude(self, fit: SearchFit, at: float) -> None:
        """Tell which combination is the best, and what took how long."""
        parent = self._writer.parent
        numbers = {
            "fit_seconds": fit.fit_seconds,
            "score_seconds": fit.score_seconds,
            "refit_seconds": getattr(fit.search, "refit_time_", None),
            "best_score": getattr(fit.search, "best_score_", None),
        }
        parent.metrics([(k, float(v), at, fit.number) for k, v in numbers.items() if v is not None])
        self._unmeasured.append(fit.number)
        best = fit.candidates.get(int(getattr(fit.search, "best_index_", -1)))
        if best is not None:
            tags = {"best": best.run.name, "best_params": json.dumps(param_values(best.params))}
            parent.tags({f"mlflow_hp.{name}": value for name, value in tags.items()})
            parent.tag_id("mlflow_hp.best_run_id", best.run)

    def _show(self) -> None:
        """Draw and describe what the search found; not while its fits are computed, which would slow them down."""
        if not self._with_report or not self._found:
            return
        began = time.perf_counter()
        try:
            from mlflow_hp.search.report import describe_search, draw_search  # Matplotlib comes with it

            found = {
                number: from_cv_results(results, self._ranks_by(results)) for number, results in self._found.items()
            }
            self._writer.parent.unless_there("tags", {DESCRIPTION: describe_search(found)})
            draw_search(self._writer.report_folder, found)
            self._writer.parent.report()
        except Exception as error:  # noqa: BLE001 - the user's search has gone well
            self._problem(f"pictures or description are missing: {type(error).__name__}: {error}")
        self._writer.parent.metrics([("report_seconds", time.perf_counter() - began, time.time(), 0)])

    def _ranks_by(self, results: Mapping[str, Any]) -> str | None:
        """The scorer that `refit` names; it may name anything where there is one scorer alone."""
        refit = self._search.refit
        return refit if isinstance(refit, str) and f"mean_test_{refit}" in results else None


def _elsewhere(run_id: str) -> SearchRecording:
    """A recording as another process has it: it records nothing."""
    recording = SearchRecording.__new__(SearchRecording)
    recording.run_id, recording._abandoned, recording._fit = run_id, True, None
    return recording


def _csv(results: Mapping[str, Any]) -> str:
    """``cv_results_`` as a table: a row for each combination, empty where it has no such parameter."""
    columns = {name: _cells(name, np.ma.asarray(values, dtype=object).tolist()) for name, values in results.items()}
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(columns)
    writer.writerows(zip(*columns.values(), strict=True))
    return text.getvalue()


def _cells(name: str, values: list[Any]) -> list[Any]:
    """A column, without secrets: what is masked by the name of a parameter can't be by its place in a table."""
    name = name.removeprefix("param_")
    return [
        "" if value is None else value if isinstance(value, numbers.Number) else masked(any_text(value), name)
        for value in values
    ]
