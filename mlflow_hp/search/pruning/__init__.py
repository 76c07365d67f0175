"""Rules by which a candidate of a search loses its other folds."""
