"""The table of protocols, and that nothing else in the package knows a protocol by its name."""

import ast
import re
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest

import lorastudy.protocols
from lorastudy.analysis.summary import ScoreKey
from lorastudy.config.models import Benchmark
from lorastudy.errors import ConfigError
from lorastudy.evaluate.protocols import size_protocol
from lorastudy.protocols import (
    PROTOCOLS,
    Protocol,
    Window,
    find_protocol,
    protocol_of_rows,
    read_window,
    scores_padding,
    unit_of,
)

PACKAGE = Path(lorastudy.protocols.__file__).parent
each_protocol = pytest.mark.parametrize("protocol", PROTOCOLS, ids=lambda p: p.pattern)


@each_protocol
def test_an_example_belongs_to_its_own_row_alone(protocol: Protocol) -> None:
    matching = [p for p in PROTOCOLS if re.fullmatch(p.expression, protocol.example)]
    assert matching == [protocol] == [find_protocol(protocol.example)]


@each_protocol
def test_what_a_row_of_the_table_says_fits_together(protocol: Protocol) -> None:
    assert (protocol.reads == "N") == ("-N" in protocol.pattern) == protocol.joins_documents
    assert (unit_of(protocol.example) == "nats per document") == protocol.has_accuracy
    assert (unit_of(protocol.example) == "wrong answers per item") == protocol.is_task
    is_own = protocol.chooses or protocol.generates
    assert protocol.is_task == (protocol.cut == "items") == (is_own or protocol.judge == "harness")
    assert scores_padding(protocol.example) == (protocol.average == "batch-means")


@pytest.mark.parametrize(
    ("name", "window"),
    [
        ("blocks-8", Window(8, 8)),
        ("sliding-8-3", Window(8, 3)),
        ("rows-text", None),
        ("sliding-8", None),
    ],
)
def test_a_window_is_read_from_the_name(name: str, window: Window | None) -> None:
    assert read_window(name) == window


@pytest.mark.parametrize("name", ["blocks-0", "blocks-08", "sliding-8-0", "paper-padded-2", "Rows"])
def test_another_name_is_no_protocol_and_says_nothing_of_padding(name: str) -> None:
    assert not scores_padding(name)
    with pytest.raises(ConfigError, match="does not exist"):
        find_protocol(name)


def test_training_rows_are_scored_with_padding_or_without() -> None:
    padded, text = (protocol_of_rows(scored_padding=is_scored) for is_scored in (True, False))
    assert (padded.cut, padded.reads) == (text.cut, text.reads) == ("lines", "row")
    assert (padded.scores_padding, text.scores_padding) == (True, False)


def test_a_new_row_of_the_table_is_all_that_a_protocol_needs(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    padded = replace(find_protocol("blocks-8"), pattern="full-N", scores_padding=True)
    monkeypatch.setattr(lorastudy.protocols, "PROTOCOLS", (*PROTOCOLS, padded))
    benchmark = Benchmark(name="b", path="texts.txt", protocols=("full-8", "rows-text"))
    assert [scores_padding(name) for name in benchmark.protocols] == [True, False]
    sized = size_protocol("full-8", row_length=5, context=None)
    assert (sized.kind, sized.length, sized.stride) == (padded, 8, 8)
    assert ScoreKey("b", "full-8", 1).scores_padding


def names_compared(tree: ast.AST) -> Iterator[str]:
    """Texts that code compares with, looks for, or matches."""
    for node in ast.walk(tree):
        parts: list[ast.AST] = []
        if isinstance(node, ast.Compare | ast.MatchValue):
            parts = [node]
        elif isinstance(node, ast.Call) and isinstance(node.func, ast.Attribute):
            parts = [*node.args] if node.func.attr in ("startswith", "endswith") else []
        for part in parts:
            yield from (
                inner.value
                for inner in ast.walk(part)
                if isinstance(inner, ast.Constant) and isinstance(inner.value, str)
            )


def is_of_a_protocol(text: str) -> bool:
    stems = [p.pattern.partition("-N")[0] for p in PROTOCOLS if "-" in p.pattern]
    return any(text.startswith(stem) for stem in stems)


@pytest.mark.parametrize(
    "code",
    [
        'x == "paper-padded"',
        'x.startswith("sliding-")',
        'x in ("rows-text", "a")',
        'match x:\n    case "lm-eval-lambada": pass',
    ],
)
def test_a_question_by_name_is_found(code: str) -> None:
    assert any(map(is_of_a_protocol, names_compared(ast.parse(code))))


@pytest.mark.parametrize(
    "path", sorted(PACKAGE.rglob("*.py")), ids=lambda p: str(p.relative_to(PACKAGE))
)
def test_properties_of_protocols_are_asked_of_the_table_alone(path: Path) -> None:
    tree = ast.parse(path.read_text(encoding="utf-8"))
    assert [text for text in names_compared(tree) if is_of_a_protocol(text)] == []
