"""A study file as frozen values, and its expansion into runs."""
