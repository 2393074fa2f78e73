"""What both sides compute: random tokens in rows as long as real ones, from one seed.

Rows are drawn and then chosen, so that few of them stand for all: of 1,000 micro-batches of 14
drawn rows the ones are taken whose tokens and whose longest row are nearest to the mean of all.
"""

import json
from pathlib import Path

import numpy as np

HERE = Path(__file__).resolve().parent
LENGTHS = HERE / "lengths.npz"  # token counts of real texts, as lengths.py reads them
LONGEST = 350  # rows are cut here, as in the published study
BATCH = 14  # its micro-batch
WARM_UP = 8  # tokens of the rows of the first, untimed step
SORTED_TOGETHER = 700  # rows that a peer sorts by length before it cuts them into micro-batches
_DRAWN = 1_000  # micro-batches, of which the nearest to the mean are taken

Rows = list[list[int]]


class Documents:
    """Rows for a base model: its vocabulary, its context and its end-of-text token."""

    def __init__(self, base: Path, texts: str, seed: int) -> None:
        config = json.loads((base / "config.json").read_text())
        self.vocabulary = int(config["vocab_size"])
        self.end = int(config.get("eos_token_id") or 0)
        context = config.get("n_positions") or config.get("max_position_embeddings")
        self.longest = min(LONGEST, int(context))
        with np.load(LENGTHS) as known:
            self.lengths = np.clip(known[texts] + 1, 2, self.longest)  # with the start token
        self.seed = seed

    def steps(self, n_steps: int, micro_batches: int, first: str = "none") -> list[Rows]:
        """Rows of each optimizer step, after those of a `first` one that is not timed.

        "short": short rows, for warming up; "peak": as long and as many tokens as micro-batches
        with a row of full length have on average, for memory; "none": there is no such step.
        """
        rng = np.random.default_rng([self.seed, 1])
        drawn = rng.choice(self.lengths, size=(_DRAWN, BATCH))
        features = np.stack([drawn.sum(1), drawn.max(1)], axis=1).astype(float)
        distance = (np.abs(features - features.mean(0)) / features.std(0)).sum(1)
        chosen = drawn[np.argsort(distance, kind="stable")[: n_steps * micro_batches]]
        lengths = [chosen[i::n_steps].ravel().tolist() for i in range(n_steps)]
        full = drawn[drawn.max(1) == self.longest]
        mean = np.abs(full.sum(1) - full.sum(1).mean()).argmin()
        untimed = {"short": [[WARM_UP] * BATCH], "peak": [full[mean].tolist()], "none": []}[first]
        return self._fill([*(rows * micro_batches for rows in untimed), *lengths])

    def grouped_steps(self, n_steps: int, micro_batches: int) -> list[Rows]:
        """Steps as sorting 700 rows makes them: neighbours of every length in equal parts."""
        steps = [[WARM_UP] * BATCH * micro_batches]
        for step in range(n_steps):
            rng = np.random.default_rng([self.seed, 2, step])
            rows = np.sort(rng.choice(self.lengths, size=SORTED_TOGETHER))
            steps.append(pick_batches(rows, micro_batches).ravel().tolist())
        return self._fill(steps)

    def sorted_texts(self, n_batches: int) -> Rows:
        """Rows of `n_batches` batches of 14 neighbours, as sorting all texts makes them."""
        return self._fill([pick_batches(np.sort(self.lengths), n_batches).ravel().tolist()])[0]

    def _fill(self, steps: list[list[int]]) -> list[Rows]:
        rng = np.random.default_rng([self.seed, 3])
        return [
            [
                [self.end, *rng.integers(0, self.vocabulary - 1, size=length - 1).tolist()]
                for length in lengths
            ]
            for lengths in steps
        ]


def pick_batches(rows: np.ndarray, n: int) -> np.ndarray:
    """`n` batches of 14 neighbours out of sorted lengths, evenly over them: (n, 14)."""
    batches = rows[: len(rows) // BATCH * BATCH].reshape(-1, BATCH)
    places = ((np.arange(n) + 0.5) * len(batches) / n).astype(int)
    return batches[places]


def join_to_blocks(rows: Rows, length: int) -> Rows:
    """The rows one behind the other, cut to full blocks; documents are not kept apart."""
    stream = [token for row in rows for token in row]
    return [stream[i : i + length] for i in range(0, len(stream) - length + 1, length)]
