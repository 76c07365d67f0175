"""Private names of other libraries that are relied on, each with what is done where it is missing."""
