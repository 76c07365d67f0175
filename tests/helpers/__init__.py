"""What several tests need. Nothing is imported from a ``test_*`` file, nor from `benchmarks`."""
