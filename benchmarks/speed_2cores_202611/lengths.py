"""Count the tokens of the study's texts, for lengths.npz; text itself is not kept.

    python lengths.py --mirror DIR      a folder laid out like the hub, with GPT-2's tokenizer

Texts are those of the published study: blank lines are dropped, and no token is added.
"""

import argparse
from pathlib import Path

import numpy as np
from documents import LENGTHS

from lorastudy.config.models import Source
from lorastudy.data.sources import read_documents
from lorastudy.model.tokenizer import load_tokenizer

WIKITEXT = {"id": "Salesforce/wikitext", "config": "wikitext-2-v1"}
TEXTS = {
    "wikitext-2-train": Source(**WIKITEXT, split="train"),
    "wikitext-2-test": Source(**WIKITEXT, split="test"),
    "imdb-test": Source(id="stanfordnlp/imdb", split="test"),
}


def main() -> None:
    """Write the counts of every text."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--mirror", type=Path, required=True)
    mirror = parser.parse_args().mirror
    tokenizer = load_tokenizer(mirror / "openai-community" / "gpt2")
    counts = {}
    for name, source in TEXTS.items():
        texts = read_documents(source, mirror=mirror, offline=True).texts
        filled = [text for text in texts if text.strip()]
        ids = tokenizer.encode(filled)
        counts[name] = np.array([len(row) for row in ids], dtype=np.uint16)
        print(f"{name}: {len(filled):,} texts, {counts[name].sum(dtype=int):,} tokens")
    np.savez_compressed(LENGTHS, **counts)


if __name__ == "__main__":
    main()
