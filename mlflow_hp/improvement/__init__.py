"""Trainings that follow the advice of the diagnosis: train, change what the first finding names, train again.

Public: `improve` does it with a function that trains. For programs that train in a way of their own, `AdviceLoop`
decides what to try next, and the functions describe it in runs.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from mlflow_hp._lazy import lazy_names

if TYPE_CHECKING:
    from mlflow_hp.improvement.advice_loop import AdviceLoop as AdviceLoop
    from mlflow_hp.improvement.api import improve as improve
    from mlflow_hp.improvement.proposals import KeywordChange as KeywordChange
    from mlflow_hp.improvement.proposals import Proposal as Proposal
    from mlflow_hp.improvement.reasons import describe_training as describe_training
    from mlflow_hp.improvement.reasons import training_tags as training_tags
    from mlflow_hp.improvement.report import name_best as name_best
    from mlflow_hp.improvement.report import summary as summary
    from mlflow_hp.improvement.report import table as table
    from mlflow_hp.improvement.scores import Scores as Scores
    from mlflow_hp.improvement.training_result import Improvement as Improvement
    from mlflow_hp.improvement.training_result import TrainingResult as TrainingResult
    from mlflow_hp.improvement.vocabulary import SYNONYMS as SYNONYMS

_MODULES = {
    "AdviceLoop": "advice_loop",
    "Improvement": "training_result",
    "KeywordChange": "proposals",
    "Proposal": "proposals",
    "SYNONYMS": "vocabulary",
    "Scores": "scores",
    "TrainingResult": "training_result",
    "describe_training": "reasons",
    "improve": "api",
    "name_best": "report",
    "summary": "report",
    "table": "report",
    "training_tags": "reasons",
}

__all__ = [
    "SYNONYMS",
    "AdviceLoop",
    "Improvement",
    "KeywordChange",
    "Proposal",
    "Scores",
    "TrainingResult",
    "describe_training",
    "improve",
    "name_best",
    "summary",
    "table",
    "training_tags",
]

__getattr__, __dir__ = lazy_names(__name__, _MODULES)
