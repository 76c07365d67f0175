"""Processors and GPUs that the program computes on. TensorFlow is neither loaded nor initialized to find out."""

from __future__ import annotations

import contextlib
import functools
import os
import platform
import sys
from pathlib import Path

from mlflow_hp._compat.tensorflow import is_initialized

DRIVER_GPUS = Path("/proc/driver/nvidia/gpus")
"""Folder in which NVIDIA's driver describes the GPUs."""


def describe() -> str:
    """Describe processors and GPUs, such as ``2 x AMD EPYC 7B13; 1 x NVIDIA H200``.

    The GPUs are those that TensorFlow uses, if it is initialized in this process; else those of the driver that
    ``CUDA_VISIBLE_DEVICES`` does not hide.
    """
    gpus = _tensorflow_gpus()
    if gpus is None:
        gpus = _driver_gpus()
    return "; ".join([_processors(), *(f"{gpus.count(name)} x {name}" for name in dict.fromkeys(gpus))])


@functools.cache
def _processors() -> str:
    n = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()
    name = ""
    with contextlib.suppress(OSError):
        lines = Path("/proc/cpuinfo").read_text(errors="replace").splitlines()
        name = next((line.partition(":")[2].strip() for line in lines if line.startswith("model name")), "")
    return f"{n} x {name or platform.processor() or platform.machine()}"


def _driver_gpus() -> list[str]:
    """Names of the GPUs of the driver, without those that ``CUDA_VISIBLE_DEVICES`` hides."""
    names = []
    with contextlib.suppress(OSError):
        for folder in sorted(DRIVER_GPUS.iterdir()):
            lines = (folder / "information").read_text(errors="replace").splitlines()
            names += [line.partition(":")[2].strip() for line in lines if line.startswith("Model")]
    setting = os.environ.get("CUDA_VISIBLE_DEVICES")
    if setting is None:
        return names
    visible = [word for word in setting.split(",") if word.strip() and word.strip() != "-1"]
    return names[: len(visible)]


def _tensorflow_gpus() -> list[str] | None:
    """Names of the GPUs that TensorFlow uses; None if it is not initialized, which asking would do."""
    if not is_initialized():
        return None
    config = sys.modules["tensorflow"].config
    try:
        return [config.experimental.get_device_details(gpu).get("device_name", gpu.name)
                for gpu in config.list_physical_devices("GPU")]  # fmt: skip
    except Exception:  # noqa: BLE001 - partly loaded, or another version of TensorFlow
        return None
