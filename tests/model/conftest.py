"""One corpus for all comparisons with transformers."""

import numpy as np
import pytest

from lorastudy.data.rows import RowTable, cut_lines
from support.gradients import LENGTH, PAD


@pytest.fixture(scope="module")
def corpus() -> tuple[np.ndarray, RowTable]:
    """7 documents of 1 to 40 tokens as rows of at most 24; two of them are equally long."""
    rng = np.random.default_rng(2)
    offsets = np.concatenate([[0], np.cumsum([40, 3, 17, 9, 1, 17, 30])])
    return rng.integers(0, 256, size=offsets[-1]), cut_lines(offsets, LENGTH, PAD)
