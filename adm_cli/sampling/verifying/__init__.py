"""Whether a run's folder is as it was written, and mending it."""
