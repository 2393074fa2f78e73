"""The examples of docs/protocols.md are executed, so that the page says what the code does."""

import doctest
import re
from pathlib import Path

import pytest

from lorastudy.protocols import PROTOCOLS, find_protocol

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
    used = {find_protocol(n).pattern for n in re.findall(r'(?:lay_out|answer)\("([^"]+)"', code)}
    assert used == {protocol.pattern for protocol in PROTOCOLS}


def test_the_page_defines_every_protocol_of_the_table_in_its_order_and_version() -> None:
    page = PAGE.read_text(encoding="utf-8")
    expected = [(protocol.pattern, str(protocol.version)) for protocol in PROTOCOLS]
    assert re.findall(r"^## `(.+)`, version (\d+)$", page, re.MULTILINE) == expected
    overview = re.findall(r"^\| `(.+)` v(\d+) \|.*\| (.+) \| .+ \|$", page, re.MULTILINE)
    assert [(name, version) for name, version, _ in overview] == expected
    padded = [name for name, _, padding in overview if padding == "**scored**"]
    assert padded == [protocol.pattern for protocol in PROTOCOLS if protocol.scores_padding]


@pytest.mark.parametrize("line", [">>> 1 + 1\n3\n", ">>> undefined\n", ">>> print('a')\n"])
def test_a_wrong_example_is_found(line: str) -> None:
    assert failures_of(f"# Page\n\n```python\n{line}```\n\nText.\n")
