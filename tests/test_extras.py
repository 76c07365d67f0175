"""What is missing where an extra is not installed: told by name, and only where it is needed."""

from __future__ import annotations

import importlib.metadata
import json
import re
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest

from mlflow_hp import UserError
from mlflow_hp._extras import EXTRAS, MissingExtraError, needed_by

ROOT = Path(__file__).parents[1]
PUBLIC_NAMES = ROOT / "tests" / "helpers" / "public_names.py"
OF_TRAINING = (
    {f"mlflow_hp.{name}" for name in ("TrainingRecorder", "autolog", "autologging.autolog", "record_steps")}
    | {f"mlflow_hp.training.{name}" for name in ("StepRecorder", "TrainingRecorder", "record_steps")}
    | {f"mlflow_hp.training.{name}" for name in ("dead_shares", "landscape", "log_landscape", "saturated_shares")}
    | {"mlflow_hp.barrier", "mlflow_hp.training.HessianSpectrum", "mlflow_hp.training.hessian_spectrum"}
    | {"mlflow_hp.improve", "mlflow_hp.improvement.improve"}
)
OF_SERVER = {"mlflow_hp.compare_runs", "mlflow_hp.compare.compare_runs"}
HAVE_NO = "import sys; sys.modules.update(dict.fromkeys({libraries})); "


def of_extra(extra):
    return [library for library, home in EXTRAS.items() if home == extra]


def python(*words, **how):
    return subprocess.run([sys.executable, "-W", "ignore", *map(str, words)], capture_output=True, text=True, **how)


def distributions(requirements):
    return {re.match(r"[\w-]+", requirement).group().lower().replace("_", "-") for requirement in requirements}


def needed_with(distribution, found):
    """A distribution and all that it brings, by name."""
    found.add(distribution)
    needed = [each for each in importlib.metadata.requires(distribution) or () if ";" not in each]
    for each in distributions(needed) - found:
        needed_with(each, found)
    return found


def test_each_library_is_in_its_extra():
    extras = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]["optional-dependencies"]
    with_mlflow = needed_with("mlflow", set())
    for extra in ("training", "server", "dask"):
        ours = distributions(extras[extra])
        shared = {"plotly"} if extra == "training" else set()  # which the document of a training has in it
        assert set(of_extra(extra)) == ours - with_mlflow - shared
        assert shared <= ours
    assert extras["all"][0] == "mlflow-hp[training,server]"
    assert extras["dev"][0].startswith("mlflow-hp[all")


@pytest.mark.parametrize(
    ("extras", "expected"),
    [(["training", "server", "dask"], OF_TRAINING | OF_SERVER), (["training"], OF_TRAINING)],
)
def test_a_public_name_tells_which_extra_it_needs(extras, expected):
    done = python(PUBLIC_NAMES, *(library for extra in extras for library in of_extra(extra)), cwd=ROOT)
    assert done.returncode == 0, done.stderr
    missing = json.loads(done.stdout)["missing"]
    assert set(missing) == expected
    for name, message in missing.items():
        extra = "training" if name in OF_TRAINING else "server"
        wanted = rf"{name.rpartition('.')[2]} needs ({'|'.join(of_extra(extra))}): pip install 'mlflow-hp\[{extra}\]'"
        assert re.fullmatch(wanted, message)


def test_the_context_plugin_needs_no_library():
    program = f"import sys; sys.path.insert(0, {str(ROOT)!r}); import mlflow_hp.tracking.run_context as plugin; "
    done = python("-I", "-S", "-c", program + "print(plugin.ProvenanceContext().in_context())")
    assert (done.stdout, done.stderr) == ("False\n", "")


def test_a_command_tells_which_extra_it_needs(tracking_uri, tmp_path):
    program = HAVE_NO.format(libraries=of_extra("server")) + "from mlflow_hp.cli.main import main; sys.exit(main())"
    done = python("-c", program, "compare", "--experiment", "Default", cwd=tmp_path)
    assert done.returncode == 2
    assert done.stderr == "mlflow-hp compare: mlflow-hp compare needs plotly: pip install 'mlflow-hp[server]'\n"


def test_the_page_tells_which_extra_it_needs(tmp_path):
    program = HAVE_NO.format(libraries=of_extra("server")) + "from mlflow_hp.server.app import create_app; create_app()"
    done = python("-c", program, cwd=tmp_path)
    assert done.stderr.splitlines()[-1].endswith("the page needs plotly: pip install 'mlflow-hp[server]'")


def test_the_error_is_one_for_users_and_of_importing():
    with pytest.raises(MissingExtraError, match="tuning needs keras") as caught, needed_by("tuning"):
        raise ModuleNotFoundError(name="keras.layers")
    assert isinstance(caught.value, UserError)
    assert isinstance(caught.value, ImportError)
    with pytest.raises(ModuleNotFoundError, match=r"^other$"), needed_by("tuning"):
        raise ModuleNotFoundError("other", name="other")
    with pytest.raises(KeyError), needed_by("tuning"):
        raise KeyError("keras")


def test_a_search_of_scikit_learn_needs_no_extra(tracking_uri, tmp_path):
    program = HAVE_NO.format(libraries=list(EXTRAS)) + (
        "import mlflow, mlflow_hp, numpy as np, warnings\n"
        "from sklearn.linear_model import Ridge\n"
        "from sklearn.model_selection import GridSearchCV\n"
        "warnings.simplefilter('error', mlflow_hp.RecordingWarning)\n"
        "mlflow.set_tracking_uri(sys.argv[1])\n"
        "mlflow.set_experiment('a search without extras')\n"
        "search = GridSearchCV(Ridge(), {'alpha': [0.1, 1.0, 10.0]}, cv=2)\n"
        "with mlflow_hp.record_search(search):\n"
        "    search.fit(np.arange(24.0).reshape(8, 3) % 7, np.arange(8.0))\n"
        "print(len(mlflow.search_runs()))\n"
    )
    done = python("-c", program, tracking_uri, cwd=tmp_path)
    assert (done.returncode, done.stdout) == (0, "4\n"), done.stderr
