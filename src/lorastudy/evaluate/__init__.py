"""Protocols as named, versioned data, and the scoring of a model on a benchmark."""
