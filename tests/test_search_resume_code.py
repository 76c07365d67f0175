"""A search that was interrupted, its code or data edited, and resumed: it never takes over what the edit changed."""

from __future__ import annotations

import time
import zipfile

import numpy as np
import pytest
from programs import Program, Programs

pytestmark = pytest.mark.usefixtures("store")


@pytest.fixture(scope="module")
def programs(tmp_path_factory):
    running = Programs(tmp_path_factory.mktemp("programs"))
    yield running
    running.close()


@pytest.fixture
def write(programs, store, tmp_path, request):
    return lambda files, shift, **parts: Program(
        programs, tmp_path / "project", f"{request.node.name} {time.time()}".replace("/", "_"), files, shift, **parts
    )


def saved(value):
    return lambda path: np.savez(path, value=value)


def archived(text):
    def write(path):
        with zipfile.ZipFile(path, "w") as archive:
            archive.writestr("zipped.py", text)

    return write


HELPERS = "helpers.py"
BUILD = "def build():\n    return 1.0\n"
ONE, TWO = "1.0", "2.0"
REGISTER = (
    "KINDS = {}\ndef register(name):\n    def add(f):\n        KINDS[name] = f\n        return f\n    return add\n"
)
READ_ONCE = "from functools import lru_cache\n@lru_cache\ndef read():\n    return float(open('c.txt').read())\n"
READ_IN_A_THREAD = """
from threading import Thread
found = []
def read():
    found.append(float(open('c.txt').read()))
thread = Thread(target=read)
thread.start(), thread.join()
return found[0]
"""
FORMS = {
    # name: (files, code of the function, before it), (the file that is edited, old text, new text)
    "a function of a module": (({HELPERS: BUILD}, "return helpers.build()", "import helpers"), (HELPERS, ONE, TWO)),
    "under another name": (({HELPERS: BUILD}, "return h.build()", "import helpers as h"), (HELPERS, ONE, TWO)),
    "an import inside": (({HELPERS: BUILD}, "import helpers\nreturn helpers.build()", ""), (HELPERS, ONE, TWO)),
    "from inside": (({HELPERS: BUILD}, "from helpers import build\nreturn build()", ""), (HELPERS, ONE, TWO)),
    "star": (({HELPERS: BUILD}, "return build()", "from helpers import *"), (HELPERS, ONE, TWO)),
    "import_module": (
        ({HELPERS: BUILD}, "import importlib\nreturn importlib.import_module('helpers').build()", ""),
        (HELPERS, ONE, TWO),
    ),
    "import_module, computed": (
        ({HELPERS: BUILD}, "import importlib\nreturn getattr(importlib.import_module('hel' + 'pers'), 'bu' + 'ild')()",
         ""),
        (HELPERS, ONE, TWO),
    ),
    "a path added inside": (
        ({"lib/late.py": BUILD}, "sys.path.insert(0, 'lib')\nimport late\nreturn late.build()", ""),
        ("lib/late.py", ONE, TWO),
    ),
    "a module of a module": (
        ({"deep.py": BUILD, HELPERS: "import deep\ndef build():\n    return deep.build()\n"}, "return helpers.build()",
         "import helpers"),
        ("deep.py", ONE, TWO),
    ),
    "a list": (({HELPERS: "V = [1.0]\n"}, "return helpers.V[0]", "import helpers"), (HELPERS, ONE, TWO)),
    "a constant": (({HELPERS: "V = 1.0\n"}, "return V", "from helpers import V"), (HELPERS, ONE, TWO)),
    "a dict in a dict": (
        ({HELPERS: "V = {'a': {'b': 1.0}}\n"}, "return helpers.V['a']['b']", "import helpers"), (HELPERS, ONE, TWO)
    ),
    "an array": (
        ({HELPERS: "import numpy as np\nV = np.full(3, 1.0)\n"}, "return helpers.V.mean()", "import helpers"),
        (HELPERS, ONE, TWO),
    ),
    "a list of a class": (
        ({HELPERS: "class C:\n    v = [1.0]\n"}, "return C.v[0]", "from helpers import C"), (HELPERS, ONE, TWO)
    ),
    "a class in a class": (
        ({HELPERS: "class C:\n    class D:\n        v = {'a': 1.0}\n"}, "return C.D.v['a']", "from helpers import C"),
        (HELPERS, ONE, TWO),
    ),
    "a descriptor": (
        ({HELPERS: "class V:\n    def __get__(self, a, b):\n        return 1.0\nclass C:\n    v = V()\n"},
         "return C().v", "from helpers import C"),
        (HELPERS, ONE, TWO),
    ),
    "a base class": (
        ({HELPERS: f"class Base:\n    {BUILD.replace('()', '(self)').replace(chr(10), chr(10) + '    ')}\n"},
         "return C().build()", "import helpers\nclass C(helpers.Base): pass"),
        (HELPERS, ONE, TWO),
    ),
    "a metaclass": (
        ({HELPERS: "class M(type):\n    @property\n    def v(cls):\n        return 1.0\n"}, "return C.v",
         "import helpers\nclass C(metaclass=helpers.M): pass"),
        (HELPERS, ONE, TWO),
    ),
    "a subclass that nobody names": (
        ({HELPERS: "class Base: pass\n", "plug.py": "import helpers\nclass P(helpers.Base):\n    v = 1.0\n"},
         "return helpers.Base.__subclasses__()[0].v", "import helpers, plug"),
        ("plug.py", ONE, TWO),
    ),
    "a decorator": (
        ({HELPERS: "def times(f):\n    return lambda: 1.0 * f()\n"}, "return build()",
         "import helpers\n@helpers.times\ndef build():\n    return 3"),
        (HELPERS, ONE, TWO),
    ),
    "a registry": (
        ({"kinds.py": REGISTER, HELPERS: "import kinds\n@kinds.register('a')\ndef build():\n    return 1.0\n"},
         "return kinds.KINDS['a']()", "import kinds, helpers"),
        (HELPERS, ONE, TWO),
    ),
    "an instance": (
        ({HELPERS: "class C:\n    def build(self):\n        return 1.0\nOBJECT = C()\n"},
         "return helpers.OBJECT.build()", "import helpers"),
        (HELPERS, ONE, TWO),
    ),
    "an attribute that is replaced": (
        ({HELPERS: BUILD, "patch.py": "import helpers\nhelpers.build = lambda: 1.5\n"}, "return helpers.build()",
         "import helpers, patch"),
        ("patch.py", "1.5", "2.5"),
    ),
    "a library that is patched": (
        ({HELPERS: "import math\nmath.sqrt = lambda x: 1.0\n"}, "return math.sqrt(9)", "import math, helpers"),
        (HELPERS, ONE, TWO),
    ),
    "__init__ of a package": (
        ({"pkg/__init__.py": "V = 1.0\n"}, "return pkg.V", "import pkg"), ("pkg/__init__.py", ONE, TWO)
    ),
    "a relative import": (
        ({"pkg/__init__.py": "", "pkg/a.py": "def build():\n    from .b import V\n    return V\n",
          "pkg/b.py": "V = 1.0\n"},
         "return a.build()", "from pkg import a"),
        ("pkg/b.py", ONE, TWO),
    ),
    "a module in an archive": (
        ({"lib.zip": archived(BUILD)}, "return zipped.build()",
         "sys.path.insert(0, os.path.join(os.path.dirname(__file__), 'lib.zip'))\nimport zipped"),
        ("lib.zip", None, archived(BUILD.replace(ONE, TWO))),
    ),
    "__getattr__ of a module": (
        ({HELPERS: "def __getattr__(name):\n    if name == 'v':\n        return 1.0\n    raise AttributeError(name)\n"},
         "return helpers.v", "import helpers"),
        (HELPERS, ONE, TWO),
    ),
    "a dataclass": (
        ({HELPERS: "from dataclasses import dataclass\n@dataclass\nclass C:\n    v: float = 1.0\n"},
         "return helpers.C().v", "import helpers"),
        (HELPERS, ONE, TWO),
    ),
    "an enum": (
        ({HELPERS: "import enum\nclass C(enum.Enum):\n    v = 1.0\n"}, "return helpers.C.v.value", "import helpers"),
        (HELPERS, ONE, TWO),
    ),
    "a default of an argument": (
        ({HELPERS: "V = 1.0\n"}, "return build()", "import helpers\ndef build(v=helpers.V):\n    return v"),
        (HELPERS, ONE, TWO),
    ),
    "a function's attribute": (
        ({HELPERS: "def build():\n    return build.v\nbuild.v = 1.0\n"}, "return helpers.build()", "import helpers"),
        (HELPERS, ONE, TWO),
    ),
    "the program itself": (({}, "return V", "V = 1.0"), ("train.py", "V = 1.0", "V = 2.0")),
    "JSON read inside": (({"c.json": "[1.0]"}, "return json.load(open('c.json'))[0]", ""), ("c.json", ONE, TWO)),
    "JSON read when imported": (
        ({"c.json": "[1.0]", HELPERS: "import json\nV = json.load(open('c.json'))\n"}, "return helpers.V[0]",
         "import helpers"),
        ("c.json", ONE, TWO),
    ),
    "YAML by pathlib": (
        ({"c.yaml": "v: 1.0", HELPERS: "import yaml, pathlib as p\npath = p.Path(__file__).with_name('c.yaml')\n"
          "def read():\n    return yaml.safe_load(path.read_text())\n"}, "return helpers.read()['v']",
         "import helpers"),
        ("c.yaml", ONE, TWO),
    ),
    "an array in a file": (
        ({"c.npz": saved(1.0)}, "return float(np.load('c.npz')['value'])", ""), ("c.npz", None, saved(2.0))
    ),
    "a table": (
        ({"c.csv": "v\n1.0\n"}, "import pandas\nreturn pandas.read_csv('c.csv').v[0]", ""), ("c.csv", ONE, TWO)
    ),
    "a file read once by a cached function": (
        ({"c.txt": "1.0", HELPERS: READ_ONCE},
         "return helpers.read()", "import helpers"),
        ("c.txt", ONE, TWO),
    ),
    "a file read in a thread": (
        ({"c.txt": "1.0"}, READ_IN_A_THREAD, ""),
        ("c.txt", ONE, TWO),
    ),
    "code in a text": (
        ({"c.txt": "v = 1.0"}, "held = {}\nexec(open('c.txt').read(), held)\nreturn held['v']", ""), ("c.txt", ONE, TWO)
    ),
    "code of a text, when imported": (
        ({"c.txt": BUILD, HELPERS: "exec(open('c.txt').read())\n"}, "return helpers.build()", "import helpers"),
        ("c.txt", ONE, TWO),
    ),
    "a file that is there now": (
        ({}, "try:\n    return float(open('c.txt').read())\nexcept FileNotFoundError:\n    return 1.0", ""),
        ("c.txt", None, "2.0"),
    ),
    "one more file in a folder": (
        ({"data/a.txt": "1"}, "return len(os.listdir('data'))", ""), ("data/b.txt", None, "1")
    ),
}  # fmt: skip


@pytest.mark.parametrize("name", FORMS)
def test_resumed_where_nothing_was_edited_and_not_taken_over_where_something_was(write, name):
    (files, shift, before), (file, old, new) = FORMS[name]
    program = write(files, shift, before=before)
    first = program.interrupted()
    assert first.n_fits == 3
    program.edit("train.py", "import json", "# where it begins\n\nimport json")
    resumed = program.run("again")
    assert resumed.scores == program.run("bare").scores, resumed.text
    assert resumed.n_fits == 2, resumed.text
    program.write_train(f", resume={program.run_id!r}")
    if old is None:
        program.write(file, new)
    elif file == "train.py":
        program.write_train(f", resume={program.run_id!r}", before=before.replace(old, new))
    else:
        program.edit(file, old, new)
    bare, again = program.run("bare"), program.run("again")
    assert bare.scores != resumed.scores
    if again.scores is None:
        assert "can't be resumed" in again.error
        assert file in again.error or "(helpers." in again.error, again.error
    else:
        assert again.scores == bare.scores
        assert again.n_fits == 4
        assert "folds are computed again" in again.text
        assert file in again.text or "data/" in again.text
