"""Validation of the journal of a training, before any of it is used."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from mlflow_hp.delivery.journal import JournalError
from mlflow_hp.delivery.metric_selection import METRICS

if TYPE_CHECKING:
    from mlflow_hp.delivery.journal import Entries, Record


def validated(entries: Entries) -> Entries:
    """Keep the entries before the first invalid record, and state the problem; unknown kinds of records are valid.

    Raises
    ------
    JournalError
        If the header is not that of a training.
    """
    for name, is_kind in _HEADER.items():
        value = entries.header.get(name, _DEFAULTS.get(name))
        if not is_kind(value):
            raise JournalError(f"not a training journal: its header has {name}={value!r:.100}")
    for number, record in enumerate(entries.records):
        if not all(is_kind(record) for name, is_kind in _RECORDS.items() if name in record):
            problem = f"record {number} of the journal (0-based) is invalid: it and all later ones are left out"
            n_acknowledged = min(number, entries.n_acknowledged)
            return entries._replace(records=entries.records[:number], n_acknowledged=n_acknowledged, problem=problem)
    return entries


def _is_count(value: Any) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and value >= 0


def _is_text(value: Any) -> bool:
    return isinstance(value, str)


def _are_texts(values: Any) -> bool:
    return isinstance(values, dict) and all(isinstance(value, str) for value in values.values())


def _is_chunk(record: Record) -> bool:
    chunk = record["chunk"]
    return isinstance(chunk, dict) and _is_count(chunk.get("rows")) and _is_count(chunk.get("end"))


def _is_epoch(record: Record) -> bool:
    row = record["epoch"]
    return _are_numbers(row) and _is_count(row.get("epoch")) and _is_count(record.get("time"))


def _is_description(record: Record) -> bool:
    return _are_texts(record["params"]) and _are_texts(record.get("tags"))


def _is_end(record: Record) -> bool:
    return isinstance(record["ended"], dict) and isinstance(record["ended"].get("whole"), bool)


def _is_shift(record: Record) -> bool:
    shift = record["shift"]
    return isinstance(shift, list) and len(shift) == len(("fit", "step", "epoch")) and all(map(_is_count, shift))


def _is_best(record: Record) -> bool:
    best = record["best"]
    are_known = isinstance(best, dict) and _is_count(best.get("epoch")) and _is_text(best.get("by"))
    return are_known and _are_numbers(best.get("values")) and isinstance(best.get("kept_value"), int | float | None)


def _are_numbers(values: Any) -> bool:
    return isinstance(values, dict) and all(isinstance(value, int | float) for value in values.values())


def _are_data_sets(record: Record) -> bool:
    data_sets = record["data_sets"]
    return isinstance(data_sets, dict) and all(
        isinstance(fields, list) and [type(field) for field in fields] == [str, dict, dict]
        for fields in data_sets.values()
    )


_HEADER = {
    "run_id": _is_text,
    "tracking_uri": _is_text,
    "process": _is_text,
    "fit": _is_count,
    "first_step": _is_count,
    "first_epoch": _is_count,
    "metrics_every": lambda value: _is_count(value) and value > 0,
    "metrics": lambda value: value in METRICS,
    "max_points": lambda value: value is None or _is_count(value),
    "n_steps": lambda value: value is None or _is_count(value),
    "report": lambda value: isinstance(value, bool),
}
_DEFAULTS = {"first_step": 0, "first_epoch": 0, "metrics": "all"}
"""Values of what the headers of earlier versions lack."""
_RECORDS = {
    "chunk": _is_chunk,
    "epoch": _is_epoch,
    "params": _is_description,
    "ended": _is_end,
    "shift": _is_shift,
    "best": _is_best,
    "data_sets": _are_data_sets,
}
