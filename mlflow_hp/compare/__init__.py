"""Comparison of runs: what is comparable, what differs, and which differences matter.

A `RunSource` reads runs, `gather` turns them into `RunFacts`, `sections` describes them in words, tables and figures,
and `html_report.page` writes one HTML file. `compare_runs` does all of it and records the report as a run. The names
are imported on first use, so that the command line starts without MLflow.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from mlflow_hp._lazy import lazy_names

if TYPE_CHECKING:
    from mlflow_hp.compare.api import compare_runs as compare_runs
    from mlflow_hp.compare.compared_runs import gather as gather
    from mlflow_hp.compare.descents import surface_numbers as surface_numbers
    from mlflow_hp.compare.parts import PARTS as PARTS
    from mlflow_hp.compare.parts import sections as sections
    from mlflow_hp.compare.run_summary import RunFacts as RunFacts
    from mlflow_hp.compare.section import RunCell as RunCell
    from mlflow_hp.compare.section import Section as Section
    from mlflow_hp.compare.section import Table as Table
    from mlflow_hp.compare.section import to_json as to_json
    from mlflow_hp.compare.source import RunSource as RunSource
    from mlflow_hp.compare.source import open_source as open_source

_MODULES = {
    "PARTS": "parts",
    "RunCell": "section",
    "RunFacts": "run_summary",
    "Section": "section",
    "RunSource": "source",
    "Table": "section",
    "compare_runs": "api",
    "gather": "compared_runs",
    "open_source": "source",
    "sections": "parts",
    "surface_numbers": "descents",
    "to_json": "section",
}

__all__ = [
    "PARTS",
    "RunCell",
    "RunFacts",
    "RunSource",
    "Section",
    "Table",
    "compare_runs",
    "gather",
    "open_source",
    "sections",
    "surface_numbers",
    "to_json",
]

__getattr__, __dir__ = lazy_names(__name__, _MODULES)
