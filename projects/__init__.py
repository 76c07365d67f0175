"""The experiments of well-known tutorials on hyperparameter tuning, each ``python -m projects.NAME``."""
