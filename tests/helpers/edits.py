"""Programs that read a value in many forms, and the edit that changes it."""

from __future__ import annotations

import sqlite3
import zipfile

import numpy as np


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


def database(value):
    def write(path):
        path.unlink(missing_ok=True)
        with sqlite3.connect(path) as connection:
            connection.execute("create table t (v)")
            connection.execute("insert into t values (?)", (value,))
        connection.close()

    return write


def zipped(text):
    def write(path):
        with zipfile.ZipFile(path, "w") as archive:
            archive.writestr("v", text)

    return write


BY_PATH = """
import importlib.util
spec = importlib.util.spec_from_file_location('odd', 'odd name.py')
odd = importlib.util.module_from_spec(spec)
spec.loader.exec_module(odd)
"""
ITSELF = "import sys\nclass M:\n    v = 1.0\nsys.modules[__name__] = M()\n"
DISPATCHED = "import functools\n@functools.singledispatch\ndef build(x):\n    return 1.0\n"
CONTEXT = "import contextvars\nV = contextvars.ContextVar('v', default=1.0)\n"
NAMED = "import collections\nC = collections.namedtuple('C', 'v', defaults=[1.0])\n"
COMMAND = "import subprocess\nreturn float(subprocess.check_output([sys.executable, 'c.py']))"
SHELL = "import subprocess\nreturn float(subprocess.check_output('sh c.sh', shell=True))"
MAPPED = "import mmap\nwith open('c.txt') as f:\n    return float(mmap.mmap(f.fileno(), 0, access=mmap.ACCESS_READ)[:])"
RESOURCE = "import importlib.resources as r\nreturn float(r.files('pkg').joinpath('c.txt').read_text())"
RAW = "f = os.open('c.txt', os.O_RDONLY)\nv = float(os.read(f, 99))\nos.close(f)\nreturn v"
FURTHER = {
    "a module that becomes a package": (({HELPERS: "V = 1.0\n"}, "import helpers\nreturn helpers.V", ""),
                                        ("helpers/__init__.py", None, "V = 2.0\n")),
    "another in front": (({"lib/late.py": "V=1.0\n"}, "sys.path.append('lib')\nimport late\nreturn late.V", ""),
                                     ("late.py", None, "V = 2.0\n")),
    "a module that is no module": (({HELPERS: ITSELF}, "import helpers\nreturn helpers.v", ""), (HELPERS, ONE, TWO)),
    "a module by its path": (({"odd name.py": "v = 1.0\n"}, BY_PATH + "return odd.v", ""), ("odd name.py", ONE, TWO)),
    "by its path, before": (({"odd name.py": "v = 1.0\n"}, "return odd.v", BY_PATH), ("odd name.py", ONE, TWO)),
    "a script that is run": (({"c.py": "v = 1.0\n"}, "import runpy\nreturn runpy.run_path('c.py')['v']", ""),
                             ("c.py", ONE, TWO)),
    "a built-in name": (({HELPERS: "import builtins\nbuiltins.WIDTH = 1.0\n"}, "return WIDTH", "import helpers"),
                        (HELPERS, ONE, TWO)),
    "a dispatch": (({HELPERS: DISPATCHED}, "return helpers.build(3)", "import helpers"), (HELPERS, ONE, TWO)),
    "a context variable": (({HELPERS: CONTEXT}, "return helpers.V.get()", "import helpers"), (HELPERS, ONE, TWO)),
    "a named tuple": (({HELPERS: NAMED}, "return helpers.C().v", "import helpers"), (HELPERS, ONE, TWO)),
    "a command": (({"c.py": "print(1.0)\n"}, COMMAND, ""), ("c.py", ONE, TWO)),
    "a command of a shell": (({"c.sh": "echo 1.0\n"}, SHELL, ""), ("c.sh", ONE, TWO)),
    "a file in memory": (({"c.txt": "1.0"}, MAPPED, ""), ("c.txt", ONE, TWO)),
    "package data": (({"pkg/__init__.py": "", "pkg/c.txt": "1.0"}, RESOURCE, "import pkg"), ("pkg/c.txt", ONE, TWO)),
    "a file by the system's call": (({"c.txt": "1.0"}, RAW, ""), ("c.txt", ONE, TWO)),
    "a database": (({"c.db": database(1.0)},
                    "import sqlite3\nreturn sqlite3.connect('c.db').execute('select v from t').fetchone()[0]", ""),
                   ("c.db", None, database(2.0))),
    "an archive": (({"c.zip": zipped("1.0")}, "import zipfile\nreturn float(zipfile.ZipFile('c.zip').read('v'))", ""),
                   ("c.zip", None, zipped("2.0"))),
    "a file that a file names": (({"a.json": "[1.0]", "c.txt": "a.json"},
                                  "return json.load(open(open('c.txt').read()))[0]", ""), ("a.json", ONE, TWO)),
    "files below a folder": (({"data/x/a.txt": "1"},
                              "import pathlib\nreturn float(len(list(pathlib.Path('data').rglob('*.txt'))))", ""),
                             ("data/x/b.txt", None, "1")),
}  # fmt: skip
