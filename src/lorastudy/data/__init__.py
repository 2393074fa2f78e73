"""From a source to rows: documents, a memory-mapped token corpus, and which tokens go together."""
