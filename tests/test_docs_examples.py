"""The examples of docs/protocols.md are executed, so that the page says what the code does."""

import doctest
import re
from pathlib import Path

import pytest

PAGE = Path(__file__).resolve().parent.parent / "docs" / "protocols.md"
_BLOCK = re.compile(r"^```python\n(.*?)^```$", re.MULTILINE | re.DOTALL)


def examples_of(text: str) -> doctest.DocTest:
    """All Python blocks of a page as one session; what stands between them keeps its lines."""
    kept = list("\n" if c == "\n" else " " for c in text)
    for match in _BLOCK.finditer(text):
        begin, end = match.span(1)
        kept[begin:end] = text[begin:end]
    session = re.sub(r"^ +$", "", "".join(kept), flags=re.MULTILINE)
    return doctest.DocTestParser().get_doctest(session, {}, PAGE.name, str(PAGE), 0)


def failures_of(text: str) -> list[str]:
    """What the examples of `text` print otherwise than the page says."""
    said: list[str] = []
    runner = doctest.DocTestRunner(verbose=False)
    runner.run(examples_of(text), out=said.append)
    return said


def test_every_example_prints_what_the_page_says() -> None:
    assert failures_of(PAGE.read_text(encoding="utf-8")) == []


def test_every_protocol_has_an_example() -> None:
    code = "".join(_BLOCK.findall(PAGE.read_text(encoding="utf-8")))
    used = set(re.findall(r'lay_out\("([a-z-]+?)(?:-\d+)*"', code))
    assert used == {
        *("rows-text", "paper-padded", "document", "blocks", "sliding"),
        *("lm-eval-wikitext", "lm-eval-lambada"),
    }


@pytest.mark.parametrize("line", [">>> 1 + 1\n3\n", ">>> undefined\n", ">>> print('a')\n"])
def test_a_wrong_example_is_found(line: str) -> None:
    assert failures_of(f"# Page\n\n```python\n{line}```\n\nText.\n")
