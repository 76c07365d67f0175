"""What saves a search time: models reused, trainings shared; the plain way where that is not sure."""
