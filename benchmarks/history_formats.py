"""Which file format for a training's history? Times, sizes, and what a kill leaves: docs/history_format.md.

Run ``python -m benchmarks.history_formats``; it takes two to three minutes and prints markdown tables.
Formats whose library is missing (h5py, zarr) are left out, with a note. Bytes read are known on Linux only,
and only where the temporary folder (``TMPDIR``) is on a disk.
"""

from __future__ import annotations

import argparse
import importlib.util
import os
import random
import subprocess
import sys
import tempfile
import time
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import psutil

from benchmarks.file_formats import FORMATS, ROWS, Rows

HEAD = ["format", "append a chunk, ms", "size, MB", "files", "read one tensor, ms", "from a cold disk, MB"]
KILLS = 5


def regression(steps: int) -> Rows:
    """(A) Linear regression with two weights: gradient descent on noisy batches of 10."""
    rng = np.random.default_rng(0)
    x = rng.normal(size=(steps, 10))
    y = 3 * x + 2 + rng.normal(size=x.shape)
    weights, losses, errors, wb = np.empty((steps, 2)), np.empty(steps), np.empty(steps), np.zeros(2)
    for i in range(steps):
        error = wb[0] * x[i] + wb[1] - y[i]
        losses[i], errors[i] = np.mean(error**2), np.mean(np.abs(error))
        wb = wb - 0.01 * 2 * np.array([np.mean(error * x[i]), np.mean(error)])
        weights[i] = wb
    f32 = weights.astype(np.float32)
    return {**_columns(losses, errors, 16), "dense/kernel": f32[:, :1, None], "dense/bias": f32[:, 1:]}


def perceptron(steps: int) -> Rows:
    """(B2) A perceptron 784-64-64-10, SGD with batches of 32 made-up images whose margins are dark."""
    rng = np.random.default_rng(0)
    lit = np.zeros((28, 28), bool)
    lit[4:24, 4:24] = True
    patterns = np.maximum(rng.normal(size=(10, 784)), 0) * lit.reshape(-1)
    sizes, losses, errors, layers = (784, 64, 64, 10), np.empty(steps), np.empty(steps), []
    for n, m in pairwise(sizes):
        layers += [rng.uniform(-1, 1, (n, m)) * np.sqrt(6 / (n + m)), np.zeros(m)]
    layers = [a.astype(np.float32) for a in layers]
    names = [f"dense_{i // 2}/{'bias' if i % 2 else 'kernel'}" for i in range(6)]
    rows = {name: np.empty((steps, *a.shape), np.float32) for name, a in zip(names, layers, strict=True)}
    for step in range(steps):
        label = rng.integers(10, size=32)
        x = (patterns[label] * (rng.random((32, 784)) < 0.5)).astype(np.float32)
        h1 = np.maximum(x @ layers[0] + layers[1], 0)
        h2 = np.maximum(h1 @ layers[2] + layers[3], 0)
        z = h2 @ layers[4] + layers[5]
        p = np.exp(z - z.max(axis=1, keepdims=True))
        p /= p.sum(axis=1, keepdims=True)
        losses[step] = -np.log(p[np.arange(32), label] + 1e-12).mean()
        errors[step] = (p.argmax(axis=1) != label).mean()
        d3 = (p - np.eye(10, dtype=np.float32)[label]) / 32
        d2 = (d3 @ layers[4].T) * (h2 > 0)
        d1 = (d2 @ layers[2].T) * (h1 > 0)
        gradients = (x.T @ d1, d1.sum(0), h1.T @ d2, d2.sum(0), h2.T @ d3, d3.sum(0))
        for name, a, gradient in zip(names, layers, gradients, strict=True):
            np.subtract(a, np.float32(0.05) * gradient, out=a)
            rows[name][step] = a
    return {**_columns(losses, errors, 625), **rows}


def _columns(losses: np.ndarray, errors: np.ndarray, batches: int) -> Rows:
    step = np.arange(len(losses))
    epoch, batch = np.divmod(step, batches)
    mean = np.array([a.sum() for a in (losses, errors)])[:, None] / len(step)
    return {
        "step": step,
        "epoch": epoch,
        "batch": batch,
        "samples": np.full(len(step), 32),
        "batch_loss": losses,
        "running_loss": losses * 0.5 + mean[0] * 0.5,
        "running_mae": errors * 0.5 + mean[1] * 0.5,
        "learning_rate": np.full(len(step), 0.01),
    }


def measure(form: Any, rows: Rows, tensor: str) -> tuple[float, ...]:
    """Write all rows in chunks and read one tensor back; see ``HEAD`` for what it gives."""
    n, times, reading = len(rows["step"]), [], []
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        writer = form(folder, rows)
        for start in range(0, n, ROWS):
            chunk = {key: a[start : start + ROWS] for key, a in rows.items()}
            began = time.perf_counter()
            writer.append(chunk)
            times.append(time.perf_counter() - began)
        writer.close()
        files = [path for path in folder.rglob("*") if path.is_file()]
        form.read(folder, tensor)  # imports what it needs
        for path in files:  # out of the cache of the operating system
            with path.open("rb") as file:
                os.fsync(file.fileno())
                if hasattr(os, "posix_fadvise"):
                    os.posix_fadvise(file.fileno(), 0, 0, os.POSIX_FADV_DONTNEED)
        before = _bytes_read()
        found = form.read(folder, tensor)
        touched = None if before is None else (_bytes_read() or 0) - before
        assert np.array_equal(found.reshape(rows[tensor].shape), rows[tensor])
        for _ in range(5):
            began = time.perf_counter()
            form.read(folder, tensor)
            reading.append(time.perf_counter() - began)
        size = sum(path.stat().st_size for path in files)
    return (
        1e3 * float(np.median(times)),
        size / 1e6,
        len(files),
        1e3 * min(reading),
        np.nan if not touched else touched / 1e6,
    )


def _bytes_read() -> int | None:
    """Bytes that this process had read from a disk so far."""
    process = psutil.Process()
    return int(process.io_counters().read_bytes) if hasattr(process, "io_counters") else None


def killed(form: Any, case: str, kills: int) -> tuple[str, str]:
    """Kill a writer amid appending; tell how often all finished chunks were read then, and before."""
    rng, good, lost, beside = random.Random(0), 0, [], 0  # noqa: S311 - no secret
    for _ in range(kills):
        with tempfile.TemporaryDirectory() as name:
            me = [sys.executable, "-m", "benchmarks.history_formats"]
            child = subprocess.Popen(
                [*me, "--write", form.__name__, name, case],
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                text=True,
            )
            assert child.stdout is not None
            assert child.stdin is not None
            child.stdout.readline()
            reading = [*me, "--read", form.__name__, name]
            reader = subprocess.run(reading, capture_output=True, text=True, check=False)
            beside += reader.stdout.strip() == "1"
            child.stdin.write("on\n")
            child.stdin.flush()
            child.stdout.readline()
            time.sleep(rng.random() * 0.1)
            child.kill()
            done = 2 + len(child.stdout.read().split())
            child.wait()
            reader = subprocess.run(reading, capture_output=True, text=True, check=False)
            read = int(reader.stdout) if reader.returncode == 0 else 0
            good += read >= done
            lost += [f"{read} of {done}"] * (read < done)
            child.stdout.close()
    return f"{good} of {kills}" + (f" ({', '.join(lost)} chunks)" if lost else ""), f"{beside} of {kills}"


def write_until_killed(form: Any, folder: Path, case: str) -> None:
    """Append chunks full of their own number, print it when one is written; wait after the first."""
    size = {"large": 12_800, "small": 1}[case]
    shapes: dict[str, tuple[int, ...]] = {f"c{i}": (ROWS,) for i in range(8)}
    shapes |= {"a/kernel": (ROWS, size), "a/bias": (ROWS, 1)}
    example = {name: np.zeros(shape, np.float32) for name, shape in shapes.items()}
    writer = form(folder, example)
    for number in range(10_000 if case == "small" else 200):
        writer.append({name: np.full_like(a, number) for name, a in example.items()})
        print(number, flush=True)
        if number == 0:
            sys.stdin.readline()
    time.sleep(60)


def read_whole_chunks(form: Any, folder: Path) -> int:
    """Count the chunks, from the first, whose two tensors hold what was written."""
    found = [form.read(folder, name) for name in ("a/kernel", "a/bias")]
    chunks = min(len(a) for a in found) // ROWS
    whole = [all((a[i * ROWS : (i + 1) * ROWS] == i).all() for a in found) for i in range(chunks)]
    return [*whole, False].index(False)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--kills", type=int, default=KILLS)
    parser.add_argument("--write", nargs="+", help=argparse.SUPPRESS)
    parser.add_argument("--read", nargs="+", help=argparse.SUPPRESS)
    options = parser.parse_args()
    by_name = {form.__name__: form for form in FORMATS}
    if options.write:
        write_until_killed(by_name[options.write[0]], Path(options.write[1]), options.write[2])
        return
    if options.read:
        print(read_whole_chunks(by_name[options.read[0]], Path(options.read[1])))
        return
    forms = [form for form in FORMATS if importlib.util.find_spec(form.library)]
    for form in FORMATS:
        if form not in forms:
            print(f"left out, for want of {form.library}: {form.name}")
    cases = [
        ("A: 100,000 steps, 2 weights, 8 columns", regression(100_000), "dense/bias", 1),
        ("B2: 1,000 steps, 55,050 weights, 8 columns", perceptron(1_000), "dense_2/bias", 5),
    ]
    for title, rows, tensor, rounds in cases:
        raw = sum(a.nbytes for a in rows.values()) / 1e6
        print(f"\n{title}; {raw:.1f} MB in memory; one tensor is {rows[tensor].nbytes / 1e6:.2f} MB\n")
        print("| " + " | ".join(HEAD) + " |\n|" + " --- |" * len(HEAD))
        found: dict[str, list[tuple[float, ...]]] = {form.name: [] for form in forms}
        for seed in range(rounds):  # in an order of its own each: what ran before has its effect
            for form in random.Random(seed).sample(forms, len(forms)):  # noqa: S311 - no secret
                found[form.name].append(measure(form, rows, tensor))
        for name, measured in found.items():
            cells = [
                f"{value:,.{digits}f}" for value, digits in zip(np.median(measured, 0), (2, 1, 0, 1, 2), strict=True)
            ]
            print("| " + " | ".join([name, *cells]) + " |", flush=True)
    print("\nkill -9 amid appending: how often every finished chunk was read after it, and beside the writer\n")
    print("| format | after, 13 MB chunks | after, 10 kB chunks | beside the writer | library |")
    print("|" + " --- |" * 5)
    for form in forms:
        (large, beside), (small, _) = (killed(form, case, options.kills) for case in ("large", "small"))
        print(f"| {form.name} | {large} | {small} | {beside} | {form.library} |", flush=True)


if __name__ == "__main__":
    main()
