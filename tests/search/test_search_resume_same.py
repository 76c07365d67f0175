"""A program that is as it was is resumed, wherever it runs; what is otherwise than its files say is refused by name."""

from __future__ import annotations

import importlib
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import mlflow
import pytest
from sklearn.model_selection import GridSearchCV, StratifiedKFold

import mlflow_hp
from mlflow_hp.tracking.tags import DIGEST_TAG_PREFIX, MANIFEST_TAG_PREFIX
from tests.helpers.forked_python import python
from tests.helpers.programs import ran
from tests.helpers.searches import X, Y, record

pytestmark = pytest.mark.usefixtures("store")


CHANGING = """
import collections, itertools, logging, pathlib, random, threading, time, uuid
START, RUN, LOG, LOCK = time.time(), uuid.uuid4().hex, logging.getLogger("helpers"), threading.Lock()
OUT = open("log.txt", "a")
ROOT = pathlib.Path(__file__).parent
DATA = str(ROOT / "c.txt")
KINDS = {"a", "b", "c", "d", "e"}
MISSING, CACHE, COUNT, NUMBERS, LAST = object(), {}, 0, itertools.count(), collections.deque(maxlen=3)
def build(value=MISSING):
    global COUNT
    COUNT += 1
    with LOCK:
        CACHE[COUNT] = next(NUMBERS)
        LAST.append(COUNT)
        LOG.debug("building")
        OUT.write(f"{COUNT} {len(KINDS)}")
        pathlib.Path("out").mkdir(exist_ok=True)
        (ROOT / "out" / f"{len(list(pathlib.Path('out').iterdir()))}.txt").write_text("a model")
    return float(open(DATA).read())
"""
USED = {"helpers.py": CHANGING, "c.txt": "1.5"}
FURTHER = (
    "import argparse, helpers, threading, time\nBEGAN, args = time.time(), argparse.Namespace(resume=sys.argv[1], v=2)"
)


def test_values_that_change_by_themselves(write):
    program = write(USED, "return helpers.build() * args.v", before=FURTHER, after="print(time.time() - BEGAN)")
    program.interrupted()
    again = program.run("again")
    assert again.scores == program.run("bare").scores, again.text
    assert again.n_fits == 2, again.text
    assert "RuntimeWarning" not in again.text


def test_resumed_in_the_process_that_was_interrupted(write):
    """As in a notebook: what its own fits have changed and loaded is not in the way, what the user changes is."""
    late = {"late.py": "V = [1.0]\n", **USED}
    program = write(late, "import late\nreturn helpers.build() * late.V[0] * args.v", before=FURTHER, after=NOTEBOOK)
    program.write_train(", resume=sys.argv[1] == 'again'")
    (program.folder / "stop").touch()
    done = program.run("first")
    assert done.n_fits == 3 + 2, done.text
    assert "late.V" in done.text.split("refused")[1], done.text
    assert "args" in done.text.split("refused")[2], done.text


NOTEBOOK = """
try:
    main()
except KeyboardInterrupt:
    os.remove("stop")
sys.argv[1] = "again"
import late
for change in ("late.V[0] = 2.0", "late.V[0] = 1.0; args.v = 3", "args.v = 2"):
    exec(change)
    try:
        main()
    except mlflow_hp.errors.UserError as error:
        print("refused", error)
    else:
        break
sys.stdout.flush()
os._exit(0)
"""


def started(program, *command, cwd, seed=None):
    """Run it as its user does, in a process with another seed of hashes if one is given."""
    environment = {
        **os.environ, **program.environment, **({"PYTHONHASHSEED": seed} if seed else {}), "PYTHONUNBUFFERED": "1",
        "MLFLOW_TRACKING_URI": mlflow.get_tracking_uri(),
        "PYTHONPATH": str(Path(mlflow_hp.__file__).parents[1]),
    }  # fmt: skip
    environment.pop("MLFLOW_EXPERIMENT_ID", None)
    done = subprocess.run(
        [python(), *command], cwd=cwd, env=environment, stdout=subprocess.PIPE, stderr=subprocess.STDOUT,
        text=True, check=False,
    )  # fmt: skip
    return ran(done.stdout)


@pytest.mark.thorough
@pytest.mark.sampled(2)
@pytest.mark.slow
@pytest.mark.parametrize("n_jobs", [1, 2])
def test_in_another_folder_with_another_seed_of_hashes(write, tmp_path, n_jobs):
    files = {"pkg/__init__.py": "", "pkg/late.py": CHANGING, "c.txt": "1.5"}
    shift = "from pkg import late\nreturn late.build(len(NAMES) + len(late.KINDS)) * float(open('w.txt').read())"
    files["pkg/late.py"] = CHANGING.replace("__file__).parent", "__file__).parents[1]")
    program = write(
        {**files, "w.txt": "1.0"}, shift, before="NAMES = {'x', 'y', 'z'}", search=f", n_jobs={n_jobs}, pre_dispatch=1"
    )
    (program.folder / "stop").touch()
    first = started(program, "train.py", "first", cwd=program.folder, seed="1")
    assert first.error.startswith("KeyboardInterrupt"), first.text
    shutil.move(program.folder, tmp_path / "moved" / "elsewhere")
    program.folder = tmp_path / "moved" / "elsewhere"
    (program.folder / "stop").unlink()
    program.write_train(", resume=True")
    again = started(program, program.folder / "train.py", "again", cwd=program.folder, seed="2")
    bare = started(program, "train.py", "bare", cwd=program.folder)
    assert again.scores == bare.scores, again.text
    assert again.n_fits == 2, again.text
    program.write_train(f", resume={program.run_id!r}")
    program.edit("w.txt", "1.0", "2.0")
    program.edit("pkg/late.py", "return float", "return 3 * float")
    edited = started(program, "-m", "train", "again", cwd=program.folder)
    assert edited.n_fits == 4, edited.text
    assert edited.scores == [6 * score for score in again.scores]


@pytest.mark.thorough
def test_how_it_is_recorded_and_on_how_many_processors_does_not_count(write):
    program = write({}, "return 1.0", search=", n_jobs=1", after="RESUME = False")
    program.interrupted()
    program.write_train(
        ", resume=True, reuse=False, per_fold_runs=True", search=", n_jobs=2, verbose=1", after="RESUME = True"
    )
    again = program.run("again")
    assert again.n_fits == 2, again.text


SET = "import helpers\nif len(sys.argv) > 2: helpers.V = float(sys.argv[2])"


@pytest.mark.thorough
def test_a_value_that_is_set_when_the_program_runs(write):
    program = write({"helpers.py": "V = 1.0\ndef build():\n    return V\n"}, "return helpers.build()", before=SET)
    program.interrupted("2.0")
    again = program.run("again", "3.0")
    assert "helpers.V" in again.error, again.text
    again = program.run("again", "2.0")
    assert again.n_fits == 2, again.text
    assert again.scores == program.run("bare", "2.0").scores


@pytest.mark.thorough
def test_the_environment(write):
    program = write({}, "return float(os.environ.get('WIDTH_OF_MINE', 1))")
    program.interrupted(WIDTH_OF_MINE="2")
    for environment in ({"WIDTH_OF_MINE": "3"}, {}):
        assert "os.environ['WIDTH_OF_MINE']" in program.run("again", **environment).error
    again = program.run("again", WIDTH_OF_MINE="2")
    assert again.n_fits == 2, again.text


@pytest.mark.sampled(3)
@pytest.mark.parametrize(
    ("helpers", "reason"),
    [
        (
            "import numpy\nRNG = numpy.random.default_rng(0)\ndef build():\n    return RNG.normal()\n",
            "helpers.RNG: a Generator",
        ),
        ("VALUES = (i for i in range(9))\ndef build():\n    return next(VALUES)\n", "helpers.VALUES: a generator"),
        (
            "import functools\n@functools.cache\ndef build():\n    return float(open('c.txt').read())\nbuild()\n",
            r"call build.cache_clear\(\) first",
        ),
    ],
)  # fmt: skip
def test_what_can_not_be_known_is_named(write, helpers, reason):
    program = write({"helpers.py": helpers, "c.txt": "1.0"}, "return helpers.build()", before="import helpers")
    program.interrupted()
    again = program.run("again")
    assert again.scores is None
    assert re.search(reason, again.error), again.text


EDITED = """
import helpers
import pathlib
path = pathlib.Path("helpers.py")
if sys.argv[1] == "again":
    path.write_text(path.read_text().replace("1.0", "2.0"))
"""


@pytest.mark.thorough
def test_a_module_that_was_edited_after_it_was_loaded(write):
    program = write({"helpers.py": "def build():\n    return 1.0\n"}, "return helpers.build()", before=EDITED)
    program.interrupted()
    assert "helpers.py is unknown: the file has changed since" in program.run("again").error


@pytest.mark.thorough
def test_runs_of_earlier_versions_are_refused(write, store):
    program = write({}, "return 1.0")
    program.interrupted()
    run_id = program.run_id
    versions = store.get_run(run_id).data.tags[f"{DIGEST_TAG_PREFIX}versions"]
    store.set_tag(run_id, f"{DIGEST_TAG_PREFIX}versions", versions.replace('"format": 2', '"format": 1'))
    again = program.run("again")
    assert again.n_fits == 0
    assert "was recorded by an earlier version of mlflow_hp" in again.error


@pytest.mark.thorough
def test_without_its_manifest_only_what_is_wholly_the_same_is_resumed(write, store):
    program = write({"helpers.py": "V = 1.0\n"}, "import helpers\nreturn helpers.V")
    program.interrupted()
    for name in store.get_run(program.run_id).data.tags:
        if name.startswith(MANIFEST_TAG_PREFIX):
            store.delete_tag(program.run_id, name)
    again = program.run("again")
    assert again.n_fits == 4, again.text
    assert "(missing)" in again.text


@pytest.mark.thorough
@pytest.mark.slow
def test_a_program_without_a_file(write):
    program = write({}, "return VALUES['a'][0]", before="VALUES = {'a': [1.25]}")
    program.write_train(", resume=os.path.exists('again')")
    (program.folder / "stop").touch()

    def run(value):
        code = (program.folder / "train.py").read_text().replace("1.25", value).replace("sys.argv[1]", repr("record"))
        return started(program, "-c", code, cwd=program.folder)

    assert run("1.25").error.startswith("KeyboardInterrupt")
    (program.folder / "stop").unlink()
    (program.folder / "again").touch()
    assert "__main__.VALUES" in run("1.5").error
    again = run("1.25")
    assert again.n_fits == 2, again.text


KERAS = """
import keras
UNITS = {"hidden": [4]}
class Dense(keras.layers.Dense):
    scale = [1.0]
    def call(self, x):
        return super().call(x) * self.scale[0]
def build():
    return keras.Sequential([keras.Input((4,)), Dense(UNITS["hidden"][0], "relu"), keras.layers.Dense(3, "softmax")])
"""
MODEL = """
def model(learning_rate=0.01):
    import layers_of_mine
    model = layers_of_mine.build()
    model.compile(layers_of_mine.keras.optimizers.SGD(learning_rate), "sparse_categorical_crossentropy")
    return model
"""


def test_keras_models(tmp_path, monkeypatch):
    from scikeras.wrappers import KerasClassifier

    monkeypatch.syspath_prepend(tmp_path)

    def search():
        importlib.invalidate_caches()
        for name in ("layers_of_mine", "model_of_mine"):
            sys.modules.pop(name, None)
        model = importlib.import_module("model_of_mine").model
        keras = KerasClassifier(model, random_state=0, batch_size=50, epochs=1, verbose=0)
        return GridSearchCV(keras, {"model__learning_rate": [0.1, 0.01]}, cv=StratifiedKFold(2), refit=False)

    (tmp_path / "model_of_mine.py").write_text(MODEL)
    (tmp_path / "layers_of_mine.py").write_text(KERAS)
    first = search()
    run_id = record(first, X, Y)
    monkeypatch.setattr("scikeras.wrappers.BaseWrapper.fit", None)  # nothing is fitted
    again = search()
    record(again, X, Y, resume=run_id)
    assert again.cv_results_["mean_test_score"].tolist() == first.cv_results_["mean_test_score"].tolist()
    monkeypatch.undo()
    monkeypatch.syspath_prepend(tmp_path)
    for old, new in (("[4]", "[5]"), ("[1.0]", "[3.0]"), ('"relu"', '"tanh"')):
        (tmp_path / "layers_of_mine.py").write_text(KERAS.replace(old, new) + "# and longer\n")
        edited = search()
        with pytest.warns(RuntimeWarning, match="folds are computed again.*layers_of_mine.py"):
            record(edited, X, Y, resume=run_id)
        assert (
            edited.cv_results_["mean_test_score"].tolist() == search().fit(X, Y).cv_results_["mean_test_score"].tolist()
        )
