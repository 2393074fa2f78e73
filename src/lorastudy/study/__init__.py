"""A study as a whole: what is missing, conducting it, and what it will cost."""
