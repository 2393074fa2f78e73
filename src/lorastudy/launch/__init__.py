"""Who executes the missing runs; every engine starts the same idempotent command."""
