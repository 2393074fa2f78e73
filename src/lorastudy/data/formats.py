"""What a data file is, by its name and its first bytes, and its bytes without compression.

A name that stands for a format which is not read here is refused, and so is a file whose first
bytes show that it is something else than its name says. Nothing falls through to plain text.
"""

import bz2
import csv
import gzip
import io
import json
import lzma
import re
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from lorastudy.data.examples import choose_columns
from lorastudy.errors import InputError, reading_user_files

Format = Literal["plain text", "JSON", "JSON lines", "CSV", "TSV", "Parquet"]

FORMATS: dict[str, Format] = {
    ".json": "JSON",
    ".jsonl": "JSON lines",
    ".ndjson": "JSON lines",
    ".jsonlines": "JSON lines",
    ".jl": "JSON lines",
    ".csv": "CSV",
    ".tsv": "TSV",
    ".tab": "TSV",
    ".parquet": "Parquet",
    ".pq": "Parquet",
}
COMPRESSIONS = (".gz", ".bz2", ".xz", ".zst")
_NOT_READ = {
    "an archive; unpack it": (
        *(".zip", ".tar", ".tgz", ".tbz", ".tbz2", ".txz", ".tzst", ".7z", ".rar", ".jar", ".cab"),
    ),
    "compressed in a way that is not read; decompress it": (
        *(".z", ".lz", ".lz4", ".lzma", ".lzo", ".br", ".sz", ".snappy", ".zlib"),
    ),
    "a table of a format that is not read; save it as .parquet, .csv or .jsonl": (
        *(".arrow", ".feather", ".orc", ".avro", ".xls", ".xlsx", ".ods", ".sqlite", ".db"),
        *(".json5", ".jsonc", ".geojson", ".psv", ".ssv", ".tfrecord", ".yaml", ".yml", ".bson"),
        *(".msgpack", ".h5", ".hdf5", ".mat", ".sav", ".dta", ".rds", ".sas7bdat", ".duckdb"),
    ),
    "markup; save its text as .txt, or what is to be scored as it stands in .jsonl": (
        *(".html", ".htm", ".xhtml", ".mhtml", ".xml", ".svg", ".rss", ".warc", ".eml", ".mbox"),
        *(".srt", ".vtt"),
    ),
    "a document of a format that is not read; save its text as .txt": (
        *(".pdf", ".doc", ".docx", ".odt", ".rtf", ".epub", ".mobi", ".fb2", ".ps", ".djvu"),
        *(".ppt", ".pptx", ".ipynb"),
    ),
    "a file of Python objects, which can run code when it is read; save its text as .jsonl": (
        *(".pkl", ".pickle", ".npy", ".npz", ".pt", ".pth", ".bin"),
    ),
}
_FIRST_BYTES = {
    b"\x1f\x8b": "compressed (.gz)",
    b"BZh": "compressed (.bz2)",
    b"\xfd7zXZ\x00": "compressed (.xz)",
    b"\x28\xb5\x2f\xfd": "compressed (.zst)",
    b"PK\x03\x04": "an archive or office document (.zip, .xlsx, .docx)",
    b"PAR1": "a Parquet file (.parquet)",
    b"ARROW1": "an Arrow file (.arrow)",
    b"%PDF": "a PDF document (.pdf)",
    b"SQLite format 3": "a database (.sqlite)",
}
_MARKUP = ("<!doctype ", "<html", "<?xml", "<mediawiki")
TAB = "\t"
_SIGNS = (",", TAB, ";", "|")  # between the columns of a table
_NAME = re.compile(r"\w[\w.-]{0,40}")  # of a column
_HEADER = 1 << 16  # characters of a table, among which its column names are
_N_TRIED = 3  # lines of plain text that show whether they are JSON or a table


@dataclass(frozen=True, slots=True)
class FileFormat:
    """How a file is read."""

    format: Format
    compression: str | None  # one of COMPRESSIONS


def split_ending(path: Path) -> tuple[str, str | None]:
    """What a file's name ends with in small letters: its suffix, and one of COMPRESSIONS."""
    suffixes = [suffix.lower() for suffix in path.suffixes]
    compression = suffixes.pop() if suffixes and suffixes[-1] in COMPRESSIONS else None
    return (suffixes[-1] if suffixes else ""), compression


def name_format(path: Path) -> FileFormat:
    """The format that the name of a file stands for; letters may be capital ones.

    Raises:
        InputError: It stands for a format that is not read.
    """
    suffix, compression = split_ending(path)
    for what, refused in _NOT_READ.items():
        if suffix in refused:
            raise InputError(f"{path} is {what}, and name that file.")
    return FileFormat(FORMATS.get(suffix, "plain text"), compression)


def read_bytes(path: Path, found: FileFormat) -> bytes:
    """The bytes of a file, decompressed.

    Raises:
        InputError: The file cannot be decompressed, or its content is of another format.
    """
    with reading_user_files(
        f"{path} cannot be decompressed", "It may be cut off; fetch or compress it again."
    ):
        raw = _decompress(path, found.compression)
    for beginning, what in _FIRST_BYTES.items():
        if raw.startswith(beginning) and not (found.format == "Parquet" and beginning == b"PAR1"):
            raise InputError(
                f"{path} is {what} by its first bytes, and its name says {found.format}. "
                "Give it the name that belongs to its content, or unpack it."
            )
    return raw


def refuse_structure(path: Path, text: str, column: str) -> None:
    """See that plain text is not JSON, a table or markup under another name.

    Raises:
        InputError: It is, so that its syntax would be scored as text.
    """
    lines = [line for line in text[:100_000].split("\n") if line.strip()][:_N_TRIED]
    if lines and all(_is_json_object(line) for line in lines):
        what, advice = "its lines are JSON objects", "Rename it to .jsonl."
    elif text.lstrip()[:1] in ("[", "{") and _is_json_table(text):
        what, advice = "it is a list of JSON objects", "Rename it to .json."
    elif text.lstrip()[:100].lower().startswith(_MARKUP):
        what, advice = "it is markup", "Save its text, or put it into .jsonl as it stands."
    elif sign := _find_sign(lines, column):
        what = f"its first line names columns, {column!r} among them"
        advice = f"Rename it to {'.tsv' if sign == TAB else '.csv'}."
    else:
        return
    raise InputError(
        f"{path} would be read as plain text, and {what}, so syntax would be scored as text. "
        f"{advice}"
    )


def choose_sign(text: str, usual: str, column: str) -> str:
    """What separates the columns of a table: `usual`, or another sign if only that finds columns.

    Where none does, it is the sign that gives the most columns, so that a message can name them.
    """

    def rate(sign: str) -> tuple[bool, bool, int]:
        names = next(csv.reader(io.StringIO(text[:_HEADER], newline=""), delimiter=sign), [])
        is_found = bool(choose_columns(names, column))
        return is_found, is_found and sign == usual, len(names)

    return max(_SIGNS, key=rate)


def _find_sign(lines: list[str], column: str) -> str | None:
    """What separates the columns of a table whose first line names them; None: it is no table."""
    for sign in _SIGNS:
        names = [name.strip().strip('"') for name in lines[0].split(sign)] if lines else []
        is_header = len(names) > 1 and column in names and all(map(_NAME.fullmatch, names))
        if is_header and all(line.count(sign) >= len(names) - 1 for line in lines):
            return sign
    return None


def _is_json_table(text: str) -> bool:
    try:
        found = json.loads(text)
    except (ValueError, RecursionError):
        return False
    rows = found if isinstance(found, list) else [found]
    return bool(rows) and all(isinstance(row, dict) for row in rows)


def _is_json_object(line: str) -> bool:
    if not line.lstrip().startswith("{"):
        return False
    try:
        return isinstance(json.loads(line), dict)
    except (ValueError, RecursionError):
        return False


def _decompress(path: Path, compression: str | None) -> bytes:
    match compression:
        case ".gz":
            return gzip.decompress(path.read_bytes())
        case ".bz2":
            return bz2.decompress(path.read_bytes())
        case ".xz":
            return lzma.decompress(path.read_bytes())
        case ".zst":
            import pyarrow as pa  # Python itself reads it from 3.14 on

            with pa.input_stream(str(path), compression="zstd") as stream:
                data: bytes = stream.read()
                return data
        case _:
            return path.read_bytes()
