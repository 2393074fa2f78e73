"""How often the fuzzers of `tests/fuzz` try: a sample by default, as many as are asked for."""

import os
from datetime import timedelta

from hypothesis import HealthCheck, settings

N_CASES = int(os.environ.get("LORASTUDY_FUZZ", "25"))
IS_SAMPLE = N_CASES <= 100
tried_often = settings(
    max_examples=N_CASES,
    # a case that hangs takes longer; while many cases run, other programs may slow one down
    deadline=timedelta(minutes=1 if IS_SAMPLE else 30),
    derandomize=IS_SAMPLE,
    database=None,
    suppress_health_check=list(HealthCheck),
)
