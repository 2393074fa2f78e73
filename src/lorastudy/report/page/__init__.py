"""The page of the report: one file that needs no network."""
