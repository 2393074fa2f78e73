"""One run from its spec to its result: idempotent, resumable, the only writer of its folder."""
