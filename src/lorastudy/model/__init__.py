"""Base models, their linear modules, placements, adapters, and the score of a batch."""
