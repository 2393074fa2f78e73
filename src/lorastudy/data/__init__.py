"""From sources to tensors: documents, a memory-mapped corpus of tokens, rows, steps, batches."""
