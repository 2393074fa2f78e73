"""A study as a whole: checking it, finding what is missing, conducting it."""
