"""What is recorded of the fits of one search: its parent run."""

from __future__ import annotations

import csv
import io
import json
import numbers
import time
from typing import TYPE_CHECKING, Any

import joblib
import mlflow
import numpy as np

from mlflow_hp import runs
from mlflow_hp.errors import UserError
from mlflow_hp.forks import abandon_in_child
from mlflow_hp.late_params import late_params
from mlflow_hp.masking import masked
from mlflow_hp.notice import warn
from mlflow_hp.process import this_process
from mlflow_hp.search.afterwards import follow_afterwards
from mlflow_hp.search.describe import param_values, score_name, search_params
from mlflow_hp.search.follow import SearchFit
from mlflow_hp.search.memory import Memory
from mlflow_hp.search.past import close_dead
from mlflow_hp.search.results import from_cv_results
from mlflow_hp.search.reuse import forget_models
from mlflow_hp.search.writer import PATIENCE_SECONDS, Writer

if TYPE_CHECKING:
    from collections.abc import Mapping

    from mlflow_hp.search.past import Past


class SearchRecording:
    """What is recorded of the fits of one search.

    Attributes
    ----------
    run_id : str
        The parent run.
    """

    def __init__(
        self,
        search: Any,
        parent: mlflow.entities.Run,
        past: Past | None,
        settings: Mapping[str, Any],
        *,
        report: bool,
    ) -> None:
        self.run_id = parent.info.run_id
        self._search = search
        self._past = past
        self._experiment_id = parent.info.experiment_id
        self._tagged = parent.data.tags
        self._remarks: set[str] = set()
        self._settings = {**settings, "problem": self._problem, "remark": self._remark}
        self._with_report = report
        self._found: dict[int, Mapping[str, Any]] = {}
        self._writer = Writer(parent)
        self._began = time.time()
        self._problems: list[str] = []
        self._fit: SearchFit | None = None
        self._n_fits = 0
        self._described = False
        self._afterwards: list[tuple[Any, Any]] = []
        self._digest: str | None = None
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
        """Whether `search` is the one given, or a clone of it."""
        if self._abandoned:
            return False
        return search is self._search or (type(search) is type(self._search) and self._is_clone(search))

    def _is_clone(self, search: Any) -> bool:
        try:
            self._digest = self._digest or joblib.hash(self._search.get_params(deep=False))
            return joblib.hash(search.get_params(deep=False)) == self._digest
        except Exception:  # noqa: BLE001 - parameters that can't be pickled can't be compared
            return False

    def follow(self, search: Any) -> SearchFit | None:
        """A fit begins; None where something is in the way of its record."""
        try:
            self._finish()
            self._describe(search)
            memory = Memory(search, self._n_fits, self._past, self._tagged)
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

    def close(self, error: BaseException | None = None) -> None:
        """Bring everything to MLflow; an `error` ended the search."""
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
                "record_search, or a clone of it whose parameters can be pickled"
            )
        self._writer.flush(patience=PATIENCE_SECONDS)
        self._show()
        if self._writer.error is not None:
            why = self._writer.error
            self._problem(f"MLflow does not have everything: {type(why).__name__}: {why}")
        if self._problems:
            self._writer.parent.tags({"mlflow_hp.recording_error": "\n".join(self._problems)})
        self._writer.flush(stop=True)
        for problem in self._problems:
            warn(problem)

    def _problem(self, said: str) -> None:
        if said not in self._problems:
            self._problems.append(said)

    def _remark(self, said: str) -> None:
        if said not in self._remarks:
            self._remarks.add(said)
            warn(said)

    def _describe(self, search: Any) -> None:
        if self._described:
            return
        self._described = True
        late_params.add(self.run_id, search_params(search), self._tagged)
        self._writer.parent.tags(late_params.tag(self.run_id))

        def describe() -> None:
            client, tags = (
                mlflow.MlflowClient(self._writer.tracking_uri),
                runs.run_tags("search", process=this_process()),
            )
            have = client.get_run(self.run_id).data
            self._writer.parent.tags({k: v for k, v in tags.items() if k not in have.tags})
            runs.log_code(self.run_id, self._writer.tracking_uri)
            close_dead(client, self._experiment_id)

        self._writer.do(describe)

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
        self._writer.do(lambda: self._conclude(fit, now))
        self._found[fit.number] = results
        parent.text("cv_results.csv" if fit.number == 0 else f"fit_{fit.number}/cv_results.csv", _csv(results))

    def _conclude(self, fit: SearchFit, at: float) -> None:
        """Tell which combination is the best, and what took how long."""
        parent = self._writer.parent
        numbers = {
            "fit_seconds": fit.fit_seconds,
            "score_seconds": fit.score_seconds,
            "refit_seconds": getattr(fit.search, "refit_time_", None),
            "recording_seconds": self._writer.busy_seconds,
            "best_score": getattr(fit.search, "best_score_", None),
        }
        parent.metrics([(k, float(v), at, fit.number) for k, v in numbers.items() if v is not None])
        best = fit.candidates.get(int(getattr(fit.search, "best_index_", -1)))
        if best is not None and best.run.run_id is not None:
            params = json.dumps(param_values(best.params))
            tags = {"best": best.run.name, "best_params": params, "best_run_id": best.run.run_id}
            parent.tags({f"mlflow_hp.{name}": value for name, value in tags.items()})

    def _show(self) -> None:
        """Draw and describe what the search found; not while its fits are computed, which would slow them down."""
        if not self._with_report or not self._found or self._writer.error is not None:
            return
        began = time.perf_counter()
        try:
            from mlflow_hp.search.report import report_search  # draws: Matplotlib comes with it

            refit = self._search.refit
            scorer = refit if isinstance(refit, str) else None
            found = {number: from_cv_results(results, scorer) for number, results in self._found.items()}
            report_search(self.run_id, found)
        except Exception as error:  # noqa: BLE001 - the user's search has gone well
            self._problem(f"pictures or description are missing: {type(error).__name__}: {error}")
        self._writer.parent.metrics([("report_seconds", time.perf_counter() - began, time.time(), 0)])


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
        "" if value is None else value if isinstance(value, numbers.Number) else masked(str(value), name)
        for value in values
    ]
