"""Training: schedule and optimizer as functions of the step, the loop as a generator."""
