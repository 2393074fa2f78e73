"""Controlled comparisons of fine-tuning methods for causal language models."""

__version__ = "0.1.0"
