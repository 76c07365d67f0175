"""Names of the tags, metrics and params of recorded runs; imports nothing.

A constant that ends in ``_PREFIX`` is the start of several names. Artifact paths: `mlflow_hp.tracking.artifact_paths`.
"""

from __future__ import annotations

TAG_PREFIX = "mlflow_hp."
"""Prefix of the tags of mlflow_hp."""

# Kind and recording of a run
KIND_TAG = "mlflow_hp.kind"
"""Kind of the run: training, search, candidate, fold, sweep or comparison."""
PROCESS_TAG = "mlflow_hp.process"
"""Process that records the run, or did last, as JSON; see `mlflow_hp.tracking.process_identity`."""
PARAMS_TAG = "mlflow_hp.params"
"""Params that are logged when the run ends, as a JSON object."""
EXPERIMENT_TAG = "mlflow_hp.experiment"
"""Entry point in MLproject that made the run."""
READER_TAG = "mlflow_hp.reader"
"""How the steps were read: graph or host."""
TENSORS_TAG = "mlflow_hp.tensors"
"""Names of the recorded tensors of each model, as JSON (if long, compressed by zlib, in base64)."""
WEIGHTS_TAG = "mlflow_hp.weights"
"""Argument ``weights`` of TrainingRecorder."""

# Provenance
AUTHOR_TAG = "mlflow_hp.author"
"""User who ran the program."""
HOST_TAG = "mlflow_hp.host"
"""Host name of the machine."""
COMMAND_TAG = "mlflow_hp.command"
"""Command line of the program, with secrets masked."""
VERSIONS_TAG = "mlflow_hp.versions"
"""Versions of Python and of the libraries that training depends on, comma-separated."""
DEVICE_TAG = "mlflow_hp.device"
"""Processors and GPUs."""
GIT_COMMIT_TAG = "mlflow_hp.git_commit"
"""Commit of the program's repository."""
GIT_DIRTY_TAG = "mlflow_hp.git_dirty"
"""Whether there were uncommitted or untracked files: true or false."""
GIT_FOLDER_TAG = "mlflow_hp.git_folder"
"""Working directory of the program, relative to the root of the repository."""
GIT_PROGRAM_TAG = "mlflow_hp.git_program"
"""File of the program, relative to the root of the repository."""
SEAL_TAG = "mlflow_hp.seal"
"""`mlflow_hp.tracking.seal` of command, commit, folder and program."""
UNCOMMITTED_TAG = "mlflow_hp.uncommitted"
"""Artifact path of the patch of uncommitted changes."""
UNCOMMITTED_SEAL_TAG = "mlflow_hp.uncommitted_seal"
"""`mlflow_hp.tracking.seal` of the uncommitted changes."""
REPEATS_TAG = "mlflow_hp.repeats"
"""Id of the run that this run repeats."""
REPETITION_TAG = "mlflow_hp.repetition"
"""Id of a repetition, the same in all runs that it made."""

# Data
DATA_DIGEST_TAG = "mlflow_hp.data_digest"
"""Digest of the data."""
SPLIT_DIGEST_TAG = "mlflow_hp.split_digest"
"""Digest of the split of the data."""
FOLDS_DIGEST_TAG = "mlflow_hp.folds_digest"
"""Digest of the folds of a search."""

# Fits of a training
FITS_TAG = "mlflow_hp.fits"
"""Number of recorded fits."""
STEPS_TAG = "mlflow_hp.steps"
"""Number of recorded steps, of all fits."""
EPOCHS_TAG = "mlflow_hp.epochs"
"""Number of recorded epochs, of all fits."""
CLAIM_TAG = "mlflow_hp.claim"
"""Spool folders of the fits that have got their number in the run, the latest first."""

CADENCE_TAG = "mlflow_hp.metric_steps"
"""Steps whose metrics were sent to MLflow, of the last fit: every step, or the lowest and highest of some."""

# Errors
ERROR_TAG = "mlflow_hp.error"
"""Exception that ended the run."""
RECORDING_ERROR_TAG = "mlflow_hp.recording_error"
"""Reason why the recording is incomplete."""
RESTORED_EPOCH_TAG = "mlflow_hp.restored_epoch"
"""Epoch (0-based) whose weights ``EarlyStopping`` restored at the end of the training."""
BEST_BY_TAG = "mlflow_hp.best_by"
"""Mode and metric by which the best epoch of a training was chosen, such as ``min val_loss``."""
SAVED_MODEL_TAG = "mlflow_hp.saved_model"
"""Model that a training leaves behind: ``best``, if ``EarlyStopping`` restored or ``ModelCheckpoint`` saved that of the
best epoch, else ``last``."""
RECOVERED_TAG = "mlflow_hp.recovered"
"""Losses of a recording that was recovered after its process died."""
REFUSED_TAG = "mlflow_hp.refused"
"""Items that MLflow refused, and the artifact that holds them."""
REFUSED_AT_TAG = "mlflow_hp.refused_at"
"""Time of a refusal: set in order to test whether MLflow accepts anything for the run."""
KEY_TAG = "mlflow_hp.key"
"""Key by which a run is found if the server's response with its id was lost."""

# Searches
CANDIDATE_TAG = "mlflow_hp.candidate"
"""Number of a candidate (0-based), its index in ``cv_results_``."""
ROUND_TAG = "mlflow_hp.round"
"""Number of the round in which the search proposed the candidate (0-based); absent for 0."""
FIT_TAG = "mlflow_hp.fit"
"""Number of the ``search.fit`` of a candidate (0-based); absent for 0."""
FOLD_TAG = "mlflow_hp.fold"
"""Number of the fold of a fold's own run (0-based)."""
FOLD_TAG_PREFIX = "mlflow_hp.fold_"
"""Results of a finished fold of a candidate, by its number, as JSON."""
PLANNED_TAG = "mlflow_hp.planned"
"""Number of planned candidates of a search."""
RUNNING_TAG = "mlflow_hp.running"
"""Number of running candidates."""
DONE_TAG = "mlflow_hp.done"
"""Number of finished candidates."""
FAILED_TAG = "mlflow_hp.failed"
"""Number of failed candidates."""
WERE_RUNNING_TAG = "mlflow_hp.were_running"
"""Folds that were running when the search ended with an exception."""
BEST_TAG = "mlflow_hp.best"
"""Name of the run of the best candidate, or combination."""
BEST_PARAMS_TAG = "mlflow_hp.best_params"
"""Params of the best candidate, as a JSON object."""
BEST_RUN_ID_TAG = "mlflow_hp.best_run_id"
"""Id of the run of the best candidate, or combination."""
RECORDED_TAG = "mlflow_hp.recorded"
"""``afterwards`` if a search was recorded from ``cv_results_``, not while it ran."""
SHARED_EPOCHS_WITH_TAG = "mlflow_hp.shared_epochs_with"
"""Name of the candidate whose training a fold shares."""
PLAIN_TRAININGS_TAG = "mlflow_hp.plain_trainings"
"""Number of trainings without the speed-ups, and the reasons."""
SEARCH_CV_TAG = "mlflow_hp.search_cv"
"""Param ``cv`` of a candidate's search; added by a comparison, not stored in a run."""

# Resumed searches
DIGEST_TAG_PREFIX = "mlflow_hp.digest_"
"""Digests that identify a search: of its space, estimator, code, data, ..."""
MANIFEST_TAG_PREFIX = "mlflow_hp.manifest_"
"""Manifests of code and files, by id."""
CODE_LEFT_TAG = "mlflow_hp.code_left"
"""Id of the manifest of code and files that had changed when the search ended."""
NOT_RESUMABLE_TAG = "mlflow_hp.not_resumable"
"""Reason why a search cannot be resumed."""
FOLDS_TAKEN_OVER_TAG = "mlflow_hp.folds_taken_over"
"""Number of folds that a resumed search reused."""
WENT_ON_WITH_TAG = "mlflow_hp.went_on_with"
"""Id of the earlier run that was resumed, and to which this run wrote instead."""

# Copies between stores
SYNCED_FROM_TAG = "mlflow_hp.synced_from"
"""Id of the original run or model of a copy."""
SYNCED_TAG = "mlflow_hp.synced"
"""Digest of the original of a complete copy; of an incomplete one, the id of its synchronization."""
SYNC_CLAIM_TAG_PREFIX = "mlflow_hp.sync."
"""Locks of synchronizations on an experiment."""

# Experiments of MLproject
COMBINATIONS_TAG = "mlflow_hp.combinations"
"""Numbers of planned, finished and failed combinations of a sweep."""
VERDICT_TAG = "mlflow_hp.verdict"
"""Ending of a minimisation, judged by its path."""
MESSAGE_TAG = "mlflow_hp.message"
"""Ending of a minimisation, in the minimiser's message."""

# Tags of MLflow
MLFLOW_TAG_PREFIX = "mlflow."
"""Prefix of the tags of MLflow."""
SOURCE_TAG_PREFIX = "mlflow.source."
"""Program that made the run, according to MLflow."""
PARENT_TAG = "mlflow.parentRunId"
"""Id of the parent run."""
USER_TAG = "mlflow.user"
"""User who made the run, according to MLflow."""
DESCRIPTION_TAG = "mlflow.note.content"
"""Description of a run, in markdown."""
RUN_NAME_TAG = "mlflow.runName"
"""Name of a run."""
SOURCE_NAME_TAG = "mlflow.source.name"
"""File or URL of the program."""
SOURCE_TYPE_TAG = "mlflow.source.type"
"""Kind of the program: a project, a notebook, ..."""
SOURCE_COMMIT_TAG = "mlflow.source.git.commit"
"""Commit of the program."""
DATASET_CONTEXT_TAG = "mlflow.data.context"
"""Use of a dataset in a run; tag of the dataset."""

# Metrics of steps and epochs
BATCH_METRIC_PREFIX = "batch/"
"""Metrics of single batches; step = number of the batch over the whole fit (0-based)."""
BATCH_LOSS_METRIC = "batch/loss"
"""Loss of the batch alone."""
BATCH_RUNNING_LOSS_METRIC = "batch/running_loss"
"""Mean loss of the epoch up to the batch, as Keras shows it."""
BATCH_LEARNING_RATE_METRIC = "batch/learning_rate"
"""Learning rate of the batch's update."""
WEIGHTS_METRIC_PREFIX = "weights/"
"""Weight, or statistic of a tensor, after each step: ``weights/<layer>/<variable>...``."""
UPDATE_RATIO_METRICS = ("weights/update_ratio/min", "weights/update_ratio/median", "weights/update_ratio/max")
"""Smallest, median and largest relative change of a trainable tensor in each step."""
GRADIENTS_METRIC_PREFIX = "gradients/"
"""Norm of all gradients of each step, and other numbers of them."""
SHARPNESS_METRIC = "sharpness"
"""Largest eigenvalue of the Hessian of the loss of the batch."""
EPOCH_METRIC_PREFIX = "epoch/"
"""Metrics of Keras by epoch whose names begin like those of metrics by step."""
SYSTEM_METRIC_PREFIX = "system/"
"""MLflow's system metrics."""
DIAGNOSIS_METRIC_PREFIX = "diagnosis/"
"""Numbers in the findings."""
SURFACE_METRICS = ("surface/w", "surface/b", "surface/J", "surface/variance_x", "surface/mean_x")
"""Cost surface of a linear regression: its minimum (weight, bias, cost), and the moments of the feature."""
DISTANCE_METRIC = "distance"
"""Distance from the end of a minimisation to the minimum."""
BEALE_METRICS = ("x", "y", "f", DISTANCE_METRIC)
"""Path over Beale's function: coordinates and value by iteration; and the distance of its end from the minimum."""
BEST_METRIC_PREFIX = "best/"
"""Metrics of the best epoch of a training: ``best/<metric>``; of a sweep, the best value among its runs."""
BEST_EPOCH_METRIC = "best/epoch"
"""Number (0-based) of the best epoch of a training."""
COMBINATIONS_FAILED_METRIC = "combinations_failed"
"""Number of failed combinations of a sweep."""

# Metrics of searches
SCORE_METRIC = "score"
"""Score on the test fold, of a search with one scorer; step = number of the fold (0-based)."""
MEAN_METRIC_PREFIX = "mean_"
"""Mean of a metric over the folds."""
MEAN_SCORE_METRIC = "mean_score"
"""Mean of `SCORE_METRIC` over the folds."""
TEST_SCORE_METRIC_PREFIX = "test_"
"""Score on the test fold, of a search with several scorers; its mean begins with ``mean_test_``."""
FOLD_METRIC_PREFIX = "fold_"
"""Metrics by epoch of a candidate's fold: ``fold_<number>/<metric>``."""
FIT_SECONDS_METRIC = "fit_seconds"
"""Seconds of training: of a fold, or of all folds of a search."""
SCORE_SECONDS_METRIC = "score_seconds"
"""Seconds of scoring."""
REFIT_SECONDS_METRIC = "refit_seconds"
"""Seconds of training the best candidate on all data."""
RECORDING_SECONDS_METRIC = "recording_seconds"
"""Seconds of writing the search to MLflow."""
REPORT_SECONDS_METRIC = "report_seconds"
"""Seconds of making plots and description."""
BEST_SCORE_METRIC = "best_score"
"""Mean score of the best candidate."""
N_RESOURCES_METRIC = "n_resources"
"""Resources of a candidate in a halving search."""
TEST_SCORE_METRIC = "test_score"
"""Score of a network on held-out data."""

# Metrics of experiments of MLproject
F1_METRIC_PREFIX = "f1/"
"""F1 score by class."""

# Params
BATCH_SIZE_PARAM = "batch_size"
"""Samples per batch."""
CV_PARAM = "cv"
"""Cross-validation splitter of a search."""
DATA_PARAM_PREFIX = "data/"
"""Sizes of the data."""
SAVED_PARAM_PREFIX = "saved/"
"""Largest difference between the predictions of a model before saving and after loading."""
MODEL_DIFFERENCE_PARAM = "model/largest_difference"
"""The same for the model logged to MLflow."""
SPACE_PARAM_PREFIX = "space"
"""Search space: ``space/<param>``; with several, ``space_<number>/<param>``."""


def score_metric(scorer: str, kind: str = "") -> str:
    """Name the metric of a scorer: ``score``, ``train_score``, ...; with several scorers ``test_<scorer>``, ...

    Parameters
    ----------
    scorer : str
        Name in ``cv_results_``: ``"score"`` if there is only one.
    kind : {"", "train", "mean", "std", "rank"}
        Score on the test fold, score on the training folds, or statistic over the test folds. Defaults to ``""``.

    Returns
    -------
    str
        Name of the metric.
    """
    if scorer == SCORE_METRIC:
        return {"": SCORE_METRIC, "rank": "rank"}.get(kind, f"{kind}_{SCORE_METRIC}")
    prefix = "train" if kind == "train" else "test" if not kind else f"{kind}_test"
    return f"{prefix}_{scorer}"
