"""Artifact paths of recorded runs that several modules use; imports nothing."""

from __future__ import annotations

TRAINING_FOLDER = "training"
"""History of the first fit in a run; see `training_path`."""
PLOTS_FOLDER = "plots"
"""Pictures."""
LANDSCAPE_NAME = "landscape"
"""Beginning of the names of loss landscapes among the pictures; each has its numbers next to it, as JSON."""
DIAGNOSIS_FILE = "diagnosis.json"
"""Findings with their evidence."""
REPORT_FILE = "report.html"
"""Page of the run as a document of its own."""
LIVE_LAYERS_FILE = "training/layers_so_far.json"
"""Heatmaps of the layers while a training goes on."""
DESCRIPTION_FILE = "description.md"
"""Full description, if it is too long for its tag."""
TRACEBACK_FILE = "error/traceback.txt"
"""Tracebacks of a failed run, or of the failed folds of a candidate."""
BATCH_LOSSES_FILE = "batch_losses.csv"
"""Loss of each batch of a candidate's vectorised trainings, a column for each fold."""
UNCOMMITTED_FILE = "code/uncommitted.diff"
"""Uncommitted changes of the code: a patch, preceded by comments."""
CV_RESULTS_FILE = "cv_results.csv"
"""``cv_results_`` of a search; those of its second and later ``fit`` are in ``fit_<number>``."""
ATLAS_DOCUMENT = "atlas.html"
"""Map of descents in which a click shows those of a point."""
ATLAS_FILE = "atlas/atlas.npz"
"""Numbers of an atlas: losses, outcomes, shortened curves."""
TRIALS_FILE = "trials.csv"
"""Table of the trials of a study or a tuner."""
REVIEW_FILE = "review.json"
"""Findings of the review of a search, and its next space; of its second and later ``fit``, in ``fit_<number>``."""
NEXT_SPACE_FILE = "next_space.yaml"
"""The search space that the review proposes, as entry points take it."""
RESUME_FOLDER = "resume"
"""Manifests of a search that are too long for their tags."""
COMPARISON_FILE = "comparison.html"
"""Report of a comparison."""
COMBINATIONS_FILE = "combinations.csv"
"""Table of a sweep."""
PREPARATION_FILE = "data/preparation.json"
"""How a table was read and prepared for a network: what was imputed, scaled, one-hot and left out."""
SAVED_FOLDER = "saved"
"""Model, saved in the formats of Keras."""
BARRIERS_FOLDER = "barriers"
"""Loss barriers between the run and others; see `barrier_path`."""
REFUSED_FOLDER = "refused"
"""Texts whose artifact paths the artifact store refused."""


def training_path(fit: int) -> str:
    """Return the artifact path of the history of one fit in a run.

    Parameters
    ----------
    fit : int
        Number of the fit (0-based).

    Returns
    -------
    str
        The path.
    """
    return TRAINING_FOLDER if fit == 0 else f"{TRAINING_FOLDER}/fit_{fit}"


def barrier_path(other_run_id: str) -> str:
    """Return the artifact path of the loss barrier between a run and another.

    Parameters
    ----------
    other_run_id : str
        Id of the other run.

    Returns
    -------
    str
        The path.
    """
    return f"{BARRIERS_FOLDER}/{other_run_id}.json"
