"""Long texts are encoded in parts, and their ids are those of the whole text."""

from collections.abc import Sequence
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tokenizers import Tokenizer, models, normalizers, pre_tokenizers, trainers

import lorastudy
from lorastudy.model import long_texts

BASE = Path(lorastudy.__file__).parent / "demo" / "base"
PIECES = ["the", "of", "don't", "re-run", "x", "42", "Straße", "ＡＢ", "語は", "。", ",", "(", "  "]
PIECES += ["\n", "\n\n", " \t", "’s", "_", "--", "e\u0301", "a", " a b a b", "https://x.yz/?q=1"]
TEXTS = st.lists(st.sampled_from([*PIECES, *([" "] * len(PIECES))]), min_size=200, max_size=400)


def make_tokenizer(kind: str) -> Tokenizer:
    """A tokenizer of one of the kinds that models come with."""
    if kind == "byte pairs":
        return Tokenizer.from_file(str(BASE / "tokenizer.json"))
    sample = ["".join(PIECES), " ".join(PIECES), "a b a b a b the of the of x"] * 5
    if kind == "unigram":
        tokenizer = Tokenizer(models.Unigram())
        tokenizer.pre_tokenizer = pre_tokenizers.Metaspace()
        trainer = trainers.UnigramTrainer(vocab_size=120, show_progress=False, unk_token="?")
    elif kind == "word pieces":
        tokenizer = Tokenizer(models.WordPiece(unk_token="?"))
        tokenizer.normalizer = normalizers.BertNormalizer(lowercase=True)
        tokenizer.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
        trainer = trainers.WordPieceTrainer(vocab_size=120, show_progress=False)
    else:  # byte pairs of whole texts, also across spaces
        tokenizer = Tokenizer(models.BPE(unk_token="?"))
        if kind == "begun":
            replace = normalizers.Replace(" ", "▁")
            tokenizer.normalizer = normalizers.Sequence([normalizers.Prepend("▁"), replace])
        trainer = trainers.BpeTrainer(vocab_size=120, show_progress=False, special_tokens=["?"])
    tokenizer.train_from_iterator(sample, trainer)
    return tokenizer


@pytest.mark.parametrize("kind", ["byte pairs", "unigram", "word pieces", "begun", "across"])
def test_a_long_text_has_the_ids_of_the_whole_text(
    kind: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(long_texts, "PART", 200)
    monkeypatch.setattr(long_texts, "_AROUND", 64)
    tokenizer, lengths = make_tokenizer(kind), []

    def encode(texts: Sequence[str]) -> list[list[int]]:
        lengths.extend(map(len, texts))
        return [e.ids for e in tokenizer.encode_batch(list(texts), add_special_tokens=False)]

    @settings(max_examples=20, deadline=None)
    @given(TEXTS)
    def compare(pieces: list[str]) -> None:
        text = "".join(pieces)
        assert long_texts.encode_text(text, encode) == encode([text])[0]

    compare()
    lengths.clear()
    long_texts.encode_text("plain words of a text " * 60, encode)
    if kind != "across":  # which may cut between some words
        assert (max(lengths) <= 200) == (kind != "begun")
