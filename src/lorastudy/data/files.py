"""Texts from local files: plain text, JSON (lines), CSV and Parquet, chosen by the suffix.

Nothing is repaired or skipped. A byte that is not UTF-8, a value that is not a string, or a file
that is only a pointer stops the study; the message names the file and the line or row.
Every other suffix is read as plain text.
"""

import csv
import io
import json
from collections.abc import Iterable, Iterator
from glob import escape, glob
from pathlib import Path
from typing import Any, Literal

from lorastudy.errors import InputError, first_line, show_names

SampleBy = Literal["line", "paragraph", "document"]  # as in the text loader of `datasets`

_LFS_POINTER = b"version https://git-lfs.github.com/spec/"
_LONGEST_SHOWN = 60  # characters of a path that cannot be one


def local_path(named: str, base: Path, *, key: str) -> Path:
    """A path of a study file, which starts from the folder `base` unless it is absolute.

    Raises:
        InputError: No file can have this path; `key` says where it was named.
    """
    try:
        path = base / Path(named).expanduser()
        path.stat()
    except (FileNotFoundError, NotADirectoryError):
        return path
    except (OSError, ValueError, RuntimeError) as error:  # too long, a loop, an unknown ~user
        reason = getattr(error, "strerror", None) or str(error)
        shown = named if len(named) <= _LONGEST_SHOWN else f"{named[:_LONGEST_SHOWN]}..."
        raise InputError(f"{key} {shown!r}: {reason.rstrip('.')}. Correct the path.") from error
    return path


def find_files(pattern: str, base: Path) -> tuple[Path, ...]:
    """The files under `base` that match `pattern` (a path, or a glob which may have **), sorted.

    Raises:
        InputError: No file matches.
    """
    named = Path(pattern).expanduser()
    literal = base / named
    if literal.is_file():
        return (literal,)
    if literal.is_dir():
        raise InputError(
            f"path {pattern!r}: {literal} is a folder. Name its files, such as {pattern}/*.txt."
        )
    whole = str(named) if named.is_absolute() else f"{escape(str(base))}/{named}"
    found = sorted(Path(name) for name in glob(whole, recursive=True))  # noqa: PTH207
    files = tuple(path for path in found if path.is_file())
    if not files:
        is_glob = any(sign in pattern for sign in "*?[")
        what = "does not match any file" if is_glob else "does not exist"
        raise InputError(
            f"path {pattern!r} {what} under {base}. "
            "Paths are relative to the folder of the study file; correct it there."
        )
    return files


def read_texts(path: Path, *, column: str, sample_by: SampleBy) -> list[str]:
    """All texts of one file in order, including blank ones.

    Args:
        path: .jsonl, .json, .csv or .parquet; anything else is plain text.
        column: The column with the text, in files that have columns.
        sample_by: What one text is in a plain text file. Lines lose their line break.

    Raises:
        InputError: The file cannot be read as text; the message names the place.
    """
    try:
        with path.open("rb") as stream:
            head = stream.read(len(_LFS_POINTER))
    except OSError as error:
        raise InputError(
            f"{path} cannot be read: {error.strerror}. Check the path and its permissions."
        ) from error
    if head == _LFS_POINTER:
        raise InputError(
            f"{path} is a Git LFS pointer, not the data. Fetch the data with `git lfs pull`."
        )
    if path.suffix == ".parquet":
        return list(_checked(path, "row", enumerate(_parquet_values(path, column), 1), column))
    text = _decode(path)
    match path.suffix:
        case ".jsonl" | ".json":
            return list(_checked(path, "line", _json_values(path, text, column), column))
        case ".csv":
            return list(_checked(path, "line", _csv_values(path, text, column), column))
        case _:
            return _split_plain(text, sample_by)


def missing_column(place: str, column: str, names: Iterable[str]) -> InputError:
    """The error for a table without `column`; it names the columns that exist."""
    return InputError(
        f"{place} has no column {column!r}; its columns are {show_names(names)}. "
        "Set `column` to the one that holds the text."
    )


def not_a_string(place: str, column: str, found: str) -> InputError:
    """The error for a value of `column` that is not text."""
    return InputError(
        f"{place}: column {column!r} holds {found}, not text. Choose a text column, or repair it."
    )


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


def _decode(path: Path) -> str:
    """The whole file as text with single newlines as line breaks, without a byte order mark."""
    raw = path.read_bytes()
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
    return text.removeprefix("\ufeff").replace("\r\n", "\n").replace("\r", "\n")


def _split_plain(text: str, sample_by: SampleBy) -> list[str]:
    match sample_by:
        case "line":
            return text.removesuffix("\n").split("\n") if text else []
        case "paragraph":
            return [paragraph for paragraph in text.split("\n\n") if paragraph]
        case "document":
            return [text]


def _checked(
    path: Path, unit: str, values: Iterable[tuple[int, Any]], column: str
) -> Iterator[str]:
    for number, value in values:
        place = f"{path}, {unit} {number}"
        if not isinstance(value, str):
            found = "nothing (null)" if value is None else f"a {type(value).__name__}"
            raise not_a_string(place, column, found)
        yield check_text(place, value)


def _json_values(path: Path, text: str, column: str) -> Iterator[tuple[int, Any]]:
    """(line, or place in the list, from 1; value of the column) of each JSON object."""
    for number, record in _json_records(path, text):
        if not isinstance(record, dict):
            raise InputError(
                f"{path}, line {number}: expected a JSON object such as "
                f'{{"{column}": "..."}}, found a {type(record).__name__}. Correct the line.'
            )
        if column not in record:
            raise missing_column(f"{path}, line {number}", column, record)
        yield number, record[column]


def _json_records(path: Path, text: str) -> Iterator[tuple[int, Any]]:
    if path.suffix == ".json" and text.lstrip().startswith("["):
        yield from enumerate(_parse_json(path, 1, text), 1)
        return
    for number, line in enumerate(text.split("\n"), 1):
        if line.strip():
            yield number, _parse_json(path, number, line)


def _parse_json(path: Path, line: int, text: str) -> Any:
    try:
        return json.loads(text)
    except (ValueError, RecursionError) as error:
        at = line + error.lineno - 1 if isinstance(error, json.JSONDecodeError) else line
        reason = error.msg if isinstance(error, json.JSONDecodeError) else "it is nested too deep"
        raise InputError(
            f"{path}, line {at} is not JSON: {reason}. Correct it; JSON files have one object "
            "per line (.jsonl), or one list of objects (.json)."
        ) from error


def _csv_values(path: Path, text: str, column: str) -> Iterator[tuple[int, str | None]]:
    limit = csv.field_size_limit()  # of the whole process, so it is never lowered
    csv.field_size_limit(max(limit, len(text) + 1))  # the default refuses fields over 128 KiB
    try:
        reader = csv.DictReader(io.StringIO(text, newline=""), strict=True)
        names = reader.fieldnames or []
        if column not in names:
            raise missing_column(str(path), column, names)
        for record in reader:
            yield reader.line_num, record[column]
    except csv.Error as error:
        raise InputError(f"{path} is not a valid CSV file: {error}. Correct the file.") from error
    finally:
        csv.field_size_limit(limit)


def _parquet_values(path: Path, column: str) -> list[Any]:
    import pyarrow as pa  # takes 0.1 s, which a study of text files need not spend
    import pyarrow.parquet as pq

    try:
        with pq.ParquetFile(path) as file:
            schema = file.schema_arrow
            if column not in schema.names:
                raise missing_column(str(path), column, schema.names)
            kind = schema.field(column).type
            if not (pa.types.is_string(kind) or pa.types.is_large_string(kind)):
                raise not_a_string(str(path), column, f"values of type {kind}")
            values: list[Any] = file.read(columns=[column])[column].to_pylist()
            return values
    except UnicodeDecodeError as error:
        raise InputError(
            f"{path}: column {column!r} is not valid UTF-8. Write the file again from its source."
        ) from error
    except (OSError, pa.ArrowException) as error:
        raise InputError(
            f"{path} is not a whole Parquet file: {first_line(error)}. "
            "It may be cut off; fetch it again."
        ) from error
