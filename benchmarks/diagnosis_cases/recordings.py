"""Recorded trainings of the cases: a folder of histories, and a line of JSON for each."""

from __future__ import annotations

import hashlib
import inspect
import json
import os
import shutil
import subprocess
import sys
import tempfile
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

from tqdm import tqdm

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from benchmarks.diagnosis_cases.case import Case

PER_PROCESS = 12
"""Trainings of one process: its start takes seconds, and TensorFlow keeps memory."""

SECONDS_EACH = 90
"""A process is given up after so long for each training."""


class Job(NamedTuple):
    """Training to record: of a case, in a role, from a seed. Keywords are those of the role if they are None."""

    case: str
    role: str
    seed: int
    keywords: dict[str, Any] | None = None

    def key(self, cases: dict[str, Case]) -> str:
        """Key of the training: the same for the same program, keywords and seed, whatever the case."""
        case = cases[self.case]
        keywords = case.keywords(self.role) if self.keywords is None else self.keywords
        source = inspect.getsource(case.train)
        text = source[source.index("def ") :] + repr(sorted(keywords.items()))
        digest = hashlib.sha256(text.encode()).hexdigest()[:10]
        return f"{case.train.__name__}-{digest}-{self.seed}"


class Result(NamedTuple):
    """Recorded training; `key` is the folder of its history, too, and `error` says why there is none."""

    key: str
    case: str
    role: str
    score: float = float("nan")
    loss: float = float("nan")
    seconds: float = 0.0
    error: str = ""


class Results:
    """Results in a folder.

    Parameters
    ----------
    folder : Path
        It is made if there is none.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.file = folder / "results.jsonl"
        folder.mkdir(parents=True, exist_ok=True)

    def read(self) -> dict[str, Result]:
        """The latest result of each training."""
        lines = self.file.read_text(encoding="utf-8").splitlines() if self.file.exists() else []
        results = [Result(**json.loads(line)) for line in lines]
        return {each.key: each for each in results}

    def add(self, result: Result) -> None:
        """Append a result; a line each, so that several processes can."""
        with self.file.open("a", encoding="utf-8") as file:
            file.write(json.dumps(result._asdict()) + "\n")

    def missing(self, jobs: Iterable[Job], cases: dict[str, Case], *, again: bool = False) -> list[Job]:
        """Trainings that are not recorded, each once; `again` for all."""
        results = {} if again else self.read()
        by_key = {job.key(cases): job for job in jobs}
        return [
            job
            for key, job in by_key.items()
            if key not in results or results[key].error or not (self.folder / key).exists()
        ]


def record_all(results: Results, jobs: Sequence[Job], n_processes: int) -> None:
    """Record trainings in fresh processes, some after each other in one, and several processes at once."""
    environment = {
        **os.environ,
        "CUDA_VISIBLE_DEVICES": "-1",
        "TF_CPP_MIN_LOG_LEVEL": "3",
        "TF_NUM_INTRAOP_THREADS": "1",
        "TF_NUM_INTEROP_THREADS": "1",
        "OMP_NUM_THREADS": "1",
        "MLFLOW_LOGGING_LEVEL": "ERROR",
        "MLFLOW_ENABLE_ARTIFACTS_PROGRESS_BAR": "false",
        "MLFLOW_HP_SILENT": "1",
    }
    command = [sys.executable, "-m", "benchmarks.diagnosis", "--folder", str(results.folder), "--worker"]

    def record(batch: Sequence[Job]) -> None:
        text = json.dumps([job._asdict() for job in batch])
        with (results.folder / "log.txt").open("a", encoding="utf-8") as log:
            process = subprocess.Popen(
                command, stdin=subprocess.PIPE, stderr=log, stdout=log, env=environment, text=True
            )
            try:
                process.communicate(text, timeout=SECONDS_EACH * len(batch))
            except subprocess.TimeoutExpired:
                process.kill()
        bar.update(len(batch))

    batches = [jobs[i : i + PER_PROCESS] for i in range(0, len(jobs), PER_PROCESS)]
    with tqdm(total=len(jobs), desc="trainings", disable=not jobs) as bar, ThreadPoolExecutor(n_processes) as pool:
        list(pool.map(record, batches))


def work(results: Results, jobs: Iterable[Job], cases: dict[str, Case]) -> None:
    """Record trainings one after the other in this process."""
    with tempfile.TemporaryDirectory(ignore_cleanup_errors=True) as name:
        os.chdir(name)
        os.environ["MLFLOW_HP_FOLDER"] = str(Path(name, "on-its-way"))
        import mlflow

        mlflow.set_tracking_uri(f"sqlite:///{name}/runs.db")
        mlflow.set_experiment("diagnosis")
        for job in jobs:
            case, key = cases[job.case], job.key(cases)
            started = time.perf_counter()
            values: dict[str, Any] = {}
            try:
                values = _record(case, job, results.folder / key)
            except Exception as error:  # noqa: BLE001 - the next one shall be recorded all the same
                values["error"] = f"{type(error).__name__}: {error}"[:500]
            seconds = round(time.perf_counter() - started, 2)
            results.add(Result(key, job.case, job.role, seconds=seconds, **values))


def _record(case: Case, job: Job, folder: Path) -> dict[str, float]:
    """Train, and move the history to a folder."""
    import keras
    import mlflow

    import mlflow_hp

    keras.backend.clear_session()
    keras.utils.set_random_seed(job.seed)
    recorder = mlflow_hp.TrainingRecorder(report=False, metrics_every=10**6)
    keywords = case.keywords(job.role) if job.keywords is None else job.keywords
    with mlflow.start_run() as run:
        _, scores = case.train([recorder], **keywords)
    shutil.rmtree(folder, ignore_errors=True)
    shutil.copytree(mlflow.artifacts.download_artifacts(run_id=run.info.run_id, artifact_path="training"), folder)
    return {"score": round(scores["score"], 5), "loss": round(scores["loss"], 6)}
