"""The padded perplexity of a model computed without this package: transformers' own loss.

    check_padded_perplexity.py MODEL PARQUET N_ROWS

The published protocol as a plain loop: blank lines dropped, start token and at most 349 tokens,
padded to 350, labels = ids, attention mask = (id != end of text), batches of 14 in order, mean
of the batches' losses. Compare with what `lorastudy evaluate MODEL --protocol paper-padded` says.
"""

import math
import sys

import pyarrow.parquet as pq
import torch
from transformers import AutoModelForCausalLM, AutoTokenizer

LENGTH, BATCH = 350, 14


def main(model_folder: str, parquet: str, n_rows: int) -> None:
    """Print the perplexity."""
    tokenizer = AutoTokenizer.from_pretrained(model_folder)
    model = AutoModelForCausalLM.from_pretrained(model_folder, dtype=torch.float32).eval()
    texts = [text.strip() for text in pq.read_table(parquet).column("text").to_pylist()]
    end = tokenizer.eos_token_id
    rows = []
    for text in [text for text in texts if text][:n_rows]:
        ids = [end, *tokenizer.encode(text, add_special_tokens=False)[: LENGTH - 1]]
        rows.append(ids + [end] * (LENGTH - len(ids)))
    losses = []
    for begin in range(0, len(rows), BATCH):
        ids = torch.tensor(rows[begin : begin + BATCH])
        with torch.no_grad():
            losses.append(model(ids, attention_mask=(ids != end).int(), labels=ids).loss.item())
    print(f"perplexity {math.exp(sum(losses) / len(losses)):.4f} over {len(rows)} rows")


if __name__ == "__main__":
    main(sys.argv[1], sys.argv[2], int(sys.argv[3]))
