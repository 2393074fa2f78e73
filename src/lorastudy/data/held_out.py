"""Documents of the training data that are held out to validate on, chosen by a seed.

Documents are chosen before they are cut into rows, so no document is on both sides. All documents
with the same text (or rows with the same prompt and answer) are on one side, and blank texts are
never held out.
"""

from collections.abc import Hashable
from dataclasses import replace

import numpy as np
from numpy.typing import NDArray

from lorastudy.config.sources import Split
from lorastudy.data.sources import Documents
from lorastudy.errors import InputError
from lorastudy.seeds import open_stream
from lorastudy.store.counts import HeldOut


def take_side(documents: Documents, split: Split) -> tuple[Documents, HeldOut]:
    """The documents of one side, and what is on both.

    Raises:
        InputError: One of the sides would be empty.
    """
    assert documents.sizes, "joined documents know how many are of each source"
    contents = _contents_of(documents)
    filled = [content for content in contents if content != ""]
    is_held_out = _choose(contents, split, documents.origin)
    counts = HeldOut(
        n_documents=len(filled),
        n_held_out=int(is_held_out.sum()),
        n_repeated=len(filled) - len(set(filled)),
        seed=split.seed,
    )
    is_kept = is_held_out if split.side == "validation" else ~is_held_out
    places = np.flatnonzero(is_kept).tolist()
    begins = np.cumsum([0, *documents.sizes[:-1]])
    sizes = np.add.reduceat(is_kept.astype(np.int64), begins).tolist()
    chosen = replace(
        documents,
        texts=tuple(documents.texts[place] for place in places if documents.texts),
        examples=tuple(documents.examples[place] for place in places if documents.examples),
        sizes=tuple(sizes),
    )
    return chosen, counts


def _contents_of(documents: Documents) -> list[Hashable]:
    """What makes two documents the same; empty for blank texts."""
    if documents.examples:
        return [(example.prompt, example.completion) for example in documents.examples]
    return [text.strip() for text in documents.texts]


def _choose(contents: list[Hashable], split: Split, origin: str) -> NDArray[np.bool_]:
    """Which documents are held out: (n,)."""
    alike: dict[Hashable, list[int]] = {}
    for place, content in enumerate(contents):
        if content != "":
            alike.setdefault(content, []).append(place)
    groups = list(alike.values())
    n_documents = sum(map(len, groups))
    wanted = round(split.share * n_documents)
    is_held_out, n_held_out = np.zeros(len(contents), dtype=bool), 0
    for number in open_stream(split.seed, "validation-split").permutation(len(groups)):
        # a group that is too large for what is left stays with the training data
        if n_held_out + len(groups[number]) <= wanted:
            is_held_out[groups[number]] = True
            n_held_out += len(groups[number])
    if not 0 < n_held_out < n_documents:
        side = "validation" if n_held_out == 0 else "training"
        raise InputError(
            f"data.validation.from_train: {split.share:g} of the {n_documents:,} documents of "
            f"{origin} leaves none for {side}; documents with the same text stay together. Use "
            f"a {'larger' if n_held_out == 0 else 'smaller'} share, or name other documents."
        )
    return is_held_out
