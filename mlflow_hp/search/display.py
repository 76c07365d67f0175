"""Recording of a search in a terminal and in a notebook: a few lines."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from mlflow_hp.tracking.params_and_tags import without_markup

if TYPE_CHECKING:
    from mlflow_hp.analysis.search_results import SearchResults


def recording_lines(run_id: str, search: Any, results: SearchResults | None) -> list[str]:
    """Write what a search is, where it is recorded, and its result, as far as it is known.

    Parameters
    ----------
    run_id : str
        Id of the parent run.
    search : BaseSearchCV or None
        The search; None in another process, which does not record it.
    results : SearchResults or None
        Results of its last fit; None before that has ended.

    Returns
    -------
    list of str
        Lines of plain text.
    """
    if search is None:
        return [f"SearchRecording of another process, run {run_id}"]
    lines = [f"SearchRecording of {type(search).__name__} of {type(search.estimator).__name__}, run {run_id}"]
    if results is None:
        return [*lines, "no fit has ended yet"]
    from mlflow_hp.search.report import result_sentence, search_sentences  # loads Matplotlib

    return [*lines, *(without_markup(line) for line in (result_sentence(results), *search_sentences(results)))]
