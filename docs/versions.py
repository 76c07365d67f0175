"""Note with which versions the tests have passed: the test jobs of the Makefile call it when they have.

    python docs/versions.py "make test"   # note those of this Python's environment in docs/versions.json

A line is replaced only if a version differs, so a job that meets the same versions again changes nothing.
"""

from __future__ import annotations

import datetime as dt
import importlib.metadata
import json
import platform
import sys
from pathlib import Path
from typing import Any

FILE = Path(__file__).with_suffix(".json")
LIBRARIES = (
    "mlflow", "keras", "tensorflow", "scikeras", "scikit-learn", "numpy", "pandas", "scipy", "pyarrow", "matplotlib",
    "optuna", "distributed", "sqlalchemy",
)  # fmt: skip


def versions() -> dict[str, str]:
    """Return the versions of the libraries that are installed, by name."""
    installed = {}
    for name in LIBRARIES:
        try:
            installed[name] = importlib.metadata.version(name)
        except importlib.metadata.PackageNotFoundError:
            continue
    return installed


def noted(lines: list[dict[str, Any]], line: dict[str, Any]) -> list[dict[str, Any]]:
    """Put a line in the place of that of the same job and Python, unless nothing differs."""

    def key(one: dict[str, Any]) -> tuple[str, str]:
        return one["job"], one["python"].rpartition(".")[0]

    old = next((each for each in lines if key(each) == key(line)), None)
    if old is not None and {**old, "date": ""} == {**line, "date": ""}:
        return lines
    return sorted([*(each for each in lines if key(each) != key(line)), line], key=key)


def table(lines: list[dict[str, Any]]) -> str:
    """Write the lines as a table of Markdown: a column per job and Python."""
    if not lines:
        return "*No job has written a line yet.*"
    head = [f"`{each['job']}`, Python {each['python']}" for each in lines]
    rows = [["", *head], ["---"] * (len(lines) + 1), ["passed on", *(each["date"] for each in lines)]]
    rows += [["system", *(each["system"] for each in lines)]]
    rows += [[name, *(each["versions"].get(name, "") for each in lines)] for name in LIBRARIES]
    return "\n".join(f"| {' | '.join(row)} |" for row in rows)


def main(job: str) -> None:
    """Note the versions under the name of a job."""
    lines = json.loads(FILE.read_text(encoding="utf-8")) if FILE.exists() else []
    system = f"{platform.system()} {platform.machine()}"
    today = dt.datetime.now(dt.UTC).date().isoformat()
    line = {"job": job, "python": platform.python_version(), "date": today, "system": system, "versions": versions()}
    after = noted(lines, line)
    if after != lines:
        FILE.write_text(json.dumps(after, indent=1) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main(sys.argv[1])
