"""Validation of the journal of a search, before any of it is used."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from mlflow_hp.delivery.journal import JournalError

if TYPE_CHECKING:
    from collections.abc import Callable

    from mlflow_hp.delivery.journal import Entries, Record


def validated(entries: Entries) -> Entries:
    """Keep the entries before the first invalid record, and state the problem.

    Raises
    ------
    JournalError
        If the header is not that of a search.
    """
    for name, is_kind in _HEADER.items():
        if not is_kind(entries.header.get(name)):
            raise JournalError(f"not the journal of a search: its header has {name}={entries.header.get(name)!r:.100}")
    n_runs = 1
    for number, record in enumerate(entries.records):
        if not _is_valid(record, number, n_runs):
            problem = f"record {number} of the journal (0-based) is invalid: it and all later ones are left out"
            return entries._replace(records=entries.records[:number], problem=problem)
        n_runs += "open" in record or "known" in record
    return entries


def _is_valid(record: Record, number: int, n_runs: int) -> bool:
    if "run" not in record:
        return all(is_kind(record[name]) for name, is_kind in _OTHERS.items() if name in record)
    is_new = "open" in record or "known" in record
    if not _is_count(record["run"]) or record["run"] >= n_runs + is_new or (is_new and record["run"] != n_runs):
        return False
    if not all(is_kind(record[name]) for name, is_kind in _CHANGES.items() if name in record):
        return False
    numbers = [*record.get("ids", {}).values(), *([record["open"]["parent"]] if "open" in record else [])]
    return all(_is_count(each) and each < n_runs for each in numbers) and record.get("written", -1) < number


def _is_count(value: Any) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and value >= 0


def _is_number(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool)


def _is_text(value: Any) -> bool:
    return isinstance(value, str)


def _is_true(value: Any) -> bool:
    return value is True


def _are_texts(value: Any) -> bool:
    return isinstance(value, dict) and all(map(_is_text, value.values()))


def _are_points(value: Any) -> bool:
    return isinstance(value, list) and all(_fits(each, (_is_text, _is_number, _is_number, _is_step)) for each in value)


def _is_step(value: Any) -> bool:
    return isinstance(value, int) and not isinstance(value, bool)


def _are_choices(value: Any) -> bool:
    kinds = (lambda kind: kind in ("params", "tags"), _is_text, _is_text, _is_text_or_none, _is_text_or_none)
    return isinstance(value, list) and all(_fits(each, kinds) for each in value)


def _is_text_or_none(value: Any) -> bool:
    return value is None or isinstance(value, str)


def _is_opened(value: Any) -> bool:
    return _has(value, name=_is_text, start=_is_number, parent=_is_count)


def _is_known(value: Any) -> bool:
    return _has(value, name=_is_text, start=_is_number, run_id=_is_text) and value.keys() == {"name", "start", "run_id"}


def _is_end(value: Any) -> bool:
    return _fits(value, (_is_text, _is_number)) and value[0] in ("FINISHED", "FAILED", "KILLED")


def _is_ended(value: Any) -> bool:
    return _has(value, status=_is_text, time=_is_number) and _is_end([value["status"], value["time"]])


def _fits(values: Any, kinds: tuple[Callable[[Any], bool], ...]) -> bool:
    return isinstance(values, list) and len(values) == len(kinds) and all(
        is_kind(value) for is_kind, value in zip(kinds, values, strict=True)
    )  # fmt: skip


def _has(value: Any, **kinds: Callable[[Any], bool]) -> bool:
    return isinstance(value, dict) and all(is_kind(value.get(name)) for name, is_kind in kinds.items())


_HEADER = {
    "kind": lambda kind: kind == "search",
    "run_id": _is_text,
    "tracking_uri": _is_text,
    "process": _is_text,
    "before": _is_text_or_none,
    "experiment_id": _is_text,
    "name": _is_text,
    "start": _is_number,
    "common": _are_texts,
    "key": _is_text,
}
_OTHERS = {"ended": _is_ended, "done": _is_true}
_CHANGES = {
    "open": _is_opened,
    "known": _is_known,
    "run_id": _is_text,
    "start": _is_number,
    "params": _are_texts,
    "tags": _are_texts,
    "texts": _are_texts,
    "metrics": _are_points,
    "unless_there": _are_choices,
    "ids": lambda value: isinstance(value, dict),
    "code": _is_text,
    "report": _is_true,
    "go_on": _is_true,
    "end": _is_end,
    "refused": lambda value: isinstance(value, dict),
    "written": _is_count,
}
