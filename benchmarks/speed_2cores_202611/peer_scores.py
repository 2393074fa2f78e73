"""The peer's scoring: transformers + PEFT, batches of 14 rows, padded and masked.

"padded": to the full length; "sorted": rows of similar length together, padded to the longest;
"merged": sorted, and the adapter is added into the weights first.
"""

import warnings

import torch
import transformers
from documents import BATCH, Documents
from meter import peak_bytes, report, report_step, side_parser, silence_output, wait_for_turn
from peer import Padder, Row, load_model


@torch.no_grad()
def score(model: torch.nn.Module, batch: dict[str, torch.Tensor], low: bool) -> tuple[float, int]:
    """Sum of nats and number of targets."""
    with torch.autocast("cpu", torch.bfloat16, enabled=low):
        logits = model(
            input_ids=batch["input_ids"], attention_mask=batch["attention_mask"], use_cache=False
        ).logits
    targets = batch["labels"][:, 1:].flatten()
    nats = torch.nn.functional.cross_entropy(
        logits[:, :-1].flatten(0, 1).float(), targets, reduction="sum"
    )
    return float(nats), int((targets != -100).sum())


def main() -> None:
    """Score all rows in every step; the first step scores a few."""
    options = side_parser(__doc__).parse_args()
    silence_output()
    warnings.filterwarnings("ignore")
    transformers.logging.set_verbosity_error()
    torch.set_num_threads(options.threads)
    torch.manual_seed(options.seed)
    documents = Documents(options.base, options.texts, options.seed)
    texts: list[Row] = [{"input_ids": row} for row in documents.sorted_texts(options.micro_batches)]
    padder = Padder(options.mode, documents.longest, documents.end)
    model = load_model(options.base, options.arm).eval()
    if options.mode == "merged":
        model = model.merge_and_unload()
    report(ready=True, start_bytes=peak_bytes())
    for step in range(options.steps + 1):
        rows = texts if step else texts[:2]
        begin = wait_for_turn()
        total, n_targets = 0.0, 0
        for start in range(0, len(rows), BATCH):
            nats, n = score(
                model, padder(rows[start : start + BATCH]), options.precision == "bfloat16"
            )
            total, n_targets = total + nats, n_targets + n
        n_tokens = sum(len(row["input_ids"]) for row in rows)
        report_step(begin, n_tokens, nats=total / n_targets)


if __name__ == "__main__":
    main()
