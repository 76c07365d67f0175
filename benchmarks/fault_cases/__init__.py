"""Cases of `benchmarks/faults.py`: each is a function that hurts something, and prints what that cost."""
