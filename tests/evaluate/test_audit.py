"""Padding taken out of a perplexity, against counts and values made by hand."""

import math
from pathlib import Path

import numpy as np
import pytest

from lorastudy.config.models import Source
from lorastudy.data.batches import Padding, make_batch
from lorastudy.data.corpus import prepare_corpus
from lorastudy.data.rows import cut_lines
from lorastudy.data.sources import read_documents
from lorastudy.errors import ConfigError
from lorastudy.evaluate.audit import (
    HIGHEST_FIRST_PADDING,
    HIGHEST_OTHER_PADDING,
    TargetCounts,
    count_targets,
    undo_padding,
)
from lorastudy.protocols import Form

COUNTS = TargetCounts(n_rows=10, first=10, text=90, first_padding=10, other_padding=290)


def test_targets_are_counted_as_a_padded_batch_has_them() -> None:
    sizes, length = [1, 3, 0, 4, 9], 5
    table = cut_lines(np.cumsum([0, *sizes]), length, 99)
    counts = count_targets(table, length)
    batch = make_batch(np.arange(17), table, np.arange(4), Padding(99, length))
    assert counts.by_class == (
        ("first", 4),
        ("text", 2 + 3 + 3),
        ("first-padding", 2),
        ("other-padding", 2),
    )
    assert counts.total == batch.n_scored == 4 * (length - 1)
    assert counts.text_share == 12 / 16


@pytest.mark.parametrize("text_nats", [2.0, 3.5])
def test_undone_text_is_what_went_in_at_either_end(text_nats: float) -> None:
    free = math.exp(text_nats * 100 / 400)
    assert undo_padding(free, COUNTS).high == pytest.approx(math.exp(text_nats))
    padding = 10 * HIGHEST_FIRST_PADDING + 290 * HIGHEST_OTHER_PADDING
    hard = (100 * text_nats + padding) / 400
    assert undo_padding(math.exp(hard), COUNTS).low == pytest.approx(math.exp(text_nats))


def test_true_text_perplexity_lies_in_the_range_for_padding_in_between() -> None:
    text, first, other = 3.0, 1.5, 0.002
    reported = math.exp((100 * text + 10 * first + 290 * other) / 400)
    undone = undo_padding(reported, COUNTS)
    assert undone.low < math.exp(text) < undone.high == undone.text_perplexity


def test_number_that_padding_alone_explains_leaves_no_text_loss() -> None:
    undone = undo_padding(1.001, COUNTS)
    assert undone.low == 1.0 < undone.high


def test_rows_without_padding_are_what_is_reported() -> None:
    undone = undo_padding(20.0, TargetCounts(4, 4, 60, 0, 0))
    assert (undone.low, undone.high) == (pytest.approx(20.0), pytest.approx(20.0))


@pytest.mark.parametrize("reported", [0.9, -1.0, math.nan, math.inf])
def test_number_that_is_no_perplexity_is_refused(reported: float) -> None:
    with pytest.raises(ConfigError, match="finite number of at least 1"):
        undo_padding(reported, COUNTS)


@pytest.mark.parametrize(
    ("repository", "config", "form", "reported", "share", "text"),
    [
        ("Salesforce/wikitext", "wikitext-2-raw-v1", "texts", 2.472, 0.2733, 27.4),
        ("Salesforce/wikitext", "wikitext-2-raw-v1", "raw-texts", 2.472, 0.2786, 25.8),
        ("EleutherAI/lambada_openai", "en", "texts", 3.229, 0.2392, 134),
        ("stanfordnlp/imdb", "plain_text", "texts", 18.699, 0.6634, 82.7),
    ],
)
def test_published_numbers_stand_for_ordinary_text(
    *,
    tmp_path: Path,
    shared_data: Path,
    repository: str,
    config: str,
    form: Form,
    reported: float,
    share: float,
    text: float | int,
) -> None:
    from lorastudy.model.tokenizer import load_tokenizer

    tokenizer = load_tokenizer(shared_data / "openai-community/gpt2")
    source = Source(id=repository, config=config, split="test")
    read = read_documents(source, mirror=shared_data, offline=True)
    corpus = prepare_corpus(read, tokenizer, tmp_path, form=form)
    counts = count_targets(cut_lines(corpus.offsets, 350, tokenizer.start_id), 350)
    undone = undo_padding(reported, counts)
    assert round(counts.text_share, 4) == share
    assert undone.text_perplexity == pytest.approx(text, rel=2.5e-3)
    assert undone.low < undone.text_perplexity < 1.2 * undone.low
