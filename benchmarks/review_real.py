"""Real searches of scikit-learn whose defect is arranged: estimator, grid, folds, and what the review has to find."""

from __future__ import annotations

import warnings
from typing import TYPE_CHECKING, Any, NamedTuple

if TYPE_CHECKING:
    from mlflow_hp.analysis import SearchResults


class Real(NamedTuple):
    """Real search.

    Attributes
    ----------
    name : str
    expected : str
        Beginning of the name of the finding; empty if there must be none of an edge, an infeasible region or a length.
    data, estimator : str
        Names.
    grid : dict
    n_splits : int
    """

    name: str
    expected: str
    data: str
    estimator: str
    grid: dict[str, list[Any]]
    n_splits: int = 5


CASES = (
    Real("C too small", "edge/model__C", "digits", "logistic", {"model__C": [1e-6, 1e-5, 1e-4, 1e-3]}),
    Real("C too small", "edge/model__C", "breast_cancer", "logistic", {"model__C": [1e-5, 1e-4, 1e-3, 1e-2]}),
    Real("C right", "", "digits", "logistic", {"model__C": [1e-3, 1e-2, 1e-1, 1.0, 10.0]}),
    Real("C right", "", "breast_cancer", "logistic", {"model__C": [1e-3, 1e-2, 1e-1, 1.0, 10.0, 100.0]}),
    Real("rates too low", "edge/model__learning_rate_init", "digits", "mlp",
         {"model__learning_rate_init": [1e-6, 1e-5, 1e-4], "model__activation": ["relu", "tanh"]}),
    Real("rates too high", "infeasible/model__learning_rate_init", "digits", "sgd",
         {"model__learning_rate_init": [0.01, 0.1, 30.0, 100.0], "model__activation": ["relu", "identity"]}),
    Real("rates right", "", "digits", "mlp",
         {"model__learning_rate_init": [1e-4, 1e-3, 1e-2, 1e-1], "model__activation": ["relu", "tanh"]}),
    Real("alpha idle", "no_effect/model__alpha", "digits", "mlp",
         {"model__learning_rate_init": [1e-4, 1e-3, 1e-2], "model__alpha": [1e-9, 1e-8, 1e-7]}),
    Real("too few epochs", "too_short/model__max_iter", "digits", "mlp",
         {"model__max_iter": [1, 2, 4], "model__learning_rate_init": [1e-3, 1e-2, 1e-1]}),
    Real("one fold noise", "power", "breast_cancer", "logistic",
         {"model__C": [0.5, 0.6, 0.7, 0.8, 0.9, 1.0]}, 3),
    Real("gamma too small", "edge/model__gamma", "digits", "svc",
         {"model__gamma": [1e-7, 1e-6, 1e-5, 1e-4], "model__C": [1.0, 10.0]}),
    Real("gamma and C", "", "digits", "svc",
         {"model__gamma": [1e-5, 1e-4, 1e-3, 1e-2, 1e-1], "model__C": [0.1, 1.0, 10.0, 100.0]}),
    Real("deep trees overfit", "overfit", "breast_cancer", "tree", {"model__max_depth": [4, 6, 8, 12]}),
)  # fmt: skip


def search(case: Real, **settings: Any) -> SearchResults:
    """Run the search of a case, in seconds; `settings` are arguments of `GridSearchCV`."""
    from sklearn import datasets
    from sklearn.linear_model import LogisticRegression
    from sklearn.model_selection import GridSearchCV, StratifiedKFold
    from sklearn.neural_network import MLPClassifier
    from sklearn.pipeline import Pipeline
    from sklearn.preprocessing import StandardScaler
    from sklearn.svm import SVC
    from sklearn.tree import DecisionTreeClassifier

    from mlflow_hp.analysis import from_cv_results

    x, y = getattr(datasets, f"load_{case.data}")(return_X_y=True)
    models = {
        "logistic": LogisticRegression(max_iter=200),
        "mlp": MLPClassifier((32,), max_iter=15, random_state=0),
        "sgd": MLPClassifier((32,), max_iter=15, random_state=0, solver="sgd"),
        "svc": SVC(),
        "tree": DecisionTreeClassifier(random_state=0),
    }
    estimator = Pipeline([("scale", StandardScaler()), ("model", models[case.estimator])])
    if case.estimator == "svc":
        estimator = Pipeline([("model", models["svc"])])
    folds = StratifiedKFold(case.n_splits, shuffle=True, random_state=0)
    fitted = GridSearchCV(estimator, case.grid, cv=folds, return_train_score=True, **settings)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        fitted.fit(x, y)
    return from_cv_results(fitted.cv_results_)
