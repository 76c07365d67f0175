"""Data from files, addresses and Keras' cache: bytes, tables, arrays, and digests of their content."""

from __future__ import annotations

import contextlib
import hashlib
import io
import os
import textwrap
import zipfile
import zlib
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import pandas as pd

from mlflow_hp.errors import UserError
from mlflow_hp.tracking import masked
from projects.datasets import downloads

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

KERAS_ADDRESS = "https://storage.googleapis.com/tensorflow/tf-keras-datasets/"
"""Address from which Keras downloads its data sets."""
KERAS_FILES = {
    "mnist": {"mnist.npz": "sha256=731c5ac602752760c8e48fbffcf8c3b850d9dc2a2aedcf2cc48468fc17b673d1"},
    "fashion_mnist": {
        "fashion-mnist/train-labels-idx1-ubyte.gz": "md5=25c81989df183df01b3e8a0aad5dffbe",
        "fashion-mnist/train-images-idx3-ubyte.gz": "md5=8d4fb7e6c68d591d4c3dfef9ec88bf0d",
        "fashion-mnist/t10k-labels-idx1-ubyte.gz": "md5=bb300cfdad3c16e7a12a480ee83cd310",
        "fashion-mnist/t10k-images-idx3-ubyte.gz": "md5=bef4ecab320f06d8554ea6380940ec79",
    },
}
"""Files of each data set below Keras' folder for them, and their digests as Keras and Zalando publish them."""
_BROKEN = (ValueError, OSError, EOFError, KeyError, RuntimeError, MemoryError, zipfile.BadZipFile, zlib.error)
"""Errors of NumPy and zipfile on damaged files."""


def read_bytes(data: str) -> bytes:
    """Read the file, or the http(s) address, that the parameter `data` names.

    Raises
    ------
    UserError
        If it cannot be read.
    """
    return downloads.download(data) if downloads.is_address(data) else _file(data)


def path_of(data: str) -> str:
    """Path of a file, or a URL without its query."""
    return data.partition("#")[0].partition("?")[0] if downloads.is_address(data) else data


def name_of(data: str) -> str:
    """Name of data: that of their file."""
    return masked(Path(path_of(data)).name)[:250] or "data"


def read_arrays(data: str, names: Sequence[str]) -> list[np.ndarray]:
    """Read the arrays called `names` of the .npz file that `data` names; nothing pickled is read.

    Raises
    ------
    UserError
        If it is not an .npz file, or lacks one of them.
    """
    content, data = io.BytesIO(read_bytes(data)), masked(data)
    requirement = f"it has to hold {', '.join(names)}, as Keras' mnist.npz does"
    if not zipfile.is_zipfile(content):
        raise UserError(
            f"data={data!r} is not a complete .npz file, as numpy.savez writes it: name another; {requirement}"
        )
    try:
        _refuse_bombs(content, names, data)
        with np.load(content, allow_pickle=False) as archive:
            archive_names = list(archive)
            arrays = [archive[name] for name in names if name in archive_names]
    except UserError:
        raise
    except _BROKEN as error:
        if "allow_pickle" in str(error):
            raise UserError(
                f"data={data!r} holds pickled objects, which are not read, since they may run code: "
                "save its arrays as numbers of one type and one shape"
            ) from None
        raise UserError(
            f"data={data!r} cannot be read as .npz ({line_of(error)}): write it again with numpy.savez; {requirement}"
        ) from None
    missing = [name for name in names if name not in archive_names]
    if missing:
        raise UserError(
            f"data={data!r} has no {missing[0]}, but {list_names(archive_names) or 'nothing'}: {requirement}"
        )
    for name, array in zip(names, arrays, strict=True):
        if not isinstance(array, np.ndarray):  # a file in the zip that is not .npy is returned as bytes
            raise UserError(f"data={data!r}: {name} in it is not a NumPy array: write it again with numpy.savez")
    return arrays


def from_keras(data: str) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
    """Load pictures and labels for training, then for testing, with Keras' loader: from its cache or the internet.

    Raises
    ------
    UserError
        If neither has it.
    """
    import keras

    home = Path(os.environ.get("KERAS_HOME", Path.home() / ".keras"))
    if home.exists() and not os.access(home, os.W_OK):
        home = Path("/tmp/.keras")  # noqa: S108 - the folder that Keras uses then
    folder = home / "datasets"
    try:
        for name, digest in KERAS_FILES[data].items():
            downloads.retrieve(KERAS_ADDRESS + name, folder / name, digest)
        with contextlib.redirect_stdout(io.StringIO()):
            train, test = getattr(keras.datasets, data).load_data()
    except Exception as error:  # noqa: BLE001 - Keras raises bare ones
        first = next(iter(KERAS_FILES[data]))
        raise UserError(
            f"data={data} is not in Keras' cache and could not be downloaded ({line_of(error)}): put "
            f"{', '.join(name.rpartition('/')[2] for name in KERAS_FILES[data])} from "
            f"{(KERAS_ADDRESS + first).rpartition('/')[0]} into {(folder / first).parent}, or give data the path of an "
            ".npz file"
        ) from None
    return *train, *test


def numbers(column: pd.Series, source: str, *, missing: bool = False) -> pd.Series:
    """Column as float64; an error names the first row that is not finite in float32, the type that is trained on.

    Missing cells are NaN if `missing` is set, else they are an error, too.
    """
    if not len(column):
        raise UserError(f"{source} has a header and no rows: name data with rows")
    values = pd.to_numeric(column, errors="coerce").astype("Float64").to_numpy(np.float64, na_value=np.nan)
    numbers = pd.Series(values, column.index, name=column.name)
    with np.errstate(over="ignore"):
        is_broken = ~np.isfinite(values.astype(np.float32))
    broken = np.flatnonzero(is_broken & column.notna().to_numpy() if missing else is_broken)
    if len(broken):
        value = column.iloc[broken[0]]
        value_text = "missing" if pd.isna(value) else abbreviate(value) if isinstance(value, str) else str(value)
        raise UserError(
            f"column {abbreviate(column.name)} of {source} is {value_text} in row {broken[0] + 1} (of {len(broken)} "
            "such rows): features, and a target other than classes, have to be numbers; fix or drop those rows, or the "
            "column"
        )
    return numbers


def digest_of(*arrays: np.ndarray) -> str:
    """SHA-256 of values, shapes and types of arrays, shortened to 16 digits."""
    digest = hashlib.sha256()
    for array in arrays:
        digest.update(repr((array.shape, str(array.dtype))).encode() + np.ascontiguousarray(array).tobytes())
    return digest.hexdigest()[:16]


def log_input(x: np.ndarray, y: np.ndarray, data: str, *, is_file: bool) -> None:
    """Log what a model is trained on to the active run; the source is the file or address, else the program."""
    import mlflow
    from mlflow.data.sources import LocalArtifactDatasetSource

    from mlflow_hp.tracking import datasets

    source: object = None
    if downloads.is_address(data):
        source = masked(data)
    elif is_file:
        source = LocalArtifactDatasetSource(str(Path(data).expanduser().resolve()))
    described = datasets.describe(x, y)
    assert described is not None
    datasets.log(mlflow.active_run().info.run_id, {"training": described}, name=name_of(data), source=source)


def _file(data: str) -> bytes:
    path, data = Path(data).expanduser(), masked(data)
    try:
        return path.read_bytes()
    except IsADirectoryError:
        raise UserError(f"data={data!r} is a folder: name the file in it") from None
    except FileNotFoundError:
        kinds = "only http and https are read" if "://" in data else f"there is no file {path.absolute()}"
        raise UserError(f"data={data!r}: {kinds}; name a file, a URL, or one of the known data sets") from None
    except (OSError, ValueError) as error:
        reason = getattr(error, "strerror", None) or error
        raise UserError(f"data={data!r} cannot be read ({reason}): name another file") from None


def _refuse_bombs(file: io.BytesIO, names: Sequence[str], data: str) -> None:
    """Raise a UserError if the arrays called `names` unpack to more than the limit and more than the file itself."""
    with zipfile.ZipFile(file) as archive:
        members = {form for name in names for form in (name, f"{name}.npy")}
        size = sum(member.file_size for member in archive.infolist() if member.filename in members)
    if size > max(downloads.largest_bytes(), file.getbuffer().nbytes):
        raise UserError(f"data={data!r} unpacks to {downloads.too_large(size)}")


def list_names(names: Iterable[object]) -> str:
    """List names in a message, abbreviated if there are many."""
    return textwrap.shorten(", ".join(map(str, names)), 300, placeholder=" ...")


def abbreviate(value: object) -> str:
    """Text of a value in a message, truncated if it is long."""
    text = repr(value)
    return text if len(text) <= 80 else f"{text[:76]}...{text[-1]}"


def line_of(error: Exception) -> str:
    """Message of an error in one line."""
    return textwrap.shorten(str(error), 120, placeholder=" ...") or type(error).__name__
