"""What runs of a team have in common, what differs, and which of it matters: neutral results, and the report.

The flow: a `Source` reads, `gather` makes `RunFacts` of runs, `sections` says in words, tables and figures what they
show, and `html_report.page` makes one file of that; `compare_runs` does all of it, and records it as a run. The names
are handed on when they are first used: the command line is declared without MLflow.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from mlflow_hp._lazy import handed_on

if TYPE_CHECKING:
    from mlflow_hp.compare.api import compare_runs as compare_runs
    from mlflow_hp.compare.descents import surface_numbers as surface_numbers
    from mlflow_hp.compare.parts import PARTS as PARTS
    from mlflow_hp.compare.parts import sections as sections
    from mlflow_hp.compare.run_summary import RunFacts as RunFacts
    from mlflow_hp.compare.run_summary import gather as gather
    from mlflow_hp.compare.section import RunCell as RunCell
    from mlflow_hp.compare.section import Section as Section
    from mlflow_hp.compare.section import Table as Table
    from mlflow_hp.compare.section import to_json as to_json
    from mlflow_hp.compare.source import Source as Source
    from mlflow_hp.compare.source import open_source as open_source

_HOMES = {
    "PARTS": "parts",
    "RunCell": "section",
    "RunFacts": "run_summary",
    "Section": "section",
    "Source": "source",
    "Table": "section",
    "compare_runs": "api",
    "gather": "run_summary",
    "open_source": "source",
    "sections": "parts",
    "surface_numbers": "descents",
    "to_json": "section",
}

__all__ = [
    "PARTS",
    "RunCell",
    "RunFacts",
    "Section",
    "Source",
    "Table",
    "compare_runs",
    "gather",
    "open_source",
    "sections",
    "surface_numbers",
    "to_json",
]

__getattr__, __dir__ = handed_on(__name__, _HOMES)
