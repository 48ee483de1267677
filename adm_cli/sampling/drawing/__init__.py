"""From a run to pictures: stages, batches, workers, what is written."""
