"""The wheel: the whole package with its data and nothing else, installed where nothing else of the project is."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import sysconfig
import zipfile
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
PUBLIC_NAMES = ROOT / "tests" / "helpers" / "public_names.py"
UV = shutil.which("uv", path=sysconfig.get_path("scripts")) or shutil.which("uv")

pytestmark = [pytest.mark.slow, pytest.mark.skipif(UV is None, reason="uv is not installed: pip install uv")]


def run(*words, cwd=None):
    environ = os.environ | {"UV_SYSTEM_CERTS": "1"}  # certificates that pip trusts, too
    done = subprocess.run([*map(str, words)], capture_output=True, text=True, cwd=cwd, env=environ)
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


def install(environment, *what):
    run(UV, "pip", "install", "--quiet", "--python", environment / "bin" / "python", *what)


@pytest.fixture
def environment(tmp_path):
    """An empty one, with the Python that runs the tests."""
    run(UV, "venv", "--quiet", "--python", sys.executable, tmp_path / "env")
    return tmp_path / "env"


@pytest.fixture(scope="module")
def wheel(tmp_path_factory):
    source, built = tmp_path_factory.mktemp("source"), tmp_path_factory.mktemp("built")
    for name in ("mlflow_hp", "projects"):
        shutil.copytree(ROOT / name, source / name, ignore=shutil.ignore_patterns("__pycache__"))
    for name in ("pyproject.toml", "README.md", "LICENSE"):
        shutil.copy(ROOT / name, source)
    run(UV, "build", "--quiet", "--wheel", "--no-build-isolation", "--python", sys.executable, "-o", built, source)
    (path,) = built.glob("*.whl")
    return path


def outcome(environment):
    """What the public names of the package installed in an environment give."""
    found = json.loads(run(environment / "bin" / "python", PUBLIC_NAMES, cwd=environment))
    assert Path(found["file"]).is_relative_to(environment)
    assert found["names"] > 50
    return found["missing"]


def test_all_of_the_package_and_nothing_else(wheel):
    files = [path for path in (ROOT / "mlflow_hp").rglob("*") if path.is_file() and "__pycache__" not in path.parts]
    with zipfile.ZipFile(wheel) as archive:
        there = {name for name in archive.namelist() if ".dist-info/" not in name}
    assert there == {path.relative_to(ROOT).as_posix() for path in files}


def test_every_public_name_can_be_imported(wheel, environment):
    """The wheel alone is installed; the libraries are those of the environment that runs the tests."""
    install(environment, "--no-deps", wheel)
    (site,) = environment.glob("lib/python*/site-packages")
    (site / "libraries.pth").write_text(
        sysconfig.get_path("purelib")
    )  # its .pth files, as of this checkout, are not read
    assert outcome(environment) == {}


@pytest.mark.thorough
def test_each_extra_is_enough_for_its_names(wheel, environment):
    install(environment, wheel)
    keras = {f"mlflow_hp.{name}" for name in ("TrainingRecorder", "autolog", "autologging.autolog", "record_steps")}
    keras |= {f"mlflow_hp.training.{name}" for name in ("StepRecorder", "TrainingRecorder", "record_steps")}
    keras |= {f"mlflow_hp.training.{name}" for name in ("dead_shares", "landscape", "saturated_shares")}
    keras |= {"mlflow_hp.barrier", "mlflow_hp.training.HessianSpectrum", "mlflow_hp.training.hessian_spectrum"}
    keras |= {"mlflow_hp.improve", "mlflow_hp.improvement.improve"}
    assert set(outcome(environment)) == {"mlflow_hp.compare_runs", "mlflow_hp.compare.compare_runs", *keras}
    install(environment, f"mlflow-hp[server] @ {wheel.as_uri()}")
    assert set(outcome(environment)) == keras
    run(environment / "bin" / "python", "-c", "import mlflow_hp.server.app as app; app.create_app()")
