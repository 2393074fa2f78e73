"""`preview`: rows as the model sees them."""

from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer
from rich.text import Text

from lorastudy.cli import options
from lorastudy.cli.console import make_console
from lorastudy.cli.options import AsJson, Mirror, Offline, Overrides, StudyName
from lorastudy.errors import ConfigError, show_names
from lorastudy.store.files import refuse_unwritable, write_text
from lorastudy.study.open import open_study
from lorastudy.units import write_count

if TYPE_CHECKING:
    from lorastudy.study.seen_rows import PreviewPart, PreviewRow, Segment

_STYLES = {
    "start": "dim",
    "text": "green",
    "prompt": "blue",
    "header": "dim",
    "answer": "green",
    "end-of-turn": "bold magenta",
    "wrong": "yellow",
    "cut-off": "strike red",
    "padding": "dim",
}
_WIDTH = 14  # columns before the text of a segment
NRows = Annotated[int, typer.Option("-n", "--rows", min=1, help="Rows that are shown per part.")]
PartName = Annotated[
    str,
    typer.Option(
        "--part",
        help="On the terminal: train, validation, data.best_by, or a benchmark as NAME--PROTOCOL.",
    ),
]
Page = Annotated[
    Path | None,
    typer.Option(
        "--page",
        help="Write a page with all parts, in colour.",
        parser=options.named_path,
        metavar="FILE",
    ),
]


def preview(
    study: StudyName,
    *,
    n_rows: NRows = 3,
    part: PartName = "train",
    page: Page = None,
    mirror: Mirror = None,
    offline: Offline = False,
    overrides: Overrides = None,
    as_json: AsJson = False,
) -> None:
    """Show rows as the model sees them: each token's class, and whether it is scored."""
    if page is not None:
        refuse_unwritable(page, is_folder=False)
    opened = open_study(study, overrides=overrides or (), mirror=mirror, offline=offline)
    from lorastudy.cli.preview_page import render_preview
    from lorastudy.study.preview import preview_study

    found = preview_study(opened.study, opened.places, n_rows=n_rows)
    chosen = next((p for p in found.parts if p.name == part), None)
    if chosen is None:
        known = show_names(p.name for p in found.parts)
        raise ConfigError(f"--part {part}: this study has no such part. Use one of {known}.")
    if page is not None:
        write_text(page, render_preview(found))
    if as_json:
        options.print_json(asdict(found))
        return
    if page is not None:
        print(f"Wrote {page}.")
        return
    _print_part(chosen)
    others = [p.name for p in found.parts if p is not chosen]
    print(f"Other parts, with --part: {show_names(others)}")


def _print_part(part: "PreviewPart") -> None:
    """Counts, then rows; what is scored has a star, so no colour is needed to read it."""
    console = make_console(options.console_width())
    console.print(
        f"{part.name}: {write_count(part.n_rows, 'row')} of at most {part.length:,} tokens from "
        f"{write_count(part.n_documents, 'document')}; * is scored"
    )
    if part.note:
        console.print(part.note)
    for count in part.classes:
        scored = f"{count.n_scored:,} scored" if count.n_scored else ""
        label = _label(count.token_class, is_scored=count.n_scored > 0)
        console.print(Text.assemble(label, f"{count.n_tokens:>10,} tokens  {scored}"))
    if part.n_without_row:
        rest = part.n_without_row - len(part.without_row)
        named = ", ".join(part.without_row) + (f" and {rest:,} more" if rest else "")
        console.print(f"{write_count(part.n_without_row, 'document')} without a row: {named}")
    for row in part.rows:
        _print_row(row, is_longest=row is part.longest_row)


def _print_row(row: "PreviewRow", *, is_longest: bool) -> None:
    console = make_console(options.console_width())
    longest = ", the longest row" if is_longest else ""
    console.print(f"\n{row.place}: {row.n_tokens:,} tokens, {row.n_scored:,} scored{longest}")
    for segment in row.segments:
        lines = _text_of(segment).split("\n")
        for number, line in enumerate(lines):
            label = _label(segment.token_class, is_scored=segment.is_scored)
            shown = label if number == 0 else Text(" " * _WIDTH)
            console.print(
                Text.assemble(shown, (line, _STYLES[segment.token_class])), soft_wrap=True
            )


def _label(token_class: str, *, is_scored: bool) -> Text:
    name = token_class.replace("-", " ")
    return Text(f"{name:<{_WIDTH - 2}}{'*' if is_scored else ' '} ", style=_STYLES[token_class])


def _text_of(segment: "Segment") -> str:
    """The text of a segment, with signs for white space at its ends and for line breaks."""
    if segment.token_class == "padding":
        return f"{segment.n_tokens:,} tokens"
    text = "".join(segment.tokens)
    inner = text.strip(" ")
    before, after = text.partition(inner)[::2] if inner else (text, "")
    shown = "\u2423" * len(before) + inner + "\u2423" * len(after)
    return shown.replace("\n", "\u21b5\n").removesuffix("\n")
