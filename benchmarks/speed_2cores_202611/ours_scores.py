"""This package's scoring of rows, as a run scores a benchmark."""

import numpy as np
from documents import Documents
from meter import peak_bytes, report, report_step, side_parser, wait_for_turn
from ours import CPU, load_arm, make_arm, make_table, start_process

from lorastudy.data.batches import Padding
from lorastudy.evaluate.score import score_rows
from lorastudy.model.scoring import make_scorer


def main() -> None:
    """Score all rows in every step; the first step scores a few."""
    options = side_parser(__doc__).parse_args()
    start_process(options)
    documents = Documents(options.base, options.texts, options.seed)
    rows = documents.sorted_texts(options.micro_batches)
    tokens, table = make_table(rows, documents.longest)
    model = load_arm(options.base, make_arm(options.arm), options.seed)
    scorer = make_scorer(model.network, options.precision)
    report(ready=True, start_bytes=peak_bytes())
    for step in range(options.steps + 1):
        chosen = table if step else table.select(np.arange(2))
        begin = wait_for_turn()
        scores = score_rows(scorer, tokens, chosen, Padding(documents.end), device=CPU)
        report_step(begin, int(chosen.lengths.sum()), nats=scores.sums.cross_entropy)


if __name__ == "__main__":
    main()
