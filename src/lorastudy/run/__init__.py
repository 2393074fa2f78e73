"""One run from its spec to its result, in a folder of its own; safe to start twice."""
