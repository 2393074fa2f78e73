"""The machine that runs are made on: what it is, its memory, and processes that share a run."""
