"""Token ids of a whole text, memory-mapped, in a cache whose keys are hashes of the inputs.

    CACHE/<key>/              key = SHA-256 of tokenizer, texts and form, first 32 digits
      tokens.bin              ids, uint16 or (vocabulary over 65,536) uint32, no header
      offsets.npy             int64 (n_documents + 1,): where each document begins and ends
      documents.npz           int64 (n_documents,): bytes, words, context, letters, altered
      marks.bin               uint8 (n_tokens,), for rows with answers: scored or not, and class
      corpus.json             counts, digests, size and SHA-256 of the other files
    CACHE/.<key>.lock         held while one process makes the folder; the others wait

Rows and protocols refer to positions in `tokens`; later parts never see text.
"""

import hashlib
import shutil
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Literal

import numpy as np
from filelock import FileLock
from numpy.typing import NDArray
from pydantic import BaseModel, ConfigDict

from lorastudy.data.answers import ALL_ANSWERS, AnswerRules, read_marks
from lorastudy.data.encoding import CorpusSource
from lorastudy.data.rows import Marks
from lorastudy.data.sources import Documents
from lorastudy.data.texts import count_letters, count_words
from lorastudy.data.tokenising import TokenizerLike
from lorastudy.errors import InputError, StorageError
from lorastudy.protocols import Form
from lorastudy.store.files import publish_folder, read_record, write_record
from lorastudy.store.hashes import hash_file, seal_of

RECORD = "corpus.json"
_FILES = ("tokens.bin", "offsets.npy", "documents.npz")
_COUNTS = ("bytes", "words", "context", "letters", "altered")  # in documents.npz
_MARKS = "marks.bin"
_LOOKED_AT = 1 << 20  # characters of a corpus that are looked at for letters that are changed
_LAYOUT = "lorastudy corpus 4"  # part of every key: new layouts and checks make new entries


class StoredFile(BaseModel):
    """Size and hash of a file as it was written."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    name: str
    n_bytes: int
    sha256: str


class CorpusRecord(BaseModel):
    """The content of corpus.json."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    n_documents: int
    n_tokens: int
    dtype: Literal["uint16", "uint32"]
    vocabulary_size: int
    tokenizer_digest: str
    text_digest: str
    files: tuple[StoredFile, ...]
    seal: str = ""  # SHA-256 of all other fields, so that damage to corpus.json itself shows

    def sealed(self) -> "CorpusRecord":
        """The record with the seal that it should have."""
        return self.model_copy(update={"seal": seal_of(self)})


@dataclass(frozen=True, eq=False)
class Corpus:
    """Documents as token ids; the arrays are read-only."""

    folder: Path
    record: CorpusRecord
    tokens: NDArray[Any]  # (n_tokens,) uint16 or uint32, memory-mapped
    offsets: NDArray[np.int64]  # (n_documents + 1,)
    n_bytes: NDArray[np.int64]  # (n_documents,) UTF-8 bytes of the text
    n_words: NDArray[np.int64]  # (n_documents,) as lm-evaluation-harness counts; see count_words
    n_context: NDArray[np.int64]  # (n_documents,) first tokens that are read and never scored
    # of the first 2^20 characters of the corpus, since looking at them takes as long as tokenising
    n_letters: NDArray[np.int64]  # (n_documents,) characters that are not white space
    n_altered: NDArray[np.int64]  # (n_documents,) those of them that the tokenizer changes
    marks: Marks | None = None  # of rows with answers; None: texts
    sizes: tuple[int, ...] = ()  # documents of each source; it is not stored

    @property
    def n_tokens(self) -> int:
        """Number of tokens of all documents."""
        return self.record.n_tokens

    @property
    def n_documents(self) -> int:
        """Documents."""
        return self.record.n_documents

    @property
    def digest(self) -> str:
        """Hash of the ids, their marks and where documents begin: equal for equal corpora."""
        named = {file.name: file.sha256 for file in self.record.files}
        parts = [self.record.dtype, named["tokens.bin"], named["offsets.npy"]]
        parts += [named[_MARKS]] if _MARKS in named else []
        return hashlib.sha256(" ".join(parts).encode()).hexdigest()


def prepare_corpus(
    documents: Documents,
    tokenizer: TokenizerLike,
    cache: Path,
    *,
    form: Form,
    limit: int | None = None,
    end: int | None = None,
    rules: AnswerRules = ALL_ANSWERS,
) -> Corpus:
    """The corpus of `documents`: from `cache` if it has an undamaged copy, otherwise newly made.

    Several processes may ask for the same corpus at once; one makes it and the others wait.
    A damaged entry is replaced.

    Args:
        documents: Texts of a source, or its rows with answers.
        tokenizer: Its digest is part of the entry's name.
        cache: Folder of all corpora.
        form: What becomes a document of texts; see `data/texts.py`. A row with an answer is one.
        limit: Keep only the first N documents; None: all.
        end: Token put after the last one of every text; None: nothing is.
        rules: Which tokens of rows with answers are scored.

    Raises:
        ConfigError: The rules do not fit the rows.
        InputError: The text has no token, or one that is not in the vocabulary; or a row with an
            answer cannot be written as the chat template says.
        StorageError: The cache cannot be written.
    """
    source = CorpusSource.of(documents, form, limit=limit, end=end, rules=rules)
    return replace(_open_or_make(source, tokenizer, cache), sizes=source.sizes)


def _open_or_make(source: CorpusSource, tokenizer: TokenizerLike, cache: Path) -> Corpus:
    folder = cache / source.key(_LAYOUT, tokenizer)
    if (corpus := _open_if_whole(folder)) is not None:
        return corpus
    _make_cache(cache)
    with FileLock(cache / f".{folder.name}.lock"):
        if (corpus := _open_if_whole(folder)) is not None:
            return corpus
        for leftover in cache.glob(f".{folder.name}.*.partial"):
            shutil.rmtree(leftover, ignore_errors=True)
        _publish(folder, source, tokenizer)
    return open_corpus(folder)


def open_corpus(folder: Path, *, check_hashes: bool = False) -> Corpus:
    """The corpus stored in `folder`, after the size of each file has been checked.

    Args:
        folder: As `prepare_corpus` made it.
        check_hashes: Also read every byte; sizes alone do not show a flipped bit.

    Raises:
        StorageError: A file is missing or is not the one that was written.
    """
    record = read_record(folder / RECORD, CorpusRecord)
    if record != record.sealed():
        raise _damaged(folder / RECORD, "its seal differs")
    for file in record.files:
        _check_file(folder / file.name, file, check_hashes=check_hashes)
    try:
        offsets = np.load(folder / "offsets.npy", mmap_mode="r", allow_pickle=False)
        with np.load(folder / "documents.npz", allow_pickle=False) as counts:
            numbers: dict[str, Any] = {f"n_{n}": _frozen(counts[n]) for n in _COUNTS}
        tokens = np.memmap(folder / "tokens.bin", dtype=record.dtype, mode="r")
        has_marks = any(file.name == _MARKS for file in record.files)
        stored = np.fromfile(folder / _MARKS, dtype=np.uint8) if has_marks else None
    except (OSError, ValueError, KeyError) as error:
        raise _damaged(folder, str(error)) from error
    marks = None if stored is None else Marks(*read_marks(stored))
    return Corpus(folder, record, tokens, offsets, marks=marks, **numbers)


def _open_if_whole(folder: Path) -> Corpus | None:
    if not folder.is_dir():
        return None
    try:
        return open_corpus(folder, check_hashes=True)
    except StorageError:
        return None  # prepare_corpus makes it again from the texts


def _make_cache(cache: Path) -> None:
    try:
        cache.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise StorageError(
            f"cannot make the token cache {cache}: {error.strerror}. Name another folder with the "
            "environment variable LORASTUDY_CACHE."
        ) from error


def _publish(folder: Path, source: CorpusSource, tokenizer: TokenizerLike) -> None:
    try:
        publish_folder(folder, lambda path: _write(path, source, tokenizer))
    except StorageError:
        # where locks do not work (NFS) another process may have come first
        if _open_if_whole(folder) is None:
            raise


def _write(folder: Path, source: CorpusSource, tokenizer: TokenizerLike) -> None:
    dtype: Literal["uint16", "uint32"] = (
        "uint16" if tokenizer.vocabulary_size <= 2**16 else "uint32"
    )
    sizes: list[int] = []
    counts: list[tuple[int, ...]] = []
    marks: list[bytes] = []
    n_left = _LOOKED_AT
    with (folder / "tokens.bin").open("wb") as stream:
        for row in source.encode(tokenizer):
            sizes.append(len(row.ids))
            text = row.counted
            looked_at = text[:n_left]
            n_left -= len(looked_at)
            letters = (count_letters(looked_at), tokenizer.count_altered(looked_at))
            counts.append((len(text.encode()), count_words(text), row.n_context, *letters))
            marks += [] if row.marks is None else [row.marks.tobytes()]
            stream.write(row.ids.astype(dtype).tobytes())
    offsets = np.cumsum([0, *sizes], dtype=np.int64)
    if offsets[-1] == 0:
        raise InputError(f"{source.documents.origin}: the text has no token. Choose another text.")
    np.save(folder / "offsets.npy", offsets)
    columns = np.array(counts, dtype=np.int64).reshape(-1, len(_COUNTS)).T
    named: dict[str, Any] = dict(zip(_COUNTS, columns, strict=True))
    np.savez(folder / "documents.npz", **named)
    if marks:
        (folder / _MARKS).write_bytes(b"".join(marks))
    record = CorpusRecord(
        n_documents=len(sizes),
        n_tokens=int(offsets[-1]),
        dtype=dtype,
        vocabulary_size=tokenizer.vocabulary_size,
        tokenizer_digest=tokenizer.digest,
        text_digest=source.digest,
        files=tuple(_describe(folder / name) for name in (*_FILES, *[_MARKS] * bool(marks))),
    )
    write_record(folder / RECORD, record.sealed())


def _describe(path: Path) -> StoredFile:
    return StoredFile(name=path.name, n_bytes=path.stat().st_size, sha256=hash_file(path))


def _check_file(path: Path, expected: StoredFile, *, check_hashes: bool) -> None:
    if not path.is_file():
        raise _damaged(path, "it is missing")
    if path.stat().st_size != expected.n_bytes:
        raise _damaged(path, f"{path.stat().st_size:,} bytes, not {expected.n_bytes:,}")
    if check_hashes and hash_file(path) != expected.sha256:
        raise _damaged(path, "its SHA-256 differs")


def _damaged(path: Path, reason: str) -> StorageError:
    return StorageError(
        f"{path} is not what was written: {reason}. Delete {path.parent} and run the command "
        "again, which makes the corpus again."
    )


def _frozen(values: NDArray[np.int64]) -> NDArray[np.int64]:
    values.setflags(write=False)
    return values
