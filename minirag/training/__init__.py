"""The training loop, its schedules, and pretraining: everything that changes weights from nothing."""
