"""What the records of a study say: summaries, comparisons, claims. Numbers only, no words."""
