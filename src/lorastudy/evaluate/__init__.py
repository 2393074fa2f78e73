"""Rows as a protocol cuts them, the sums of a model on rows, and what a padded score is made of."""
