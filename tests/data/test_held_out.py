"""Documents that are held out of the training data."""

import pytest

from lorastudy.config.sources import Split
from lorastudy.data.examples import Example
from lorastudy.data.held_out import take_side
from lorastudy.data.sources import Documents, join_documents
from lorastudy.errors import InputError
from lorastudy.store.counts import HeldOut

TEXTS = (*(f"Text {n}." for n in range(40)), "", "  Text 3.", "Text 5.\n", "Text 5.", " ")
ROWS = tuple(Example(f"line {n}", f"{n % 30}?", f"{n % 30}!") for n in range(40))


def documents(*parts: tuple[str, ...] | tuple[Example, ...]) -> Documents:
    return join_documents([Documents.of(part, "notes") for part in parts])


def sides(whole: Documents, share: float, seed: int = 0) -> tuple[Documents, Documents, HeldOut]:
    train, counts = take_side(whole, Split(share, seed, "train"))
    validation, again = take_side(whole, Split(share, seed, "validation"))
    assert counts == again
    return train, validation, counts


@pytest.mark.parametrize("seed", [0, 1, 2, 3])
def test_every_document_is_on_one_side_with_all_that_say_the_same(seed: int) -> None:
    whole = documents(TEXTS[:25], TEXTS[25:])
    train, validation, counts = sides(whole, 0.25, seed)
    assert sorted(train.texts + validation.texts) == sorted(TEXTS)
    said = [{text.strip() for text in side.texts} for side in (train, validation)]
    assert not said[0] & said[1]
    assert "" in said[0]  # blank texts stay
    assert counts == HeldOut(n_documents=43, n_held_out=11, n_repeated=3, seed=seed)
    assert len(validation.texts) == 11
    assert train.sizes == tuple(
        sum(text in train.texts for text in part) for part in (TEXTS[:25], TEXTS[25:])
    )


def test_a_share_is_of_documents_that_are_not_blank() -> None:
    train, validation, _ = sides(documents(("One.", "Two.", "", " ", "")), 0.5)
    assert (len(train.texts), len(validation.texts)) == (4, 1)


def test_rows_with_equal_prompt_and_answer_are_on_one_side() -> None:
    train, validation, counts = sides(documents(ROWS), 0.3)
    prompts = [{row.prompt for row in side.examples} for side in (train, validation)]
    assert not prompts[0] & prompts[1]
    assert len(validation.examples) == counts.n_held_out == 12
    assert counts.n_repeated == 10


def test_another_seed_holds_out_other_documents_and_the_same_seed_the_same() -> None:
    first, again, other = (sides(documents(TEXTS), 0.25, seed)[1].texts for seed in (0, 0, 1))
    assert first == again != other


@pytest.mark.parametrize(
    ("texts", "share", "says"),
    [
        (TEXTS[:8], 0.05, "leaves none for validation.*larger share"),
        (("Same.",) * 8, 0.5, "leaves none for validation"),
        (TEXTS[:8], 0.99, "leaves none for training.*smaller share"),
    ],
)
def test_an_empty_side_is_refused(texts: tuple[str, ...], share: float, says: str) -> None:
    with pytest.raises(InputError, match=says):
        sides(documents(texts), share)


def test_texts_and_rows_with_answers_are_not_mixed() -> None:
    with pytest.raises(InputError, match="A mixture has to be of one kind"):
        documents(TEXTS, ROWS)
