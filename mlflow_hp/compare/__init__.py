"""What runs of a team have in common, what differs, and which of it matters: neutral results, and the report.

The flow: a `Source` reads, `gather` makes `RunFacts` of runs, `sections` says in words, tables and figures what they
show, and `html.page` makes one file of that; `compare_runs` does all of it, and records it as a run. The names are
handed on when they are first used: the command line is declared without MLflow.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from mlflow_hp.compare.comparison import PARTS as PARTS
    from mlflow_hp.compare.comparison import sections as sections
    from mlflow_hp.compare.facts import RunFacts as RunFacts
    from mlflow_hp.compare.facts import gather as gather
    from mlflow_hp.compare.record import compare_runs as compare_runs
    from mlflow_hp.compare.section import RunCell as RunCell
    from mlflow_hp.compare.section import Section as Section
    from mlflow_hp.compare.section import Table as Table
    from mlflow_hp.compare.section import to_json as to_json
    from mlflow_hp.compare.source import Source as Source
    from mlflow_hp.compare.source import open_source as open_source
    from mlflow_hp.compare.thinning import Points as Points

_HOMES = {
    "PARTS": "comparison",
    "Points": "thinning",
    "RunCell": "section",
    "RunFacts": "facts",
    "Section": "section",
    "Source": "source",
    "Table": "section",
    "compare_runs": "record",
    "gather": "facts",
    "open_source": "source",
    "sections": "comparison",
    "to_json": "section",
}


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}; it has {', '.join(_HOMES)}")
    return getattr(import_module(f"{__name__}.{_HOMES[name]}"), name)


def __dir__() -> list[str]:
    return sorted([*globals(), *_HOMES])
