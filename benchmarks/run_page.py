"""How fast the page of one run opens, follows a training, and draws descents.

    python -m benchmarks.run_page

Opened are a training of a million steps, and one of 240 tensors, in headless Chromium with nothing in its cache: from
the call of the address until everything is drawn. Frames are counted while five descents of 10,000 steps are turned as
a surface, and while they play. The delay is from a training's log of a step to the page that shows it.
"""

from __future__ import annotations

import argparse
import os
import statistics
import tempfile
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

import mlflow
import numpy as np
import requests
from mlflow.entities import Metric

from mlflow_hp.history import HistoryWriter, Tensor
from mlflow_hp.history.program import ArrayStatistics, DataStatistics, Layer, Output, Program, write_program
from mlflow_hp.tracking.tags import BATCH_LOSS_METRIC, KIND_TAG
from tests.helpers.servers import serving

if TYPE_CHECKING:
    from collections.abc import Mapping

ROWS = 256
SECONDS = 3.0
"""Of counting frames."""
DESCENTS = 5
FRAMES = """(async () => {
  const canvas = document.querySelector("canvas.descent");
  canvas.focus();
  let frames = 0;
  const begun = performance.now();
  while (performance.now() - begun < %d) {
    %s
    await new Promise(requestAnimationFrame);
    frames += 1;
  }
  return 1000 * frames / (performance.now() - begun);
})()"""
TURN = 'canvas.dispatchEvent(new KeyboardEvent("keydown", { key: "ArrowRight" }));'


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--steps", type=int, default=1_000_000)
    parser.add_argument("--tensors", type=int, default=240)
    parser.add_argument("--chromium", type=Path, default=Path("/usr/bin/chromium"))
    arguments = parser.parse_args()
    os.environ.update(MLFLOW_LOGGING_LEVEL="ERROR", MLFLOW_SUPPRESS_PRINTING_URL_TO_STDOUT="true")
    with tempfile.TemporaryDirectory() as folder, serving(Path(folder), "mlflow-hp") as server:
        client, root = mlflow.MlflowClient(server), Path(folder, "at-the-server")
        long = _run(client, root, arguments.steps, 4)
        wide = _run(client, root, 20_000, arguments.tensors)
        lines = [_line(client, root, 10_000, seed) for seed in range(DESCENTS)]
        for name, run_id in (("million steps", long), ("many tensors", wide)):
            seconds, size = _answered(f"{server}/hp/api/training?run={run_id}")
            print(f"{name}: the server answers in {seconds:.2f} s, {size / 1e3:.0f} kB")
        from playwright.sync_api import sync_playwright

        with sync_playwright() as playwright:
            browser = playwright.chromium.launch(
                executable_path=arguments.chromium, args=["--no-sandbox", "--disable-gpu", "--no-first-run"]
            )
            for name, run_id in (("million steps", long), ("many tensors", wide)):
                page, seconds = _opened(browser, f"{server}/hp/run/{run_id}")
                zoomed = _zoomed(page)
                print(f"{name}: opened in {seconds:.2f} s, zoomed in to 1,000 steps in {zoomed:.2f} s")
                page.close()
            page, _ = _opened(browser, f"{server}/hp/run/{lines[0]}#with={','.join(lines[1:])}")
            page.get_by_role("button", name="Surface").click()
            turning = page.evaluate(FRAMES % (1000 * SECONDS, TURN))
            page.get_by_role("button", name="Play").click()
            playing = page.evaluate(FRAMES % (1000 * SECONDS, ""))
            print(f"{DESCENTS} descents: {turning:.0f} frames a second turning, {playing:.0f} playing")
            page.close()
            print(f"delay: {_delay(browser, client, server):.2f} s, median of steps that were logged one by one")
            browser.close()


def _run(client: Any, root: Path, n_steps: int, n_tensors: int) -> str:
    """Make a run with the history of `n_steps` steps and statistics of `n_tensors` tensors."""
    tensors = [Tensor(f"layer_{i}/kernel", (32, 32), "float32", trainable=True) for i in range(n_tensors)]
    names = [tensor.name for tensor in tensors]
    columns = dict.fromkeys(("step", "epoch", "batch"), "int64") | dict.fromkeys(
        ("batch_loss", "running_loss", "learning_rate", "gradient_norm"), "float64"
    )
    columns |= {f"gradient_norm_of/{name}": "float64" for name in names}
    rng = np.random.default_rng(0)

    def rows(at: int, n: int) -> tuple[dict[str, np.ndarray], dict[str, np.ndarray]]:
        step = np.arange(at, at + n)
        numbers: dict[str, np.ndarray] = {name: rng.lognormal(size=n) for name in columns}
        numbers |= {"step": step, "epoch": step // 1000, "batch": step % 1000}
        return numbers, {name: rng.lognormal(size=(n, 4)) for name in names}

    first = {name: np.ones(4) for name in names}
    return _written(client, root, columns, tensors, "statistics", first, rows, n_steps)


def _line(client: Any, root: Path, n_steps: int, seed: int) -> str:
    """Make a run with a linear regression of `n_steps` steps."""
    rng = np.random.default_rng(seed)
    tensors = [Tensor("dense/kernel", (1, 1), "float32", True), Tensor("dense/bias", (1,), "float32", True)]
    path = np.array([[3.0], [-2.0]]) * np.exp(-np.arange(n_steps + 1) / n_steps * 4) + 0.02 * rng.normal(
        size=(2, n_steps + 1)
    ).cumsum(axis=1)

    def rows(at: int, n: int) -> tuple[dict[str, np.ndarray], dict[str, np.ndarray]]:
        w, b = path[:, at + 1 : at + 1 + n].astype(np.float32)
        return {"batch_loss": np.ones(n)}, {"dense/kernel": w.reshape(-1, 1, 1), "dense/bias": b.reshape(-1, 1)}

    first = {"dense/kernel": path[:1, :1].astype(np.float32), "dense/bias": path[1:, 0].astype(np.float32)}
    return _written(client, root, {"batch_loss": "float64"}, tensors, "values", first, rows, n_steps, _program())


def _program() -> Program:
    """Description of a linear regression on 1,000 samples, whose surface has its minimum near (0, 0)."""
    of_x = ArrayStatistics(
        "", (1,), "float32", 1000, 32, (0.1,), (1.0,), (-3.0,), (3.0,), (0.0,), is_integer=False,
        target_products=(0.02,),
    )  # fmt: skip
    of_y = ArrayStatistics("", (1,), "float32", 1000, 32, (0.0,), (0.3,), (-1.0,), (1.0,), (0.0,), is_integer=False)
    layer = Layer("dense", "Dense", activation="linear", config={"units": 1}, n_weights=2)
    output = Output("dense", "dense", "linear", (1,), "MeanSquaredError")
    return Program((layer,), (output,), fit={"epochs": 1}, training=DataStatistics((of_x,), (of_y,)))


def _written(
    client: Any, root: Path, columns: Mapping[str, str], tensors: Any, weights: str, first: Any, rows: Any,
    n_steps: int, described: Program | None = None,
) -> str:  # fmt: skip
    run_id: str = client.create_run("0", run_name=f"{n_steps} steps", tags={KIND_TAG: "training"}).info.run_id
    folder = root / "0" / run_id / "artifacts" / "training"
    folder.mkdir(parents=True)
    meta = {"optimizer": {"name": "SGD", "learning_rate": 0.1}}
    with HistoryWriter(folder, columns=columns, tensors=tensors, weights=weights, initial=first, meta=meta) as writer:
        for at in range(0, n_steps, ROWS):
            writer.append(*rows(at, min(ROWS, n_steps - at)))
        writer.append_epoch({"epoch": 0, "loss": 1.0})
    if described is not None:
        write_program(folder, described)
    client.set_terminated(run_id)
    return run_id


def _answered(address: str) -> tuple[float, int]:
    started = time.perf_counter()
    answer = requests.get(address, timeout=300)
    answer.raise_for_status()
    return time.perf_counter() - started, len(answer.content)


def _opened(browser: Any, address: str) -> tuple[Any, float]:
    page = browser.new_context(viewport={"width": 1280, "height": 900}).new_page()
    started = time.perf_counter()
    page.goto(address)
    _until(page, "document.documentElement.dataset.shown === 'all'")
    return page, time.perf_counter() - started


def _zoomed(page: Any) -> float:
    """Drag across a thousandth of the steps, or what comes next to it; seconds until they are drawn."""
    box = page.locator("#microscope .plot .nsewdrag").nth(0).bounding_box()
    before = page.locator("#microscope .bar span").inner_text()
    y = box["y"] + box["height"] / 2
    page.mouse.move(box["x"] + 100, y)
    page.mouse.down()
    page.mouse.move(box["x"] + 110, y, steps=3)
    started = time.perf_counter()
    page.mouse.up()
    _until(page, f"document.querySelector('#microscope .bar span').textContent !== {before!r}")
    return time.perf_counter() - started


def _delay(browser: Any, client: Any, server: str) -> float:
    run_id = client.create_run("0", tags={KIND_TAG: "training"}).info.run_id

    def log(step: int) -> None:
        client.log_batch(run_id, [Metric(BATCH_LOSS_METRIC, 1.0, round(time.time() * 1000), step)])

    log(0)
    page, _ = _opened(browser, f"{server}/hp/run/{run_id}")
    delays = []
    for step in range(1, 8):
        log(step)
        started = time.perf_counter()
        _until(page, f"document.querySelector('#progress').textContent.includes('step {step + 1}')")
        delays.append(time.perf_counter() - started)
    return statistics.median(delays)


def _until(page: Any, condition: str) -> None:
    while not page.evaluate(condition):
        page.wait_for_timeout(20)


if __name__ == "__main__":
    main()
