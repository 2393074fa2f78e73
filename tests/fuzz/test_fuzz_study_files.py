"""Mistyped study files: `check` accepts them or says what is wrong, and never anything else.

A sample runs with the other tests. `LORASTUDY_FUZZ=10000 pytest tests/fuzz` tries as many. Three
kinds of slip are made in the study files that come with the package: values and keys are replaced,
characters of the text are, and whole lines are moved, repeated, indented or put in other brackets.
"""

import re
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st

from lorastudy.config.study_file import dump_study, load_study, preset_text, read_study_file
from support.command_line import call
from support.fuzzing import tried_often

pytestmark = pytest.mark.filterwarnings("ignore")

SMALL = preset_text("demo").replace("limit: 280", "limit: 9").replace("limit: 50", "limit: 3")
PRESETS = st.sampled_from([SMALL, SMALL, preset_text("paper"), preset_text("paper-sound")])
# what newcomers typed: words of other tools, other kinds of value, paths that cannot be
WORDS = st.sampled_from(
    [
        *(
            "lora",
            "qlora",
            "attn",
            "q_proj",
            "gpt2",
            "openai-community/gpt2",
            "fp16",
            "yes",
            "demo",
        ),
        *("1e-4", "two", "ppl", "rows-text", "blocks-1", "blocks-9999999", "sliding-8-9", "stream"),
        *("txt", "~nobody-here/a.txt", "txt\\train.txt", "../..", "**", "[", "a" * 300, "", " "),
        *(
            "my/study",
            "lora all",
            "\uff4c\uff4f\uff52\uff41",
            "caf\u00e9",
            "\x00",
            "\u202e",
            "../x",
        ),
        *(
            "h.*.attn.c_attn",
            "transformer.h.*.*",
            "*.*",
            "output",
            "train",
            "trian",
            "main",
            "none",
        ),
    ]
)
NUMBERS = st.one_of(
    st.integers(-3, 300),
    st.sampled_from([2**31, 10**9, 10**12, 2**64, -(10**9), 10**400]),
    st.floats(),
)
KEYS = st.sampled_from(
    [
        *("lr", "learning_rate", "target_modules", "name", "method", "rank", "alpha", "placement"),
        *("id", "path", "builtin", "split", "limit", "column", "sample", "strip", "padding", ""),
        *("sample_by", "revision", "config", "role", "protocols", "seeds", "warmup", "rounding"),
    ]
)
VALUES = st.recursive(
    st.none() | st.booleans() | NUMBERS | WORDS | st.text(max_size=8),
    lambda parts: st.lists(parts, max_size=3) | st.dictionaries(KEYS, parts, max_size=3),
    max_leaves=5,
)
SNIPPETS = st.one_of(
    st.sampled_from(
        [
            *(
                "\t",
                "\r\n",
                "\ufeff",
                "\u00a0",
                "\uff1a",
                ": ",
                "- ",
                "  ",
                "{",
                "}",
                "[",
                "]",
                "#",
            ),
            *(
                "&a ",
                "*a",
                "<<: ",
                "!!binary ",
                "!!python/name:os.system ",
                "? ",
                "|",
                ">",
                "'",
                '"',
            ),
            *(
                "---\n",
                "...\n",
                "0x" + "f" * 5_000,
                "9" * 5_000,
                "1e999",
                ".nan",
                "-.inf",
                "2024-01-01",
            ),
        ]
    ),
    st.text(max_size=5),
)
PLACES = st.floats(0, 1, exclude_max=True)
LINE_SLIPS: dict[str, Callable[[str], list[str]]] = {
    "repeat": lambda line: [line, line],
    "drop": lambda line: [],
    "indent": lambda line: [f"  {line}"],
    "indent by one": lambda line: [f" {line}"],
    "indent by a tab": lambda line: [f"\t{line.lstrip()}"],
    "outdent": lambda line: [line.removeprefix("  ")],
    "comment": lambda line: [f"# {line}"],
    "quote": lambda line: [f'"{line}"'],
    "unclosed": lambda line: [line.replace("]", "").replace("}", "")],
    "round brackets": lambda line: [line.replace("[", "(").replace("]", ")")],
    "no brackets": lambda line: [line.replace("[", "").replace("]", "")],
    "no space": lambda line: [line.replace(": ", ":")],
    "equals": lambda line: [line.replace(": ", " = ")],
    "colon in value": lambda line: [f"{line}: more"],
    "text for a number": lambda line: [re.sub(r"(\d[\d.e-]*)", r"'\1'", line)],
    "backslashes": lambda line: [re.sub(r": (\w+)$", r': "txt\\\\\1"', line)],
    "list item": lambda line: [f"- {line}"],
    "document": lambda line: ["---", line],
    "merge": lambda line: [f"<<: {{{line.strip()}}}"],
    "capitals": lambda line: [line.upper()],
}


@pytest.fixture(autouse=True)
def _in_an_empty_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("LORASTUDY_CACHE", str(tmp_path / "cache"))


def nodes_of(value: object) -> Iterator[tuple[dict | list, object]]:
    """Every place of a YAML value, as the mapping or list that holds it and its key."""
    members = value.items() if isinstance(value, dict) else enumerate(value)
    for key, part in list(members):
        yield value, key
        if isinstance(part, dict | list):
            yield from nodes_of(part)


def check(content: bytes) -> None:
    """Let `check` read a study file; a traceback leaves this function as an exception."""
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "study.yaml"
        path.write_bytes(content)
        answer = call("check", path, "--offline")
        assert answer.code in (0, 2, 3), answer.err
        assert answer.code == 0 or answer.err.startswith("lorastudy: ")
        if answer.code == 0:
            study = read_study_file(path)
            assert load_study(dump_study(study), "again") == study


@tried_often
@given(
    PRESETS,
    st.lists(st.tuples(PLACES, st.sampled_from("rdk"), VALUES, KEYS), min_size=1, max_size=3),
)
def test_wrong_values_and_keys_are_named(
    text: str, slips: list[tuple[float, str, object, str]]
) -> None:
    study = yaml.safe_load(text)
    for place, kind, value, key in slips:
        if not (nodes := list(nodes_of(study))):
            break
        holder, old = nodes[int(place * len(nodes))]
        if kind == "r":
            holder[old] = value
        elif kind == "d":
            del holder[old]
        elif isinstance(holder, dict):
            holder[key] = holder.pop(old)
    check(yaml.safe_dump(study, allow_unicode=True, sort_keys=False).encode("utf-8", "replace"))


@tried_often
@given(
    PRESETS,
    st.lists(st.tuples(PLACES, st.integers(0, 12), SNIPPETS), min_size=1, max_size=3),
    st.sampled_from(["utf-8", "utf-8", "utf-8-sig", "utf-16", "latin-1"]),
)
def test_slips_of_the_keyboard_are_named(
    text: str, slips: list[tuple[float, int, str]], encoding: str
) -> None:
    for place, n_lost, snippet in slips:
        at = int(place * len(text))
        text = text[:at] + snippet + text[at + n_lost :]
    check(text.encode(encoding, "replace"))


@tried_often
@given(
    PRESETS,
    st.lists(st.tuples(PLACES, st.sampled_from(sorted(LINE_SLIPS))), min_size=1, max_size=3),
    st.sampled_from(["\n", "\n", "\r\n", "\r", "\u2028"]),
)
def test_slips_in_whole_lines_are_named(
    text: str, slips: list[tuple[float, str]], line_break: str
) -> None:
    lines = text.splitlines()
    for place, kind in slips:
        at = int(place * len(lines))
        lines[at : at + 1] = LINE_SLIPS[kind](lines[at])
    check((line_break.join(lines) + line_break).encode())
