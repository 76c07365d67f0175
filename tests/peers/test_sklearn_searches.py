"""scikit-learn's own tests of its searches, with every search recorded: those that pass without it pass with it."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path
from xml.etree import ElementTree as ET

import pytest

ROOT = Path(__file__).parents[2]
SUITES = {"test_search": 100, "test_successive_halving": 30}
"""Modules of ``sklearn.model_selection.tests``, and how many fits are recorded in each at least."""

NOT_RECORDED: dict[str, str] = {}
"""Tests that can't pass with a recorded search, by design: name -> why."""


def run(suite, folder, *arguments):
    """Run tests of a suite as scikit-learn's developers do; the names of those that failed, and the output."""
    folder.mkdir()
    (folder / "pytest.ini").write_text("[pytest]\n")  # ours has warnings be errors
    words = ["-m", "pytest", "-q", "-c", "pytest.ini", "-p", "no:cacheprovider", "--junitxml", "junit.xml", *arguments]
    words += ["--pyargs", f"sklearn.model_selection.tests.{suite}"]
    kept = {
        k: v for k, v in os.environ.items() if not k.startswith(("PYTEST_", "MLFLOW_EXPERIMENT", "MLFLOW_TRACKING"))
    }
    paths = [ROOT, kept.get("PYTHONPATH", "")]
    kept["PYTHONPATH"] = os.pathsep.join(map(str, paths))
    kept |= {"MLFLOW_HP_FOLDER": str(folder / "on-its-way"), "OMP_NUM_THREADS": "1"}
    done = subprocess.run([sys.executable, *words], cwd=folder, env=kept, capture_output=True, text=True)
    assert done.returncode in (0, 1), done.stdout[-3000:] + done.stderr[-3000:]
    cases = ET.parse(folder / "junit.xml").iter("testcase")  # noqa: S314 - pytest has just written it
    return {case.attrib["name"] for case in cases if {"failure", "error"} & {part.tag for part in case}}, done.stdout


@pytest.mark.thorough
@pytest.mark.slow
@pytest.mark.timeout(1200)
@pytest.mark.parametrize("suite", SUITES)
def test_passes_with_every_search_recorded(suite, tmp_path):
    failed, output = run(suite, tmp_path / "recorded", "-p", "tests.helpers.recorded_searches")
    failed -= NOT_RECORDED.keys()
    if failed:  # some fail on their own, with some versions of the libraries below
        bare, _ = run(suite, tmp_path / "bare")
        assert failed <= bare, output[-6000:]
    fits, combinations = map(int, re.search(r"recorded: (\d+) fits, (\d+) combinations", output).groups())
    assert fits >= SUITES[suite]
    assert combinations >= fits
