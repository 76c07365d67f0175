"""A program that imports every public name, and prints as JSON which could not be had, and why.

Its arguments are libraries that are made to look as if they were not installed.
"""

import importlib
import json
import pkgutil
import sys
import warnings

sys.modules.update(dict.fromkeys(sys.argv[1:]))
warnings.simplefilter("ignore")

import mlflow_hp  # noqa: E402

public = [each.name for each in pkgutil.iter_modules(mlflow_hp.__path__) if not each.name.startswith("_")]
packages = ["mlflow_hp", *(f"mlflow_hp.{name}" for name in public)]
names = [(package, name) for package in packages for name in importlib.import_module(package).__all__]
missing = {}
for package, name in names:
    try:
        getattr(importlib.import_module(package), name)
    except ImportError as error:
        missing[f"{package}.{name}"] = str(error)
print(json.dumps({"file": mlflow_hp.__file__, "names": len(names), "missing": missing}))
