"""The states of a job as plain words: an enumeration costs a small client too much. `jobs.JobState` explains them."""

from __future__ import annotations

STATES = ("pending", "processing", "completed", "failed", "dead", "cancelled")

WAITING = ("pending", "failed")
"""States that a worker may take a job from, once its `run_at` has come."""

ENDED = ("completed", "dead", "cancelled")
"""States in which nothing more happens by itself."""
