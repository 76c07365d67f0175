"""Cost surfaces and planes through weight space."""
