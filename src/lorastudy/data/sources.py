"""A source of a study file becomes documents: built-in text, local files, mirror or hub.

A hub id is looked up in the mirror, if there is one. If the mirror does not have the data set at
all, it is looked up in the cache and then on the hub; offline, only in the cache. If the mirror's
copy lacks a split, this is an error; the split is never fetched from elsewhere without being asked.
"""

import re
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from lorastudy.config.models import Source
from lorastudy.data.builtin import read_builtin
from lorastudy.data.examples import Example, choose_columns, require_one_kind
from lorastudy.data.files import Rows, make_rows, missing_column, read_rows
from lorastudy.data.mirror import find_split
from lorastudy.data.paths import find_files
from lorastudy.errors import ConfigError, InputError, reason_of


@dataclass(frozen=True, slots=True)
class Documents:
    """Texts, or rows with answers, in the order of their source.

    Without a limit blank texts are kept, since they count when all rows are joined into a stream;
    callers that read texts one by one drop them. With a limit they are dropped before counting.
    """

    texts: tuple[str, ...]
    origin: str  # where they came from, for people; not a path of this machine
    revision: str | None  # commit on the hub; None if the source does not know it
    examples: tuple[Example, ...] = ()  # rows with answers; then there are no texts
    sizes: tuple[int, ...] = ()  # how many are of each source, where several were joined

    @classmethod
    def of(cls, rows: Rows, origin: str, revision: str | None = None) -> "Documents":
        """The documents of rows of either kind."""
        examples = tuple(row for row in rows if isinstance(row, Example))
        texts = tuple(row for row in rows if isinstance(row, str))
        if examples and texts:
            raise InputError(
                f"{origin}: some files hold texts, and others rows with answers. "
                "Keep them in different sources."
            )
        return cls(texts, origin, revision, examples)


def join_documents(parts: Sequence[Documents]) -> Documents:
    """The documents of several sources, one source after the other.

    Raises:
        InputError: They hold documents of different kinds.
    """
    origin = " and ".join(part.origin for part in parts)
    with_answers = [part for part in parts if part.examples]
    if with_answers and len(with_answers) < len(parts):
        texts = next(part for part in parts if not part.examples)
        raise InputError(
            f"{texts.origin} holds texts, and {with_answers[0].origin} holds rows with answers. "
            "A mixture has to be of one kind."
        )
    examples = tuple(example for part in parts for example in part.examples)
    if examples:
        require_one_kind(examples, origin)
    return Documents(
        texts=tuple(text for part in parts for text in part.texts),
        origin=origin,
        revision=None,
        examples=examples,
        sizes=tuple(len(part.examples or part.texts) for part in parts),
    )


def read_documents(
    source: Source, *, mirror: Path | None, offline: bool, base: Path = Path()
) -> Documents:
    """The documents of `source`, at least one of them not blank.

    Args:
        source: What the study file names.
        mirror: Folder laid out like the hub, searched first; None: there is none.
        offline: Never use the network.
        base: Folder of the study file, from which relative paths start.

    Raises:
        InputError: There is no usable text; the message says where, and what to do.
    """
    documents = _read(source, mirror, offline, base)
    if documents.examples:
        require_one_kind(documents.examples, documents.origin)
        return replace(documents, examples=documents.examples[: source.limit])
    texts = documents.texts
    if not texts:
        raise InputError(f"{documents.origin} has no document. Choose another split or file.")
    filled = tuple(text for text in texts if text and not text.isspace())
    if not filled:
        raise InputError(
            f"{documents.origin}: all {len(texts):,} documents are blank. "
            "Choose another split, file or column."
        )
    if source.limit is not None:
        texts = filled[: source.limit]
    return Documents(texts, documents.origin, documents.revision)


def locate_files(source: Source, *, mirror: Path | None, base: Path) -> tuple[Path, ...]:
    """The files here that `source` names; none if it is built in or not in the mirror.

    Raises:
        InputError: A path or the mirror does not lead to files.
        ConfigError: The text is not known here, since others trained on it.
    """
    if source.builtin == "elsewhere":
        raise ConfigError(
            "this study compares what was trained elsewhere, so it has no text to train on. "
            "`lorastudy compare` with the same arguments scores what is missing."
        )
    if source.path is not None:
        return find_files(source.path, base)
    if mirror is not None and source.id is not None and source.split is not None:
        folder = mirror / source.id
        return find_split(folder, source.config, source.split).files if folder.is_dir() else ()
    return ()


def _read(source: Source, mirror: Path | None, offline: bool, base: Path) -> Documents:
    files = locate_files(source, mirror=mirror, base=base)
    if source.path is not None:
        origin = f"{source.path} ({len(files)} file{'s' * (len(files) > 1)})"
        return Documents.of(_read_all(files, source), origin)
    assert source.split is not None, "config requires a split here"
    if source.builtin is not None:
        origin = f"builtin {source.builtin}/{source.split}"
        return Documents.of(read_builtin(source.builtin, source.split), origin)
    assert source.id is not None, "config requires exactly one of id, path and builtin"
    if mirror is not None and (folder := mirror / source.id).is_dir():
        return _read_mirror(source, source.id, source.split, folder)
    return _read_hub(source, source.id, source.split, offline=offline)


def _read_mirror(source: Source, repository: str, split: str, folder: Path) -> Documents:
    found = find_split(folder, source.config, split)
    origin = f"mirror of {repository}/{found.config}/{split}"
    return Documents.of(_read_all(found.files, source), origin)


def _read_all(files: Sequence[Path], source: Source) -> list[str | Example]:
    return [
        row
        for path in files
        for row in read_rows(path, column=source.column, sample_by=source.sample_by)
    ]


def _read_hub(source: Source, repository: str, split: str, *, offline: bool) -> Documents:
    rows = _load_from_hub(source, repository, split, offline=offline)
    origin = "/".join(filter(None, (repository, source.config, split)))
    columns = choose_columns(rows.column_names, source.column)
    if not columns:
        raise missing_column(origin, source.column, rows.column_names)
    values = zip(*(rows[name] for name in columns), strict=True)
    numbered = ((number, columns, row) for number, row in enumerate(values, 1))
    found = make_rows(f"{origin}, row", numbered, source.column)
    return Documents.of(found, origin, _commit_of(rows, source.revision, origin))


def _load_from_hub(source: Source, repository: str, split: str, *, offline: bool) -> Any:
    """A split as a `datasets.Dataset`; it is fetched, or found in the cache of `datasets`."""
    import datasets  # takes a second to import, and is needed only here

    try:
        with offline_libraries(offline):
            return datasets.load_dataset(
                repository, source.config, split=split, revision=source.revision
            )
    except ConnectionError as error:
        place = "is not in the cache" if offline else "cannot be reached on the hub"
        raise InputError(
            f"data set {repository} {place}. "
            "Give its folder with --mirror DIR (DIR/<owner>/<name>), or run once with a network."
        ) from error
    except Exception as error:  # of the library and of what reads its files, of many kinds
        reason = reason_of(error)
        raise InputError(
            f"data set {repository}, config {source.config!r}, split {split!r}, revision "
            f"{source.revision!r} cannot be loaded: {reason}. Correct the source in the study file."
        ) from error


@contextmanager
def offline_libraries(offline: bool) -> Iterator[None]:
    """Keep `datasets` and `huggingface_hub` off the network.

    Both read HF_HUB_OFFLINE only when they are imported, so their constants are set.
    """
    import datasets
    from huggingface_hub import constants

    places: tuple[Any, ...] = (datasets.config, constants)
    before = [place.HF_HUB_OFFLINE for place in places]
    try:
        for place in places:
            place.HF_HUB_OFFLINE = place.HF_HUB_OFFLINE or offline
        yield
    finally:
        for place, value in zip(places, before, strict=True):
            place.HF_HUB_OFFLINE = value


def _commit_of(rows: Any, revision: str, origin: str) -> str | None:
    """The commit that the files came from, read from their addresses; None if these hide it.

    Raises:
        InputError: A commit was asked for and the cache, offline, has another one.
    """
    addresses = " ".join(rows.info.download_checksums or {})
    match = re.search(r"@([0-9a-f]{40})/", addresses)
    commit = match[1] if match else None
    is_pinned = re.fullmatch(r"[0-9a-f]{40}", revision) is not None
    if is_pinned and commit not in (None, revision):
        raise InputError(
            f"{origin}: the cache holds revision {commit}, not {revision}. "
            "Run once with a network, or name the cached revision."
        )
    return commit
