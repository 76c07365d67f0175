"""A search that learns from its trials: scikit-learn's interface, Optuna's samplers."""
