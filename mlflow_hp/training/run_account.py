"""Account of a recorded run, as data and in lines: what it is, its settings, result, findings and page."""

from __future__ import annotations

import contextlib
from pathlib import Path
from typing import TYPE_CHECKING, Any

import mlflow
from mlflow.exceptions import MlflowException

from mlflow_hp.errors import UserError
from mlflow_hp.run_page.summary import findings_from, summary
from mlflow_hp.tracking.artifact_paths import DIAGNOSIS_FILE, REVIEW_FILE
from mlflow_hp.tracking.params_and_tags import without_markup
from mlflow_hp.tracking.redaction import masked
from mlflow_hp.tracking.server_health import ensure_reachable
from mlflow_hp.tracking.server_page import LOCAL_SERVER, address_at, page_address
from mlflow_hp.training.run_diagnosis import diagnose

if TYPE_CHECKING:
    from mlflow_hp.analysis import Finding

MAX_PARAMS = 12
"""Params that the lines show; those that matter come first."""


def describe_run(run_id: str, tracking_uri: str | None = None) -> dict[str, Any]:
    """Describe a recorded run for programs.

    Parameters
    ----------
    run_id : str
        Id of the run.
    tracking_uri : str, optional
        Tracking store of the run. Defaults to the current tracking URI.

    Returns
    -------
    dict of str to object
        As of `mlflow_hp.run_page.summary.summary`, secrets masked, and ``page``, the address of its page, or None.

    Raises
    ------
    UserError
        If the store does not answer, or has no such run.

    Examples
    --------
    >>> import mlflow
    >>> from mlflow_hp.training import describe_run
    >>> with mlflow.start_run(run_name="baseline") as run:
    ...     _ = mlflow.log_param("learning_rate", 0.1)
    >>> describe_run(run.info.run_id)["settings"]
    [['learning_rate', '0.1']]
    """
    ensure_reachable(tracking_uri)
    try:
        run = mlflow.MlflowClient(tracking_uri).get_run(run_id)
    except MlflowException as error:
        raise UserError(
            f"run {run_id!r} is not in the tracking store {masked(tracking_uri or mlflow.get_tracking_uri())}: check "
            "the id (all 32 characters), and the store with MLFLOW_TRACKING_URI"
        ) from error
    account = summary(run, _findings(run_id, tracking_uri))
    for group in ("params", "settings"):
        account[group] = [[name, masked(value, name)] for name, value in account[group]]
    return {**_masked(account), "page": page_address(run_id, tracking_uri)}


def _masked(value: Any) -> Any:
    """Mask the secrets in all texts of a value for JSON."""
    if isinstance(value, dict):
        return {name: _masked(each) for name, each in value.items()}
    if isinstance(value, list):
        return [_masked(each) for each in value]
    return masked(value) if isinstance(value, str) else value


def _findings(run_id: str, tracking_uri: str | None) -> list[Finding]:
    """Findings that the run holds, also while it runs; else those of its best nested run; none if there are none."""
    for name in (DIAGNOSIS_FILE, REVIEW_FILE):
        with contextlib.suppress(MlflowException, OSError, ValueError):
            path = mlflow.artifacts.download_artifacts(run_id=run_id, artifact_path=name, tracking_uri=tracking_uri)
            return findings_from(Path(path).read_text(encoding="utf-8"))
    try:
        return diagnose(run_id, tracking_uri)
    except UserError:
        return []


def account_lines(account: dict[str, Any]) -> list[str]:
    """Write the account of a run in lines, for a terminal.

    Parameters
    ----------
    account : dict of str to object
        As `describe_run` returns.

    Returns
    -------
    list of str
        Plain text, the result before the findings.

    Examples
    --------
    >>> import mlflow
    >>> from mlflow_hp.training import account_lines, describe_run
    >>> with mlflow.start_run(run_name="baseline") as run:
    ...     _ = mlflow.log_param("learning_rate", 0.1)
    >>> account_lines(describe_run(run.info.run_id))[2]
    'settings: learning_rate 0.1'
    """
    run, params = account["run"], account["params"]
    kind = run["kind"] or "run"
    lines = [f"{run['name']}: {kind}, {run['status'].lower()}, by {run['author']}", f"run {run['id']}"]
    if params:
        n_more = len(params) - MAX_PARAMS
        more = f", and {n_more} more" if n_more > 0 else ""
        lines.append(f"settings: {', '.join(f'{name} {value}' for name, value in params[:MAX_PARAMS])}{more}")
    if account["counts"]:
        lines.append(f"candidates: {', '.join(f'{count} {name}' for name, count in account['counts'].items())}")
    if account["best"]:
        lines.append(f"best: {account['best']['name']}, run {account['best']['id']}")
    if account["result"]:
        lines.append(f"result: {without_markup(account['result'])}")
    for severity in ("problem", "hint"):
        chosen = [each for each in account["findings"] if each["severity"] == severity and each["name"] != "next_try"]
        lines += [f"{severity}: {each['verdict']}: {each['text']}" for each in chosen]
    lines += [
        f"what to try: {each['suggestion'] or each['text']}"
        for each in account["findings"]
        if each["name"] == "next_try"
    ]
    if account["trouble"]:
        lines += [f"the recording is incomplete: {line}" for line in account["trouble"].splitlines()]
    if account["command"]:
        lines.append(f"to follow the advice: {account['command']}")
    return lines


def where_it_is(account: dict[str, Any]) -> str:
    """Say where the page of a run is, or how to get it.

    Parameters
    ----------
    account : dict of str to object
        As `describe_run` returns.

    Returns
    -------
    str
        One line.
    """
    if account["page"]:
        return f"page: {account['page']}"
    return f"page: start `mlflow-hp ui`, then open {address_at(LOCAL_SERVER, account['run']['id'])}"
