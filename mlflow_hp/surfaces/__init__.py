"""Cost surfaces as numbers."""
