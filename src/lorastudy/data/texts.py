"""What one document is, which text of it is tokenised, and in which text words are counted.

    texts        every text that is not blank, without white space at its ends
    raw-texts    every text that is not blank, unchanged
    stream       all texts, including blank ones, joined into one document
    pages        WikiText's rows joined into pages; detokenised; words counted before that
    last-words   every text that is not blank, unchanged; all but its last word is context

The last two are the documents of lm-evaluation-harness' tasks `wikitext` (version 2) and
`lambada_openai` (version 1). This module handles only strings; it does not know the tokenizer.
"""

import hashlib
import re
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise

from lorastudy.protocols import Form

STREAM_JOIN = "\n\n"  # between documents of a stream, as in the perplexity guide of transformers
_HEADING = re.compile(r"= (?!= ).*(?<! =) =", re.DOTALL)


@dataclass(frozen=True, slots=True)
class Text:
    """One document before it is tokenised."""

    text: str  # tokenised
    counted: str  # the text in which words and bytes are counted
    context: str = ""  # beginning of `text`, which is read and not scored


def form_texts(texts: Sequence[str], form: Form) -> tuple[Text, ...]:
    """The documents that `form` makes of a source's texts, in their order."""
    match form:
        case "texts":
            return tuple(Text(text, text) for text in map(str.strip, texts) if text)
        case "raw-texts":
            return tuple(Text(text, text) for text in texts if text.strip())
        case "stream":
            joined = STREAM_JOIN.join(texts)
            return (Text(joined, joined),)
        case "pages":
            return tuple(Text(detokenise_page(page), page) for page in join_pages(texts))
        case "last-words":
            return tuple(split_last_word(text) for text in texts if text.strip())


def join_pages(rows: Sequence[str]) -> tuple[str, ...]:
    r"""WikiText's rows joined into pages; a page begins with its first-level heading.

    In the original files a blank line contains one space, which the rows have lost. It is put
    back, and so is the line break at the end of the file. The 62 pages of WikiText-2's raw
    test rows then have the 241,335 words and 1,290,527 bytes that follow from two perplexities
    published with full precision (lm-evaluation-harness#806: ln 8.792073612124492 /
    ln 1.5015845643537054 = bytes / words). Without any such heading, every row that is not blank
    is a page.
    """
    starts = [i for i, row in enumerate(rows) if _HEADING.fullmatch(row.strip())]
    if not starts:
        return tuple(row for row in rows if row.strip())
    lines = [row.removesuffix("\n") or " " for row in rows]
    bounds = [0, *starts, len(lines)]
    pages = ["\n".join(lines[i:j]) for i, j in pairwise(bounds)]
    pages[-1] += "\n"
    return tuple(page for page in pages if page.strip())


# lm-evaluation-harness, task wikitext 2.0: literal or regular expression -> replacement, in order.
_LITERAL, _PATTERN = False, True
_DETOKENISER: tuple[tuple[bool, str, str], ...] = (
    (_LITERAL, "s '", "s'"),
    (_PATTERN, r"/' [0-9]/", r"/'[0-9]/"),
    *((_LITERAL, f" @{sign}@ ", sign) for sign in "-,."),
    *((_LITERAL, f" {sign} ", f"{sign} ") for sign in ":;.!?,"),
    (_PATTERN, r"\(\s*([^\)]*?)\s*\)", r"(\1)"),
    (_PATTERN, r"\[\s*([^\]]*?)\s*\]", r"[\1]"),
    (_PATTERN, r"{\s*([^}]*?)\s*}", r"{\1}"),
    (_PATTERN, r"\"\s*([^\"]*?)\s*\"", r'"\1"'),
    (_PATTERN, r"'\s*([^']*?)\s*'", r"'\1'"),
    (_LITERAL, "= = = =", "===="),
    (_LITERAL, "= = =", "==="),
    (_LITERAL, "= =", "=="),
    (_LITERAL, " ° ", "°"),
    (_LITERAL, " \n", "\n"),
    (_LITERAL, "\n ", "\n"),
    (_LITERAL, " N ", " 1 "),
    (_LITERAL, " 's", "'s"),
)


def detokenise_page(page: str) -> str:
    """A page of WikiText as ordinary text, with the replacements of lm-evaluation-harness."""
    for is_pattern, old, new in _DETOKENISER:
        page = re.sub(old, new, page) if is_pattern else page.replace(old, new)
    return page


def split_last_word(text: str) -> Text:
    """The text with all but its last word as context; the space before the word is scored.

    The last word is everything after the last space. White space at the end of the context becomes
    part of the word, and a text without a space is one word with a space put before it. Both agree
    with the way in which lm-evaluation-harness encodes a context and its continuation.
    """
    context, _, word = text.rpartition(" ")
    return Text(f"{context} {word}", text, context.rstrip())


def count_words(text: str) -> int:
    r"""Words as lm-evaluation-harness counts them for word perplexity.

    It uses `len(re.split(r"\s+", text))` on the unchanged text, so white space at either end
    counts as one more word (lm_eval/tasks/wikitext/preprocess_wikitext.py).
    """
    return 1 + sum(1 for _ in re.finditer(r"\s+", text))


def count_letters(text: str) -> int:
    """Characters that are not white space."""
    return sum(map(len, text.split()))


def digest_texts(texts: Sequence[Text]) -> str:
    """SHA-256 over all parts with their lengths, so that moving a boundary changes it."""
    digest = hashlib.sha256()
    for text in texts:
        for part in (text.text, text.counted, text.context):
            raw = part.encode()
            digest.update(len(raw).to_bytes(8, "big"))
            digest.update(raw)
    return digest.hexdigest()
