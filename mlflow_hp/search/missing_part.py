"""Warning that MLflow lacks a part of a recorded search."""

from __future__ import annotations

from typing import TYPE_CHECKING

from mlflow_hp.tracking.server_health import reason

if TYPE_CHECKING:
    from mlflow_hp.delivery.search_sender import SearchSender


def missing_part(writer: SearchSender) -> str:
    """Say that MLflow lacks a part of a search: the reason, and where the part is.

    Parameters
    ----------
    writer : SearchSender
        The closed sender of the search.

    Returns
    -------
    str
        Text of the warning.
    """
    error, spool = writer.error, writer.spool
    cause = "it does not answer" if error is None else f"{type(error).__name__}: {reason(error)}"
    if spool.folder is None or spool.trouble is not None:
        return f"MLflow lacks a part of the search of run {writer.run_id}, which is lost: {cause}"
    return (
        f"MLflow lacks a part of the search of run {writer.run_id} ({cause}); `mlflow-hp recover`, or the next "
        f"search or training recorded on this machine, sends it from {spool.folder}"
    )
