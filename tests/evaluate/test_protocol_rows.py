"""The rows that each protocol cuts, their padding, and windows that a model cannot read."""

from dataclasses import dataclass
from typing import Any

import numpy as np
import pytest

from lorastudy.data.batches import Padding
from lorastudy.errors import ConfigError, InputError
from lorastudy.evaluate.protocols import (
    DOCUMENT_WINDOW,
    SizedProtocol,
    SpecialTokens,
    lay_out_rows,
    size_protocol,
)

START, END = 100, 101


@dataclass(frozen=True)
class Offsets:
    """What laying out rows reads of a corpus."""

    offsets: np.ndarray
    n_context: np.ndarray

    @property
    def n_tokens(self) -> int:
        return int(self.offsets[-1])


def parse(name: str, *, context: int | None = 64) -> SizedProtocol:
    return size_protocol(name, row_length=6, context=context)


def lay_out(
    name: str, *sizes: int, context: int | None = 64, n_read: tuple[int, ...] = ()
) -> tuple[list[tuple[int, int, int]], Any, Any]:
    protocol = parse(name, context=context)
    offsets = np.concatenate([[0], np.cumsum(sizes)])
    corpus = Offsets(offsets, np.array(n_read or [0] * len(sizes)))
    table, padding = lay_out_rows(protocol, corpus, SpecialTokens(START, END))
    rows = list(zip(table.begins.tolist(), table.scored_from.tolist(), table.ends.tolist()))  # noqa: B905
    return rows, table.prefix, padding


def test_rows_text_scores_the_first_tokens_of_every_document() -> None:
    rows, prefix, padding = lay_out("rows-text", 3, 9)
    assert rows == [(0, 0, 3), (3, 3, 8)]  # 6 places, one of them for the start token
    assert prefix == START
    assert padding == Padding(END)


def test_paper_padded_has_the_rows_of_rows_text_and_scores_padding() -> None:
    rows, prefix, padding = lay_out("paper-padded", 3, 9)
    assert (rows, prefix) == lay_out("rows-text", 3, 9)[:2]
    assert padding == Padding(END, scored_length=6)


def test_document_scores_every_token_of_every_document_once() -> None:
    rows, prefix, padding = lay_out("document", 3, 9, context=5)
    assert rows == [(0, 0, 3), (3, 3, 7), (7, 7, 11), (11, 11, 12)]
    assert (prefix, padding) == (START, Padding(END))


def test_blocks_are_disjoint_windows_of_the_joined_text() -> None:
    rows, prefix, padding = lay_out("blocks-8", 19)
    assert rows == [(0, 1, 8), (8, 9, 16), (16, 17, 19)]
    assert (prefix, padding) == (None, Padding(END))


def test_sliding_windows_score_what_the_one_before_did_not_hold() -> None:
    rows, prefix, padding = lay_out("sliding-8-3", 12)
    assert rows == [(0, 1, 8), (3, 8, 11), (6, 11, 12)]
    assert (prefix, padding) == (None, Padding(END))


def test_lm_eval_wikitext_fills_the_context_with_targets_and_moves_the_last_window_back() -> None:
    rows, prefix, padding = lay_out("lm-eval-wikitext", 3, 10, context=4)
    assert rows == [(0, 0, 3), (3, 3, 7), (6, 7, 11), (8, 11, 13)]
    assert (prefix, padding) == (START, Padding(END))


def test_lm_eval_lambada_scores_what_follows_the_context() -> None:
    rows, prefix, padding = lay_out("lm-eval-lambada", 5, 2, 9, context=6, n_read=(4, 0, 7))
    assert rows == [(0, 4, 5), (5, 5, 7), (9, 14, 16)]
    assert (prefix, padding) == (START, Padding(END))


def test_last_word_longer_than_the_context_is_refused() -> None:
    with pytest.raises(InputError, match=r"document 1: 7 targets.*reads 6 tokens"):
        lay_out("lm-eval-lambada", 3, 9, context=6, n_read=(2, 2))


def test_blocks_are_windows_that_slide_by_their_length() -> None:
    assert lay_out("blocks-8", 30) == lay_out("sliding-8-8", 30)


def test_window_as_long_as_the_context_is_allowed() -> None:
    assert parse("blocks-64").length == 64


@pytest.mark.parametrize("name", ["blocks-65", "sliding-65-3"])
def test_window_longer_than_the_context_is_refused(name: str) -> None:
    with pytest.raises(ConfigError, match="65 tokens are longer than the 64 positions"):
        parse(name)


@pytest.mark.parametrize("name", ["rows-text", "paper-padded"])
def test_row_longer_than_the_context_is_refused(name: str) -> None:
    with pytest.raises(ConfigError, match="6 tokens are longer than the 5 positions"):
        parse(name, context=5)


def test_any_window_fits_a_model_that_states_no_limit() -> None:
    assert parse("blocks-100000", context=None).length == 100_000
    assert parse("document", context=None).length == DOCUMENT_WINDOW


@pytest.mark.parametrize("name", ["rows", "blocks", "blocks-x", "sliding-8", "blocks-8-3", ""])
def test_unknown_name_is_told_the_names_there_are(name: str) -> None:
    with pytest.raises(ConfigError, match=r"does not exist\. Use one of rows-text, paper-padded"):
        parse(name)


@pytest.mark.parametrize("name", ["blocks-1", "sliding-8-9", "sliding-8-0"])
def test_window_that_cannot_be_cut_is_refused_before_it_is(name: str) -> None:
    with pytest.raises(ConfigError, match=name):
        parse(name)
