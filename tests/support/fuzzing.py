"""How often the fuzzers of `tests/fuzz` try: a sample by default, as many as are asked for."""

import os
from datetime import timedelta

from hypothesis import HealthCheck, settings

N_CASES = int(os.environ.get("LORASTUDY_FUZZ", "25"))
tried_often = settings(
    max_examples=N_CASES,
    deadline=timedelta(seconds=60),
    derandomize=N_CASES <= 100,
    database=None,
    suppress_health_check=list(HealthCheck),
)
