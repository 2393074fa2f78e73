"""The texts every installation carries: what is kept, how it is split, what is refused."""

import hashlib
import re
import subprocess
import sys
from itertools import combinations

import pytest

from lorastudy.data import builtin
from lorastudy.data.builtin import extract_paragraphs, read_builtin, split_topics
from lorastudy.data.examples import Example
from lorastudy.errors import InputError

ALL_SPLITS = [
    ("python-reference", "train"),
    ("python-reference", "validation"),
    ("python-reference", "test"),
    ("docstrings", "test"),
    ("licences", "test"),
]

PAGE = """\
Assignment statements
*********************

Assignment statements are used to bind names to values and to
modify attributes or items of mutable objects:

   assignment_stmt ::= (target_list "=")+ starred_expression

* If the target list is a single target with no trailing comma,
  optionally in parentheses, the object is assigned to it.

   def f(target=None):
       return target.assigned_to

+--------------------+--------------------+
| Operation          | Result             |
+--------------------+--------------------+

>>> print("This Interactive Session Is Left Out, Too.")

Too short to keep.
"""

TOPICS = {f"topic {n}": f"Paragraph number {n} speaks of a thing of its own." for n in range(40)}


def run_python(code: str, hash_seed: str) -> str:
    """Standard output of a fresh interpreter."""
    environment = {"PYTHONHASHSEED": hash_seed, "PYTHONPATH": ":".join(filter(None, sys.path))}
    return subprocess.run(
        [sys.executable, "-c", code], env=environment, check=True, capture_output=True, text=True
    ).stdout


def digest(paragraphs: list[str]) -> str:
    return hashlib.sha256("\n".join(paragraphs).encode()).hexdigest()


def test_only_prose_of_a_page_is_kept_one_line_a_paragraph() -> None:
    assert extract_paragraphs(PAGE) == [
        "Assignment statements are used to bind names to values and to "
        "modify attributes or items of mutable objects:",
        "If the target list is a single target with no trailing comma, "
        "optionally in parentheses, the object is assigned to it.",
    ]


@pytest.mark.parametrize(("name", "split"), ALL_SPLITS)
def test_every_document_is_one_line_of_prose_that_occurs_once(name: str, split: str) -> None:
    paragraphs = read_builtin(name, split)
    assert len(set(paragraphs)) == len(paragraphs) >= 80
    assert all("\n" not in p and p == " ".join(p.split()) for p in paragraphs)
    assert min(map(len, paragraphs)) >= builtin.SHORTEST_PARAGRAPH


@pytest.mark.parametrize(("name", "split"), ALL_SPLITS)
def test_text_does_not_depend_on_the_hash_seed(name: str, split: str) -> None:
    code = f"from lorastudy.data.builtin import *; import hashlib; print(hashlib.sha256('\\n'.join(read_builtin({name!r}, {split!r})).encode()).hexdigest())"  # noqa: E501
    assert run_python(code, "1").strip() == digest(read_builtin(name, split))


def test_split_depends_on_topic_names_and_not_on_their_order() -> None:
    backwards = dict(reversed(TOPICS.items()))
    assert split_topics(backwards) == split_topics(TOPICS)
    assert all(split_topics(TOPICS).values())


def test_splits_share_no_topic_and_miss_none() -> None:
    splits = split_topics(TOPICS)
    names = [name for topics in splits.values() for name in topics]
    assert sorted(names) == sorted(TOPICS)


def test_a_paragraph_that_two_topics_share_is_in_one_split_only() -> None:
    shared = "This sentence stands in every single topic of the reference."
    splits = split_topics({name: f"{text}\n\n{shared}" for name, text in TOPICS.items()})
    found = [p for topics in splits.values() for ps in topics.values() for p in ps]
    assert found.count(shared) == 1


def test_reference_splits_share_no_paragraph() -> None:
    splits = [set(read_builtin(*pair)) for pair in ALL_SPLITS[:3]]
    assert all(a.isdisjoint(b) for a, b in combinations(splits, 2))


def test_validation_and_test_are_about_a_tenth_of_the_reference_each() -> None:
    n_train, *n_held_out = (len("".join(read_builtin(*pair))) for pair in ALL_SPLITS[:3])
    total = n_train + sum(n_held_out)
    assert all(0.08 * total <= n <= 0.1 * total for n in n_held_out)


def test_docstrings_are_read_without_importing_their_modules() -> None:
    code = (
        "import sys; from lorastudy.data.builtin import read_builtin\n"
        "read_builtin('docstrings', 'test'); print('pickletools' in sys.modules)"
    )
    assert "pickletools" in builtin.DOCSTRING_MODULES
    assert run_python(code, "0").strip() == "False"


def test_every_sum_of_a_test_was_trained_on_in_other_words() -> None:
    rows = {split: read_builtin("arithmetic", split) for split in ("train", "validation", "test")}
    sums: dict[str, set[tuple[int, ...]]] = {}
    for split, examples in rows.items():
        for row in examples:
            assert isinstance(row, Example) and isinstance(row.completion, str)
            asked = tuple(map(int, re.findall(r"\d", str(row.prompt))))
            assert len(asked) == 2 and row.completion == f" {sum(asked)}"
            sums.setdefault(split, set()).add(asked)
    prompts = [row.prompt for examples in rows.values() for row in examples]
    assert len(set(prompts)) == len(prompts) == 392
    assert sums["test"] | sums["validation"] <= sums["train"]


def test_an_unknown_name_is_refused_with_the_known_ones() -> None:
    with pytest.raises(InputError, match="python-reference, docstrings, licences"):
        read_builtin("python_reference", "train")


def test_an_unknown_split_is_refused_with_the_known_ones() -> None:
    with pytest.raises(InputError, match=r"no split 'train'\. Choose one of test\."):
        read_builtin("licences", "train")


def test_a_python_without_the_files_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(builtin, "LICENCE_DISTRIBUTIONS", ("no-such-distribution",))
    with pytest.raises(InputError, match="does not have the text 'licences'"):
        read_builtin("licences", "test")
