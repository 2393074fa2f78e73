"""The fast implementation: what transformers + PEFT compute, in less time and memory."""
