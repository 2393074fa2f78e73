"""Texts that every installation has, for studies that must run without a network.

    python-reference   the language reference behind `help()`      train, validation, test
    docstrings         docstrings of standard library modules      test
    licences           licence texts of installed distributions    test
    arithmetic         questions with answers (data/arithmetic)    train, validation, test

A document is one paragraph of prose on one line; code, grammar, tables and headings are
left out. The wording depends on the Python version and the installed distributions, so compare
only runs of one environment; the corpus digest in a run's manifest shows whether texts differ.
Only the standard library is used, and no module is imported to read its docstrings. A process
extracts each text once, which takes about a second.
"""

import ast
import hashlib
import re
import sysconfig
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from functools import cache, partial
from importlib.metadata import PackageNotFoundError, distribution
from pathlib import Path
from types import MappingProxyType

from lorastudy.data.arithmetic import SPLITS, read_questions
from lorastudy.data.examples import Example
from lorastudy.errors import InputError

SHORTEST_PARAGRAPH = 40  # characters; shorter blocks are headings, labels and fragments
HELD_OUT_SHARE = 0.1  # of the reference's text, for validation and again for test
SMALLEST_LETTER_SHARE = 0.8  # share of letters and spaces; with fewer it is code or a table

# Single files from Python 3.11 to 3.14 with much prose in their docstrings.
DOCSTRING_MODULES = (
    "argparse", "calendar", "contextlib", "difflib", "doctest", "functools", "heapq", "optparse",
    "pickletools", "random", "shutil", "statistics", "subprocess", "textwrap", "threading",
)  # fmt: skip

# Dependencies of torch or transformers; MPL and MIT, PSF, Apache, then BSD with all of GPL 3.
LICENCE_DISTRIBUTIONS = ("tqdm", "typing_extensions", "transformers", "numpy")


def read_builtin(name: str, split: str) -> list[str | Example]:
    """The paragraphs or rows of one split, always in the same order and without repetitions.

    Raises:
        InputError: The text or split does not exist, or this Python does not have it.
    """
    if name not in _READERS:
        raise InputError(f"There is no builtin text '{name}'. Choose one of {_listed(_READERS)}.")
    readers = _READERS[name]
    if split not in readers:
        raise InputError(
            f"Builtin text '{name}' has no split '{split}'. Choose one of {_listed(readers)}."
        )
    rows = readers[split]()
    if not rows:
        raise InputError(
            f"This Python does not have the text '{name}' (its files were removed or packed). "
            "Use another Python build, or name your own text with `path:`."
        )
    return list(rows)


def extract_paragraphs(text: str) -> list[str]:
    """The prose of a plain-text page: each block between blank lines becomes one line."""
    blocks = re.split(r"\n[ \t]*\n", text.expandtabs())
    lines = (re.sub(r"^([*•-]|\(?\w{1,2}[.)]) ", "", " ".join(b.split())) for b in blocks)
    return [line for line in lines if _is_prose(line)]


def split_topics(topics: Mapping[str, str]) -> dict[str, dict[str, list[str]]]:
    """Divide topics among train, validation and test: split -> topic -> paragraphs.

    Topics are taken in the order of the SHA-256 of their names. Each goes to test if it still fits
    there, else to validation if it fits there, else to train. Some topics include others
    completely; such a paragraph stays with the first topic, so no text is in two splits.
    """
    ordered = sorted(topics, key=lambda name: hashlib.sha256(name.encode()).digest())
    seen: set[str] = set()
    kept = {name: _drop_seen(extract_paragraphs(topics[name]), seen) for name in ordered}
    room = dict.fromkeys(("test", "validation"), HELD_OUT_SHARE * _count_characters(kept.values()))
    splits: dict[str, dict[str, list[str]]] = {"train": {}, "validation": {}, "test": {}}
    for name, paragraphs in kept.items():
        n_characters = _count_characters([paragraphs])
        split = next((s for s in room if n_characters <= room[s]), "train")
        if split in room:
            room[split] -= n_characters
        splits[split][name] = paragraphs
    return splits


def _is_prose(line: str) -> bool:
    """Whether a block looks like prose: it begins and ends like a sentence, mostly letters."""
    if len(line) < SHORTEST_PARAGRAPH or line.startswith("Traceback"):
        return False
    if not re.match(r"[\"'“(]?[A-Z]|[\"“*'`]", line) or not re.search(r"[.:;!?][\"'”)]*$", line):
        return False
    if re.search(r"::=|>>>|([-=*^~+#_])\1{3}", line):
        return False
    n_letters = sum(character.isalpha() or character == " " for character in line)
    return n_letters >= SMALLEST_LETTER_SHARE * len(line)


def _drop_seen(paragraphs: Iterable[str], seen: set[str]) -> list[str]:
    """The paragraphs that are not in `seen`; adds them to it."""
    fresh = [p for p in dict.fromkeys(paragraphs) if p not in seen]
    seen.update(fresh)
    return fresh


def _count_characters(groups: Iterable[list[str]]) -> int:
    return sum(len(paragraph) for group in groups for paragraph in group)


@cache
def _read_reference() -> Mapping[str, Sequence[str]]:
    """Paragraphs by split; none if this Python is stripped of its documentation."""
    try:
        from pydoc_data.topics import topics
    except ImportError:
        return {}
    return {
        split: [p for paragraphs in found.values() for p in paragraphs]
        for split, found in split_topics(topics).items()
    }


@cache
def _read_docstrings(modules: tuple[str, ...]) -> Sequence[str]:
    folder = Path(sysconfig.get_path("stdlib"))
    files = (folder / f"{module}.py" for module in modules)
    docstrings = (text for file in files if file.is_file() for text in _iterate_docstrings(file))
    return _drop_seen((p for text in docstrings for p in extract_paragraphs(text)), set())


def _iterate_docstrings(file: Path) -> Iterator[str]:
    documented = ast.Module | ast.ClassDef | ast.FunctionDef | ast.AsyncFunctionDef
    for node in ast.walk(ast.parse(file.read_bytes())):
        if isinstance(node, documented) and (text := ast.get_docstring(node)):
            yield text


@cache
def _read_licences(distributions: tuple[str, ...]) -> Sequence[str]:
    texts = (text for name in distributions for text in _iterate_licences(name))
    return _drop_seen((p for text in texts for p in extract_paragraphs(text)), set())


def _iterate_licences(name: str) -> Iterator[str]:
    """Texts of the licence files in a distribution's metadata folder, by file name."""
    try:
        files = distribution(name).files or []
    except PackageNotFoundError:
        return
    for file in sorted(files, key=str):
        if ".dist-info/" in str(file) and re.match(r"LICEN[CS]E|COPYING", file.name):
            yield Path(str(file.locate())).read_text(encoding="utf-8")


def _listed(names: Iterable[str]) -> str:
    return ", ".join(names)


_READERS: Mapping[str, Mapping[str, Callable[[], Sequence[str | Example]]]] = MappingProxyType(
    {
        "python-reference": {
            "train": lambda: _read_reference().get("train", ()),
            "validation": lambda: _read_reference().get("validation", ()),
            "test": lambda: _read_reference().get("test", ()),
        },
        "docstrings": {"test": lambda: _read_docstrings(DOCSTRING_MODULES)},
        "licences": {"test": lambda: _read_licences(LICENCE_DISTRIBUTIONS)},
        "arithmetic": {split: partial(read_questions, split) for split in SPLITS},
    }
)
