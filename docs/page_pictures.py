"""Draw page*.png, compare.png and run_page*.png: runs of two authors on the pages and in a report, in Chromium.

    python docs/page_pictures.py build/pictures/page.png   # all five, into the folder of this one

The status is 3 if there is no Chromium: then nothing is drawn.
"""

from __future__ import annotations

import os
import shutil
import socket
import subprocess
import sys
import sysconfig
import tempfile
import time
import urllib.request
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parents[1]
NO_BROWSER = 3
CHROMIUM = os.environ.get("CHROMIUM") or shutil.which("chromium") or shutil.which("google-chrome") or ""
RATES = {"Ada": "0.5,0.1", "Grace": "0.02,0.004"}
COLUMNS = "name,author,status,started,duration,p.learning_rate,p.epochs,m.loss,m.val_loss"
SERVER_SECONDS = 180


def record(folder: str, environment: dict[str, str]) -> dict[str, str]:
    """Record two authors' descents, and a network; return the ids of the experiments."""
    import mlflow

    ids = {}
    for name in ("descents", "networks"):
        ids[name] = mlflow.create_experiment(name, artifact_location=Path(folder, "artifacts", name).as_uri())
    for author, rates in RATES.items():
        words = ["cost_contour", "--standardize", "true", "--optimizer", "sgd", "--epochs", "6",
                 "--learning_rate", rates, "--animate", "false"]  # fmt: skip
        _run(words, environment | {"MLFLOW_HP_AUTHOR": author, "MLFLOW_EXPERIMENT_NAME": "descents"})
    _run(["train", "--epochs", "8"], environment | {"MLFLOW_EXPERIMENT_NAME": "networks"})
    return ids


def _run(words: list[str], environment: dict[str, str]) -> None:
    program, *options = words
    subprocess.run(
        [sys.executable, "-m", f"projects.{program}", *options], check=True, cwd=ROOT, capture_output=True,
        env=environment,
    )  # fmt: skip


def _run_id(experiment: str, condition: str) -> str:
    import mlflow

    (run,) = mlflow.MlflowClient().search_runs([experiment], condition)
    return run.info.run_id


def search() -> None:
    """Record a search of each author on the same folds, in another experiment."""
    import mlflow
    from sklearn.datasets import load_digits
    from sklearn.linear_model import SGDClassifier
    from sklearn.model_selection import GridSearchCV

    import mlflow_hp

    mlflow.set_experiment("digits")
    x, y = load_digits(return_X_y=True)
    for author, alphas in {"Ada": [1e-4, 1e-3, 1e-2], "Grace": [1e-1, 1.0]}.items():
        os.environ["MLFLOW_HP_AUTHOR"] = author
        grid = GridSearchCV(SGDClassifier(random_state=0), {"alpha": alphas}, cv=5)
        with mlflow_hp.record_search(grid):
            grid.fit(x / 16, y)


def serve(environment: dict[str, str]) -> tuple[subprocess.Popen[bytes], str]:
    """Start the server, and return it with its address when it answers."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    words = [f"{sysconfig.get_path('scripts')}/mlflow", "server", "--app-name", "mlflow-hp", "--workers", "1",
             "--port", str(port), "--backend-store-uri", environment["MLFLOW_TRACKING_URI"]]  # fmt: skip
    log = Path(environment["MLFLOW_HP_FOLDER"]).with_name("server.log").open("wb")
    server = subprocess.Popen(words, env=environment, stdout=log, stderr=log, start_new_session=True)
    address, end = f"http://127.0.0.1:{port}/hp/", time.monotonic() + SERVER_SECONDS
    while server.poll() is None and time.monotonic() < end:
        try:
            with urllib.request.urlopen(address, timeout=10):
                return server, address
        except OSError:
            time.sleep(0.5)
    raise SystemExit(f"the server did not answer at {address}")


def draw(pictures: Path, address: str, ids: dict[str, str], report: Path) -> None:
    """Take the pictures of the pages and of the report."""
    from playwright.sync_api import sync_playwright

    with sync_playwright() as started:
        browser = started.chromium.launch(executable_path=CHROMIUM, args=["--no-sandbox", "--disable-gpu"])
        page = _page_of_descents(browser, address, ids["descents"], 1280, "light")
        _add_section(page, "", pictures / "page.png", is_first=True)
        _add_section(page, "Curves", pictures / "page.png")
        _add_section(page, "Descents on one surface", pictures / "page.png")
        page = _page_of_descents(browser, address, ids["descents"], 400, "dark")
        page.screenshot(path=pictures / "page_mobile.png")
        page = _new_page(browser, 1000, "light")
        page.goto(report.as_uri())
        page.wait_for_timeout(1500)
        _add_section(page, "Scores, and which differences are real", pictures / "compare.png", is_first=True)
        _add_section(page, "Descents on one surface", pictures / "compare.png")
        page = _new_page(browser, 1000, "light")
        run_id = _run_id(ids["descents"], "params.learning_rate = '0.1'")
        page.goto(f"{address}run/{run_id}")
        page.get_by_role("button", name="Surface").click()
        page.wait_for_timeout(1500)
        end = page.evaluate("document.getElementById('descent').getBoundingClientRect().bottom + scrollY")
        clip = {"x": 0, "y": 0, "width": 1000, "height": end + 8}
        page.screenshot(path=pictures / "run_page.png", full_page=True, clip=clip)
        run_id = _run_id(ids["networks"], "")
        page.goto(f"{address}run/{run_id}")
        page.wait_for_selector("#microscope .main-svg")
        page.wait_for_timeout(1500)
        page.locator("#microscope").screenshot(path=pictures / "run_page_layers.png")
        browser.close()


def _new_page(browser: Any, width: int, scheme: str) -> Any:
    page = browser.new_context(viewport={"width": width, "height": 930}, color_scheme=scheme).new_page()
    page.set_default_timeout(60_000)
    return page


def _page_of_descents(browser: Any, address: str, experiment: str, width: int, scheme: str) -> Any:
    """Open the page at an experiment, and select its trainings."""
    page = _new_page(browser, width, scheme)
    page.goto(f"{address}#e={experiment}&k=training&c={COLUMNS}")
    page.wait_for_selector("#table tbody tr")
    page.locator("#table tbody tr").first.focus()
    page.keyboard.press("Control+a")
    page.wait_for_selector("#curve .main-svg")
    page.wait_for_selector("#sections h2")
    page.wait_for_timeout(1500)
    return page


def _add_section(page: Any, title: str, picture: Path, *, is_first: bool = False) -> None:
    """Add the first section of this title, down to the next heading, to a picture; without a title, the page's top."""
    import io

    from PIL import Image

    places = [["", 8]] * (not title) + page.evaluate(
        """() => [...document.querySelectorAll("h2, h3, hr")].map(
            (each) => [each.innerText, each.getBoundingClientRect().top + scrollY])"""
    )
    end = page.evaluate("document.documentElement.scrollHeight")
    number = next(number for number, (text, _) in enumerate(places) if text.strip() == title)
    top = places[number][1] - 8
    bottom = min([at for _, at in places[number + 1 :] if at > top + 20] + [end]) - 8
    clip = {"x": 0, "y": top, "width": page.viewport_size["width"], "height": bottom - top}
    parts = [Image.open(io.BytesIO(page.screenshot(full_page=True, clip=clip))).convert("RGB")]
    if not is_first:
        parts.insert(0, Image.open(picture).convert("RGB"))
    whole = Image.new("RGB", (max(each.width for each in parts), sum(each.height for each in parts)), "white")
    for place, part in enumerate(parts):
        whole.paste(part, (0, sum(each.height for each in parts[:place])))
    whole.save(picture)


def main(pictures: Path) -> int:
    """Record, serve, and take the pictures."""
    if not CHROMIUM:
        return NO_BROWSER
    with tempfile.TemporaryDirectory(prefix="mlflow_hp_pictures_") as folder:
        kept = {name: value for name, value in os.environ.items() if not name.startswith("MLFLOW")}
        environment = kept | {
            "MLFLOW_TRACKING_URI": f"sqlite:///{folder}/mlflow.db",
            "MLFLOW_HP_AUTHOR": "Ada",
            "MLFLOW_HP_FOLDER": f"{folder}/journals",
            "MLFLOW_SERVER_ENABLE_JOB_EXECUTION": "false",
            "PYTHONPATH": str(ROOT),
        }
        os.chdir(folder)
        os.environ.update(environment)
        import mlflow

        mlflow.set_tracking_uri(environment["MLFLOW_TRACKING_URI"])
        ids = record(folder, environment)
        search()
        report = Path(folder, "compared.html")
        subprocess.run(
            [f"{sysconfig.get_path('scripts')}/mlflow-hp", "compare", "--experiment", "digits",
             "--experiment", "descents", "--by", "author", "--output", report],
            check=True, env=environment, capture_output=True,
        )  # fmt: skip
        server, address = serve(environment)
        try:
            draw(pictures, address, ids, report)
        finally:
            os.killpg(server.pid, 15)
            server.wait()
    return 0


if __name__ == "__main__":
    raise SystemExit(main(Path(sys.argv[1]).absolute().parent))
