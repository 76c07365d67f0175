"""A search recorded while it runs: scikit-learn's fits followed, and told to MLflow."""
