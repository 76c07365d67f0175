"""Live recording of scikit-learn's searches."""
