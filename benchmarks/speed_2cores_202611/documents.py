"""What both sides compute: documents with real line lengths and random tokens, from one seed."""

from pathlib import Path

import numpy as np

END, LENGTH, VOCABULARY = 50256, 350, 50256  # of GPT-2; rows are cut at LENGTH
BATCH, ACCUMULATION = 14, 5  # of the study: 70 rows behind one optimizer step
WARM_UP = 8  # tokens of the rows of the first, untimed step


def draw_lengths(path: Path, n: int, seed: int) -> list[int]:
    """Tokens of `n` rows, start token included, drawn from the lengths in the file."""
    rng = np.random.default_rng([seed, 1])
    drawn = rng.choice(np.load(path), size=n).astype(int)
    return np.clip(drawn, 2, LENGTH).tolist()


def draw_steps(path: Path, n_steps: int, rows: int, seed: int) -> list[list[list[int]]]:
    """Rows of each optimizer step, each a list of token ids; the first step is for warming up."""
    lengths = draw_lengths(path, n_steps * rows, seed)
    steps = [[WARM_UP] * rows, *(lengths[i * rows : (i + 1) * rows] for i in range(n_steps))]
    return fill(steps, seed)


def draw_grouped_steps(path: Path, n_steps: int, seed: int) -> list[list[list[int]]]:
    """Steps as sorting 700 rows makes them: every tenth of the batches of 14 neighbours."""
    steps = [[WARM_UP] * BATCH * ACCUMULATION]
    for step in range(n_steps):
        lengths = sorted(draw_lengths(path, 700, seed + step))
        batches = [lengths[i : i + BATCH] for i in range(0, 700, BATCH)]
        steps.append([length for batch in batches[5::10] for length in batch])
    return fill(steps, seed)


def fill(steps: list[list[int]], seed: int) -> list[list[list[int]]]:
    """Random tokens behind a start token, for every length."""
    rng = np.random.default_rng([seed, 2])
    return [
        [[END, *rng.integers(0, VOCABULARY, size=length - 1).tolist()] for length in lengths]
        for lengths in steps
    ]


def join_to_blocks(rows: list[list[int]]) -> list[list[int]]:
    """The rows one behind the other, cut to full blocks of LENGTH; documents are not kept apart."""
    stream = [token for row in rows for token in row]
    return [stream[i : i + LENGTH] for i in range(0, len(stream) - LENGTH + 1, LENGTH)]
