"""The training loop, its schedules, and pretraining: what makes weights from nothing."""
