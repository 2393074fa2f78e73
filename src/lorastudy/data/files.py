"""Rows from local files: plain text, JSON (lines), CSV and Parquet, chosen by the suffix.

A row is a text, or an example with an answer where the columns say so (`data/examples.py`).
Nothing is repaired or skipped. A byte that is not UTF-8, a value that is not a string, or a file
that is only a pointer stops the study; the message names the file and the line or row.
"""

import csv
import io
import json
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any, Literal

from lorastudy.data.examples import (
    COLUMNS,
    PAIR,
    Example,
    choose_columns,
    is_conversation,
    is_plain_list,
    read_example,
)
from lorastudy.data.formats import TAB, choose_sign, name_format, read_bytes, refuse_structure
from lorastudy.data.messages import CONVERSATION
from lorastudy.data.paths import refuse_pointer
from lorastudy.errors import InputError, first_line, reading_user_files, show_names

SampleBy = Literal["line", "paragraph", "document"]  # as in the text loader of `datasets`
Rows = Sequence[str | Example]
_Values = tuple[int, tuple[str, ...], Sequence[Any]]  # line or row, columns, their values


def read_rows(path: Path, *, column: str, sample_by: SampleBy) -> Rows:
    """All rows of one file in order, including blank texts.

    Args:
        path: A file of a format in `data/formats.py`; a name of none of them is plain text.
        column: The column with the text, in files that have columns. Without it, the columns of
            rows with answers are looked for.
        sample_by: What one text is in a plain text file. Lines lose their line break.

    Raises:
        InputError: The file cannot be read as rows; the message names the place.
    """
    refuse_pointer(path)
    found = name_format(path)
    advice = "Correct the file, or fetch it again."
    with reading_user_files(f"{path} cannot be read as {found.format}", advice):
        raw = read_bytes(path, found)
        if found.format == "Parquet":
            return make_rows(f"{path}, row", _parquet_values(path, raw, column), column)
        text = _decode(path, raw)
        if found.format in ("CSV", "TSV"):  # where a line break in quotes is a part of the text
            sign = choose_sign(text, "," if found.format == "CSV" else TAB, column)
            return make_rows(f"{path}, line", _csv_values(path, text, column, sign), column)
        text = text.replace("\r\n", "\n").replace("\r", "\n")
        if found.format in ("JSON", "JSON lines"):
            is_list = found.format == "JSON" and text.lstrip().startswith("[")
            values = _json_values(path, text, column, is_list=is_list)
            return make_rows(f"{path}, line", values, column)
        refuse_structure(path, text, column)
        return _split_plain(text, sample_by)


def missing_column(place: str, column: str, names: Iterable[str]) -> InputError:
    """The error for a table without `column`; it names the columns that exist."""
    known = list(names)
    half = [name for name in PAIR if name in known]
    if len(half) == 1:
        (other,) = set(PAIR) - {*half}
        lacking = "no answer" if other == "completion" else "no question"
        return InputError(
            f"{place} has {lacking}: there is a {half[0]}, and no {other}. Repair or remove the "
            f"row. To read {half[0]} as text, set `column: {half[0]}`."
        )
    return InputError(
        f"{place} has no column {column!r}; its columns are {show_names(known)}. "
        "Set `column` to the one that holds the text. If its rows are questions with answers, "
        "rename their columns to prompt and completion, or to messages."
    )


def not_a_string(place: str, column: str, found: str, *, is_list: bool = False) -> InputError:
    """The error for a value of `column` that is not text."""
    advice = "Choose a text column, or repair it."
    if is_list:
        advice = "Join the texts of each row, write one per row, or choose another column."
    return InputError(f"{place}: column {column!r} holds {found}, not text. {advice}")


def check_text(place: str, text: str) -> str:
    """`text` itself, if it has no NUL and can be written as UTF-8."""
    if "\0" in text:
        raise InputError(
            f"{place} contains a NUL character, so this is not plain text. Remove it, "
            "or convert the file to UTF-8 text."
        )
    if not text.isascii():
        try:
            text.encode()
        except UnicodeEncodeError as error:
            raise InputError(
                f"{place} contains a lone surrogate ({text[error.start]!a}), which is not valid "
                "Unicode. Remove it, or write the text out again as UTF-8."
            ) from error
    return text


def _decode(path: Path, raw: bytes) -> str:
    """The whole file as text, without a byte order mark."""
    try:
        text = raw.decode("utf-8")
    except UnicodeDecodeError as error:
        line = raw.count(b"\n", 0, error.start) + 1
        raise InputError(
            f"{path}, line {line}: byte 0x{raw[error.start]:02x} is not valid UTF-8. "
            "Convert the file to UTF-8."
        ) from error
    if (at := text.find("\0")) >= 0:
        check_text(f"{path}, line {text.count(chr(10), 0, at) + 1}", "\0")
    return text.removeprefix("\ufeff")


def _split_plain(text: str, sample_by: SampleBy) -> list[str]:
    match sample_by:
        case "line":
            return text.removesuffix("\n").split("\n") if text else []
        case "paragraph":
            return [paragraph for paragraph in text.split("\n\n") if paragraph]
        case "document":
            return [text]


def make_rows(place: str, found: Iterable[_Values], column: str) -> Rows:
    """The texts of `column`, or the examples of the columns of rows with answers.

    Args:
        place: What stands before the number of a row in messages: "train.jsonl, line".
        found: The number of each row, the columns that it is read from, and their values.
        column: The column with the text. Where it holds lists, these are messages.

    Raises:
        InputError: A value has another form; or some rows are texts and others have answers.
    """
    texts: list[str] = []
    examples: list[Example] = []
    for number, columns, values in found:
        at = f"{place} {number}"
        if column == columns[0] != CONVERSATION and is_plain_list(values[0]):
            raise not_a_string(at, column, "a list", is_list=True)
        if columns[0] != column or is_conversation(column, values[0]):
            examples.append(read_example(at, values, columns))
            for text in examples[-1].texts:
                check_text(at, text)
        elif isinstance(values[0], str):
            texts.append(check_text(at, values[0]))
        else:
            what = "nothing (null)" if values[0] is None else type(values[0]).__name__
            raise not_a_string(at, column, what)
        if texts and examples:
            raise InputError(
                f"{at} is of another kind than the rows before it. Keep texts and rows with "
                "answers in different files."
            )
    return examples or texts


def _json_values(path: Path, text: str, column: str, *, is_list: bool) -> Iterator[_Values]:
    """The line, or place in the list, from 1; columns and values of each JSON object."""
    for number, record in _json_records(path, text, is_list=is_list, column=column):
        if not isinstance(record, dict):
            raise InputError(
                f"{path}, line {number}: expected a JSON object such as "
                f'{{"{column}": "..."}}, found a {type(record).__name__}. Correct the line.'
            )
        columns = _require_columns(f"{path}, line {number}", record, column)
        yield number, columns, [record[name] for name in columns]


def _json_records(
    path: Path, text: str, *, is_list: bool, column: str
) -> Iterator[tuple[int, Any]]:
    if is_list:
        yield from enumerate(_parse_json(path, 1, text, column), 1)
        return
    for number, line in enumerate(text.split("\n"), 1):
        if line.strip():
            yield number, _parse_json(path, number, line, column)


def _parse_json(path: Path, line: int, text: str, column: str) -> Any:
    def refuse_second(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
        keys = [key for key, _ in pairs]
        for name in (column,) if column in keys else COLUMNS:
            if keys.count(name) > 1:
                raise _named_twice(f"{path}, line {line}", name)
        return dict(pairs)

    try:
        return json.loads(text, object_pairs_hook=refuse_second)
    except (ValueError, RecursionError) as error:
        at = line + error.lineno - 1 if isinstance(error, json.JSONDecodeError) else line
        if isinstance(error, RecursionError):
            reason = "it is nested too deep"
        else:
            reason = error.msg if isinstance(error, json.JSONDecodeError) else first_line(error)
        raise InputError(
            f"{path}, line {at} is not JSON: {reason}. Correct it; JSON files hold one object "
            "per line (.jsonl), or one list of objects (.json)."
        ) from error


def _named_twice(place: str, column: str) -> InputError:
    return InputError(
        f"{place} has the column {column!r} twice, so it is not clear which holds the text. "
        "Rename one of them."
    )


def _require_columns(place: str, names: Iterable[str], column: str) -> tuple[str, ...]:
    """The columns that are read; none of them is there twice."""
    known = list(names)
    columns = choose_columns(known, column)
    if not columns:
        raise missing_column(place, column, known)
    for name in columns:
        if known.count(name) > 1:
            raise _named_twice(place, name)
    return columns


def _csv_values(path: Path, text: str, column: str, sign: str) -> Iterator[_Values]:
    limit = csv.field_size_limit()  # of the whole process, so it is never lowered
    csv.field_size_limit(max(limit, len(text) + 1))  # the default refuses fields over 128 KiB
    try:
        reader = csv.DictReader(io.StringIO(text, newline=""), delimiter=sign, strict=True)
        columns = _require_columns(str(path), reader.fieldnames or [], column)
        for record in reader:
            if None in record:  # where fields beyond the header go
                raise InputError(
                    f"{path}, line {reader.line_num}: more fields than the header names. "
                    "A text with commas, tabs or quotes has to stand in quotes; correct the line."
                )
            yield reader.line_num, columns, [record[name] for name in columns]
    except csv.Error as error:
        raise InputError(f"{path} is not a valid CSV file: {error}. Correct the file.") from error
    finally:
        csv.field_size_limit(limit)


def _text_types(pa: Any) -> tuple[Any, ...]:
    return (pa.types.is_string, pa.types.is_large_string, pa.types.is_string_view)


def _parquet_values(path: Path, raw: bytes, column: str) -> list[_Values]:
    import pyarrow as pa  # takes 0.1 s, which a study of text files need not spend
    import pyarrow.parquet as pq

    try:
        with pq.ParquetFile(pa.BufferReader(raw)) as file:
            schema = file.schema_arrow
            columns = _require_columns(str(path), schema.names, column)
            if columns[0] == column:
                kind = schema.field(column).type
                of_values = kind.value_type if pa.types.is_dictionary(kind) else kind
                is_list = pa.types.is_list(kind) or pa.types.is_large_list(kind)
                is_turns = is_list and (
                    column == CONVERSATION or pa.types.is_struct(kind.value_type)
                )
                if not is_turns and not any(is_known(of_values) for is_known in _text_types(pa)):
                    found = f"values of type {kind}"
                    raise not_a_string(str(path), column, found, is_list=is_list)
            table = file.read(columns=list(columns))
            values = zip(*(table[name].to_pylist() for name in columns), strict=True)
            return [(number, columns, row) for number, row in enumerate(values, 1)]
    except UnicodeDecodeError as error:
        raise InputError(
            f"{path}: a text is not valid UTF-8. Write the file again from its source."
        ) from error
    except (OSError, pa.ArrowException) as error:
        raise InputError(
            f"{path} is not a whole Parquet file: {first_line(error)}. "
            "It may be cut off; fetch it again."
        ) from error
