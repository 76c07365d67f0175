"""The wheel and the sdist: the whole package and nothing else, installed where nothing else of the project is."""

from __future__ import annotations

import email
import importlib.metadata
import json
import os
import re
import shutil
import socket
import subprocess
import sys
import sysconfig
import tarfile
import zipfile
from pathlib import Path

import pytest
import requests

from tests.helpers.waiting import wait_for

ROOT = Path(__file__).parents[1]
PUBLIC_NAMES = ROOT / "tests" / "helpers" / "public_names.py"
UV = shutil.which("uv", path=sysconfig.get_path("scripts")) or shutil.which("uv")

pytestmark = [pytest.mark.slow, pytest.mark.skipif(UV is None, reason="uv is not installed: pip install uv")]


def environ():
    """Environment without the checkout, and without what other tests of this process have set."""
    values = os.environ | {"UV_SYSTEM_CERTS": "1"}  # certificates that pip trusts, too
    for name in ("PYTHONPATH", "MLFLOW_EXPERIMENT_ID", "MLFLOW_RUN_ID", "MLFLOW_TRACKING_URI"):
        values.pop(name, None)
    return values


def run(*words, cwd=None):
    done = subprocess.run([*map(str, words)], capture_output=True, text=True, cwd=cwd, env=environ())
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
def index(tmp_path_factory):
    """A local index: a folder with the sdist, and with the wheel that is built from it."""
    source, built = tmp_path_factory.mktemp("source"), tmp_path_factory.mktemp("built")
    for name in ("mlflow_hp", "projects", "tests"):
        shutil.copytree(ROOT / name, source / name, ignore=shutil.ignore_patterns("__pycache__", "version_1"))
    for path in (each for each in ROOT.iterdir() if each.is_file() and not each.name.startswith(".")):
        shutil.copy(path, source)
    run(UV, "build", "--quiet", "--no-build-isolation", "--python", sys.executable, "-o", built, source)
    return built


@pytest.fixture(scope="module")
def wheel(index):
    (path,) = index.glob("*.whl")
    return path


@pytest.fixture
def beside_libraries(index, environment):
    """An environment with the wheel from the index alone; the libraries are those that the tests have."""
    install(environment, "--no-deps", "--no-index", "--find-links", index, "mlflow-hp")
    (site,) = environment.glob("lib/python*/site-packages")
    libraries = sysconfig.get_path("purelib")  # its .pth files, as of this checkout, are not read
    (site / "libraries.pth").write_text(libraries)
    return environment


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


def test_the_sdist_has_the_package_and_no_half_of_the_tests(index):
    (path,) = index.glob("*.tar.gz")
    with tarfile.open(path) as archive:
        names = {name.partition("/")[2] for name in archive.getnames()}
    assert {"pyproject.toml", "README.md", "LICENSE", "CHANGELOG.md", "SECURITY.md", "mlflow_hp/py.typed"} <= names
    assert {name.partition("/")[0] for name in names if "/" in name} == {"mlflow_hp", "mlflow_hp.egg-info"}


def test_the_metadata_say_who_for_what_and_which_pythons(wheel):
    with zipfile.ZipFile(wheel) as archive:
        (name,) = (each for each in archive.namelist() if each.endswith("/METADATA"))
        metadata = email.message_from_bytes(archive.read(name))
    assert metadata["Author"] == metadata["Maintainer"] == "mlflow_hp maintainers"
    assert metadata["License-Expression"] == "Apache-2.0"
    assert metadata["Description-Content-Type"] == "text/markdown"
    pythons = [each.rpartition(" :: ")[2] for each in metadata.get_all("Classifier") if "Python :: 3." in each]
    makefile = (ROOT / "Makefile").read_text(encoding="utf-8")
    others = re.search(r"^OTHERS := (.*)$", makefile, re.MULTILINE).group(1).split()
    assert pythons == [metadata["Requires-Python"].removeprefix(">="), *others]


def test_every_public_name_can_be_imported(beside_libraries):
    assert outcome(beside_libraries) == {}


def test_the_command_a_training_and_the_page(beside_libraries, tmp_path):
    program = """
import json, sys
import keras, mlflow, numpy as np
import mlflow_hp
from mlflow_hp.server.app import create_app
import mlflow.server

x = np.ones((8, 2))
model = keras.Sequential([keras.Input((2,)), keras.layers.Dense(1)])
model.compile("sgd", "mse")
with mlflow.start_run() as run:
    model.fit(x, x[:, 0], batch_size=4, verbose=0, callbacks=[mlflow_hp.TrainingRecorder(report=False)])
steps = len(mlflow_hp.load_history(run.info.run_id).steps["batch_loss"])
create_app()
page = mlflow.server.app.test_client().get("/hp/", headers={"Host": "localhost"})
json.dump([mlflow_hp.__file__, steps, page.status_code], sys.stdout)
"""
    help_text = run(beside_libraries / "bin" / "mlflow-hp", "--help")
    assert all(command in help_text for command in ("compare", "diagnose", "repeat", "sync"))
    version = run(beside_libraries / "bin" / "mlflow-hp", "--version")
    assert version == f"mlflow-hp, version {importlib.metadata.version('mlflow-hp')}\n"
    file, steps, status = json.loads(run(beside_libraries / "bin" / "python", "-c", program, cwd=tmp_path))
    assert Path(file).is_relative_to(beside_libraries)
    assert (steps, status) == (2, 200)


@pytest.mark.thorough
def test_the_command_ui_serves_the_page(beside_libraries, tmp_path):
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    words = [beside_libraries / "bin" / "mlflow-hp", "ui", "--port", str(port), "--store", "sqlite:///ui.db"]
    with (tmp_path / "log").open("w") as log:
        server = subprocess.Popen(words, stdout=log, stderr=log, cwd=tmp_path, env=environ())

    def status():
        assert server.poll() is None, (tmp_path / "log").read_text()
        try:
            return requests.get(f"http://127.0.0.1:{port}/hp/", timeout=60).status_code
        except requests.ConnectionError:
            return 0

    try:
        wait_for(status)
        assert status() == 200
    finally:
        server.terminate()
        server.wait()
    with socket.socket() as free:
        free.bind(("127.0.0.1", port))  # nothing listens any more


@pytest.mark.thorough
def test_each_extra_is_enough_for_its_names(wheel, environment):
    install(environment, wheel)
    keras = {f"mlflow_hp.{name}" for name in ("TrainingRecorder", "autolog", "autologging.autolog", "record_steps")}
    keras |= {f"mlflow_hp.training.{name}" for name in ("StepRecorder", "TrainingRecorder", "record_steps")}
    keras |= {
        f"mlflow_hp.training.{name}" for name in ("dead_shares", "landscape", "log_landscape", "saturated_shares")
    }
    keras |= {"mlflow_hp.barrier", "mlflow_hp.training.HessianSpectrum", "mlflow_hp.training.hessian_spectrum"}
    keras |= {"mlflow_hp.improve", "mlflow_hp.improvement.improve"}
    assert set(outcome(environment)) == {"mlflow_hp.compare_runs", "mlflow_hp.compare.compare_runs", *keras}
    install(environment, f"mlflow-hp[server] @ {wheel.as_uri()}")
    assert set(outcome(environment)) == keras
    run(environment / "bin" / "python", "-c", "import mlflow_hp.server.app as app; app.create_app()")
