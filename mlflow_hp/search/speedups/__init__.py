"""Speed-ups of a search with identical results: reuse of compiled models, sharing of trainings."""
